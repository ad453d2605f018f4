"""What would happen if something were asked for now.

Owns: the dry run. Must never: change anything, or decide by itself: it calls ``choose`` and
``make_plan``, as those who act do, in the order in which they do, on a sketch of the desk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from itertools import islice
from typing import NamedTuple

from guactors.scheduling import placement
from guactors.scheduling.desk import Caller, Desk
from guactors.scheduling.explaining import Kept, Miss, Question, misses
from guactors.scheduling.heap import Turn
from guactors.scheduling.index import Kind
from guactors.scheduling.keepers import Keepers
from guactors.scheduling.leases import Lease, LeaseState
from guactors.scheduling.placement import Need, Slot, choose
from guactors.scheduling.preemption import Plan, Victim, make_plan
from guactors.scheduling.seats import SUSPEND
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
        self._true = desk
        self._copies = {slot: _copy(slot) for slot in desk.slots.values()}
        self._found: dict[Need, dict[Slot, None]] = {}
        self._nearest: dict[Kind, Slot | None] = {}
        self.slots = {slot.peer: copied for slot, copied in self._copies.items()}
        self.seats = desk.seats.sketch(self._copies)
        self.permission = desk.permission.sketch()
        self.leases, self.actors = copy(desk.leases), copy(desk.actors)
        self.leases.by_id = dict(desk.leases.by_id)
        self.actors.live = dict(desk.actors.live)

    def candidates(self, need: Need) -> Collection[Slot]:
        """The copies of the true desk's."""
        found = self._found.get(need)
        if found is None:
            true = self._true.candidates(need)
            found = self._found[need] = {self._copies[slot]: None for slot in true}
        return found

    def giving_way(self, need: Need, priority: int, most: int) -> list[Slot]:
        """As of the true desk, by the room there is on the sketch."""
        enough, hold = self.seats.enough, need.hold
        there = (x for x in self.candidates(need) if enough(x, hold, priority))
        return list(islice(there, most))

    def copied(self, kept: Kept) -> Kept:
        """With the copies of these providers."""
        return [(need, self._copies[slot]) for need, slot in kept if slot in self._copies]

    def is_nearest(self, kind: Kind, slot: Slot) -> bool:
        """As in Index, by the room there is on the sketch."""
        if kind not in self._nearest:
            hold = kind.need.hold
            there = [
                self._copies[x]
                for x in kind.candidates()
                if x in self._copies and x.up and not x.closed
            ]
            self._nearest[kind] = min(
                there, key=lambda one: (one.pool.load_with(hold), one.order), default=None
            )
        return self._nearest[kind] is slot

    def settle(self, need: Need, slot: Slot, caller: str, now: float) -> None:
        """A lease of this need has its place here."""
        lease = Lease(
            f"planned-{len(self.leases.by_id)}", "", caller, "", need, slot,
            LeaseState.STARTING, now,
        )  # fmt: skip
        self.leases.by_id[lease.id] = lease
        slot.leases.add(lease.id)
        slot.pool.take(need.hold)
        self.permission.take(need)
        self._nearest.clear()

    def yields(self, victim: Victim, slot: Slot, priority: int, now: float) -> None:
        """It has given way."""
        own = victim.tenant
        self._nearest.clear()
        self.seats.spend(own, slot)
        if victim.mode != SUSPEND:
            slot.pool.give(own.taken())
            slot.leases.discard(own.id)
            slot.actors.discard(own.id)
            self.permission.give(own.need)
            return
        still: Tenant = copy(own)
        still.suspension = Suspension(0, "", priority, now)
        after = dict(still.taken())
        slot.pool.give(tuple(pair for pair in own.taken() if pair[0] not in after))
        if isinstance(still, Lease):
            self.leases.by_id[still.id] = still
        else:
            self.actors.live[still.id] = still


def _copy(slot: Slot) -> Slot:
    made = copy(slot)
    made.pool = slot.pool.copy()
    made.leases, made.actors = set(slot.leases), set(slot.actors)
    return made


class Rehearsal:
    """One dry run; ``claimed``: room kept for placement groups."""

    def __init__(
        self, desk: Desk, claimed: Kept, need: Need, count: int, caller: Caller, now: float
    ) -> None:
        desk.lines.settle()
        self._desk = Sketch(desk)
        self._keepers = Keepers(desk.lines, self._desk.copied(claimed), now, self._desk.is_nearest)
        self._need = need
        self._names = frozenset(name for name, _ in need.hold)
        self._count = count
        self._caller = caller
        self._now = now
        self._places: list[Plan] = []

    def run(self) -> Outlook:
        """As the scheduler: first what has room, then what others give way for; what gave way may
        have given more than was needed."""
        self._place()
        while self._displace():
            self._place()
        found, desk, need = self._places, self._desk, self._need
        if len(found) == self._count:
            return Outlook(found)
        question = Question(need, self._caller.peer, self._caller, self._keeper)
        never = "" if desk.candidates(need) else _never(desk, need, self._now)
        missing = self._count - len(found)
        return Outlook(found, missing, misses(desk, question, self._now), never)

    def _wanted(self) -> bool:
        within = self._desk.permission.within_quota
        return len(self._places) < self._count and within(self._need, self._now)

    def _turn(self) -> Turn:
        return self._desk.demands.next_turn(self._caller.peer, len(self._places))

    def _keeper(self, slot: Slot) -> int | None:
        return self._keepers.of(slot, self._need, self._names, self._turn())

    def _place(self) -> None:
        desk, need = self._desk, self._need
        while self._wanted():
            there = desk.candidates(need)
            fits = [slot for slot in there if slot.pool.fits(need.hold)]
            closed = {slot.peer for slot in fits if self._keeper(slot) is not None}
            slot = choose(there, need, closed)
            if slot is None:
                return
            self._take(Plan(slot, ()))

    def _displace(self) -> bool:
        displaced = False
        while self._wanted():
            found = make_plan(self._desk, self._need, self._now, caller=self._caller.peer)
            if found is None:
                break
            for victim in found.victims:
                self._desk.yields(victim, found.slot, self._need.priority, self._now)
            self._take(found)
            displaced = True
        return displaced

    def _take(self, place: Plan) -> None:
        self._places.append(place)
        self._desk.settle(self._need, place.slot, self._caller.peer, self._now)
        self._keepers.forget()


def plan(desk: Desk, claimed: Kept, need: Need, count: int, caller: Caller, now: float) -> Outlook:
    """Where ``count`` places of this need would be, were they asked for by ``caller`` now.
    ``claimed``: room kept for placement groups."""
    return Rehearsal(desk, claimed, need, count, caller, now).run()


def _never(desk: Desk, need: Need, now: float) -> str:
    """Why no provider could ever do it, as its caller would be told."""
    could = [slot for slot in desk.slots.values() if placement.feasible(slot, need)]
    denied = desk.permission.explain(need, could, now)
    return denied.detail if denied is not None else placement.explain(desk.slots.values(), need)
