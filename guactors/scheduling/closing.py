"""A machine whose owner has it back: what was there gives way, and returns or goes elsewhere.

Owns: what becomes of leases and actors when their provider is not lent, and when it is again. Must
never: place anything, or end what loses by it without its owner's word.

The owner's right goes before any word about preemption: what runs stands still at once, also what
is never to give way to others, for it loses nothing by that. What has not begun is placed
elsewhere. When the owner has been back for as long as he said, what may be requeued begins anew
where another provider could take it; the rest stands still until the machine is lent again.
"""

from __future__ import annotations

from guactors.messages import Availability, DeathReport
from guactors.scheduling.actor_rules import ActorRules
from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.desk import Desk
from guactors.scheduling.displacing import Displacing
from guactors.scheduling.lease_rules import LeaseRules
from guactors.scheduling.leases import Lease, LeaseState
from guactors.scheduling.placement import Slot
from guactors.scheduling.standing import Tenant

LOOK_AGAIN = 10.0
"""Seconds until it is asked again whether another provider could take what may leave."""
REQUEUE = "requeue"


class Closing:
    """Works on ``desk`` through the rules."""

    def __init__(
        self, desk: Desk, leases: LeaseRules, actors: ActorRules, displacing: Displacing
    ) -> None:
        self._desk = desk
        self._leases = leases
        self._actors = actors
        self._displacing = displacing

    def told(self, slot: Slot, word: Availability, now: float) -> None:
        """The provider says whether it is lent."""
        if word.lent:
            was_closed, slot.closed = slot.closed is not None, None
            slot.lent_until = word.until
            if was_closed:
                open_again(self._desk, slot)
                # Who waits in a placement group is served before who waits for a provider.
                there = self._desk.standing.on(slot.peer)
                self._displacing.bring_back([x for x in there if x.bundle is not None], now)
            return
        slot.closed = word
        for tenant in self._tenants(slot):
            self._give_way(tenant, slot, now)
        self._desk.agenda.put(now + word.leave_in, lambda then: self._leave(slot, word, then))

    def _tenants(self, slot: Slot) -> list[Tenant]:
        desk = self._desk
        leases: list[Tenant] = [desk.leases.by_id[x] for x in sorted(slot.leases)]
        return [*leases, *(desk.actors.live[x] for x in sorted(slot.actors))]

    def _give_way(self, tenant: Tenant, slot: Slot, now: float) -> None:
        if tenant.suspension is not None:
            return
        if isinstance(tenant, Lease):
            if tenant.state is LeaseState.STARTING:
                self._leases.end(tenant, kill=True)
                return
        elif tenant.stopping:
            return  # it ends, and its provider has been told
        elif tenant.state != "alive":
            self._actors.displace(tenant, DeathReport("requeued", _why(slot)), now)
            return
        self._displacing.close(tenant, slot, now)

    def _leave(self, slot: Slot, word: Availability, now: float) -> None:
        """It has been closed for long."""
        if slot.closed is not word or self._desk.slots.get(slot.peer) is not slot:
            return
        staying = False
        for tenant in self._tenants(slot):
            if tenant.bundle is not None or REQUEUE not in tenant.need.preemption:
                continue
            if self._could_go(tenant):
                self._displacing.end(tenant, REQUEUE, _why(slot), now)
            else:
                staying = True
        if staying:
            self._desk.agenda.put(now + LOOK_AGAIN, lambda then: self._leave(slot, word, then))

    def _could_go(self, tenant: Tenant) -> bool:
        """Whether some other provider that is there could take it, were it empty."""
        return any(slot.up and slot.open for slot in self._desk.candidates(tenant.need))


def open_again(desk: Desk, slot: Slot) -> None:
    """A provider that took nothing does so again."""
    desk.roomier[slot.peer] = slot
    desk.index.eased(slot)
    desk.demands.stir(*(bundle.group.id for bundle in slot.bundles))


def _why(slot: Slot) -> str:
    reason = slot.closed.reason if slot.closed is not None else ""
    return f"its provider {slot.name or slot.peer} is not available: {reason}"


def check(desk: Desk) -> None:
    """On a provider that is not lent nothing runs, but what is ending."""
    for slot in desk.slots.values():
        if slot.closed is None or not slot.offered:
            continue
        for key in (*slot.leases, *slot.actors):
            tenant = desk.tenant(key)
            ending = isinstance(tenant, ActorRecord) and tenant.stopping
            assert tenant is not None, f"{key} is not there"
            assert tenant.suspension is not None or ending, f"{key} runs on {slot!r}, not lent"
