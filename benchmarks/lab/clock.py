"""Virtual time: a list of what happens when, and the running of it.

Owns: the order of events. Must never: read a real clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """``now`` moves from event to event; those of the same time run in the order they were put."""

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._items: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def __len__(self) -> int:
        return len(self._items)

    def at(self, when: float, act: Callable[..., None], *given: Any) -> None:
        """Call ``act(*given)`` then."""
        self._count += 1
        heapq.heappush(self._items, (when, self._count, act, given))

    def step(self) -> bool:
        """Run the next one; whether there was one."""
        if not self._items:
            return False
        self.now, _, act, given = heapq.heappop(self._items)
        act(*given)
        return True

    def run(self, until: float) -> None:
        """Everything up to that time."""
        while self._items and self._items[0][0] <= until:
            self.step()
        self.now = max(self.now, until)
