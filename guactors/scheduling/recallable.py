"""Leases that were not asked back yet, and who holds how many.

Owns: these two indices. Must never: judge whether a lease may be asked back (``recall`` does).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from guactors.scheduling.levels import Level
from guactors.scheduling.placement import Need, Slot

if TYPE_CHECKING:
    from guactors.scheduling.index import Kind
    from guactors.scheduling.leases import Lease

K = TypeVar("K")
Held = dict[Need, dict[str, "Lease"]]
"""Leases of one caller by need and id, in the order they came."""


class Recallable:
    """Leases by priority, caller and need."""

    def __init__(self) -> None:
        self._levels: dict[int, dict[str, Held]] = {}
        self._ages: dict[int, dict[str, Lease]] = {}
        """By priority, in the order they came."""
        self._slots: dict[int, Level] = {}
        """By priority, where they are."""
        self.recalled: dict[str, Lease] = {}
        """Those that were asked back and have not come yet."""
        self.going: dict[str, int] = {}
        """How many of these each caller has."""
        self._coming: dict[str, Lease] = {}
        """Those of them that may still come soon."""
        self._coming_for: dict[Need, int] = {}

    def add(self, lease: Lease) -> None:
        """A new one."""
        callers = self._levels.setdefault(lease.need.priority, {})
        callers.setdefault(lease.caller, {}).setdefault(lease.need, {})[lease.id] = lease
        self._ages.setdefault(lease.need.priority, {})[lease.id] = lease
        self._slots.setdefault(lease.need.priority, Level()).put(lease.slot)

    def remove(self, lease: Lease) -> None:
        """It ended."""
        if self.recalled.pop(lease.id, None) is None:
            self._take_out(lease)
        else:
            count(self.going, lease.caller, -1)
            self._came(lease)

    def recall(self, lease: Lease, need: Need, now: float) -> None:
        """It was asked back, perhaps once more."""
        if lease.id not in self.recalled:
            self._take_out(lease)
            self.recalled[lease.id] = lease
            count(self.going, lease.caller, 1)
        self._came(lease)
        lease.recalled_at, lease.recalled_for = now, need
        self._coming[lease.id] = lease
        count(self._coming_for, need, 1)

    def _came(self, lease: Lease) -> None:
        if self._coming.pop(lease.id, None) is not None and lease.recalled_for is not None:
            count(self._coming_for, lease.recalled_for, -1)

    def coming(self, need: Need, since: float) -> int:
        """How many were asked back for the need after that time and may still come."""
        while self._coming:
            lease = next(iter(self._coming.values()))
            if lease.recalled_at is not None and lease.recalled_at > since:
                break
            self._came(lease)
        return self._coming_for.get(need, 0)

    def _take_out(self, lease: Lease) -> None:
        need = lease.need
        callers, ages = self._levels[need.priority], self._ages[need.priority]
        del ages[lease.id]
        self._slots[need.priority].drop(lease.slot)
        held = callers[lease.caller]
        own = held[need]
        del own[lease.id]
        if not own:
            del held[need]
            if not held:
                del callers[lease.caller]
                if not callers:
                    del self._levels[need.priority], self._ages[need.priority]
                    del self._slots[need.priority]

    def up_to(self, priority: int) -> list[dict[str, Held]]:
        """By caller, those of each priority that is no higher, the lowest first."""
        return [self._levels[level] for level in sorted(self._levels) if level <= priority]

    def below(self, priority: int) -> bool:
        """Whether there is one of a lower priority."""
        return min(self._levels, default=priority) < priority

    def below_on(self, kind: Kind, priority: int) -> bool:
        """Whether there is one on a candidate of the kind, which is up to date."""
        levels = (level for key, level in self._slots.items() if key < priority)
        return any(level.some(kind, _any, 1) for level in levels)

    def any_of(self, priority: int) -> bool:
        """Whether there is one of that priority."""
        return priority in self._ages

    def oldest(self, priority: int, most: int) -> list[Lease]:
        """Those of that priority that came first."""
        return list(islice(self._ages.get(priority, {}).values(), most))

    def holders(self, priority: int) -> Collection[str]:
        """Whose they are."""
        return self._levels.get(priority, ())

    def count(self) -> int:
        """How many were not asked back."""
        every = (held for callers in self._levels.values() for held in callers.values())
        return sum(len(own) for held in every for own in held.values())


def _any(_slot: Slot) -> bool:
    return True


def count(counts: dict[K, int], key: K, by: int) -> None:
    """So many more; what comes to none is not listed."""
    after = counts.get(key, 0) + by
    if after:
        counts[key] = after
    else:
        counts.pop(key, None)


class Holders:
    """Callers by how many leases they hold."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._callers: dict[int, dict[str, None]] = {}

    def change(self, caller: str, by: int) -> None:
        """It holds so many more, or less when negative."""
        before = self._count.get(caller, 0)
        if before:
            there = self._callers[before]
            del there[caller]
            if not there:
                del self._callers[before]
        after = before + by
        if after:
            self._count[caller] = after
            self._callers.setdefault(after, {})[caller] = None
        else:
            del self._count[caller]

    def held(self, caller: str) -> int:
        """How many it holds."""
        return self._count.get(caller, 0)

    def counts(self) -> dict[str, int]:
        """By caller."""
        return self._count

    def most_first(self) -> Iterator[tuple[str, int]]:
        """Those with the most first."""
        for held in sorted(self._callers, reverse=True):
            for caller in self._callers[held]:
                yield caller, held
