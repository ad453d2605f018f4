"""Everything the scheduler knows, in one place, for the rules that work on it.

Owns: callers, providers, leases, demands, actors, the agenda, effects collected so far; and the few
operations that must keep several of them in step. Must never: decide anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from guactors.config import Timing
from guactors.messages import ActorSpec, CreateActor, DeathReport, Message
from guactors.scheduling.actors import ActorBook, ActorRecord
from guactors.scheduling.agenda import Agenda
from guactors.scheduling.aging import Aging
from guactors.scheduling.allowance import Allowance
from guactors.scheduling.demand import DemandBook
from guactors.scheduling.events import (
    WORKER,
    Decided,
    Decision,
    Effect,
    Excused,
    RoomName,
    Standing,
    ToPeer,
    ToRoom,
)
from guactors.scheduling.groups import Bundle, Group, GroupBook
from guactors.scheduling.index import Index
from guactors.scheduling.invariants import check
from guactors.scheduling.leases import Lease, LeaseBook
from guactors.scheduling.lines import Lines
from guactors.scheduling.neighbours import Neighbours
from guactors.scheduling.permission import Permission, who_of
from guactors.scheduling.placement import Need, Slot, feasible
from guactors.scheduling.queues import Demand
from guactors.scheduling.quotas import ACTORS, TASKS, Quotas
from guactors.scheduling.resources import Units, yielded
from guactors.scheduling.seats import Seats
from guactors.scheduling.standing import StandingBook
from guactors.scheduling.thrash import Thrash
from guactors.security.marks import Mark, actor_mark, no_mark
from guactors.security.rights import Rights

SETTLING = 0.5
"""Seconds beyond the longest redial pause until all who knew the last hub should be back."""
MOST_DENIED = 10_000
NOBODY_YET = Standing(principal="", rights=Rights())


@dataclass(eq=False, slots=True)
class Caller:
    """A caller as the scheduler sees it."""

    peer: str
    session: str
    python: str
    root: bool = False
    namespace: str = ""
    standing: Standing = NOBODY_YET
    name: str = ""
    """Of a worker's: the worker."""
    epoch: int = 0
    """Counts its links: what was sent on an earlier one may be lost."""
    claims: dict[str, float] = field(default_factory=dict)
    """Leases it says it holds, which no provider has reported yet, and when each is due."""

    @property
    def who(self) -> str:
        """As in Need."""
        return who_of(self.standing)

    @property
    def principal(self) -> str:
        """Whose processes may see and use what it makes."""
        return self.standing.principal


def sees(caller: Caller, record: ActorRecord | Group) -> bool:
    """Whether the actor or group exists for the caller: its principal's do; for who may do all
    everything does, but not for workers, in whose process other people's code may run."""
    standing, who = caller.standing, caller.principal
    if standing.rights.everything and standing.kind != WORKER:
        return True
    return who == record.spec.principal or (isinstance(record, Group) and record.open_to(who))


class EndedSession(NamedTuple):
    """Why and when."""

    reason: str
    at: float


