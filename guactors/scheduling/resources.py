"""Arithmetic of resources: exact amounts, and the pool of one provider.

Owns: the step of 0.0001 in which amounts are counted, and the sums. Must never: know who holds
what.

Amounts are integers of that step, because a pool that takes and gives 0.1 often enough in floats
ends up with a CPU that is never quite free.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

STEP = 10_000
"""Steps per unit."""

LIGHT = ""
"""Places for leases that ask for nothing; hidden. Without a bound, a caller that says
``num_cpus=0`` and has a long queue would get a process per call."""
LIGHT_PLACES = 64
LIGHT_PER_CPU = 16

Units = tuple[tuple[str, int], ...]
"""Sorted (name, steps) pairs without zeros: hashable, so that equal shapes share a queue."""


def to_units(resources: Mapping[str, float], *, cpu: float = 0.0) -> Units:
    """Exact amounts; ``cpu`` is what an absent ``CPU`` means."""
    return _to_units(tuple(resources.items()), cpu)


@lru_cache(10_000)
def _to_units(resources: tuple[tuple[str, float], ...], cpu: float) -> Units:
    amounts = {"CPU": cpu, **dict(resources)}
    steps = ((name, round(amount * STEP)) for name, amount in sorted(amounts.items()))
    return tuple((name, amount) for name, amount in steps if amount > 0)


@lru_cache(10_000)
def yielded(units: Units) -> Units:
    """What a task gives to others while it waits: processors, or its place without any. What is in
    its memory, or on a device, stays there."""
    return tuple((name, amount) for name, amount in units if name in ("CPU", LIGHT))


def overlap(one: Units, other: Units) -> bool:
    """Whether taking one could leave less for the other."""
    names = {name for name, _ in one}
    return any(name in names for name, _ in other)


class Pool:
    """What a provider has and how much of it is taken."""

    __slots__ = ("total", "used")

    def __init__(self, total: Mapping[str, float]) -> None:
        self.total: dict[str, int] = {}
        self.used: dict[str, int] = {}
        self.resize(total)

    @classmethod
    def of(cls, units: Units) -> Pool:
        """One that has just this."""
        made = cls({})
        made._refill(dict(units))
        return made

    def copy(self) -> Pool:
        """One that is as full."""
        made = Pool.__new__(Pool)
        made.total, made.used = dict(self.total), dict(self.used)
        return made

    def resize(self, total: Mapping[str, float]) -> None:
        """A new inventory; what is taken stays taken, even if that is now more than there is."""
        self._refill(dict(to_units(total)))

    def _refill(self, total: dict[str, int]) -> None:
        self.total = total
        cpus = self.total.get("CPU", 0) // STEP
        self.total[LIGHT] = (LIGHT_PLACES + LIGHT_PER_CPU * cpus) * STEP
        for name in self.total:
            self.used.setdefault(name, 0)

    def holds(self, units: Units) -> bool:
        """Whether the empty pool would be enough."""
        return all(self.total.get(name, 0) >= amount for name, amount in units)

    def fits(self, units: Units) -> bool:
        """Whether what is free is enough."""
        total, used = self.total, self.used
        for name, amount in units:  # noqa: SIM110 - asked for every provider with news
            if total.get(name, 0) - used.get(name, 0) < amount:
                return False
        return True

    def take(self, units: Units) -> None:
        """Count it as taken, whether it fits or not."""
        for name, amount in units:
            self.used[name] = self.used.get(name, 0) + amount

    def give(self, units: Units) -> None:
        """The opposite of take."""
        for name, amount in units:
            self.used[name] -= amount

    def load_with(self, units: Units) -> float:
        """How full the fullest of the wanted resources would be, 0 to 1 (more when overbooked)."""
        fullest = 0.0
        for name, amount in units:
            total = self.total.get(name, 0)
            share = (self.used.get(name, 0) + amount) / total if total else 1.0
            fullest = max(fullest, share)
        return fullest

    def shortage(self) -> dict[str, int]:
        """What is taken beyond what there is."""
        return {
            name: amount - self.total.get(name, 0)
            for name, amount in self.used.items()
            if amount > self.total.get(name, 0)
        }

    def overbooked(self) -> bool:
        """Whether more is taken than there is."""
        return any(amount > self.total.get(name, 0) for name, amount in self.used.items())

    def free(self) -> dict[str, float]:
        """What is free, never below zero."""
        return {
            name: max(0, total - self.used.get(name, 0)) / STEP
            for name, total in self.total.items()
            if name != LIGHT
        }

    def amounts(self) -> dict[str, float]:
        """All there is."""
        return {name: total / STEP for name, total in self.total.items() if name != LIGHT}
