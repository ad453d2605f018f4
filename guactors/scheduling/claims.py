"""Room for a placement group that waits: leases are asked back, and what comes free is kept for it.

Owns: for which group, on which providers. Must never: take anything by force, touch work of a
priority above a group's (0), or claim for more than one group at a time: two that each keep half of
the grid would both wait for ever.
"""

from __future__ import annotations

from guactors.scheduling.bundles import Want, arrange, free_now
from guactors.scheduling.desk import Desk
from guactors.scheduling.groups import Group
from guactors.scheduling.lease_rules import LeaseRules
from guactors.scheduling.leases import Lease, LeaseState
from guactors.scheduling.lines import SLICE
from guactors.scheduling.placement import Need, Slot, contends
from guactors.scheduling.recall import PATIENCE

MOST_TRIED = 8
"""Groups that are looked at, of those that wait longest."""


class Claims:
    """Works on ``desk``."""

    def __init__(self, desk: Desk, leases: LeaseRules) -> None:
        self._desk = desk
        self._leases = leases
        self._group: Group | None = None
        self._kept: list[tuple[Need, Slot]] = []

    def waits(self) -> bool:
        """Whether there may be somebody to claim for."""
        return bool(self._desk.groups.waiting)

    def kept(self) -> list[tuple[Need, Slot]]:
        """Providers that others must not take from, each with the need it is kept for."""
        group = self._group
        if group is None or group.blocked_since is None:
            return []
        if self._desk.groups.live.get(group.id) is not group:
            return []
        return [(need, slot) for need, slot in self._kept if slot.peer in self._desk.slots]

    def look(self, now: float) -> None:
        """Choose whom to claim for, and ask leases back for it: the oldest that could have room if
        all leases came back that may be asked for."""
        self._group, self._kept = None, []
        for group in self._desk.groups.oldest(MOST_TRIED):
            if group.blocked_since is not None and now - group.blocked_since >= SLICE:
                self._kept = self._could_have(group, now)
                if self._kept:
                    self._group = group
                    break
        for need, slot in self._kept:
            if not slot.pool.fits(need.hold):
                self._recall(need, slot, now)

    def _could_have(self, group: Group, now: float) -> list[tuple[Need, Slot]]:
        missing = group.unplaced()
        if not self._desk.permission.all_within([b.need for b in missing], now):
            return []  # it waits for its quota, which nobody else's lease would give back
        wants = [Want(b.need.hold, self._desk.candidates(b.need)) for b in missing]
        if not all(want.slots for want in wants):
            return []
        found = arrange(wants, group.spec.strategy, group.beside(), self._free_after)
        return [(b.need, slot) for b, slot in zip(missing, found or (), strict=False)]

    def _free_after(self, slot: Slot, name: str) -> int:
        """What would be free if all leases came back that may be asked for."""
        free = free_now(slot, name)
        if slot.closed:
            return free  # nothing that comes back there is for others
        for lease in self._recallable(slot):
            free += dict(lease.taken()).get(name, 0)
        return free

    def _recallable(self, slot: Slot) -> list[Lease]:
        leases = (self._desk.leases.by_id[x] for x in sorted(slot.leases))
        return [x for x in leases if x.bundle is None and x.need.priority <= 0]

    def _recall(self, need: Need, slot: Slot, now: float) -> None:
        for lease in self._recallable(slot):
            asked = lease.recalled_at is not None and lease.recalled_at > now - PATIENCE
            if lease.state is LeaseState.GRANTED and not asked and contends(need, lease.need):
                self._leases.recall(lease, need, now)
