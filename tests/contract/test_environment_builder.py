"""The builder of virtual environments: what pip and uv are asked, and how a build ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from guactors.runtimes.envbuild import Builders, BuildFailed, Request
from tests.contract.process_watch import await_true


@pytest.fixture
def builders() -> Iterator[Builders]:
    made = Builders()
    yield made
    made.close()


def wheel(directory: Path, name: str, needs: str = "") -> None:
    info = f"{name}-1.0.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    if needs:
        about += f"Requires-Dist: {needs}\n"
    with zipfile.ZipFile(directory / f"{name}-1.0-py3-none-any.whl", "w") as out:
        out.writestr(f"{name}.py", "")
        out.writestr(f"{info}/METADATA", about)
        out.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        out.writestr(f"{info}/RECORD", "")


def request(place: Path, tool: str = "pip", *more: str, check: bool = False) -> Request:
    words = ["--no-index", "--find-links", str(place), *more]
    return Request(str(place / "made"), tool, ["gt_made"], words, check)


def imports(place: Path, *names: str) -> bool:
    """Whether what was made finds all of these."""
    words = [str(place / "made" / "bin" / "python"), "-I", "-c", f"import {', '.join(names)}"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.mark.needs("posix")
def test_pip(builders: Builders, tmp_path: Path) -> None:
    wheel(tmp_path, "gt_made")
    builders.build(request(tmp_path), 60)
    assert imports(tmp_path, "gt_made", "cloudpickle")
    assert not imports(tmp_path, "gt_other")


@pytest.mark.needs("posix")
def test_uv(builders: Builders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one where there is one, else a script that lets pip do what uv is told."""
    if shutil.which("uv") is None:
        script = tmp_path / "bin" / "uv"
        script.parent.mkdir()
        script.write_text(
            '#!/bin/sh\n[ "$1 $2 $3" = "pip install --python" ] || exit 9\npython=$4\nshift 4\n'
            f'exec {sys.executable} -m pip --python "$python" install "$@"\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    wheel(tmp_path, "gt_made")
    builders.build(request(tmp_path, "uv"), 60)
    assert imports(tmp_path, "gt_made")


@pytest.mark.needs("posix")
def test_a_check_finds_what_does_not_fit(builders: Builders, tmp_path: Path) -> None:
    wheel(tmp_path, "gt_made", needs="gt-nowhere")
    builders.build(request(tmp_path, "pip", "--no-deps"), 60)
    shutil.rmtree(tmp_path / "made")
    with pytest.raises(BuildFailed, match="gt-nowhere"):
        builders.build(request(tmp_path, "pip", "--no-deps", check=True), 60)


def test_a_failure_has_the_last_words(builders: Builders, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"exit status 1.*(.|\n)*gt.made"):
        builders.build(request(tmp_path), 60)


def test_an_interpreter_that_is_none(builders: Builders, tmp_path: Path) -> None:
    asked = Request(str(tmp_path / "made"), "pip", ["x"], python=str(tmp_path / "python"))
    with pytest.raises(BuildFailed, match="python"):
        builders.build(asked, 60)


def blocking(place: Path) -> Request:
    """A build that would not end: its one package asks for a lock that nobody gives."""
    project = place / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    (project / "backend.py").write_text(
        "import os, time\n"
        "def build_wheel(*_args, **_more):\n"
        f"    open({str(place / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(300)\n"
    )
    words = ["--no-index", "--no-build-isolation"]
    return Request(str(place / "made"), "pip", [str(project)], words)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("how", ["late", "closed"])
def test_whatever_ends_it_ends_all_of_it(builders: Builders, tmp_path: Path, how: str) -> None:
    found: list[BaseException] = []

    def build() -> None:
        try:
            builders.build(blocking(tmp_path), 4 if how == "late" else 60)
        except BuildFailed as error:
            found.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    pid = tmp_path / "pid"
    if how == "closed":
        await_true(lambda: pid.exists() and pid.read_text(), "the build began")
        builders.close()
    thread.join(20)
    (error,) = found
    assert ("did not end within 4 s" in str(error)) == (how == "late")
    if pid.exists():
        await_true(lambda: not alive(int(pid.read_text())), "the tool ended, too")
    if how == "closed":
        with pytest.raises(BuildFailed, match="stops"):
            builders.build(request(tmp_path), 60)
