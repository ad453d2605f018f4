"""``gu runtime``, and what ``gu doctor`` says of runtimes, of machines that are made up."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guactors.cli import runtime_checks, runtimes
from guactors.cli.checks import OK, WARN
from guactors.errors import RuntimeMissing
from guactors.runtimes import choice
from guactors.runtimes.base import Probe
from guactors.runtimes.choice import ADAPTERS, Adapter, guest_packages

DEAD_KVM = "/dev/kvm opens but cannot boot: QEMU ended by signal 6\nqemu: its last words"
PROBES = {
    "native": Probe(True, facts={"sandbox": "/usr/bin/bwrap", "isolation": "none", "limits": "v2"}),
    "docker": Probe(False, reason="no daemon answers at /run/x: start it"),
    "qemu": Probe(True, "7.2", facts={"kvm": DEAD_KVM, "speed": "emulated", "accel": "tcg"}),
    "firecracker": Probe(False, "1.4.0", "release 1.4.0: install 1.10.0 or later\nand more"),
}

Run = Callable[..., str]


@pytest.fixture
def run() -> Run:
    def run(*words: str) -> str:
        result = CliRunner().invoke(runtimes.app, words, standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (runtimes, runtime_checks):
        monkeypatch.setattr(module, "probe_runtime", lambda name, _: PROBES[name])
    everywhere = {name: Adapter(one.place, (sys.platform,)) for name, one in ADAPTERS.items()}
    monkeypatch.setattr(runtime_checks, "ADAPTERS", everywhere)


def refused_driver(gu_home: Path) -> Path:
    path = gu_home / "drivers" / "bad.gu-driver.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    return path


@pytest.mark.usefixtures("probed")
def test_every_runtime_has_a_line(run: Run) -> None:
    rows = {line.split()[0]: line.rstrip() for line in run("list").splitlines()}
    assert rows.keys() == {"RUNTIME", *ADAPTERS}
    assert rows["native"].split(maxsplit=3)[1:] == [
        "yes", "-", "isolation none; limits v2; sandbox /usr/bin/bwrap",
    ]  # fmt: skip
    assert rows["docker"].split(maxsplit=3)[1:] == ["no", "-", PROBES["docker"].reason]
    said = "accel tcg; /dev/kvm opens but cannot boot: QEMU ended by signal 6; speed emulated"
    assert rows["qemu"].endswith(said)
    assert rows["firecracker"].split(maxsplit=3)[1:] == [
        "no", "1.4.0", "release 1.4.0: install 1.10.0 or later",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["kvm", "hvf", "whpx"])
def test_why_a_machine_is_emulated_is_said_on_every_system(name: str) -> None:
    facts = {"boot": "3.1 s", name: "it is not there", "isolation": "a machine", "accel": "tcg"}
    assert runtimes.describe(Probe(True, facts=facts)) == (
        "accel tcg; it is not there; isolation a machine; boot 3.1 s"
    )
    works = runtimes.describe(Probe(True, facts=facts | {name: "works", "accel": name}))
    assert works == f"accel {name}; isolation a machine; boot 3.1 s"


@pytest.mark.usefixtures("probed")
def test_as_json_nothing_is_cut(run: Run, gu_home: Path) -> None:
    path = refused_driver(gu_home)
    found = json.loads(run("list", "--json"))
    assert [one["name"] for one in found["runtimes"]] == list(ADAPTERS)
    qemu = found["runtimes"][2]
    assert (qemu["usable"], qemu["facts"]["kvm"]) == (True, DEAD_KVM)
    [reason] = found["refused_drivers"]
    assert str(path) in reason


@pytest.mark.usefixtures("probed")
def test_the_doctor_fails_for_no_runtime(gu_home: Path) -> None:
    path = refused_driver(gu_home)
    found = {one.check: one for one in runtime_checks.examine_runtimes()}
    assert {name: one.state for name, one in found.items()} == {
        "native": OK, "docker": WARN, "qemu": OK, "firecracker": WARN, "driver": WARN,
    }  # fmt: skip
    assert found["docker"].remedy == PROBES["docker"].reason
    assert found["qemu"].found.startswith("7.2; accel tcg; /dev/kvm opens but cannot boot: ")
    assert str(path) in found["driver"].found
    assert all(bool(one.remedy) == (one.state != OK) for one in found.values())


def test_the_doctor_on_another_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that is not written for it is nothing to mend; nor is a home that another check names."""
    monkeypatch.setattr(runtime_checks, "ADAPTERS", {"qemu": Adapter("", ("elsewhere",))})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GU_HOME", str(tmp_path / "file"))
    [found] = runtime_checks.examine_runtimes()
    assert (found.check, found.state, found.found) == ("qemu", OK, "not for this platform")


