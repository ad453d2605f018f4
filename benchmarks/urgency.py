"""How long something urgent takes while 5,000 calls of 0.2 ms of the same caller are waiting.

Owns: the rows ``urgent_call`` (a call of a higher priority, on the data lane), ``urgent_burst``
(the same, right after all 5,000 were submitted at once) and ``urgent_control`` (the cancellation of
one queued call until its acknowledgement, on the control lane). Milliseconds, one per trial.

    python -m benchmarks.urgency ROW [TRIALS]    a caller with one actor and its queue
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import guactors as gu
from benchmarks.children import Child, answer

QUEUED = 5_000
WORK = 0.0002
TRIALS = 100
BURSTS = 20
"""A burst takes longer to prepare than to measure."""


def behind_bulk() -> dict[str, list[float]]:
    """Trials of every row, each with a grid of its own."""
    found = {}
    for row in ROWS:
        with Child("benchmarks.urgency", row) as caller:
            found[row] = caller.ask()
    return found


@gu.remote
class Busy:
    """Works, and counts how often it did."""

    def __init__(self) -> None:
        self.done = 0

    def work(self) -> None:
        end = time.perf_counter() + WORK
        while time.perf_counter() < end:
            pass
        self.done += 1

    def count(self) -> int:
        return self.done


class Bulk:
    """An actor whose queue is filled up to QUEUED unanswered calls before each trial."""

    def __init__(self) -> None:
        self.actor = Busy.remote()  # type: ignore[attr-defined]
        self._urgent = self.actor.count.options(priority=1)
        self._done = 0
        self._queued: deque[Any] = deque()
        gu.get(self._urgent.remote())

    def fill(self) -> None:
        """Submit what is missing."""
        work = self.actor.work.remote
        self._queued.extend([work() for _ in range(QUEUED - len(self._queued))])

    def call(self) -> float:
        """Milliseconds of one urgent call."""
        began = time.perf_counter()
        done = gu.get(self._urgent.remote())
        passed = (time.perf_counter() - began) * 1e3
        for _ in range(done - self._done):
            self._queued.popleft()
        self._done = done
        return passed

    def cancel(self) -> float:
        """Milliseconds until one queued call is answered as cancelled. It is one from the middle:
        sent for sure, and not to start soon. One that ran because the cancellation came too late
        counts with the time it took to get there."""
        ref = self._queued[QUEUED // 2]
        del self._queued[QUEUED // 2]
        began = time.perf_counter()
        gu.cancel(ref)
        try:
            gu.get(ref)
        except gu.exceptions.TaskCancelled:
            pass
        else:
            self._done += 1
        return (time.perf_counter() - began) * 1e3

    def close(self) -> None:
        self._queued.clear()
        gu.kill(self.actor)


def steady(what: str, trials: int) -> list[float]:
    """``what`` is ``call`` or ``cancel``; the queue stays filled all the time."""
    bulk = Bulk()
    found = []
    bulk.fill()
    for _ in range(trials):
        bulk.call()
        bulk.fill()
        found.append(bulk.call() if what == "call" else bulk.cancel())
    bulk.close()
    return found


def bursts(trials: int) -> list[float]:
    """Each time a new actor, whose first 5,000 calls come at once."""
    found = []
    for _ in range(trials):
        bulk = Bulk()
        bulk.fill()
        found.append(bulk.call())
        bulk.close()
    return found


ROWS: dict[str, tuple[Callable[[int], list[float]], int]] = {
    "urgent_call": (lambda trials: steady("call", trials), TRIALS),
    "urgent_burst": (bursts, BURSTS),
    "urgent_control": (lambda trials: steady("cancel", trials), TRIALS),
}

if __name__ == "__main__":
    gu.init(num_cpus=2, log_to_driver=False)
    measured, usual = ROWS[sys.argv[1]]
    answer(measured(int(sys.argv[2]) if len(sys.argv) > 2 else usual))
    gu.shutdown()
