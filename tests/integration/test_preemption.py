"""Work of a high priority on a real grid that is full of other work: it begins at once, the others
stand still meanwhile, and nothing of them is lost."""

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
def count(path: str, end: int) -> int:
    """Counts, and tells of it in a file; runs until ``end``, or until the file has a neighbour."""
    me = os.open(path, os.O_WRONLY | os.O_CREAT)
    done = 0
    while done < end and not Path(path).with_suffix(".end").exists():
        done += 1
        os.pwrite(me, b"%10d %10d" % (os.getpid(), done), 0)
        time.sleep(0.002)
    os.close(me)
    return done


@gu.remote(priority=10)
def urgent(seconds: float = 0.0) -> float:
    time.sleep(seconds)
    return time.monotonic()


class Busy:
    """Two tasks that fill the grid, and what they have done so far."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.paths = [directory / f"{number}" for number in range(2)]
        self.refs = [count.options(**options).remote(str(path), 10**9) for path in self.paths]
        until(lambda: all(path.exists() and path.read_text() for path in self.paths))

    def read(self, path: Path) -> tuple[int, int]:
        """Process and count."""
        words = until(lambda: path.read_text().split())
        return int(words[0]), int(words[1])

    def stopped(self) -> list[int]:
        """Processes that stand still."""
        pids = [self.read(path)[0] for path in self.paths]
        return [pid for pid in pids if psutil.Process(pid).status() == psutil.STATUS_STOPPED]

    def end(self) -> None:
        for path in self.paths:
            path.with_suffix(".end").touch()
        # All that it ever counted it counted once, without a gap: nothing was lost or done again.
        assert gu.get(self.refs, timeout=WITHIN) == [self.read(path)[1] for path in self.paths]


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Busy]:
    found = Busy(tmp_path)
    yield found
    found.end()


def test_it_begins_though_all_is_taken_and_nothing_is_lost(busy: Busy) -> None:
    running = urgent.remote(0.3)
    (pid,) = until(busy.stopped)
    before = [busy.read(path) for path in busy.paths]
    assert gu.wait([running], timeout=0.05) == ([], [running]), "the victim stands while it runs"
    after = [busy.read(path) for path in busy.paths]
    moved = [one[0] for one, other in zip(before, after, strict=True) if one != other]
    assert pid not in moved and len(moved) == 1
    gu.get(running, timeout=WITHIN)
    until(lambda: not busy.stopped(), 1.0)


def test_again_and_again(busy: Busy) -> None:
    for _ in range(20):
        gu.get(urgent.remote(), timeout=WITHIN)
        until(lambda: not busy.stopped(), 1.0)


def test_both_give_way_where_both_are_needed(busy: Busy) -> None:
    running = urgent.options(num_cpus=2).remote(0.3)
    assert len(until(lambda: len(busy.stopped()) == 2 and busy.stopped())) == 2
    gu.get(running, timeout=WITHIN)
    until(lambda: not busy.stopped(), 1.0)


def test_what_has_not_started_is_done_elsewhere(tmp_path: Path) -> None:
    """Short tasks wait in lines at both workers; one of those is taken away."""

    @gu.remote
    def short(number: int) -> int:
        time.sleep(0.004)
        return number

    refs = [short.remote(number) for number in range(400)]
    gu.wait(refs, num_returns=20, timeout=WITHIN)
    held = urgent.remote(1.0)
    began = time.monotonic()
    assert gu.get(refs, timeout=WITHIN) == list(range(400))
    assert gu.wait([held], timeout=0)[0] == [] or time.monotonic() - began > 0.9
    gu.get(held, timeout=WITHIN)


def test_a_gap_that_is_too_small_only_orders(busy: Busy) -> None:
    waiting = urgent.options(priority=9).remote()
    assert gu.wait([waiting], timeout=0.3)[0] == []
    assert not busy.stopped()
    gu.cancel(waiting)


def test_never(tmp_path: Path) -> None:
    busy = Busy(tmp_path, preemption=["never"])
    waiting = urgent.remote()
    assert gu.wait([waiting], timeout=0.3)[0] == []
    busy.end()
    gu.get(waiting, timeout=WITHIN)


def test_stop_ends_it_and_says_so(tmp_path: Path) -> None:
    busy = Busy(tmp_path, preemption=["stop"], max_retries=5)
    gu.get(urgent.remote(), timeout=WITHIN)
    ready, _ = gu.wait(busy.refs, timeout=WITHIN)
    with pytest.raises(errors.Preempted, match="priority 10") as caught:
        gu.get(ready[0])
    assert isinstance(caught.value, errors.WorkerDied)
    for path in busy.paths:
        path.with_suffix(".end").touch()
    gu.wait(busy.refs, num_returns=2, timeout=WITHIN)


def test_requeue_begins_anew_at_no_charge(tmp_path: Path) -> None:
    busy = Busy(tmp_path, preemption=["requeue"])
    pids = {busy.read(path)[0] for path in busy.paths}
    gu.get(urgent.remote(0.05), timeout=WITHIN)
    until(lambda: {busy.read(path)[0] for path in busy.paths} != pids)
    busy.end()


def test_what_a_victim_has_started_stands_still_with_it(tmp_path: Path) -> None:
    """Also what left its process group and its session."""
    tick = (
        "import pathlib, time\n"
        "while True:\n"
        "    pathlib.Path('{0}').write_text(str(time.time()))\n"
        "    time.sleep(0.005)\n"
    )

    @gu.remote(num_cpus=2)
    def family(path: str) -> None:
        child = subprocess.Popen([sys.executable, "-c", tick.format(path)], start_new_session=True)
        while not Path(path + ".end").exists():
            time.sleep(0.01)
        child.kill()
        child.wait()

    path = tmp_path / "tick"
    running = family.remote(str(path))
    until(path.exists)
    held = urgent.remote(0.4)
    until(lambda: gu.wait([held], timeout=0)[0] == [] and _rests(path), 5.0)
    gu.get(held, timeout=WITHIN)
    until(lambda: not _rests(path))
    Path(f"{path}.end").touch()
    gu.get(running, timeout=WITHIN)


def _rests(path: Path) -> bool:
    before = path.read_text()
    threading.Event().wait(0.05)
    return path.read_text() == before


def test_a_victim_that_holds_a_lock_holds_it_as_it_stands(tmp_path: Path) -> None:
    """Who needs it waits for its holder, as for any other; nothing is taken away from that."""
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "lock"
    path.touch()

    @gu.remote(num_cpus=2)
    def holder() -> str:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            path.with_suffix(".held").touch()
            while not path.with_suffix(".end").exists():
                time.sleep(0.01)
        return "released"

    @gu.remote(priority=10)
    def is_free() -> bool:
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    running = holder.remote()
    until(path.with_suffix(".held").exists)
    assert gu.get(is_free.remote(), timeout=WITHIN) is False
    path.with_suffix(".end").touch()
    assert gu.get(running, timeout=WITHIN) == "released"
    assert gu.get(is_free.remote(), timeout=WITHIN) is True


def test_an_actor_gives_way_and_its_calls_wait() -> None:
    @gu.remote(num_cpus=2)
    class Counter:
        def __init__(self) -> None:
            self.total = 0

        def add(self) -> int:
            self.total += 1
            return self.total

    counter = Counter.remote()
    assert gu.get(counter.add.remote(), timeout=WITHIN) == 1
    held = urgent.remote(0.3)
    until(lambda: gu.wait([counter.add.remote()], timeout=0.02)[0] == [])
    assert gu.wait([held], timeout=0)[0] == []
    last = counter.add.remote()
    gu.get(held, timeout=WITHIN)
    assert gu.get(last, timeout=WITHIN) >= 3
    gu.kill(counter)


def test_a_victim_that_is_killed_as_it_stands(busy: Busy) -> None:
    held = urgent.remote(0.5)
    (pid,) = until(busy.stopped)
    os.kill(pid, signal.SIGKILL)
    gu.get(held, timeout=WITHIN)
    lost = next(ref for ref, path in zip(busy.refs, busy.paths, strict=True)
                if busy.read(path)[0] == pid)  # fmt: skip
    with pytest.raises(errors.WorkerDied):
        gu.get(lost, timeout=WITHIN)
    busy.paths = [path for path in busy.paths if busy.read(path)[0] != pid]
    busy.refs.remove(lost)


def test_a_preemptor_that_is_cancelled_brings_the_victim_back(busy: Busy) -> None:
    held = urgent.remote(60.0)
    until(busy.stopped)
    gu.cancel(held, force=True)
    until(lambda: not busy.stopped())


def test_programs_of_the_machine_stand_still(grid: None, tmp_path: Path) -> None:
    from guactors.runtimes.program import run_program

    path = tmp_path / "ticks"
    script = f"while :; do date +%N > {path}; sleep 0.01; done"
    run = gu.remote(run_program).options(num_cpus=2, num_returns="streaming")
    running = run.remote(["sh", "-c", script], {}, "")
    until(path.exists)
    held = urgent.remote(0.4)
    until(lambda: _rests(path), 5.0)
    gu.get(held, timeout=WITHIN)
    until(lambda: not _rests(path))
    gu.cancel(running)


@gu.remote(max_retries=0, preemption=["requeue"], grace=10, num_cpus=2)
def leaves(path: str, how: str) -> str:
    """Notes each beginning and each wish that it end, and does then what ``how`` says."""
    begins = Path(path)
    with begins.open("a", encoding="utf-8") as file:
        file.write("begun\n")
    context = gu.get_runtime_context()
    while not context.is_leaving():
        if begins.with_suffix(".end").exists():
            return "ended"
        time.sleep(0.005)
    with begins.open("a", encoding="utf-8") as file:
        file.write("asked\n")
    if how == "exit":
        sys.exit()
    return "done in its grace"


def test_a_task_with_a_grace_may_end_by_itself_and_begins_again(grid: None, tmp_path: Path) -> None:
    path = tmp_path / "log"
    running = leaves.remote(str(path), "exit")
    until(path.exists)
    gu.get(urgent.remote(), timeout=5.0)
    until(lambda: path.read_text().split() == ["begun", "asked", "begun"])
    path.with_suffix(".end").touch()
    assert gu.get(running, timeout=WITHIN) == "ended"


def test_what_is_done_within_the_grace_is_done(grid: None, tmp_path: Path) -> None:
    path = tmp_path / "log"
    running = leaves.remote(str(path), "return")
    until(path.exists)
    gu.get(urgent.remote(), timeout=5.0)
    assert gu.get(running, timeout=WITHIN) == "done in its grace"
    assert path.read_text().split() == ["begun", "asked"]


def test_it_is_ended_when_its_grace_is_over_and_not_before(busy_with_grace: Busy) -> None:
    busy = busy_with_grace
    pids = {busy.read(path)[0] for path in busy.paths}
    began = time.monotonic()
    gu.get(urgent.options(num_cpus=2).remote(), timeout=WITHIN)
    assert time.monotonic() - began >= 0.5
    until(lambda: not pids & {busy.read(path)[0] for path in busy.paths})


@pytest.fixture
def busy_with_grace(tmp_path: Path) -> Iterator[Busy]:
    found = Busy(tmp_path, preemption=["requeue"], grace=0.5)
    yield found
    found.end()


def test_a_program_is_asked_to_end_before_it_is_ended(grid: None, tmp_path: Path) -> None:
    """It saves, says so and ends well; and begins again all the same."""
    from guactors.runtimes.program import run_program

    path = tmp_path / "log"
    script = f"exec 2>/dev/null; echo begun >> {path}; trap 'echo saved >> {path}; exit 0' TERM; "
    script += f"while [ ! -e {path}.end ]; do sleep 0.02; done"
    run = gu.remote(run_program).options(
        num_cpus=2, num_returns="streaming", preemption=["requeue"], grace=10, max_retries=0
    )
    stream = run.remote(["sh", "-c", script], {}, "")
    until(path.exists)
    gu.get(urgent.remote(), timeout=5.0)
    until(lambda: path.read_text().split() == ["begun", "saved", "begun"])
    Path(f"{path}.end").touch()
    assert gu.get(list(stream), timeout=WITHIN) == [("exit", 0)]
