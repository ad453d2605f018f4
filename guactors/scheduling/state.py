"""The scheduler: events in, effects out; composed of the rules beside it.

Owns: the table from events to rules, and the round that places what waits. Must never: do I/O, read
a clock, draw randomness of its own.

One round serves the highest priority first; within it the session that uses least (see ``queues``).
A queue that finds no room is marked and left alone until some provider has more. One provider is
then kept free for it from lower priorities, and from equals once it starves, or a big need would
never find room among small ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from msgspec.structs import replace

from guactors import messages as m
from guactors.config import Timing
from guactors.scheduling import closing
from guactors.scheduling import events as e
from guactors.scheduling.actor_rules import ActorRules
from guactors.scheduling.claims import Claims
from guactors.scheduling.closing import Closing
from guactors.scheduling.desk import Caller, Desk, EndedSession
from guactors.scheduling.displacing import Displacing
from guactors.scheduling.group_rules import GroupRules
from guactors.scheduling.inside import Inside
from guactors.scheduling.judge import Judge
from guactors.scheduling.lease_rules import LeaseRules
from guactors.scheduling.listings import Listings
from guactors.scheduling.lookups import Lookups
from guactors.scheduling.placement import Slot
from guactors.scheduling.recall import LOOK_AGAIN, Victims
from guactors.scheduling.rejoin import Rejoin
from guactors.scheduling.reservations import Reservations
from guactors.scheduling.rounds import Rounds
from guactors.security.marks import Mark, no_mark
from guactors.security.rights import Rights

MOST_ENDED = 256
"""So many ended sessions are remembered, for providers that were away when they ended."""


class SchedulerState:
    """A :class:`guactors.scheduling.events.Room`."""

    def __init__(
        self,
        timing: Timing,
        fresh: Callable[[str], str],
        now: float,
        *,
        wall: Callable[[float], float] = float,
        mark: Mark = no_mark,
        reservations: Iterable[m.ReservationSpec] = (),
    ) -> None:
        """``reservations``: those that the hub before this one had kept."""
        self.desk = Desk(timing, fresh, now, wall=wall, mark=mark)
        self._judge = judge = Judge(self.desk)
        self._leases = LeaseRules(self.desk, judge)
        self._actors = ActorRules(self.desk, judge)
        self._lookups = Lookups(self.desk)
        self._groups = GroupRules(self.desk, self._leases, self._actors)
        self._inside = Inside(self.desk, self._leases, self._actors, judge)
        self._claims = Claims(self.desk, self._leases)
        self._victims = Victims(self.desk)
        self._listings = Listings(self.desk, self._claims)
        self._displacing = Displacing(self.desk, self._leases, self._actors)
        self._reservations = Reservations(
            self.desk, self._groups, self._actors, self._displacing, reservations
        )
        self._closing = Closing(self.desk, self._leases, self._actors, self._displacing)
        self._rounds = Rounds(
            self.desk, self._leases, self._actors, self._groups, self._inside, self._claims,
            self._displacing,
        )  # fmt: skip
        self._rejoin = Rejoin(self.desk, self._leases, self._actors, self._lookups)
        self._orders = 0
        self._looked = -math.inf
        """When leases to recall were looked for."""
        self._retried = -math.inf
        """When it was looked for room that is kept for nobody any more."""

    def __repr__(self) -> str:
        desk = self.desk
        return (
            f"<SchedulerState providers={len(desk.slots)} callers={len(desk.callers)} "
            f"leases={len(desk.leases)} waiting={desk.demands.waiting()} "
            f"actors={len(desk.actors.live)}>"
        )

    # --- the room -------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        """Take one event."""
        self.desk.now = now
        if isinstance(event, e.FromPeer):
            self._from_peer(event, now)
        else:
            self._EVENTS[type(event)](self, event, now)
        return self._conclude(now)

    def on_tick(self, now: float) -> list[e.Effect]:
        """Do what has become due."""
        self.desk.now = now
        self.desk.agenda.run(now)
        return self._conclude(now)

    def next_wake(self, _now: float) -> float | None:
        """When something becomes due."""
        wake = self.desk.agenda.next()
        if self._wanting():
            look = self._look_at()
            return look if wake is None or look < wake else wake
        return wake

    def _conclude(self, now: float) -> list[e.Effect]:
        bereft, self.desk.bereft = self.desk.bereft, []
        for demand in bereft:
            if self.desk.demands.find(demand.caller, demand.key) is demand:
                self._judge.judge(demand, now)
        if self.desk.orphaned:
            self._groups.orphaned(now)
        tight = self._rounds.place(now)
        while self.desk.demands.fresh:
            # What was served has not waited for long, and moved down.
            tight += self._rounds.place(now)
        due = now >= self._look_at()
        if due:
            tight += self._displacing.retry()
        while tight and self._displacing.look(tight, now):
            tight = self._rounds.place(now)  # what gave way may have given more than was needed
        if due and self._wanting():
            self._recall(now)
        self._groups.conclude()
        out, self.desk.out = self.desk.out, []
        return out

    def check(self) -> None:
        """Every invariant holds."""
        desk = self.desk
        desk.check()
        desk.thrash.check([*desk.leases, *desk.actors], desk.demands)
        closing.check(desk)

    # --- asking leases back ---------------------------------------------------------------------

    def _recall(self, now: float) -> None:
        self._looked, self._rounds.news = now, False
        self._claims.look(now)
        if now >= self._retried + LOOK_AGAIN:
            self._retried = now
            self.desk.lines.try_again()
        for lease, queue in self._victims.look(now):
            self.desk.lines.recalled(queue, True)
            self._leases.recall(lease, queue.need, now)

    def _wanting(self) -> bool:
        return self._claims.waits() or self._victims.wanted()

    def _look_at(self) -> float:
        return self._looked + (self._victims.pause() if self._rounds.news else LOOK_AGAIN)

    # --- events ---------------------------------------------------------------------------------

    def _caller_joined(self, event: e.CallerJoined, now: float) -> None:
        caller = self.desk.callers.get(event.peer)
        if caller is None:
            caller = Caller(event.peer, event.session, event.python)
            self.desk.callers[event.peer] = caller
        caller.session, caller.python, caller.root = event.session, event.python, event.root
        caller.namespace, caller.name = event.namespace, event.name
        if event.name:
            self.desk.caller_at[event.name] = event.peer
        before, caller.standing = caller.who, event.standing
        if self.desk.permission.learn(event.standing):
            self.desk.rights_changed(event.standing.principal)
        if event.root:
            self.desk.namespaces[event.session] = event.namespace
            self.desk.demands.entitle(event.session, event.share)
            for demand in self.desk.allowance.bind(event.session, event.quota):
                self._judge.judge(demand, now)
        caller.epoch += 1
        if event.root:
            self.desk.reopen(event.session)
        for demand in self.desk.demands.of_caller(event.peer):
            demand.infeasible = False
            if before != caller.who:
                needs = tuple(need._replace(who=caller.who) for need in demand.needs)
                self.desk.demands.move(demand, needs, demand.shape)
                self._judge.judge(demand, now)
        self._rejoin.owner_came(caller)

    def _standing_changed(self, event: e.StandingChanged, now: float) -> None:
        """Other rights, or none: what may not be any more ends, unless it may finish."""
        desk, standing = self.desk, event.standing
        rights = Rights() if standing is None else standing.rights
        desk.permission.change(event.principal, rights)
        desk.rights_changed(event.principal)
        for caller in desk.callers.values():
            if caller.principal == event.principal:
                caller.standing = replace(caller.standing, rights=rights)
        if event.running != "finish":
            self._leases.who_changed(event.principal, now)
            self._actors.who_changed(event.principal, now)
            self._groups.who_changed(event.principal, now)
        for demand in list(desk.demands):
            if demand.need.who == event.principal:
                demand.infeasible = False
                self._judge.judge(demand, now)

    def _caller_left(self, event: e.CallerLeft, _now: float) -> None:
        caller = self.desk.callers.pop(event.peer, None)
        if caller is None:
            return
        if self.desk.caller_at.get(caller.name) == event.peer:
            del self.desk.caller_at[caller.name]
        self._leases.caller_left(event.peer)
        self._actors.caller_left(event.peer, event.reason)
        self._lookups.caller_left(event.peer)
        self._groups.caller_left(event.peer)
        self._listings.caller_left(event.peer)

    def _provider_joined(self, event: e.ProviderJoined, now: float) -> None:
        slot = self.desk.slots.get(event.peer)
        if slot is None:
            self._orders += 1
            slot = Slot(event.peer, event.name, event.python, self._orders)
            self.desk.slots[event.peer] = slot
        slot.name, slot.python, slot.up, slot.joined = event.name, event.python, True, now
        slot.key = event.key
        self.desk.permission.forget_slot(slot.peer)
        slot.epoch += 1
        # Until its Offer tells what runs there nothing more is put on it.
        slot.offered = False
        self.desk.coming[slot.peer] = slot
        self.desk.inventory_changed(slot)

    def _provider_away(self, event: e.ProviderAway, _now: float) -> None:
        slot = self.desk.slots.get(event.peer)
        if slot is not None:
            slot.up = False

    def _provider_back(self, event: e.ProviderBack, _now: float) -> None:
        slot = self.desk.slots.get(event.peer)
        if slot is not None:
            slot.up = True
            closing.open_again(self.desk, slot)

    def _provider_left(self, event: e.ProviderLeft, now: float) -> None:
        slot = self.desk.slots.get(event.peer)
        if slot is None:
            return
        # Off the list first, or what it had would be placed on it again.
        slot.up = slot.offered = False
        groups = {bundle.group.id for bundle in slot.bundles}
        self._leases.provider_left(slot, event.reason, now)
        self._actors.provider_left(slot, event.reason, now)
        self._groups.provider_left(slot)
        del self.desk.slots[event.peer]
        self.desk.roomier.pop(event.peer, None)
        self.desk.coming.pop(event.peer, None)
        self.desk.inventory_changed(slot)
        # It may have been the only one that could ever serve some of those who wait.
        for queue in self.desk.lines.nowhere(now):
            for demand in self.desk.demands.of_queue(queue):
                self._judge.judge(demand, now)
        for group in groups:
            for demand in self.desk.demands.waiting_inside(group):
                self._judge.judge(demand, now)

    def _session_over(self, event: e.SessionOver, now: float) -> None:
        desk = self.desk
        if any(c.root and c.session == event.session for c in desk.callers.values()):
            # A root came back just when the session was declared over.
            return
        desk.namespaces.pop(event.session, None)
        desk.ended_sessions[event.session] = EndedSession(event.reason, now)
        while len(desk.ended_sessions) > MOST_ENDED:
            del desk.ended_sessions[next(iter(desk.ended_sessions))]
        for peer in desk.slots:
            desk.say(peer, m.EndSession(event.session))
        self._leases.session_over(event.session, event.reason)
        self._actors.session_over(event.session, event.reason)
        self._groups.session_over(event.session, event.reason)
        desk.demands.shares.forget(event.session)
        desk.quotas.forget(event.session)

    def _grid_asked(self, event: e.GridAsked, _now: float) -> None:
        self._listings.grid(event, self._lookups.listing(event.peer))

    def _sessions_asked(self, event: e.SessionsAsked, _now: float) -> None:
        self._listings.sessions(event)

    # --- messages -------------------------------------------------------------------------------

    def _from_peer(self, event: e.FromPeer, now: float) -> None:
        slot = self.desk.slots.get(event.peer)
        if slot is not None:
            self._from_provider(slot, event.message, now)
            return
        caller = self.desk.callers.get(event.peer)
        if caller is not None:
            self._from_caller(caller, event.message, now)

    def _from_caller(self, caller: Caller, message: m.Message, now: float) -> None:
        match message:
            case m.SetDemand():
                self._leases.set_demand(caller, message, now)
            case m.ReturnLease():
                self._leases.give_back(caller, message)
            case m.LeaseDue():
                self._leases.due(caller, message, now)
            case m.CreateActor():
                self._create(caller, message, now)
            case m.KillActor():
                self._actors.kill(caller, message, now)
            case m.WatchActor():
                self._lookups.watch(caller.peer, message, now)
                self._judge_again(caller, message.actor, now)
            case m.FindActor():
                self._lookups.find(caller.peer, message, now)
            case m.HeldLeases():
                self._rejoin.held(caller, message, now)
            case m.Reserve():
                self._reservations.reserve(caller, message, now)
            case m.Unreserve():
                self._reservations.unreserve(caller, message, now)
            case _ if isinstance(message, m.GroupQuestion):
                self._groups.heard(caller, message, now)
            case m.Inquire() | m.AskPlan():
                self._listings.answer(caller, message)

    def _create(self, caller: Caller, message: m.CreateActor, now: float) -> None:
        told_again = self.desk.actors.find(message.spec.actor) is not None
        record = self._actors.create(caller, message, now)
        if record is not None:
            self._lookups.appeared(record)
        if told_again:
            self._judge_again(caller, message.spec.actor, now)

    def _judge_again(self, caller: Caller, actor: str, now: float) -> None:
        """An answer about an actor is good news to its owner; the bad news must follow it."""
        demand = self.desk.demands.find(caller.peer, actor)
        if demand is not None:
            demand.infeasible = False
            self._judge.judge(demand, now)

    def _from_provider(self, slot: Slot, message: m.Message, now: float) -> None:
        match message:
            case m.Offer():
                self._rejoin.offer(slot, message, now)
                availability = message.info.availability
                self._displacing.offered(slot, lent=availability.lent)
                self._closing.told(slot, availability, now)
            case m.AvailabilityIs(availability):
                self._closing.told(slot, availability, now)
            case m.KeepGroups():
                self._groups.kept_by(slot, message.groups, now)
            case m.LeaseStarted():
                self._leases.started(slot, message, now)
            case m.LeaseEnded():
                self._leases.ended(slot, message, now)
            case m.WorkerBlocked():
                self._leases.set_blocked(slot, message.lease, True)
            case m.WorkerResumed():
                self._leases.set_blocked(slot, message.lease, False)
            case m.Suspended():
                self._displacing.suspended(slot, message, now)
            case m.ActorSaved():
                self._displacing.saved(slot, message, now)
            case m.ActorStarted():
                self._actors.started(slot, message, now)
            case m.ActorEnded():
                self._actors.ended(slot, message, now)

    _EVENTS: ClassVar[dict[type[e.Event], Callable[[SchedulerState, Any, float], None]]] = {
        e.CallerJoined: _caller_joined,
        e.CallerLeft: _caller_left,
        e.StandingChanged: _standing_changed,
        e.ProviderJoined: _provider_joined,
        e.ProviderAway: _provider_away,
        e.ProviderBack: _provider_back,
        e.ProviderLeft: _provider_left,
        e.SessionOver: _session_over,
        e.GridAsked: _grid_asked,
        e.SessionsAsked: _sessions_asked,
    }
