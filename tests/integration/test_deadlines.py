"""Deadlines on a real grid: what is due first runs first, a victim that has one goes last and ends
at it, also while it stands still."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import guactors as gu
from guactors import errors
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]
WITHIN = 20.0


def until(condition: Callable[[], Any], seconds: float = WITHIN) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)
    return value


@gu.remote(max_retries=0)
def hold(path: str) -> str:
    """Says who it is, and runs until the file has a neighbour."""
    Path(path).write_text(str(os.getpid()))
    while not Path(path).with_suffix(".end").exists():
        time.sleep(0.005)
    return path


@gu.remote(num_cpus=2)
def note(path: str, name: str) -> None:
    with open(path, "a") as file:
        file.write(name)


@gu.remote(priority=10)
def urgent(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.005)


def started(path: Path, **options: Any) -> tuple[Any, psutil.Process]:
    """A task that holds a processor, and its process."""
    ref = hold.options(**options).remote(str(path))
    return ref, psutil.Process(int(until(lambda: path.exists() and path.read_text())))


def stands(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_STOPPED


def test_what_is_due_first_runs_first(tmp_path: Path) -> None:
    ref, _ = started(tmp_path / "a", num_cpus=2)
    log = str(tmp_path / "log")
    refs = [
        note.options(deadline=due).remote(log, name)
        for name, due in (("d", None), ("c", 90), ("a", 30), ("b", 60))
    ]
    (tmp_path / "a.end").touch()
    gu.get([ref, *refs], timeout=WITHIN)
    assert Path(log).read_text() == "abcd"


def test_a_victim_that_has_a_deadline_goes_last(tmp_path: Path) -> None:
    """It is the younger one, which would give way without it."""
    plain = started(tmp_path / "plain")
    dated = started(tmp_path / "dated", deadline=120)
    running = urgent.remote(str(tmp_path / "over"))
    until(lambda: stands(plain[1]) or stands(dated[1]))
    assert stands(plain[1]) and not stands(dated[1])
    (tmp_path / "over").touch()
    for name in ("plain", "dated"):
        (tmp_path / name).with_suffix(".end").touch()
    gu.get([running, plain[0], dated[0]], timeout=WITHIN)


def test_a_victim_that_has_a_deadline_ends_at_it_though_it_stands_still(tmp_path: Path) -> None:
    ref, process = started(tmp_path / "dated", deadline=3.0, num_cpus=2)
    running = urgent.remote(str(tmp_path / "over"))
    until(lambda: stands(process))
    with pytest.raises(errors.DeadlineMissed, match="stands still") as caught:
        gu.get(ref, timeout=WITHIN)
    assert isinstance(caught.value, errors.CallTimeout) and caught.value.late < 5
    until(lambda: not process.is_running())
    (tmp_path / "over").touch()
    gu.get(running, timeout=WITHIN)


def test_what_finds_no_room_in_time_never_runs(tmp_path: Path) -> None:
    ref, _ = started(tmp_path / "a", num_cpus=2)
    late = hold.options(deadline=0.3).remote(str(tmp_path / "late"))
    with pytest.raises(errors.DeadlineMissed, match="waited for a worker with 1 CPU") as caught:
        gu.get(late, timeout=WITHIN)
    assert "0 calls" in caught.value.where
    (tmp_path / "a.end").touch()
    gu.get(ref, timeout=WITHIN)
    assert not (tmp_path / "late").exists()


def test_a_method_of_an_actor_has_one_too() -> None:
    @gu.remote
    class Slow:
        @gu.method(deadline=0.3)
        def sleep(self, seconds: float) -> None:
            time.sleep(seconds)

    actor = Slow.remote()
    gu.get(actor.__ray_ready__.remote(), timeout=WITHIN)
    with pytest.raises(errors.DeadlineMissed, match="has not answered"):
        gu.get(actor.sleep.remote(1), timeout=WITHIN)
    gu.get(actor.sleep.options(deadline=None).remote(0), timeout=WITHIN)


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), 10**100, "soon", True])
def test_impossible_ones(wrong: Any) -> None:
    with pytest.raises(errors.UnknownOption, match="deadline="):
        hold.options(deadline=wrong)
