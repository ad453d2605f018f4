"""What became of the calls of one process: exact counts, and the latest calls themselves.

Owns: the calls that have ended, as long as there is room, and the counts of all. Must never: keep
a call's arguments or results, look at a clock, or do anything for a single call: what a worker
answered at once is kept at once, and is looked into when somebody asks, or when it has to go. What
is still under way is not here at all, because the core knows it.
"""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from guactors.caller.tasks import Task

RECORD_BYTES: Final = 320
"""What one call takes, with its numbers."""
MOST_BYTES: Final = 32 << 20
"""For the calls of one process, unless told otherwise."""
MOST_NAMES: Final = 10_000
"""Names that are counted apart; calls of further ones are counted together."""
MOST_PLACES: Final = 10_000
OTHERS: Final = "(others)"
FINISHED, FAILED, CANCELLED = range(3)
"""Places in a row of counts."""
DEPENDENCY_FAILED: Final = "DependencyFailed"
"""In listings, where an argument's error is the call's own."""
_CANCELLED: Final = "TaskCancelled"
_SWAP: Final = sys.byteorder == "big"

Counts = dict[str, list[int]]
"""By name: finished, failed, cancelled."""


class Batch(NamedTuple):
    """Calls that ended at once; None for an answer that ended nothing. ``times`` as in Replies,
    ``ended`` on this process's clock."""

    tasks: Sequence[Task | None]
    times: bytes
    ended: float


class Ended(NamedTuple):
    """One call that has ended. ``began`` in epoch seconds of its worker, where it ran for ``ran``
    seconds; both 0 where it never did."""

    task: Task
    ended: float
    began: float
    ran: float


class TaskLog:
    """``most_bytes``: for calls; with 0 there are counts alone."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.places: dict[str, str] = {}
        """Workers and their providers."""
        self.now: Callable[[], float] = float
        """The time of the present event."""
        self.dropped = 0
        """Calls that are counted and not kept any more."""
        self._most = most_bytes // RECORD_BYTES
        self._kept: deque[Batch] = deque()
        self._size = 0
        self._gone: Counts = {}
        """Of those that are not kept."""

    def __repr__(self) -> str:
        return f"<TaskLog kept={self._size} dropped={self.dropped}>"

    def on_replies(
        self, peer: str, provider: str, tasks: Sequence[Task | None], times: bytes, now: float
    ) -> None:
        """Calls that their worker answered in one message."""
        if peer not in self.places:
            self._place(peer, provider)
        self._kept.append(Batch(tasks, times, now))
        self._size += len(tasks)
        while self._size > self._most:
            self._drop()

    def on_end(self, task: Task, fault: str) -> None:
        """A call that failed on this side; the first fault counts."""
        if task.fault:
            return
        task.fault = fault
        if not task.events:
            return
        self._kept.append(Batch((task,), b"", self.now()))
        self._size += 1
        while self._size > self._most:
            self._drop()

    def _drop(self) -> None:
        tasks, _, _ = self._kept.popleft()
        self._size -= len(tasks)
        self.dropped += _count(tasks, self._gone)

    # --- looking --------------------------------------------------------------------------------

    def counts(self) -> Counts:
        """Of all calls that have ended, exactly."""
        counts = {name: list(row) for name, row in self._gone.items()}
        for batch in self._kept:
            _count(batch.tasks, counts)
        return counts

    def batches(self) -> list[Batch]:
        """What is kept, the oldest first."""
        return list(self._kept)

    def _place(self, peer: str, provider: str) -> None:
        if len(self.places) >= MOST_PLACES:
            for old in list(islice(self.places, MOST_PLACES // 2)):
                del self.places[old]
        self.places[peer] = provider


def unfold(batch: Batch) -> Iterator[Ended]:
    """The calls of a batch, one by one."""
    tasks, data, ended = batch
    times = array("d", data if len(data) == 16 * len(tasks) + 8 else b"")
    if _SWAP:
        times.byteswap()
    clock = times[0] if times else 0.0
    for at, task in enumerate(tasks):
        if task is None or not task.events:
            continue
        began, until = times[2 * at + 1 : 2 * at + 3] if times else (0.0, 0.0)
        if began:
            yield Ended(task, ended, began + clock, until - began)
        else:
            yield Ended(task, ended, 0.0, 0.0)


def outcome(task: Task) -> int:
    """How a call ended: FINISHED, FAILED or CANCELLED."""
    if not task.fault:
        return FINISHED
    return CANCELLED if task.fault == _CANCELLED else FAILED


def _count(tasks: Sequence[Task | None], counts: Counts) -> int:
    """Count them; how many there were."""
    first = tasks[0].name if tasks and tasks[0] is not None else ""
    for task in tasks:
        if task is None or task.fault or task.name is not first or not task.events:
            break
    else:
        # Mostly all are of one function and went well.
        _row(counts, first)[FINISHED] += len(tasks)
        return len(tasks)
    ended = [task for task in tasks if task is not None and task.events]
    for task in ended:
        _row(counts, task.name)[outcome(task)] += 1
    return len(ended)


def _row(counts: Counts, name: str) -> list[int]:
    row = counts.get(name)
    if row is None:
        if len(counts) >= MOST_NAMES:
            name = OTHERS
        row = counts.setdefault(name, [0, 0, 0])
    return row
