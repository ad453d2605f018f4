"""The adapter for Firecracker against the stand-in for its program, with an agent of its own."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("Firecracker is for Linux", allow_module_level=True)

from guactors.errors import (
    ImageRefused,
    InstanceLost,
    ProtocolError,
    RuntimeMissing,
    UsageError,
)
from guactors.images.build import add_rootfs
from guactors.images.store import ImageStore
from guactors.messages import Limits
from guactors.runtimes.base import Capability, Command, Exit, Output, Spec, Stats
from guactors.runtimes.firecracker import probing, vmm
from guactors.runtimes.firecracker.agent import Guest
from guactors.runtimes.firecracker.driver import FirecrackerRuntime
from guactors.runtimes.firecracker.requests import Request
from guactors.runtimes.instance import Instance
from guactors.runtimes.life import State
from tests.contract.firecracker_server import PORT
from tests.contract.runtime_bench import Bench

SERVER = Path(__file__).parent / "firecracker_server.py"
MIB = 1 << 20


class LineAgent:
    """Of the stand-in's guest: a program ``set KEY VALUE`` or ``get KEY`` is one question."""

    def __init__(self, stream: socket.socket, spec: Spec, within: float) -> None:
        stream.settimeout(within)
        self._stream = stream
        self._file = stream.makefile("rwb")
        self._lock = threading.Lock()
        self.told: list[str] = []
        if self.ask(do="hello") != "hello":
            self.close()
            raise ProtocolError("unexpected", "no hello")

    def ask(self, **message: Any) -> Any:
        with self._lock:
            try:
                self._file.write(json.dumps(message).encode() + b"\n")
                self._file.flush()
                line = self._file.readline()
            except OSError as error:
                raise InstanceLost(f"the agent does not answer: {error}") from None
            if not line:
                raise InstanceLost("the agent's stream has ended")
            return json.loads(line)

    def exec(self, command: Command) -> Once:
        verb, *words = command.argv
        return Once(self.ask(do=verb, **dict(zip(("key", "value"), words, strict=False))))

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        self.ask(do="set", key=path, value=b"".join(data).decode())

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        found = self.ask(do="get", key=path)
        if found is None:
            raise UsageError(f"there is no {path}")
        yield found.encode()

    def stats(self) -> Stats:
        return Stats(received=1, sent=2, processes=3)

    def stop(self, grace: float) -> None:
        self.told.append(f"stop {grace:g}")

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def restored(self) -> None:
        self.told.append("restored")

    def close(self) -> None:
        self._stream.close()
        try:
            self._file.close()
        except OSError:
            return


