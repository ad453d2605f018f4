"""That something stands still for others: since when, for whom, and how far that has come.

Owns: the record of a suspension, the index of what stands still on which provider, and of which
providers have work of which priority. Must never: decide who is suspended (``preemption`` does), or
touch a pool (``suspending`` does).

What stands still gives its processors to others and keeps all else: memory, devices, its place.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING, Union

from guactors.messages import Standing
from guactors.scheduling.company import in_the_way
from guactors.scheduling.resources import overlap, yielded

if TYPE_CHECKING:
    from guactors.scheduling.actors import ActorRecord
    from guactors.scheduling.leases import Lease
    from guactors.scheduling.placement import Need, Slot

Tenant = Union["Lease", "ActorRecord"]
"""What holds room on a provider."""


class Phase(enum.Enum):
    """How far a suspension has come."""

    ASKED = "asked"
    """Its provider was told; it runs until it says Suspended."""
    STILL = "still"


@dataclass(slots=True)
class Suspension:
    """``number``: as in messages.Suspend. ``by``: the lease or actor for which it gave way, empty
    where that is not known any more; ``priority`` of that. ``since``: monotonic seconds."""

    number: int
    by: str
    priority: int
    since: float
    phase: Phase = Phase.ASKED

    def word(self, wall: Callable[[float], float]) -> Standing:
        """For callers; ``wall`` turns ``since`` into epoch seconds."""
        return Standing(self.by, wall(self.since), f"for work of priority {self.priority}")


class Seats:
    """Which providers have something of which priority, and of which company."""

    def __init__(self) -> None:
        self._at: dict[int, dict[Slot, int]] = {}
        self.altered: dict[Slot, None] = {}
        """Providers where company has come or gone, until somebody has taken note."""

    def add(self, tenant: Tenant) -> None:
        """It holds room on its provider."""
        if tenant.slot is not None:
            there = self._at.setdefault(tenant.need.priority, {})
            there[tenant.slot] = there.get(tenant.slot, 0) + 1
            if tenant.need.company is not None:
                keep_company(tenant.slot, tenant.need, 1)
                self.altered[tenant.slot] = None

    def remove(self, tenant: Tenant) -> None:
        """It does no longer; called while it still has its slot."""
        if tenant.slot is None:
            return
        if tenant.need.company is not None:
            keep_company(tenant.slot, tenant.need, -1)
            self.altered[tenant.slot] = None
        there = self._at[tenant.need.priority]
        there[tenant.slot] -= 1
        if not there[tenant.slot]:
            del there[tenant.slot]
            if not there:
                del self._at[tenant.need.priority]

    def levels(self, most: int) -> list[int]:
        """Priorities up to this one, the lowest first."""
        return sorted(level for level in self._at if level <= most)

    def some(self, priority: int, most: int) -> list[Slot]:
        """Providers with something of this priority; where there are more than ``most``, others
        each time."""
        there = self._at[priority]
        found = list(islice(there, most))
        if len(there) > most:
            for slot in found:
                there[slot] = there.pop(slot)
        return found

    def sketch(self, copies: Mapping[Slot, Slot]) -> Seats:
        """One over copies of the providers."""
        made = Seats()
        for level, there in self._at.items():
            made._at[level] = {copies[x]: n for x, n in there.items() if x in copies}
        return made

    def check(self, tenants: list[Tenant]) -> None:
        """It counts all that is on a provider."""
        counted: dict[int, dict[Slot, int]] = {}
        for tenant in tenants:
            if tenant.slot is not None:
                there = counted.setdefault(tenant.need.priority, {})
                there[tenant.slot] = there.get(tenant.slot, 0) + 1
        assert counted == self._at, f"seats drifted: {counted} != {self._at}"


def keep_company(slot: Slot, need: Need, change: int) -> None:
    """Something of this need has come to the provider, or has gone."""
    if need.company is not None:
        key = need.who, need.company
        slot.company[key] = slot.company.get(key, 0) + change
        if not slot.company[key]:
            del slot.company[key]


def check_company(slot: Slot, tenants: Iterable[Tenant]) -> None:
    """It counts all that is there."""
    found = Counter((x.need.who, x.need.company) for x in tenants if x.need.company is not None)
    assert slot.company == found, f"{slot!r} has {found}, and counts {slot.company}"
    for (who, one), (other_who, other) in combinations(found.elements(), 2):
        assert who != other_who or not in_the_way(one, other), f"{slot!r} has {one} with {other}"


class StandingBook:
    """All suspended tenants, by provider; those of one in the order in which they were."""

    def __init__(self) -> None:
        self._there: dict[str, dict[str, Tenant]] = {}

    def __iter__(self) -> Iterator[Tenant]:
        for there in self._there.values():
            yield from there.values()

    def on(self, peer: str) -> list[Tenant]:
        """On this provider, those suspended for the longest time first."""
        return list(self._there.get(peer, {}).values())

    def keeps(self, peer: str, need: Need) -> bool:
        """Whether something stands still there that is to have room before the need is met."""
        return any(
            tenant.need.priority >= need.priority and overlap(yielded(tenant.need.hold), need.hold)
            for tenant in self._there.get(peer, {}).values()
        )

    def add(self, peer: str, tenant: Tenant) -> None:
        """It is suspended."""
        self._there.setdefault(peer, {})[tenant.id] = tenant

    def discard(self, peer: str, tenant: Tenant) -> None:
        """It is no longer, or not there."""
        there = self._there.get(peer)
        if there is not None:
            there.pop(tenant.id, None)
            if not there:
                del self._there[peer]

    def check(self, tenants: list[Tenant]) -> None:
        """Just those of all ``tenants`` that are suspended are in here, each where it is."""
        expected = {x.id: x.slot.peer for x in tenants if x.suspension and x.slot is not None}
        found = {key: peer for peer, there in self._there.items() for key in there}
        assert found == expected, f"suspended are {expected}, listed are {found}"
        assert all(self._there.values()), "an empty set of suspended ones was kept"
