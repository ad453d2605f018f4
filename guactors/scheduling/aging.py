"""How much more the priority of what has waited for long counts.

Owns: since when each demand has waited, and so the level of each queue. Must never: reorder a
queue, or make anything give way: aging orders, and no more.

What has waited ``step`` seconds without being given anything counts as one priority more, again and
again, up to the highest of its ten: 0 to 9, 10 to 19, -10 to -1. All of one ten that have waited
for long enough are equals, among whom fair share gives each its turn; if the aged could pass each
other, what is always aged would keep the lowest waiting for ever. A queue counts as the one in it
that has waited longest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from guactors.scheduling.agenda import Agenda
from guactors.scheduling.placement import Need

if TYPE_CHECKING:
    from guactors.scheduling.queues import Demand, Queue

TEN: Final = 10
"""Not more than ``preemption.GAP``: what would push others aside always goes first."""
_EARLY = 1e-9


def highest(priority: int) -> int:
    """The most that something of this priority can count as."""
    return priority - priority % TEN + TEN - 1


class Aging:
    """``step``: seconds per priority. ``clock``: the time of the present event.
    ``find``: the queue of a need; ``moved`` is called with each queue whose level has changed.

    The agenda has one entry at the most for each need, which may come too early, never too late:
    only what is served again or leaves makes a queue younger."""

    def __init__(
        self,
        step: float,
        agenda: Agenda,
        clock: Callable[[], float],
        find: Callable[[Need], Queue | None],
        moved: Callable[[Queue], None],
    ) -> None:
        self._step = step
        self._agenda = agenda
        self._clock = clock
        self._find = find
        self._moved = moved
        self._due: set[Need] = set()

    def begins(self, queue: Queue, demand: Demand) -> None:
        """It waits from now on, or was given something and waits for more."""
        queue.since.pop(demand, None)
        queue.since[demand] = self._clock()
        self._update(queue)

    def ends(self, queue: Queue, demand: Demand) -> None:
        """It waits no longer."""
        del queue.since[demand]
        self._update(queue)

    def _update(self, queue: Queue) -> None:
        if not queue.since:
            return
        steps, level = self._level(queue)
        if level != queue.level:
            queue.level = level
            self._moved(queue)
        need = queue.need
        if level < highest(need.priority) and need not in self._due:
            self._due.add(need)
            at = next(iter(queue.since.values())) + (steps + 1) * self._step
            self._agenda.put(at, lambda _: self._passed(need))

    def _level(self, queue: Queue) -> tuple[int, int]:
        """Steps that its oldest has waited, and what that makes it count as."""
        steps = int((self._clock() - next(iter(queue.since.values()))) / self._step + _EARLY)
        priority = queue.need.priority
        return steps, min(priority + steps, highest(priority))

    def _passed(self, need: Need) -> None:
        self._due.discard(need)
        queue = self._find(need)
        if queue is not None:
            self._update(queue)

    def check(self, queue: Queue) -> None:
        """Its level is that of its oldest, or is about to be: its next step is on the agenda."""
        assert list(queue.since.values()) == sorted(queue.since.values())
        level = self._level(queue)[1]
        assert queue.level <= level, f"{queue.need} counts as {queue.level}, not {level}"
        assert queue.level == highest(queue.need.priority) or queue.need in self._due
