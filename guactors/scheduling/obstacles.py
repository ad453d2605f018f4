"""What keeps something from a provider though its amounts could be had there, in words.

Owns: the sentences about neighbours and reservations. Must never: decide anything, or name to a
caller what is not its principal's.
"""

from __future__ import annotations

from guactors.scheduling.company import in_the_way
from guactors.scheduling.desk import Caller, Desk
from guactors.scheduling.naming import names, time_text
from guactors.scheduling.placement import Need, Slot, written


def unwelcome(desk: Desk, slot: Slot, need: Need, viewer: Caller) -> str:
    """Who is there from whom it is to be apart, or that nobody is to whom it is to be near."""
    own = need.company
    assert own is not None, f"{need} is welcome everywhere"
    there = [x for x in map(desk.tenant, sorted({*slot.leases, *slot.actors})) if x is not None]
    others = [
        x for x in there
        if x.need.who == need.who and x.need.company and in_the_way(own, x.need.company)
    ]  # fmt: skip
    if others:
        return f"{names(desk, viewer, others)} is there, from which it is to be apart"
    return f"no work of labels {written(own.near)} is there to be near to"


def reserved(slot: Slot, need: Need) -> str:
    """The reservations but for which there would be room; empty where it is not they."""
    held: dict[str, int] = {}
    found = []
    for bundle in slot.bundles:
        spec = bundle.group.reservation
        if spec is not None:
            found.append(f"{spec.name} until {time_text(spec.end)}")
            for name, amount in bundle.need.hold:
                held[name] = held.get(name, 0) + amount
    pool = slot.pool
    room = all(
        pool.total.get(name, 0) - pool.used.get(name, 0) + held.get(name, 0) >= amount
        for name, amount in need.hold
    )
    return f"its room is reserved: {', '.join(found)}" if found and room else ""
