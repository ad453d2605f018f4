"""That something stands still for others: since when, for whom, and how far that has come.

Owns: the record of a suspension, and the index of what stands still on which provider. Must never:
decide who is suspended (``preemption`` does), or touch a pool (``suspending`` does).

What stands still gives its processors to others and keeps all else: memory, devices, its place.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from guactors.messages import Standing
from guactors.scheduling.resources import yielded

if TYPE_CHECKING:
    from guactors.scheduling.actors import ActorRecord
    from guactors.scheduling.leases import Lease
    from guactors.scheduling.placement import Need

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
    where that is not known any more; ``priority`` of that. ``since``: monotonic seconds.
    ``closed``: why its provider is not lent, where that is why it stands still."""

    number: int
    by: str
    priority: int
    since: float
    phase: Phase = Phase.ASKED
    closed: str = ""

    @property
    def reason(self) -> str:
        """For people."""
        if self.closed:
            return f"its provider is not available: {self.closed}"
        return f"for work of priority {self.priority}"

    def word(self, wall: Callable[[float], float]) -> Standing:
        """For callers; ``wall`` turns ``since`` into epoch seconds."""
        return Standing(self.by, wall(self.since), self.reason)


class StandingBook:
    """All suspended tenants, by provider; those of one in the order in which they were."""

    def __init__(self) -> None:
        self._there: dict[str, dict[str, Tenant]] = {}
        self._tops: dict[str, dict[str, int]] = {}
        """By provider and resource, the highest priority of those that are to have that again."""
        self._count: dict[int, int] = {}
        """By priority, how many there are."""
        self.highest = -math.inf
        """Of these priorities."""

    def __iter__(self) -> Iterator[Tenant]:
        for there in self._there.values():
            yield from there.values()

    def on(self, peer: str) -> list[Tenant]:
        """On this provider, those suspended for the longest time first."""
        return list(self._there.get(peer, {}).values())

    def keeps(self, peer: str, need: Need) -> bool:
        """Whether something stands still there that is to have room before the need is met."""
        tops = self._tops.get(peer)
        if tops is None:
            return False
        return any(tops.get(name, -math.inf) >= need.priority for name, _ in need.hold)

    def add(self, peer: str, tenant: Tenant) -> None:
        """It is suspended."""
        self._there.setdefault(peer, {})[tenant.id] = tenant
        _raise(self._tops.setdefault(peer, {}), tenant)
        self._change(tenant.need.priority, 1)

    def discard(self, peer: str, tenant: Tenant) -> None:
        """It is no longer, or not there."""
        there = self._there.get(peer)
        if there is None or there.pop(tenant.id, None) is None:
            return
        self._change(tenant.need.priority, -1)
        del self._tops[peer]
        if not there:
            del self._there[peer]
            return
        tops = self._tops[peer] = {}
        for other in there.values():
            _raise(tops, other)

    def _change(self, priority: int, by: int) -> None:
        self._count[priority] = self._count.get(priority, 0) + by
        if not self._count[priority]:
            del self._count[priority]
        self.highest = max(self._count, default=-math.inf)

    def check(self, tenants: list[Tenant]) -> None:
        """Just those of all ``tenants`` that are suspended are in here, each where it is."""
        expected = {x.id: x.slot.peer for x in tenants if x.suspension and x.slot is not None}
        found = {key: peer for peer, there in self._there.items() for key in there}
        assert found == expected, f"suspended are {expected}, listed are {found}"
        assert all(self._there.values()), "an empty set of suspended ones was kept"
        expected_tops: dict[str, dict[str, int]] = {}
        for peer, there in self._there.items():
            for tenant in there.values():
                _raise(expected_tops.setdefault(peer, {}), tenant)
        assert expected_tops == self._tops, f"{self._tops} should be {expected_tops}"
        priorities = [x.need.priority for x in tenants if x.id in expected]
        assert self.highest == max(priorities, default=-math.inf)


def _raise(tops: dict[str, int], tenant: Tenant) -> None:
    priority = tenant.need.priority
    for name, _ in yielded(tenant.need.hold):
        tops[name] = max(priority, tops.get(name, priority))
