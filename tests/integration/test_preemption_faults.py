"""Deaths while something stands still for something else: nobody stays frozen, nobody is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import guactors as gu
from guactors.grid_file import GridFile, read_grid_file
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]
WITHIN = 40.0


def command(*args: str) -> None:
    line = [sys.executable, "-m", "guactors.cli.main", *args]
    done = subprocess.run(line, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def grid(gu_home: Path, permanent_threads: None) -> Iterator[GridFile]:
    command("up", "--providers", "1", "--cpus", "1")
    file = read_grid_file()
    assert file is not None
    gu.init("auto")
    yield file
    gu.shutdown()
    command("down")


def until(condition: Callable[[], Any], seconds: float = WITHIN) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.02)
    return value


@gu.remote
def low(path: str) -> str:
    Path(path).write_text(f"{os.getpid()}\n")
    while not Path(path + ".end").exists():
        time.sleep(0.01)
    return f"{os.getpid()}\n"


@gu.remote(priority=10, max_retries=3)
def high(path: str) -> str:
    Path(path).write_text(f"{os.getpid()}\n")
    while not Path(path + ".end").exists():
        time.sleep(0.01)
    return "done"


class Scene:
    """A task that stands still, and the one for which it does."""

    def __init__(self, directory: Path) -> None:
        self.low_path, self.high_path = directory / "low", directory / "high"
        self.low = low.remote(str(self.low_path))
        until(lambda: self.low_path.exists() and self.low_path.read_text())
        self.victim = psutil.Process(int(self.low_path.read_text()))
        self.high = high.remote(str(self.high_path))
        until(lambda: self.high_path.exists() and self.high_path.read_text())
        self.winner = psutil.Process(int(self.high_path.read_text()))
        assert self.stopped()

    def stopped(self) -> bool:
        return self.victim.status() == psutil.STATUS_STOPPED

    def let(self, path: Path) -> None:
        path.with_name(path.name + ".end").touch()


@pytest.fixture
def scene(grid: GridFile, tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def pid_of(grid: GridFile, prefix: str) -> int:
    return next(pid for peer, pid in grid.pids.items() if peer.startswith(prefix))


def test_a_hub_that_is_killed_and_replaced(grid: GridFile, scene: Scene) -> None:
    os.kill(pid_of(grid, "h-"), signal.SIGKILL)
    scene.let(scene.high_path)
    assert gu.get(scene.high, timeout=WITHIN) == "done"
    until(lambda: not scene.stopped())
    scene.let(scene.low_path)
    assert gu.get(scene.low, timeout=WITHIN) == scene.low_path.read_text()


def test_a_hub_that_is_away_while_the_winner_dies(grid: GridFile, scene: Scene) -> None:
    os.kill(pid_of(grid, "h-"), signal.SIGSTOP)
    os.kill(pid_of(grid, "h-"), signal.SIGKILL)
    scene.winner.kill()
    until(lambda: not scene.stopped() or scene.high_path.read_text() != f"{scene.winner.pid}\n")
    scene.let(scene.high_path)
    scene.let(scene.low_path)
    assert gu.get([scene.low, scene.high], timeout=WITHIN) == [scene.low_path.read_text(), "done"]


def test_a_provider_that_is_killed_leaves_nobody_frozen(grid: GridFile, scene: Scene) -> None:
    os.kill(pid_of(grid, "p-"), signal.SIGKILL)
    _, alive = psutil.wait_procs([scene.victim, scene.winner], timeout=WITHIN)
    assert alive == []
    # Both are tried again at the one that replaces it.
    scene.let(scene.high_path)
    scene.let(scene.low_path)
    assert gu.get(scene.high, timeout=WITHIN) == "done"
    assert gu.get(scene.low, timeout=WITHIN)


def test_a_program_that_ends_takes_along_what_stands_still(grid: GridFile, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "import pathlib, guactors as gu\n"
        "from tests.integration.test_preemption_faults import Scene\n"
        "gu.init('auto')\n"
        f"scene = Scene(pathlib.Path({str(tmp_path)!r}))\n"
        "print(scene.victim.pid, scene.winner.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None
    pids = [int(word) for word in program.stdout.readline().split()]
    assert len(pids) == 2
    program.kill()
    program.wait()
    program.stdin.close()
    program.stdout.close()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