class Once:
    """A program that has said all already."""

    def __init__(self, answer: Any) -> None:
        self._left: list[Output | Exit] = [Output(1, json.dumps(answer).encode()), Exit(0)]

    def read(self, timeout: float | None) -> Output | Exit | None:
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]

    def write(self, data: bytes) -> None:
        return

    def close_input(self) -> None:
        return

    def resize(self, size: object) -> None:
        return

    def signal(self, number: int) -> None:
        return

    def close(self) -> None:
        return


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a Bench of a Firecracker with a quirk."""
    monkeypatch.setattr(probing, "check_kvm", lambda path: None)
    for name in ("vmlinux", "initrd"):
        (tmp_path / name).write_bytes(b"\x7fELF")
    store = ImageStore(tmp_path / "store", quota=1 << 30, now=time.time)
    blob = store.ingest([b"hsqs and so on" * 1000], role="rootfs", media="squashfs")
    image = add_rootfs(store, blob, name="machine")
    made: list[Bench] = []

    def write(quirk: str = "none", claims: str = "1.16.1", within: float = 5.0) -> Bench:
        binary = tmp_path / f"firecracker-{len(made)}"
        words = f"{sys.executable} -S {SERVER} --quirk {quirk} --claims {claims}"
        binary.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        binary.chmod(0o755)
        guest = Guest(
            str(tmp_path / "vmlinux"), str(tmp_path / "initrd"), "console=ttyS0", PORT, LineAgent
        )
        runtime = FirecrackerRuntime(
            lambda: guest, lambda: store, binary=str(binary), within=within
        )
        made.append(Bench(runtime, tmp_path, image))
        return made[-1]

    yield write
    for bench in made:
        bench.close()


def run(instance: Instance, *words: str) -> Any:
    running = instance.exec(Command(words))
    found = running.read(5)
    assert isinstance(found, Output)
    assert running.read(5) == Exit(0)
    return json.loads(found.data)


def agent_of(instance: Instance) -> LineAgent:
    found = instance._driver._agent  # type: ignore[attr-defined]
    assert isinstance(found, LineAgent)
    return found


def test_a_machine_boots_and_runs(make: Make) -> None:
    bench = make()
    instance = bench.created(Limits(cpu=1.5, memory=128 * MIB, disk=64 * MIB))
    scratch = Path(instance.spec.directory) / "scratch"
    assert scratch.stat().st_size == 64 * MIB
    with pytest.raises(UsageError, match="start it first"):
        instance.put("x", [b"x"])
    instance.start()
    assert run(instance, "set", "a", "1") is True
    assert run(instance, "get", "a") == "1"
    instance.put("file", [b"te", b"xt"])
    assert b"".join(instance.get("file")) == b"text"
    config = instance._driver._api.ask(Request("GET", "/vm/config"))  # type: ignore[attr-defined]
    assert config["machine-config"]["vcpu_count"] == 2
    assert config["machine-config"]["mem_size_mib"] == 128
    assert [one["drive_id"] for one in config["drives"]] == ["rootfs", "scratch"]
    stats = instance.stats()
    assert (stats.processes, stats.sent) == (3, 2)
    assert stats.memory is not None
    instance.stop(grace=1.5)
    assert instance.state is State.ENDED
    assert sorted(path.name for path in Path(instance.spec.directory).iterdir()) == [
        "rootfs", "scratch",
    ]  # fmt: skip


def test_it_stands_still_and_goes_on(make: Make) -> None:
    instance = make().started()
    agent = agent_of(instance)
    instance.pause()
    agent._stream.settimeout(0.2)
    with pytest.raises(InstanceLost):
        agent.ask(do="get", key="a")
    instance.resume()
    assert agent.told == ["pause", "resume"]


def test_it_is_saved_and_goes_on_elsewhere(make: Make, tmp_path: Path) -> None:
    bench = make()
    first = bench.started(Limits(memory=64 * MIB, disk=8 * MIB))
    run(first, "set", "a", "kept")
    (Path(first.spec.directory) / "scratch").write_bytes(b"on the disk".ljust(8 * MIB, b"\0"))
    path = str(tmp_path / "saved")
    first.save(path)
    assert first.state is State.SAVED
    first.close()
    for _ in range(2):
        spec = bench.spec(Limits(memory=64 * MIB, disk=8 * MIB))
        again = bench.keep(Instance(spec, bench.runtime.restore(spec, path), running=True))
        assert run(again, "get", "a") == "kept"
        run(again, "set", "a", "changed")
        assert agent_of(again).told == ["restored"]
        assert (Path(spec.directory) / "scratch").read_bytes().startswith(b"on the disk")
        again.pause()
        again.resume()


def test_one_that_is_paused_can_be_saved(make: Make, tmp_path: Path) -> None:
    bench = make()
    instance = bench.started()
    instance.pause()
    instance.save(str(tmp_path / "saved"))
    spec = bench.spec()
    again = bench.keep(
        Instance(spec, bench.runtime.restore(spec, str(tmp_path / "saved")), running=True)
    )
    assert run(again, "hello") == "hello"


def test_another_machine_does_not_go_on_with_it(make: Make, tmp_path: Path) -> None:
    bench = make()
    instance = bench.started(Limits(memory=64 * MIB, disk=MIB))
    path = str(tmp_path / "saved")
    instance.save(path)
    with pytest.raises(RuntimeMissing, match="memory_mib was 64 and is 256"):
        bench.runtime.restore(bench.spec(Limits(disk=MIB)), path)
    other = make(claims="1.15.0")
    with pytest.raises(RuntimeMissing, match=r"firecracker was '1\.16' and is '1\.15'"):
        other.runtime.restore(other.spec(Limits(memory=64 * MIB, disk=MIB)), path)
    (tmp_path / "other").write_bytes(b"no machine")
    with pytest.raises(UsageError, match="no machine of Firecracker"):
        bench.runtime.restore(bench.spec(), str(tmp_path / "other"))
    data = Path(path).read_bytes()
    Path(path).write_bytes(data.replace(b'"version"', b'"vreison"'))
    with pytest.raises(RuntimeMissing, match="Load snapshot error"):
        bench.runtime.restore(bench.spec(Limits(memory=64 * MIB, disk=MIB)), path)


def test_what_cannot_be_saved_goes_on(make: Make, tmp_path: Path) -> None:
    instance = make("full").started()
    with pytest.raises(UsageError, match="No space left on device"):
        instance.save(str(tmp_path / "saved"))
    assert run(instance, "hello") == "hello"
    assert agent_of(instance).told == ["pause", "resume"]
    assert not (tmp_path / "saved").exists()


def test_what_does_not_pause_goes_on(make: Make) -> None:
    instance = make("sticky").started()
    with pytest.raises(UsageError, match=r"does not pause: .*processors are stuck"):
        instance.pause()
    assert run(instance, "hello") == "hello"


@pytest.mark.parametrize(
    ("quirk", "says"),
    [
        ("deaf", "the agent does not listen on port 5000 within 0.7 s"),
        ("rude", "b'HELLO\\n' instead of OK"),
        ("mute", "Firecracker does not answer: PUT /actions"),
    ],
)
def test_it_does_not_come_up(
    make: Make, monkeypatch: pytest.MonkeyPatch, quirk: str, says: str
) -> None:
    monkeypatch.setattr("guactors.runtimes.firecracker.api.WITHIN", 0.7)
    instance = make(quirk, within=0.7).created()
    with pytest.raises(InstanceLost) as caught:
        instance.start()
    assert says in str(caught.value)
    if quirk == "deaf":
        assert "booting with 'console=ttyS0'" in str(caught.value)
    assert instance.state is State.ENDED


@pytest.mark.parametrize(
    ("quirk", "says"),
    [("stillborn", "status 1; its last words: Error: KVM"), ("babble", "too_large")],
)
def test_it_is_not_made(make: Make, quirk: str, says: str) -> None:
    with pytest.raises(RuntimeMissing, match=says):
        make(quirk).created()


def test_its_end_is_told(make: Make) -> None:
    instance = make().started()
    with pytest.raises(InstanceLost, match=r"Firecracker of i-\w+ ended with status 3"):
        run(instance, "die", "", "3")
    with pytest.raises(InstanceLost, match="status 3"):
        run(instance, "hello")


def test_it_is_killed_by_somebody(make: Make) -> None:
    instance = make().started()
    os.kill(instance._driver._vmm._popen.pid, 9)  # type: ignore[attr-defined]
    until = time.monotonic() + 5
    while not (why := instance._driver.lost()):
        assert time.monotonic() < until
    assert "ended by SIGKILL" in why
    with pytest.raises(InstanceLost, match="SIGKILL"):
        instance.stats()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"network": "host"}, "cannot have the network 'host'"),
        ({"options": {"colour": 1}}, "no option colour"),
        ({"options": {"network": {"device": 7}}}, "network: "),
        ({"options": {"network": {"device": "t" * 16}}}, "no network device"),
    ],
)
def test_what_a_machine_cannot_have(make: Make, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make().created(**fields)


def test_a_network_card_in_a_namespace(make: Make) -> None:
    """The stand-in opens no device; the namespace is not there, and says so."""
    network = {"device": "tap0", "mac": "02:67:00:00:00:01", "namespace": "/run/netns/nowhere-gu"}
    with pytest.raises(RuntimeMissing, match="nowhere-gu"):
        make().created(options={"network": network})
    del network["namespace"]
    instance = make().started(options={"network": network})
    assert run(instance, "hello") == "hello"


def test_what_it_says_of_its_end_is_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is known long before anybody has read a word."""
    known = threading.Event()
    ended, read = vmm.process.has_ended, os.read

    def has_ended(pid: int) -> bool:
        if ended(pid):
            known.set()
        return known.is_set()

    def late(fd: int, most: int) -> bytes:
        if threading.current_thread().name.startswith("console"):
            known.wait(5)
            threading.Event().wait(0.1)  # as on a busy machine
        return read(fd, most)

    network = {"device": "tap0", "mac": "02:67:00:00:00:01", "namespace": "/run/netns/nowhere-gu"}
    bench = make()
    monkeypatch.setattr(vmm.process, "has_ended", has_ended)
    monkeypatch.setattr(vmm.os, "read", late)
    with pytest.raises(RuntimeMissing, match="last words: nsenter"):
        bench.created(options={"network": network})


