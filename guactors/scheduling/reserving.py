"""Room of providers that is set aside for placement groups, in the books.

Owns: the few operations that keep pools, bundles and quotas in step. Must never: decide anything.
"""

from __future__ import annotations

from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.desk import Desk
from guactors.scheduling.groups import Bundle
from guactors.scheduling.leases import Lease
from guactors.scheduling.placement import Slot


def set_aside(desk: Desk, bundle: Bundle, slot: Slot) -> None:
    """Book the bundle on a provider."""
    bundle.slot, bundle.home = slot, ""
    slot.bundles[bundle] = None
    desk.take(slot, bundle.need.hold, bundle.group.spec.session)
    desk.permission.reserve(bundle.need)


def free_again(desk: Desk, bundle: Bundle) -> None:
    """The bundle, in which nothing is any more, is on no provider."""
    slot = bundle.slot
    if slot is not None:
        bundle.slot = None
        bundle.forced = False
        del slot.bundles[bundle]
        desk.give(slot, bundle.need.hold, bundle.group.spec.session)
        desk.permission.release(bundle.need)
        desk.allowance.freed(bundle.need.who)


def seize(desk: Desk, bundle: Bundle, slot: Slot) -> None:
    """Book the bundle, fitting or not: others get nothing more of it, and what they still hold of
    it comes to it when they end."""
    set_aside(desk, bundle, slot)
    slot.forced = slot.forced or slot.pool.overbooked()


def move_out(desk: Desk, thing: Lease | ActorRecord) -> None:
    """What runs in a bundle goes on beside it, on the same provider."""
    bundle = thing.bundle
    if bundle is None or bundle.slot is None:
        return
    units = thing.taken()
    (bundle.leases if isinstance(thing, Lease) else bundle.actors).discard(thing.id)
    bundle.pool.give(units)
    thing.bundle = None
    desk.seats.update(thing)
    desk.take(bundle.slot, units, _session(thing))
    bundle.slot.forced = bundle.slot.forced or bundle.slot.pool.overbooked()


def move_in(desk: Desk, thing: Lease | ActorRecord, bundle: Bundle) -> None:
    """What already runs on the bundle's provider, and belongs into it, takes its room from it."""
    slot = bundle.slot
    if slot is None or thing.slot is not slot:
        return
    units = thing.taken()
    desk.give(slot, units, _session(thing))
    thing.bundle = bundle
    desk.seats.update(thing)
    bundle.pool.take(units)
    bundle.forced = bundle.forced or bundle.pool.overbooked()
    (bundle.leases if isinstance(thing, Lease) else bundle.actors).add(thing.id)


def _session(thing: Lease | ActorRecord) -> str:
    return thing.session if isinstance(thing, Lease) else thing.spec.session