class Desk:
    """The scheduler's state. ``fresh`` draws ids, ``started`` is when the hub began, ``wall`` turns
    its seconds into those of grants. ``mark`` puts the hub's mark on what providers return."""

    def __init__(
        self,
        timing: Timing,
        fresh: Callable[[str], str],
        started: float,
        *,
        wall: Callable[[float], float] = float,
        mark: Mark = no_mark,
    ) -> None:
        self.timing = timing
        self.fresh = fresh
        self.started = started
        self.mark = mark
        self.wall = wall
        self.permission = Permission(wall)
        self.now = started
        """Of the present event."""
        self.callers: dict[str, Caller] = {}
        self.namespaces: dict[str, str] = {}
        """Of sessions, as their roots said."""
        self.slots: dict[str, Slot] = {}
        self.agenda = Agenda()
        self.demands = DemandBook()
        self.quotas = Quotas(self.demands.shares)
        self.leases = LeaseBook()
        self.actors = ActorBook()
        self.groups = GroupBook()
        self.out: list[Effect] = []
        self.roomier: dict[str, Slot] = {}
        """Providers that have got more room since the last placement."""
        self.bereft: list[Demand] = []
        """Demands that have lost a lease since, and may by now be beyond their rights."""
        self.orphaned: list[Group] = []
        """Groups whose actor has ended since."""
        self.ended_sessions: dict[str, EndedSession] = {}
        """The latest sessions that ended, for those who were away."""
        self.standing = StandingBook()
        self.caller_at: dict[str, str] = {}
        """By worker, the caller that it is."""
        self.seats = Seats()
        self.thrash = Thrash()
        self.neighbours = Neighbours()
        self.denied: dict[str, None] = {}
        """Actors this hub never met, whose owners take them for dead: they must not come back."""
        self.allowance = Allowance(self)
        self.index = Index(self.slots, self.permission.permits, self.standing)
        self.lines = Lines(self.demands, self.index, self.standing)
        if timing.aging:
            self.demands.aging = Aging(
                timing.aging, self.agenda, lambda: self.now, self.demands.find_queue,
                self.lines.level_changed,
            )  # fmt: skip
        self.coming: dict[str, Slot] = {}
        """Providers whose Offer is awaited."""

    def say(self, peer: str, message: Message) -> None:
        """Send to a peer."""
        self.out.append(ToPeer(peer, message))

    def tell_callers(self, record: ActorRecord) -> None:
        """How the actor fares, to its owner and to all who watch it."""
        update = record.update(self.wall)
        for peer in sorted({record.spec.owner, *record.watchers}):
            caller = self.callers.get(peer)
            if caller is not None and sees(caller, record):
                self.say(peer, update)

    def namespace_of(self, caller: Caller) -> str:
        """Of its session: its own word, or its root's."""
        return caller.namespace or self.namespaces.get(caller.session, "")

    def reopen(self, session: str) -> None:
        """Somebody of the session lives and works: its root is back, or it is a detached actor."""
        self.ended_sessions.pop(session, None)

    # --- time -----------------------------------------------------------------------------------

    def settled_at(self) -> float:
        """From then on, who is not here is not there."""
        return self.started + self.timing.redial_most + SETTLING

    def rejoined_at(self) -> float:
        """From then on, nobody waits any more for what the last hub left behind."""
        return self.started + self.timing.rejoin_grace

    # --- providers ------------------------------------------------------------------------------

    def candidates(self, need: Need) -> Collection[Slot]:
        """Providers that could meet the need if they were empty."""
        if need.wish.group:
            return self._inside(need)
        return self.index.candidates(need, self.now)

    def _inside(self, need: Need) -> list[Slot]:
        """As ``candidates``, of a need that is to be met inside a placement group."""
        return [
            bundle.slot
            for bundle in self.bundles_for(need)
            if bundle.slot is not None
            and feasible(bundle.slot, need)
            and self.permission.permits(need, bundle.slot, self.now)
        ]

    def bundles_for(self, need: Need) -> list[Bundle]:
        """The bundles that could meet the need if they were empty."""
        group = self.groups.live.get(need.wish.group)
        if group is None:
            return []
        index = need.wish.bundle
        bundles = group.bundles if index < 0 else group.bundles[index : index + 1]
        return [bundle for bundle in bundles if bundle.pool.holds(need.hold)]

    def inventory_changed(self, slot: Slot) -> None:
        """A provider came, went, or has other resources: some may fit elsewhere now."""
        self.index.changed(slot)
        self.seats.eased(slot)
        self.lines.try_again()
        self.groups.look_again()
        self.demands.stir(*(bundle.group.id for bundle in slot.bundles))

    def giving_way(self, need: Need, priority: int, most: int) -> list[Slot]:
        """Providers where work of this priority, and what is below it, may give way for the need;
        where there are more than ``most``, others each time."""
        return self.seats.some(self.index.kind(need, self.now), priority, most)

    def rights_changed(self, who: str) -> None:
        """A principal may use other providers now."""
        self.index.forget(lambda need: need.who == who)
        self.demands.try_anew(who)
        self.groups.look_again()
        self.demands.stir(*self.demands.inside)

    def died_with(self, slot: Slot, reason: str) -> DeathReport:
        """The death of whatever was on a lost provider."""
        return DeathReport("provider_lost", detail=reason, provider=slot.name or slot.peer)

    def deny(self, actor: str) -> None:
        """Should a provider still report it, it is stopped."""
        self.denied[actor] = None
        if len(self.denied) > MOST_DENIED:
            del self.denied[next(iter(self.denied))]

    # --- what holds room ------------------------------------------------------------------------

    def tenant(self, key: str) -> Lease | ActorRecord | None:
        """The lease or the live actor of this id."""
        return self.leases.by_id.get(key) or self.actors.live.get(key)

    def _unseated(self, tenant: Lease | ActorRecord, slot: Slot) -> None:
        self.seats.remove(tenant)
        self.neighbours.left(tenant)
        if tenant.suspension is not None:
            self.end_standing(tenant, slot)
            self.pause_demands(tenant.worker, False)

    def end_standing(self, tenant: Lease | ActorRecord, slot: Slot) -> None:
        """It stands still no longer: what was kept for it there is free for others."""
        self.standing.discard(slot.peer, tenant)
        self.roomier[slot.peer] = slot
        self.index.eased(slot)

    def pause_demands(self, worker: str, paused: bool) -> None:
        """What stands still could not use a lease, and could not give it back. Nor does it answer
        for itself."""
        caller = self.caller_at.get(worker, "")
        if caller:
            self.demands.pause(caller, paused)
            self.out.append(ToRoom(RoomName.HUB, Excused(caller, paused)))

    # --- leases ---------------------------------------------------------------------------------

    def put_lease(self, lease: Lease) -> None:
        """Book a new lease: in the books, in its pool, in its demand."""
        self.leases.add(lease)
        if lease.bundle is not None:
            lease.bundle.leases.add(lease.id)
        self.take(lease.slot, lease.taken(), lease.session, lease.bundle)
        self.seats.update(lease)
        self.neighbours.came(lease)
        self.permission.take(lease.need)
        if not lease.idle:
            self.quotas.count(lease.session, TASKS, 1)
        self._count_held(lease)
        demand = self.demands.find(lease.caller, lease.key)
        if demand is not None:
            demand.held.add(lease.id)
            self.demands.refresh(demand)

    def drop_lease(self, lease: Lease) -> None:
        """Take a lease out of everything."""
        self.leases.remove(lease)
        if not lease.idle:
            self.quotas.count(lease.session, TASKS, -1)
        if lease.bundle is not None:
            lease.bundle.leases.discard(lease.id)
        self.give(lease.slot, lease.taken(), lease.session, lease.bundle)
        self._unseated(lease, lease.slot)
        self._hold_less(lease.need)
        self._count_held(lease)
        demand = self.demands.find(lease.caller, lease.key)
        if demand is not None:
            demand.held.discard(lease.id)
            demand.preparing.discard(lease.id)
            if demand.count or demand.held:
                self.demands.refresh(demand)
                if demand.waiting:
                    self.bereft.append(demand)
            else:
                self.demands.remove(demand)

    def block_lease(self, lease: Lease, blocked: bool) -> None:
        """Its worker waits and takes no processor, or runs again and does, fitting or not."""
        was_idle, lease.blocked = lease.idle, blocked
        self.idleness(lease, was_idle)

    def idleness(self, lease: Lease, was_idle: bool) -> None:
        """It was blocked or suspended, or is no longer: it gives up its processors, or takes them
        again."""
        if lease.idle == was_idle:
            return
        self.leases.changed(lease, was_idle)
        self.quotas.count(lease.session, TASKS, -1 if lease.idle else 1)
        units = yielded(lease.need.hold)
        if lease.idle:
            self.give(lease.slot, units, lease.session, lease.bundle)
        else:
            self.take(lease.slot, units, lease.session, lease.bundle)
            (lease.bundle or lease.slot).forced = True
        self.seats.update(lease)
        self._count_held(lease)

    def _count_held(self, lease: Lease) -> None:
        held = self.leases.held(lease.caller)
        self.demands.set_held(lease.session, lease.caller, held)

    def take(self, slot: Slot, units: Units, session: str, bundle: Bundle | None = None) -> None:
        """The session takes room, fitting or not; inside a bundle that is its own already."""
        if bundle is not None:
            bundle.pool.take(units)
            return
        slot.pool.take(units)
        self.demands.use(session, units, 1)

    def give(self, slot: Slot, units: Units, session: str, bundle: Bundle | None = None) -> None:
        """Room comes back."""
        if session in self.quotas:
            self.allowance.freed(session)
        if bundle is not None:
            bundle.pool.give(units)
            bundle.forced = bundle.forced and bundle.pool.overbooked()
            self.demands.stir(bundle.group.id)
            self.index.eased(slot)
            return
        slot.pool.give(units)
        self.demands.use(session, units, -1)
        if slot.forced:  # part of what came back may have been owed to a reservation
            self.demands.stir(*(x.group.id for x in slot.bundles if x.group.reservation))
        slot.forced = slot.forced and slot.pool.overbooked()
        self.roomier[slot.peer] = slot
        self.index.eased(slot)
        self.seats.eased(slot)

    def _hold_less(self, need: Need) -> None:
        self.permission.give(need)
        self.allowance.freed(need.who)

    def who_is(self, principal: str) -> str:
        """As in Need, of whom a provider's report names; of a local process or an owner nothing is
        counted."""
        return self.permission.who(principal)

    def marked(self, message: CreateActor, caller: Caller) -> ActorSpec:
        """The spec as providers get it: whose it is, with the hub's mark on it."""
        spec = replace(message.spec, principal=caller.principal)
        return replace(spec, seal=self.actor_mark(spec, message.payload))

    def actor_mark(self, spec: ActorSpec, payload: bytes) -> bytes:
        """The hub's mark on an actor."""
        return actor_mark(self.mark, spec, payload)

    def ask_again(self, need: Need) -> None:
        """Wanted anew: an image that providers refused may have been signed since, or mended."""
        if need.image and self.permission.forget_need(need):
            self.index.set_apart(need)
            queue = self.demands.queues.get(need)
            if queue is not None:
                self.demands.fresh[need] = queue

    def refused_by(self, slot: Slot, need: Need, why: str) -> None:
        """The provider's owner does not allow it there."""
        self.permission.refuse(need, slot, why)
        self.index.set_apart(need)
        queue = self.demands.queues.get(need)
        if queue is not None:
            self.demands.fresh[need] = queue

    def audit(self, decision: Decision) -> None:
        """A line for the audit log."""
        self.out.append(ToRoom(RoomName.GATEKEEPER, Decided(decision)))

    # --- actors ---------------------------------------------------------------------------------

    def seat(self, record: ActorRecord, slot: Slot, bundle: Bundle | None = None) -> None:
        """Book the actor on a provider."""
        record.slot = slot
        record.slot_epoch = slot.epoch
        slot.actors.add(record.id)
        record.bundle = bundle
        if bundle is not None:
            bundle.actors.add(record.id)
        self.take(slot, record.taken(), record.spec.session, bundle)
        self.seats.update(record)
        self.neighbours.came(record)
        self.permission.take(record.need)
        self.quotas.count(record.spec.session, ACTORS, 1)

    def unseat(self, record: ActorRecord) -> None:
        """It is on no provider any more."""
        slot = record.slot
        if slot is not None:
            slot.actors.discard(record.id)
            self.quotas.count(record.spec.session, ACTORS, -1)
            if record.bundle is not None:
                record.bundle.actors.discard(record.id)
            self.give(slot, record.taken(), record.spec.session, record.bundle)
            self._unseated(record, slot)
            self._hold_less(record.need)
        record.suspension = None
        record.slot = record.bundle = None
        record.worker = ""
        record.endpoints = []

    def check(self) -> None:
        """Every invariant holds."""
        check(self)
