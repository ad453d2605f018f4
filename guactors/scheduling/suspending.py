"""Leases and actors that begin or cease to stand still, in the books.

Owns: the operations that keep pools, counts and the index in step. Must never: decide anything.
"""

from __future__ import annotations

from guactors.scheduling.desk import Desk
from guactors.scheduling.leases import Lease
from guactors.scheduling.resources import yielded
from guactors.scheduling.standing import Suspension, Tenant


def suspend(desk: Desk, tenant: Tenant, suspension: Suspension) -> None:
    """It stands still, or is about to: what it yields is others' to take."""
    slot = tenant.slot
    assert slot is not None, f"{tenant.id} is nowhere"
    assert tenant.suspension is None, f"{tenant.id} stands still already"
    was_idle = isinstance(tenant, Lease) and tenant.idle
    tenant.suspension = suspension
    tenant.last_number = suspension.number
    tenant.displaced += 1
    desk.standing.add(slot.peer, tenant)
    if isinstance(tenant, Lease):
        desk.idleness(tenant, was_idle)
    else:
        desk.give(slot, yielded(tenant.need.hold), tenant.bundle)
    desk.seats.update(tenant)
    desk.pause_demands(tenant.worker, True)


def resume(desk: Desk, tenant: Tenant) -> None:
    """It runs, fitting or not."""
    slot = tenant.slot
    if tenant.suspension is None or slot is None:
        return
    was_idle = isinstance(tenant, Lease) and tenant.idle
    tenant.suspension = None
    desk.end_standing(tenant, slot)
    if isinstance(tenant, Lease):
        desk.idleness(tenant, was_idle)
    else:
        desk.take(slot, yielded(tenant.need.hold), tenant.bundle)
        (tenant.bundle or slot).forced = True
    desk.seats.update(tenant)
    desk.pause_demands(tenant.worker, False)
