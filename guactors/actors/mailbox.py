"""The priority mailbox: a few fixed levels, first in first out inside each.

Owns: the order in which waiting items are served, the bound, and their ages. Must never: read a
clock (`now` is an argument), wait, lock, or know what an item is. Its holder keeps the lock where
several threads put.

The order: SYSTEM always first. Of the user's levels the highest that has something, except that a
level passed over ``patience`` times in a row while it had something waiting is served once. Senders
need no queue of their own: one queue a level keeps every sender's items in order.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from guactors.errors import MailboxFull, UsageError

T = TypeVar("T")

DEFAULT_CAPACITY = 10_000
DEFAULT_PATIENCE = 64


class Priority(enum.IntEnum):
    """A mailbox's levels, most urgent first. SYSTEM is for supervision and control only."""

    SYSTEM = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


USER_LEVELS = (Priority.HIGH, Priority.NORMAL, Priority.LOW)


def user_priority(priority: Priority | int) -> Priority:
    """``priority`` as a level that users may send at. Raises UsageError for any other."""
    if priority in USER_LEVELS:
        return Priority(priority)
    if priority == Priority.SYSTEM:
        raise UsageError(
            "Priority.SYSTEM is reserved for supervision and control; "
            "send with Priority.HIGH, or use ActorSystem.control() if you own the system"
        )
    raise UsageError(f"no such priority: {priority!r}; use Priority.HIGH, NORMAL or LOW")


@dataclass(frozen=True)
class MailboxStatistics:
    """One look at a mailbox. Ages in seconds, 0 where a level is empty; ``accepted`` and
    ``refused`` count since it was made."""

    depth: Mapping[Priority, int]
    oldest_age: Mapping[Priority, float]
    capacity: int | None
    accepted: int
    refused: int

    @property
    def waiting(self) -> int:
        """Items of all levels."""
        return sum(self.depth.values())


