"""Leases as the hub knows them, and the indices over them.

Owns: the record of a lease, by id and by caller. Must never: grant or end one (``lease_rules``
does), or touch a pool.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from guactors.messages import Endpoint
from guactors.scheduling.groups import Bundle
from guactors.scheduling.placement import Need, Slot
from guactors.scheduling.recallable import Holders, Recallable
from guactors.scheduling.resources import Units, yielded
from guactors.scheduling.standing import Suspension
from guactors.scheduling.thrash import Past


class LeaseState(enum.Enum):
    """A lease's life."""

    STARTING = "starting"
    """StartLease is on its way, nobody works with it yet."""
    GRANTED = "granted"
    """The caller has it."""
    UNCLAIMED = "unclaimed"
    """A provider reports it; its caller has until ``deadline`` to say that it holds it."""
    MISSING = "missing"
    """The caller has it, its provider came back without it; the death is awaited until
    ``deadline``."""


@dataclass(eq=False, slots=True)
class Lease:
    """One lease. ``key`` is empty while the demand it came from is unknown (after a hub
    restart)."""

    id: str
    session: str
    caller: str
    key: str
    need: Need
    slot: Slot
    state: LeaseState
    since: float
    """When it was granted, or sent to start."""
    slot_epoch: int = 0
    """The provider's link on which StartLease went out."""
    caller_epoch: int = 0
    """The caller's link on which LeaseGranted went out."""
    worker: str = ""
    endpoints: list[Endpoint] = field(default_factory=list)
    blocked: bool = False
    due: float = math.inf
    """When what it runs must have ended, as its caller says."""
    recalled_at: float | None = None
    recalled_for: Need | None = None
    deadline: float = 0.0
    bundle: Bundle | None = None
    """Of a placement group, from which it takes its room."""
    suspension: Suspension | None = None
    displaced: int = 0
    """How often it has given way."""
    last_number: int = 0
    """Of its latest suspension."""
    steady: float = 0.0
    """Until then it is not asked to give way: it could not."""
    brief: bool = False
    """Others gave way for it."""
    past: Past | None = None
    """Of what gave way before."""
    displaces: tuple[str, ...] = ()
    """The leases and actors that gave way for it."""

    @property
    def idle(self) -> bool:
        """Whether it takes no processor now."""
        return self.blocked or self.suspension is not None

    def taken(self) -> Units:
        """What it takes now."""
        free = dict(yielded(self.need.hold)) if self.idle else {}
        return tuple(pair for pair in self.need.hold if pair[0] not in free)


class LeaseBook:
    """All leases, by id and by caller; both in the order they came."""

    def __init__(self) -> None:
        self.by_id: dict[str, Lease] = {}
        self._by_caller: dict[str, dict[str, Lease]] = {}
        self.holders = Holders()
        """Callers by how many leases of theirs take room now."""
        self.recallable = Recallable()
        self.keyless: dict[str, dict[str, Lease]] = {}
        """By caller, those whose demand was unknown when they came."""

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self.by_id.values())

    def add(self, lease: Lease) -> None:
        """A new one."""
        self.by_id[lease.id] = lease
        self._by_caller.setdefault(lease.caller, {})[lease.id] = lease
        lease.slot.leases.add(lease.id)
        self.recallable.add(lease)
        if not lease.key:
            self.keyless.setdefault(lease.caller, {})[lease.id] = lease
        if not lease.idle:
            self.holders.change(lease.caller, 1)

    def remove(self, lease: Lease) -> None:
        """One that ended."""
        del self.by_id[lease.id]
        lease.slot.leases.discard(lease.id)
        own = self._by_caller[lease.caller]
        del own[lease.id]
        if not own:
            del self._by_caller[lease.caller]
        self.recallable.remove(lease)
        if lease.id in self.keyless.get(lease.caller, ()):
            del self.keyless[lease.caller][lease.id]
            if not self.keyless[lease.caller]:
                del self.keyless[lease.caller]
        if not lease.idle:
            self.holders.change(lease.caller, -1)

    def changed(self, lease: Lease, was_idle: bool) -> None:
        """It was blocked or suspended, or is no longer: then it does not count as held."""
        if lease.idle == was_idle:
            return
        self.holders.change(lease.caller, -1 if lease.idle else 1)

    def held(self, caller: str) -> int:
        """How many leases of the caller take room now."""
        return self.holders.held(caller)

    def of_caller(self, caller: str) -> list[Lease]:
        """Its leases, oldest first."""
        return list(self._by_caller.get(caller, {}).values())

    def check(self) -> None:
        """The indices agree."""
        counted: dict[str, int] = {}
        for lease in self:
            assert lease.id in lease.slot.leases, f"{lease.id} is not on {lease.slot!r}"
            assert self._by_caller[lease.caller][lease.id] is lease
            if not lease.idle:
                counted[lease.caller] = counted.get(lease.caller, 0) + 1
        known = self.holders.counts()
        assert counted == known, f"held counts drifted: {counted} != {known}"
        asked_back = {lease.id for lease in self if lease.recalled_at is not None}
        assert asked_back == self.recallable.recalled.keys()
        assert len(self) == self.recallable.count() + len(asked_back)
