"""Providers in an order that changes.

Owns: the log of what has happened to which provider, and the heap that takes it in. Must never:
know what makes one better than another: who makes a ranking says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace

from guactors.scheduling.placement import Slot

Rank = tuple[float, ...]
"""Its last element is the slot's order, so that no two slots have the same."""
Shut = Callable[[Slot], bool]

FEW = 8


class Log:
    """What happened to which slot, read by many, each from where it stopped."""

    __slots__ = ("_base", "_lines")

    def __init__(self) -> None:
        self._base = 0
        self._lines: list[Slot] = []

    @property
    def end(self) -> int:
        """The number of the next line."""
        return self._base + len(self._lines)

    def put(self, slot: Slot, most: int) -> None:
        """A line more; of the oldest beyond ``most`` half are thrown away."""
        self._lines.append(slot)
        if len(self._lines) > most:
            cut = len(self._lines) // 2
            del self._lines[:cut]
            self._base += cut

    def clear(self) -> None:
        """Throw all lines away."""
        self._base = self.end + 1
        self._lines.clear()

    def since(self, line: int) -> Iterable[Slot] | None:
        """From that line on; None if that is thrown away."""
        if line < self._base:
            return None
        fresh = self._lines[line - self._base :]
        return fresh if len(fresh) < 2 else dict.fromkeys(fresh)


class Ranking:
    """Slots in the order of ``rank``, which gives None to those that do not count now; a
    collection of all that may count."""

    __slots__ = ("_heap", "_queued", "_rank", "_seen", "_slots")

    def __init__(self, rank: Callable[[Slot], Rank | None], slots: Mapping[int, Slot]) -> None:
        self._rank = rank
        self._slots = slots
        self._heap: list[Rank] = []
        self._queued: dict[float, Rank] = {}
        """By the slot's order, its best entry in the heap: never worse than its true rank."""
        self._seen = -1

    def __len__(self) -> int:
        return len(self._queued)

    def __contains__(self, slot: object) -> bool:
        return isinstance(slot, Slot) and slot.order in self._queued

    def __iter__(self) -> Iterator[Slot]:
        """All that count, and some that did."""
        there = (self._slots.get(int(order)) for order in self._queued)
        return (slot for slot in there if slot is not None)

    def forget(self) -> None:
        """Everything is to be ranked anew."""
        self._seen = -1

    def catch_up(self, log: Log, members: Collection[Slot], found: Log | None = None) -> None:
        """Take in what the log says. ``found``: where to write those that count."""
        if self._seen == log.end:
            return
        fresh = log.since(self._seen) if self._seen >= 0 else None
        lag = log.end - self._seen
        self._seen = log.end
        if fresh is None or lag > len(members):
            ranks = [rank for slot in members if (rank := self._rank(slot)) is not None]
            heapify(ranks)
            self._heap, self._queued = ranks, {rank[-1]: rank for rank in ranks}
            if found is not None:
                found.clear()
            return
        for slot in fresh:
            rank = self._rank(slot)
            if rank is not None:
                before = self._queued.get(rank[-1])
                if before is None or rank < before:
                    self._queued[rank[-1]] = rank
                    heappush(self._heap, rank)
                if found is not None:
                    found.put(slot, len(members))

    def early(self) -> Iterator[Slot]:
        """Some of the first when it was last up to date, out of order."""
        for entry in self._heap[:FEW]:
            slot = self._slots.get(int(entry[-1]))
            if slot is not None:
                yield slot

    def first(self, shut: Shut | None = None) -> Slot | None:
        """The best of those that are not ``shut``."""
        heap, queued, aside = self._heap, self._queued, []
        found = None
        while heap:
            entry = heap[0]
            order = entry[-1]
            if queued.get(order) is not entry:
                heappop(heap)
                continue
            slot = self._slots.get(int(order))
            rank = None if slot is None else self._rank(slot)
            if slot is None or rank is None:
                heappop(heap)
                del queued[order]
            elif rank != entry:
                queued[order] = rank
                heapreplace(heap, rank)
            elif shut is not None and shut(slot):
                aside.append(heappop(heap))
            else:
                found = slot
                break
        for entry in aside:
            heappush(heap, entry)
        return found