class PriorityMailbox(Generic[T]):
    """Waiting items of type ``T`` (never None), by priority.

    ``capacity`` bounds the user's levels together, SYSTEM is not counted; None is unbounded.
    """

    __slots__ = ("_accepted", "_count", "_levels", "_passed", "_refused", "capacity", "patience")

    def __init__(
        self, capacity: int | None = DEFAULT_CAPACITY, patience: int = DEFAULT_PATIENCE
    ) -> None:
        if capacity is not None and capacity < 1:
            raise UsageError(f"a mailbox needs room for at least one message, not {capacity}")
        if patience < 1:
            raise UsageError(f"patience counts served messages, at least 1, not {patience}")
        self.capacity = capacity
        self.patience = patience
        self._levels: tuple[deque[tuple[T, float]], ...] = tuple(deque() for _ in Priority)
        self._passed = [0] * len(Priority)
        self._count = 0
        self._accepted = 0
        self._refused = 0

    def put(self, item: T, priority: int, now: float) -> None:
        """Add ``item`` at the end of its level. Raises MailboxFull at the bound."""
        if priority:
            if self._count == self.capacity:
                self._refused += 1
                raise MailboxFull(
                    f"the mailbox holds {self._count} messages, its capacity; "
                    "try later, wait for room (tell_wait), or give it a larger one"
                )
            self._count += 1
        self._accepted += 1
        self._levels[priority].append((item, now))

    def take(self) -> T | None:
        """Remove and return the next item in order; None when there is none."""
        system, high, normal, low = self._levels
        if system:
            return system.popleft()[0]
        if not self._count:
            return None
        if high:
            level, waiting = 1, high
        elif normal:
            level, waiting = 2, normal
        else:
            level, waiting = 3, low
        if len(waiting) != self._count:
            level = self._fair(level)
            waiting = self._levels[level]
        self._count -= 1
        self._passed[level] = 0
        return waiting.popleft()[0]

    def _fair(self, best: int) -> int:
        """``best``, or the level below it whose patience ran out; the others are passed over."""
        passed = self._passed
        chosen = best
        for level in range(best + 1, len(passed)):
            if self._levels[level]:
                if chosen == best and passed[level] >= self.patience:
                    chosen = level
                else:
                    passed[level] += 1
        return chosen

    def remove(self, wanted: Callable[[T], bool]) -> T | None:
        """Take out the first item, in order of level and arrival, that is ``wanted``."""
        for level, waiting in enumerate(self._levels):
            for place, (item, _) in enumerate(waiting):
                if wanted(item):
                    del waiting[place]
                    self._left(level, 1)
                    return item
        return None

    def take_back(self, most: int, wanted: Callable[[T], bool] | None = None) -> list[T]:
        """Take out up to ``most`` of the user's items that would be served last (lowest level,
        latest arrival); returned in the order in which they would have been served."""
        back: list[T] = []
        for level in reversed(USER_LEVELS):
            waiting = self._levels[level]
            kept: list[tuple[T, float]] = []
            found = 0
            while waiting and len(back) < most:
                entry = waiting.pop()
                if wanted is None or wanted(entry[0]):
                    back.append(entry[0])
                    found += 1
                else:
                    kept.append(entry)
            waiting.extend(reversed(kept))
            self._left(level, found)
        back.reverse()
        return back

    def clear(self) -> list[T]:
        """Take out everything, most urgent level first, in order of arrival inside a level."""
        everything = [item for waiting in self._levels for item, _ in waiting]
        for level, waiting in enumerate(self._levels):
            gone = len(waiting)
            waiting.clear()
            self._left(level, gone)
        return everything

    def _left(self, level: int, gone: int) -> None:
        if level:
            self._count -= gone
        if not self._levels[level]:
            self._passed[level] = 0

    def __len__(self) -> int:
        return self._count + len(self._levels[0])

    def __bool__(self) -> bool:
        return bool(self._count or self._levels[0])

    @property
    def full(self) -> bool:
        """Whether a put of a user's level would be refused."""
        return self._count == self.capacity

    def depth(self, level: Priority) -> int:
        """How many items wait at ``level``."""
        return len(self._levels[level])

    def oldest_age(self, level: Priority, now: float) -> float:
        """Seconds the longest waiting item of ``level`` has waited; 0 when the level is empty."""
        waiting = self._levels[level]
        return now - waiting[0][1] if waiting else 0.0

    def statistics(self, now: float) -> MailboxStatistics:
        """A frozen record of all levels."""
        return MailboxStatistics(
            depth={level: self.depth(level) for level in Priority},
            oldest_age={level: self.oldest_age(level, now) for level in Priority},
            capacity=self.capacity,
            accepted=self._accepted,
            refused=self._refused,
        )

    def check(self) -> None:
        """Raise AssertionError where an invariant does not hold."""
        user = sum(len(self._levels[level]) for level in USER_LEVELS)
        assert self._count == user, f"counted {self._count}, holding {user}"
        assert self.capacity is None or user <= self.capacity, f"{user} > {self.capacity}"
        for level in Priority:
            passed = self._passed[level]
            # Two levels may run out of patience in the same moment, one of them waits one more.
            assert passed <= self.patience + len(USER_LEVELS) - 2, f"{level.name} starved"
            assert not passed or self._levels[level], f"{level.name} is empty, yet passed over"
            arrivals = [arrived for _, arrived in self._levels[level]]
            assert arrivals == sorted(arrivals), f"{level.name} is not in order of arrival"
        assert not self._passed[Priority.SYSTEM], "SYSTEM is never passed over"
        assert not self._passed[Priority.HIGH], "nothing of the user's is above HIGH"

    def __repr__(self) -> str:
        depths = ", ".join(f"{level.name.lower()} {len(self._levels[level])}" for level in Priority)
        return f"<PriorityMailbox {depths}, capacity {self.capacity}>"
