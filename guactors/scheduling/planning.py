"""What would happen if something were asked for now.

Owns: the dry run. Must never: change anything, or decide by itself: it calls ``choose`` and
``make_plan``, as those who act do, in the order in which they do, on a sketch of the desk.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

from guactors.scheduling import placement
from guactors.scheduling.desk import Caller, Desk
from guactors.scheduling.explaining import Miss, Question, misses
from guactors.scheduling.keeping import Kept, kept_from
from guactors.scheduling.leases import Lease, LeaseState
from guactors.scheduling.placement import Need, Slot, choose, contends
from guactors.scheduling.preemption import SUSPEND, Plan, Victim, make_plan
from guactors.scheduling.standing import Suspension, Tenant


class Outlook(NamedTuple):
    """``places`` in the order in which they would be taken, ``missing`` of them would wait, for the
    reasons ``misses``; ``never``: why no provider that is there could ever do it."""

    places: list[Plan]
    missing: int = 0
    misses: Sequence[Miss] = ()
    never: str = ""


class Sketch(Desk):
    """A desk on which places can be taken, though nobody takes them. What is not about room is the
    true desk's own."""

    def __init__(self, desk: Desk) -> None:
        self.__dict__.update(desk.__dict__)
        self._feasible = {}
        self.slots = {peer: _sketch(slot) for peer, slot in desk.slots.items()}
        self.permission = desk.permission.sketch()
        self.leases, self.actors = copy(desk.leases), copy(desk.actors)
        self.leases.by_id = dict(desk.leases.by_id)
        self.actors.live = dict(desk.actors.live)

    def settle(self, need: Need, slot: Slot, caller: str, now: float) -> None:
        """A lease of this need has its place here."""
        lease = Lease(f"planned-{len(self.leases.by_id)}", "", caller, "", need, slot,
                      LeaseState.STARTING, now)  # fmt: skip
        self.leases.by_id[lease.id] = lease
        slot.leases.add(lease.id)
        slot.pool.take(need.hold)
        self.permission.take(need)

    def yields(self, victim: Victim, slot: Slot, priority: int, now: float) -> None:
        """It has given way."""
        own = victim.tenant
        if victim.mode != SUSPEND:
            slot.pool.give(own.taken())
            slot.leases.discard(own.id)
            slot.actors.discard(own.id)
            self.permission.give(own.need)
            return
        still: Tenant = copy(own)
        still.suspension = Suspension(0, "", priority, now)
        before, after = dict(own.taken()), dict(still.taken())
        slot.pool.give(tuple((name, n) for name, n in before.items() if name not in after))
        if isinstance(still, Lease):
            self.leases.by_id[still.id] = still
        else:
            self.actors.live[still.id] = still


def _sketch(slot: Slot) -> Slot:
    made = copy(slot)
    made.pool = slot.pool.copy()
    made.leases, made.actors = set(slot.leases), set(slot.actors)
    return made


def plan(desk: Desk, claimed: Kept, need: Need, count: int, caller: Caller, now: float) -> Outlook:
    """Where ``count`` places of this need would be, were they asked for by ``caller`` now.
    ``claimed``: room kept for placement groups."""
    sketch = Sketch(desk)
    places: list[Plan] = []
    while len(places) < count and sketch.permission.within_quota(need, now):
        turn = desk.demands.next_turn(caller.peer, len(places))
        kept = kept_from(desk, claimed, need, turn, now)
        closed = {slot.peer for other, slot in kept if contends(other, need)}
        slot = choose(sketch.candidates(need), need, closed)
        if slot is None:
            break
        places.append(Plan(slot, ()))
        sketch.settle(need, slot, caller.peer, now)
    kept = kept_from(desk, claimed, need, desk.demands.next_turn(caller.peer, len(places)), now)
    closed = {
        slot.peer for other, slot in kept
        if other.priority > need.priority and contends(other, need)
    }  # fmt: skip
    while len(places) < count and sketch.permission.within_quota(need, now):
        found = make_plan(sketch, need, now, caller=caller.peer, closed=closed)
        if found is None:
            break
        places.append(found)
        for victim in found.victims:
            sketch.yields(victim, found.slot, need.priority, now)
        sketch.settle(need, found.slot, caller.peer, now)
    if len(places) == count:
        return Outlook(places)
    # On the sketch, the providers of what is kept are others than those of the desk.
    there = [(other, sketch.slots[slot.peer]) for other, slot in kept if slot.peer in sketch.slots]
    question = Question(need, caller.peer, caller, there)
    never = "" if sketch.candidates(need) else _never(sketch, need, now)
    return Outlook(places, count - len(places), misses(sketch, question, now), never)


def _never(desk: Desk, need: Need, now: float) -> str:
    """Why no provider could ever do it, as its caller would be told."""
    could = [slot for slot in desk.slots.values() if placement.feasible(slot, need)]
    denied = desk.permission.explain(need, could, now)
    return denied.detail if denied is not None else placement.explain(desk.slots.values(), need)
