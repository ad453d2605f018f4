"""Room is made for what has a higher priority, and given back.

Owns: the life of a suspension: ordered with the start of the one for whom it is, confirmed by the
provider, undone where that fails, and ended when there is room again. Must never: choose a victim
(``preemption`` does).

Two phases. The hub books the newcomer on the provider and its victims as suspended, in one step: so
nothing else can take the room. The order to start carries their names; the provider makes them
stand still when the newcomer may begin. Where one does not stand still the newcomer is refused
(``not_displaced``), its room comes back, and the others go on.

Who stands still is the first in line: before everybody of its own priority or a lower one, the one
whose deadline is the next, or that has stood longest, before the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count, islice

from guactors.messages import (
    ActorSaved,
    DeathReport,
    Displaced,
    LeaseResumed,
    LeaseSuspended,
    Resume,
    Suspend,
    Suspended,
)
from guactors.scheduling.actor_rules import ActorRules
from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.desk import Desk
from guactors.scheduling.events import GaveWay, RoomName, ToRoom
from guactors.scheduling.groups import Bundle
from guactors.scheduling.lease_rules import LeaseRules
from guactors.scheduling.leases import Lease
from guactors.scheduling.placement import Need, Slot, contends
from guactors.scheduling.preemption import (
    CHECKPOINT,
    GAP,
    Plan,
    Victim,
    clearing,
    due,
    make_plan,
    since,
)
from guactors.scheduling.queues import Demand, Queue
from guactors.scheduling.resources import yielded
from guactors.scheduling.seats import MODES, SUSPEND
from guactors.scheduling.standing import Phase, Suspension, Tenant
from guactors.scheduling.suspending import resume, suspend
from guactors.scheduling.thrash import MAX_SUSPENDED, PRIORITY, Event, bequeath

STEADY = 10.0
"""Seconds for which one that could not stand still is left alone."""
MOST_AT_ONCE = 64
FEW = 8
"""Queues of one line that are tried again at a time."""
LOOK_AGAIN = 0.1
"""Seconds for which a queue for which nobody could give way is not tried again."""
MOST_IN_VAIN = 32
"""Searches in vain within that time, whoever they are for: then all wait."""


class Displacing:
    """Works on ``desk``."""

    def __init__(self, desk: Desk, leases: LeaseRules, actors: ActorRules) -> None:
        self._desk = desk
        self._leases = leases
        self._actors = actors
        self._numbers = count(1)
        self._vain_since = -LOOK_AGAIN
        self._vain = 0
        self._seen = -1
        """How many changes of the seats the last retry had heard of."""
        self._hopeful = False
        """Whether somebody may still give way for one of those that wait."""

    # --- making room ----------------------------------------------------------------------------

    def look(self, queues: Iterable[Queue], now: float) -> bool:
        """Make room for as many of these, which found none, as can be; the highest priority, and
        the best alternative, first. Whether something gave way."""
        desk, displaced = self._desk, False
        if now >= self._vain_since + LOOK_AGAIN:
            self._vain_since, self._vain = now, 0
        for queue in sorted(queues, key=_first):
            need = queue.need
            if self._vain >= MOST_IN_VAIN or not desk.seats.levels(need.priority - GAP):
                break
            if now < queue.spared_until or not self._hope(need):
                continue
            for _ in range(min(queue.waiting, MOST_AT_ONCE)):
                if not desk.allowance.within(need):
                    break
                demand = desk.demands.head(queue)
                plan = make_plan(desk, need, now, caller=demand.caller)
                if plan is None:
                    self._vain += 1
                    self._hopeful = True
                    queue.spared_until = now + LOOK_AGAIN
                    break
                self._displace(demand, plan, now)
                displaced = True
                if not queue.waiting:
                    break
        return displaced

    def _hope(self, need: Need) -> bool:
        """Whether somebody may give way for it; if not, that is news of the seats to tell."""
        desk, most = self._desk, need.priority - GAP
        return not need.wish.group and desk.seats.hope(desk.index.kind(need, desk.now), most)

    def retry(self) -> list[Queue]:
        """Queues for which somebody may give way by now, some of each line."""
        desk, found = self._desk, list[Queue]()
        seats = desk.seats
        if seats.changes == self._seen and not self._hopeful:
            return found
        self._seen = seats.changes
        lowest = seats.lowest()
        for line in desk.lines.down_to(lowest + GAP) if lowest is not None else ():
            if seats.hope(line.kind, line.priority - GAP):
                found += islice(line.queues, FEW)
        self._hopeful = bool(found)
        return found

    def _displace(self, demand: Demand, plan: Plan, now: float) -> None:
        priority = demand.need.priority
        displaces, events = [], []
        for victim, mode, *_ in plan.victims:
            number = next(self._numbers)
            displaces.append(Displaced(victim.id, number, mode))
            events.append(self._note(victim, mode, PRIORITY, priority, now))
            if mode == CHECKPOINT:
                word = Suspension(number, "", priority, now, ending=True)
                suspend(self._desk, victim, word)
            elif mode == SUSPEND:
                suspend(self._desk, victim, Suspension(number, "", priority, now))
                self._look_later(victim, number, now)
            else:
                self.end(victim, mode, f"it gave way to work of priority {priority}", now)
        rules = self._actors if demand.is_actor else self._leases
        winner = rules.start(demand, plan.need, plan.slot, now, displaces=displaces)
        started = self._desk.tenant(winner)
        if started is not None:
            started.displaces = tuple(word.key for word in displaces)
        for event in events:
            event.by = winner
        for victim, *_ in plan.victims:
            if victim.suspension is not None:
                victim.suspension.by = winner

    def _note(self, tenant: Tenant, mode: str, reason: str, priority: int, now: float) -> Event:
        """It gives way to work of this priority: for the books, and for its provider's figures."""
        desk = self._desk
        if isinstance(tenant, Lease):
            caller = desk.callers.get(tenant.caller)
            principal = caller.principal if caller is not None else ""
        else:
            principal = tenant.spec.principal
        where = tenant.slot.peer if tenant.slot is not None else ""
        event = Event(
            now, tenant.id, principal, where, tenant.need.priority, mode, reason, priority
        )
        desk.thrash.gave_way(tenant, event, since(tenant))
        desk.out.append(ToRoom(RoomName.STATS, GaveWay(where, mode, reason, event.cycle)))
        return event

    def clear(self, slot: Slot, need: Need, by: str, now: float) -> None:
        """Have others give way for room that was set aside for ``by`` and that they still hold, as
        far as that goes."""
        desk = self._desk
        victims, _ = clearing(desk, slot, need, now, slot.pool.shortage())
        self._make_way(slot, victims, by, need.priority, now)

    def reclaim(self, slot: Slot, now: float) -> None:
        """What stands still has room again before work of so low a priority that it would have had
        to give way: such work has lost what protected it."""
        desk = self._desk
        for tenant in sorted(desk.standing.on(slot.peer), key=lambda x: -x.need.priority):
            if tenant.bundle is not None or not slot.open:
                continue
            need = tenant.need._replace(hold=() if _blocked(tenant) else yielded(tenant.need.hold))
            if not slot.pool.fits(need.hold):
                victims, missing = clearing(desk, slot, need, now)
                if missing:
                    continue
                self._make_way(slot, victims, tenant.id, need.priority, now)
            self._resume(tenant, slot, now)

    def _make_way(
        self, slot: Slot, victims: list[Victim], by: str, priority: int, now: float
    ) -> None:
        for victim, mode, *_ in victims:
            self._note(victim, mode, PRIORITY, priority, now).by = by
            if mode == SUSPEND:
                number = next(self._numbers)
                suspend(self._desk, victim, Suspension(number, by, priority, now))
                self._desk.say(slot.peer, Suspend(victim.id, number))
                self._look_later(victim, number, now)
            else:
                self.end(victim, mode, f"it gave way to work of priority {priority}", now)

    def close(self, tenant: Tenant, slot: Slot, now: float) -> None:
        """It stands still because its provider is not lent."""
        number, priority = next(self._numbers), tenant.need.priority
        why = slot.closed.reason if slot.closed is not None else ""
        suspend(self._desk, tenant, Suspension(number, "", priority, now, closed=why))
        self._desk.say(slot.peer, Suspend(tenant.id, number))
        self._look_later(tenant, number, now)

    def end(self, tenant: Tenant, mode: str, text: str, now: float) -> None:
        """It ends, and begins again elsewhere, or does not. The newcomer waits for its end."""
        again = mode == "requeue"
        cause = "requeued" if again else "preempted"
        slot = tenant.slot
        death = DeathReport(cause, text, provider=slot.name if slot is not None else "")
        if isinstance(tenant, Lease):
            if again:
                bequeath(self._desk.demands.find(tenant.caller, tenant.key), tenant)
            self._leases.displace(tenant, death, now)
        else:
            self._actors.displace(tenant, death, now)

    def _look_later(self, tenant: Tenant, number: int, now: float) -> None:
        """Whether it has stood still for longer than its owner wants."""
        most = tenant.need.max_suspended
        if most:
            self._desk.agenda.put(now + most, lambda then: self._too_long(tenant, number, then))

    def _too_long(self, tenant: Tenant, number: int, now: float) -> None:
        """What its owner wrote behind ``suspend`` is done; where that is nothing, it waits on."""
        found = tenant.suspension
        if found is None or found.number != number or self._desk.tenant(tenant.id) is not tenant:
            return
        modes = tenant.need.preemption
        later = modes[modes.index(SUSPEND) + 1 :] if SUSPEND in modes else ()
        # What is stopped cannot tell its state.
        mode = next((mode for mode in later if mode in MODES and mode != CHECKPOINT), "")
        if mode:
            event = self._note(tenant, mode, MAX_SUSPENDED, found.priority, now)
            event.by = found.by
            self.end(tenant, mode, f"it stood still for too long, {found.reason}", now)

    # --- giving it back -------------------------------------------------------------------------

    def stood_on(self, slots: Iterable[Slot]) -> dict[int, list[Tenant]]:
        """By priority, what stands still on these providers."""
        found: dict[int, list[Tenant]] = {}
        for slot in slots:
            for tenant in self._desk.standing.on(slot.peer) if slot.up and slot.open else ():
                found.setdefault(tenant.need.priority, []).append(tenant)
        return found

    def bring_back(self, tenants: list[Tenant], now: float) -> list[Slot]:
        """Let go on those that find room again, the next to be due and then the longest suspended
        first; the providers on which some do."""
        found: list[Slot] = []
        kept: dict[Slot | Bundle, list[Need]] = {}
        for tenant in sorted(tenants, key=lambda x: (due(self._desk, x), _since(x))):
            slot = tenant.slot
            if slot is None or tenant.suspension is None or tenant.suspension.ending:
                continue
            need = tenant.need
            units = yielded(need.hold) if not _blocked(tenant) else ()
            place = tenant.bundle or slot
            closed = any(contends(other, need) for other in kept.get(place, ())) if units else False
            if place.pool.fits(units) and not closed:
                self._resume(tenant, slot, now)
                found.append(slot)
            else:
                kept.setdefault(place, []).append(need._replace(hold=units))
        return found

    def _resume(self, tenant: Tenant, slot: Slot, now: float) -> None:
        desk = self._desk
        desk.say(slot.peer, Resume(tenant.id, tenant.last_number))
        resume(desk, tenant)
        if isinstance(tenant, Lease):
            tenant.since = now
            if tenant.caller in desk.callers:
                desk.say(tenant.caller, LeaseResumed(tenant.id))
        else:
            tenant.alive_since = now
            desk.tell_callers(tenant)

    # --- providers ------------------------------------------------------------------------------

    def suspended(self, slot: Slot, message: Suspended, now: float) -> None:
        """It stands still, or does not."""
        desk = self._desk
        tenant = desk.tenant(message.key)
        if tenant is None or tenant.slot is not slot:
            return
        found = tenant.suspension
        if message.error:
            if found is not None and found.number == message.number:
                tenant.steady = now + STEADY
                if found.ending and isinstance(tenant, ActorRecord):
                    tenant.unsavable = True
                    self._keep(tenant, slot, now)
                elif slot.closed is None:
                    self._resume(tenant, slot, now)
                else:
                    self._insist(tenant, message.number, now)
            return
        if found is None:
            self._unexpected(tenant, slot, message.number, now)
            return
        if found.number == message.number and found.phase is Phase.ASKED:
            found.phase = Phase.STILL
            self._tell(tenant, found)

    def _keep(self, tenant: Tenant, slot: Slot, now: float) -> None:
        """Its state was not taken, so it stays."""
        self._resume(tenant, slot, now)
        if slot.closed is not None:
            self.close(tenant, slot, now)

    def saved(self, slot: Slot, message: ActorSaved, now: float) -> None:
        """An actor's state is here, so it can end there and go on elsewhere."""
        desk = self._desk
        record = desk.actors.live.get(message.actor)
        if record is None or record.slot is not slot:
            return  # its end was ordered, and comes
        found = record.suspension
        if found is None or not found.ending or found.number != message.number:
            desk.say(slot.peer, Resume(record.id, message.number))
            return
        record.state_taken = message.state
        text = f"it gave way to work of priority {found.priority}, with its state"
        death = DeathReport("checkpointed", text, provider=slot.name)
        self._actors.displace(record, death, now)

    def _insist(self, tenant: Tenant, number: int, now: float) -> None:
        """Its machine is not lent, and it runs: it is asked to stand still until it does."""

        def ask(_: float) -> None:
            found, slot = tenant.suspension, tenant.slot
            if slot is not None and found is not None and found.number == number:
                self._desk.say(slot.peer, Suspend(tenant.id, number))

        self._desk.agenda.put(now + STEADY, ask)

    def _unexpected(self, tenant: Tenant, slot: Slot, number: int, now: float) -> None:
        """Either our word to go on was lost, or it was suspended by an earlier hub."""
        if number <= tenant.last_number:
            self._desk.say(slot.peer, Resume(tenant.id, number))
            return
        found = Suspension(number, "", tenant.need.priority, now, Phase.STILL)
        suspend(self._desk, tenant, found)
        tenant.last_number = 0
        self._tell(tenant, found)

    def _tell(self, tenant: Tenant, suspension: Suspension) -> None:
        desk = self._desk
        if isinstance(tenant, Lease):
            if tenant.caller in desk.callers:
                standing = suspension.word(desk.wall)
                desk.say(tenant.caller, LeaseSuspended(tenant.id, standing))
        else:
            desk.tell_callers(tenant)

    def offered(self, slot: Slot, *, lent: bool) -> None:
        """Its provider has told what runs there: what is to stand still is said again, for it may
        not have heard. Where the machine is ``lent``, what stood still for its owner goes on."""
        for tenant in self._desk.standing.on(slot.peer):
            if tenant.suspension is not None and tenant.suspension.ending:
                # Our word or its state was lost: it goes on, and may be asked again.
                self._keep(tenant, slot, self._desk.now)
            elif tenant.suspension is not None and not (lent and tenant.suspension.closed):
                tenant.suspension.phase = Phase.ASKED
                self._desk.say(slot.peer, Suspend(tenant.id, tenant.suspension.number))


def _first(queue: Queue) -> tuple[int, int]:
    return -queue.need.priority, queue.need.variant


def _since(tenant: Tenant) -> float:
    return tenant.suspension.since if tenant.suspension is not None else 0.0


def _blocked(tenant: Tenant) -> bool:
    return isinstance(tenant, Lease) and tenant.blocked