def test_images_of_another_form(make: Make) -> None:
    bench = make()
    store = bench.runtime._images()  # type: ignore[attr-defined]
    blob = store.ingest([b"x" * 1000], role="rootfs", media="tar")
    bench.image = add_rootfs(store, blob, name="other")
    with pytest.raises(ImageRefused, match="--media squashfs"):
        bench.created()
    bench.image = ""
    with pytest.raises(UsageError, match="none is named"):
        bench.created()


def test_it_is_probed_by_booting(make: Make) -> None:
    found = make().runtime.probe()
    assert (found.usable, found.version) == (True, "1.16.1")
    found = make("deaf", within=0.7).runtime.probe()
    assert not found.usable
    assert "does not listen on port 5000" in found.reason
    found = make(claims="1.4.0").runtime.probe()
    assert (found.usable, "install 1.10.0 or later" in found.reason) == (False, True)


def test_what_is_missing_here(tmp_path: Path) -> None:
    """On any machine, and on this one."""
    runtime = FirecrackerRuntime(None, binary=str(tmp_path / "firecracker"))
    found = runtime.probe()
    assert not found.usable
    assert "not installed" in found.reason
    with pytest.raises(RuntimeMissing, match="not installed"):
        runtime.create(Spec("i", "p", str(tmp_path), "image"))
    (tmp_path / "firecracker").write_text("#!/bin/sh\necho Firecracker v1.16.1\n")
    (tmp_path / "firecracker").chmod(0o755)
    absent = FirecrackerRuntime(
        None, binary=str(tmp_path / "firecracker"), kvm=str(tmp_path / "kvm")
    )
    assert "load the module" in absent.probe().reason
    assert Capability.SAVE in runtime.capabilities
    assert runtime.reap("p-nobody") == []