def test_what_cannot_be_opened_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    found = choice.probe_runtime("nonesuch", runtimes.open_store)
    assert (found.usable, "there is no runtime 'nonesuch'" in found.reason) == (False, True)
    monkeypatch.setitem(ADAPTERS, "qemu", Adapter("", ("elsewhere",)))
    assert "does not run on" in choice.probe_runtime("qemu", runtimes.open_store).reason


@pytest.mark.skipif(sys.platform != "linux", reason="guests are made on Linux")
class TestSetup:
    """Without QEMU, packages or a guest."""

    @pytest.fixture
    def steps(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        from guactors.runtimes.qemu import found
        from guactors.runtimes.qemu.guest import make

        steps: list[str] = []

        def bring(directory: Path) -> make.Packages:
            assert directory == guest_packages()
            steps.append("packages")
            return make.Packages(3 << 20, True)

        monkeypatch.setattr(make, "bring_packages", bring)
        monkeypatch.setattr(found, "find_qemu", lambda: steps.append("program"))
        return steps

    def test_it_says_what_came_and_what_was_chosen(
        self, steps: list[str], probed: None, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        result = CliRunner().invoke(runtimes.app, ("setup", "qemu"))
        assert "qemu 7.2 works here: accel tcg; /dev/kvm opens but cannot boot" in result.output
        assert f"downloaded 3 MiB in {guest_packages()}" in result.output
        assert steps == ["program", "packages"]

    def test_nothing_is_downloaded_for_a_program_that_is_not_there(
        self, steps: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(_: str = "") -> None:
            raise RuntimeMissing("it is not installed")

        monkeypatch.setattr("guactors.runtimes.qemu.found.find_qemu", missing)
        with pytest.raises(RuntimeMissing, match="not installed"):
            run("setup", "qemu")
        monkeypatch.setattr("guactors.runtimes.firecracker.probing.find_binary", missing)
        with pytest.raises(RuntimeMissing, match="not installed"):
            run("setup", "firecracker")
        assert steps == []

    def test_a_guest_that_does_not_boot_fails(
        self, steps: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtimes, "probe_runtime", lambda *_: Probe(False, reason="no guest"))
        result = CliRunner().invoke(runtimes.app, ("setup", "qemu"))
        assert (result.exit_code, "gu: qemu: no guest" in result.output) == (1, True)

    def test_packages_that_are_there_are_not_fetched_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from guactors.runtimes.qemu.guest import make, parts

        calls: list[Path] = []

        def fetch(directory: Path) -> None:
            calls.append(directory)
            for name in ("linux-image-6.1-cloud-amd64", *parts.PACKAGES):
                (directory / f"{name}_1_amd64.deb").write_bytes(b"xyz")

        monkeypatch.setattr(make, "fetch_packages", fetch)
        size = 3 * (1 + len(parts.PACKAGES))
        assert make.bring_packages(tmp_path) == make.Packages(size, True)
        assert make.bring_packages(tmp_path) == make.Packages(size, False)
        assert calls == [tmp_path]
