"""Items by a rank that changes.

Owns: a heap that forgets old ranks, and what a rank is. Must never: know what the items are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Rank = tuple[float, int, int]
"""(held or used, last turn, order of arrival)."""
DemandRank = tuple[float, int, int, int]
"""(when it must have ended, held, last turn, order of arrival)."""
Turn = tuple[Rank, Rank, DemandRank]
"""Of the session, of the caller, and of its demand."""
R = TypeVar("R", Rank, DemandRank, Turn)


class Heap(Generic[T, R]):
    """Items by rank, where an item's newest rank counts: a heap with entries that are skipped when
    they are out of date, and swept when they are many."""

    __slots__ = ("_entries", "_ranks")

    def __init__(self) -> None:
        self._entries: list[tuple[R, T]] = []
        self._ranks: dict[T, R] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def __iter__(self) -> Iterator[T]:
        return iter(self._ranks)

    def entries(self) -> int:
        """With those that are out of date."""
        return len(self._entries)

    def put(self, item: T, rank: R) -> None:
        """Enter it, or change its rank."""
        if self._ranks.get(item) == rank:
            return
        self._ranks[item] = rank
        heapq.heappush(self._entries, (rank, item))
        if len(self._entries) > 2 * len(self._ranks) + 64:
            self._entries = [(rank, item) for item, rank in self._ranks.items()]
            heapq.heapify(self._entries)

    def drop(self, item: T) -> None:
        """It is here no longer."""
        self._ranks.pop(item, None)

    def peek(self) -> tuple[R, T] | None:
        """The item of the lowest rank."""
        while self._entries:
            rank, item = self._entries[0]
            if self._ranks.get(item) == rank:
                return rank, item
            heapq.heappop(self._entries)
        return None
