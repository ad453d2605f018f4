"""An actor gives way with its state, on a real grid of two providers, and goes on on the other."""

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
from guactors import errors
from guactors.util import state
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]
WITHIN = 20.0


def until(condition: Callable[[], Any], seconds: float = WITHIN) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)
    return value


def gu_command(*args: str) -> None:
    command = [sys.executable, "-m", "guactors.cli.main", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def grid(gu_home: Path, permanent_threads: None) -> Iterator[None]:
    """Two providers of one processor."""
    gu_command("up", "--providers", "2", "--cpus", "1")
    gu.init("auto")
    yield
    gu.shutdown()
    gu_command("down")


@gu.remote(num_cpus=1, preemption=["checkpoint", "requeue"])
class Counter:
    """Its state is a number; ``wrong`` names the method that is to fail."""

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong
        self.total = 0
        self.restored = 0

    def add(self, seconds: float = 0.0) -> tuple[int, int]:
        time.sleep(seconds)
        self.total += 1
        return self.total, self.restored

    def place(self) -> tuple[str, int]:
        return gu.get_runtime_context().get_node_id(), os.getpid()

    def __checkpoint__(self) -> dict[str, Any]:
        if self.wrong == "__checkpoint__":
            raise ValueError("no state today")
        return {"total": self.total, "restored": self.restored, "wrong": self.wrong}

    def __restore__(self, state: dict[str, Any]) -> None:
        if self.wrong == "__restore__":
            raise ValueError("that is no state")
        self.total, self.restored = state["total"], state["restored"] + 1


@gu.remote(num_cpus=1, priority=10)
def urgent(end: str) -> str:
    while not Path(end).exists():
        time.sleep(0.005)
    return gu.get_runtime_context().get_node_id()


@gu.remote(num_cpus=1, preemption=["never"])
def occupy(end: str) -> None:
    while not Path(end).exists():
        time.sleep(0.005)


class Scene:
    """A counter on one provider; the other is taken until ``free``."""

    def __init__(self, directory: Path, wrong: str = "") -> None:
        self._free, self._end = directory / "free", directory / "end"
        self.counter = Counter.remote(wrong)
        self.node, self.pid = gu.get(self.counter.place.remote(), timeout=WITHIN)
        self._other = occupy.remote(str(self._free))
        until(lambda: all(not node["Free"].get("CPU", 0.0) for node in gu.nodes()))

    def press(self) -> Any:
        """Urgent work comes, for which the counter is the only one to give way."""
        return urgent.remote(str(self._end))

    def free(self) -> None:
        self._free.touch()
        gu.get(self._other, timeout=WITHIN)

    def end(self, running: Any) -> str:
        self._end.touch()
        return str(gu.get(running, timeout=WITHIN))


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def test_it_comes_back_on_the_other_provider_and_each_call_ran_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    counter = scene.counter
    refs = [counter.add.remote(0.2)] + [counter.add.remote(0.001) for _ in range(50)]
    running = scene.press()
    until(lambda: gone(scene.pid))
    refs += [counter.add.remote() for _ in range(50)]
    scene.free()
    counts = gu.get(refs, timeout=WITHIN)
    assert [total for total, _ in counts] == list(range(1, 102)), "lost, or done twice"
    assert counts[0][1] == 0 and counts[-1][1] == 1, "the running call ended where it was"
    node, _ = gu.get(counter.place.remote(), timeout=WITHIN)
    assert node != scene.node and scene.end(running) == scene.node
    (row,) = state.list_rows("preemptions")
    assert (row["event"], row["mode"]) == ("preempted", "checkpoint")
    gu.kill(counter)


def test_a_state_that_cannot_be_told_lets_it_go_on_and_the_next_time_it_begins_anew(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, "__checkpoint__")
    running = scene.press()
    until(lambda: state.list_rows("preemptions"))
    assert gu.get(scene.counter.add.remote(), timeout=WITHIN) == (1, 0)
    assert gu.get(scene.counter.place.remote(), timeout=WITHIN)[1] == scene.pid
    until(lambda: gone(scene.pid))
    modes = [row["mode"] for row in state.list_rows("preemptions")]
    assert modes == ["requeue", "checkpoint"]
    scene.free()
    assert gu.get(scene.counter.add.remote(), timeout=WITHIN) == (1, 0), "its work was lost"
    scene.end(running)
    gu.kill(scene.counter)


def test_one_that_cannot_be_restored_is_dead_and_says_why(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "__restore__")
    running = scene.press()
    until(lambda: gone(scene.pid))
    scene.free()
    with pytest.raises(ValueError, match="that is no state") as caught:
        gu.get(scene.counter.add.remote(), timeout=WITHIN)
    assert isinstance(caught.value, errors.TaskError)
    scene.end(running)


def test_one_that_is_killed_in_the_middle(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    call = scene.counter.add.remote(60.0)
    running = scene.press()
    until(lambda: state.list_rows("preemptions"))
    os.kill(scene.pid, signal.SIGKILL)
    with pytest.raises(errors.ActorDied):
        gu.get(call, timeout=WITHIN)
    assert scene.end(running) == scene.node
    scene.free()


def test_one_of_the_two_methods_is_a_mistake() -> None:
    @gu.remote
    class Half:
        def __checkpoint__(self) -> int:
            return 1

    with pytest.raises(errors.UsageError, match="__restore__"):
        Half.remote()
