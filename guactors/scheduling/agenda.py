"""What is to be done later: a list of (time, action) that the owner of the clock asks and runs.

Owns: the order of due actions. Must never: read a clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[float], None]
"""Called with the time at which it really runs. It must check for itself whether what it was meant
for still holds: nothing is ever taken off the agenda."""


class Agenda:
    """Actions by time; those of the same time in the order they were put."""

    __slots__ = ("_count", "_items")

    def __init__(self) -> None:
        self._items: list[tuple[float, int, Action]] = []
        self._count = 0

    def put(self, at: float, action: Action) -> None:
        """Run ``action`` at ``at``, or as soon after it as somebody looks."""
        self._count += 1
        heapq.heappush(self._items, (at, self._count, action))

    def run(self, now: float) -> None:
        """Run what is due, but not what these runs put on the agenda for now."""
        due = []
        while self._items and self._items[0][0] <= now:
            due.append(heapq.heappop(self._items)[2])
        for action in due:
            action(now)

    def next(self) -> float | None:
        """The time of the first action."""
        return self._items[0][0] if self._items else None
