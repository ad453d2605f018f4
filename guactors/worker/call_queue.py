"""Calls that wait to run: the highest priority first, in order of arrival inside each.

Owns: that order, and that no priority starves: one that was passed over :data:`PATIENCE` times in a
row is served once. Must never: know more of an item than its priority, or lock.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 64


class CallQueue(Generic[T]):
    """Items of type ``T`` (never None) under priorities: any integers, bigger goes first."""

    __slots__ = ("_count", "_levels", "_order", "_passed")

    def __init__(self) -> None:
        self._levels: dict[int, deque[T]] = {}
        self._order: list[int] = []
        """Priorities at which something waits, the highest last; where nothing does, that of the
        last, which is mostly that of the next."""
        self._passed: dict[int, int] = {}
        """How often each was passed over since it was served."""
        self._count = 0

    def put(self, item: T, priority: int) -> None:
        """Behind those of its priority."""
        waiting = self._levels.get(priority)
        if waiting is None:
            if not self._count:
                self.clear()
            waiting = self._levels[priority] = deque()
            insort(self._order, priority)
        waiting.append(item)
        self._count += 1

    def take(self) -> T | None:
        """Remove and return the next; None when there is none."""
        if not self._count:
            return None
        order = self._order
        priority = order[-1] if len(order) == 1 else self._fair()
        waiting = self._levels[priority]
        item = waiting.popleft()
        self._left(priority, 1)
        return item

    def _fair(self) -> int:
        """The highest priority, or the next of those whose patience ran out; the others are passed
        over."""
        passed, chosen = self._passed, self._order[-1]
        for priority in reversed(self._order[:-1]):
            times = passed.get(priority, 0)
            if chosen == self._order[-1] and times >= PATIENCE:
                chosen = priority
            else:
                passed[priority] = times + 1
        passed.pop(chosen, None)
        return chosen

    def _left(self, priority: int, gone: int) -> None:
        self._count -= gone
        if self._count and not self._levels[priority]:
            del self._levels[priority]
            self._order.remove(priority)
            self._passed.pop(priority, None)

    def remove(self, wanted: Callable[[T], bool]) -> T | None:
        """Take out the first, in the order of priority and arrival, that is ``wanted``."""
        for priority in reversed(self._order):
            waiting = self._levels[priority]
            for place, item in enumerate(waiting):
                if wanted(item):
                    del waiting[place]
                    self._left(priority, 1)
                    return item
        return None

    def take_back(self, most: int, wanted: Callable[[T], bool]) -> list[T]:
        """Take out up to ``most`` that are ``wanted``, those that would be served last; in the
        order in which they would have been served."""
        back: list[T] = []
        for priority in list(self._order):
            waiting = self._levels[priority]
            kept: list[T] = []
            before = len(back)
            while waiting and len(back) < most:
                item = waiting.pop()
                (back if wanted(item) else kept).append(item)
            waiting.extend(reversed(kept))
            self._left(priority, len(back) - before)
        back.reverse()
        return back

    def clear(self) -> list[T]:
        """Take out everything, in the order of priority and arrival."""
        everything = [item for one in reversed(self._order) for item in self._levels[one]]
        self._levels.clear()
        self._order.clear()
        self._passed.clear()
        self._count = 0
        return everything

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return bool(self._count)
