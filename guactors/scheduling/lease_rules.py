"""The life of a lease: wanted, granted, blocked, recalled, returned, lost.

Owns: what is said to callers and providers about leases. Must never: choose a provider
(``placement`` does), choose a victim (``recall`` does), or merge inventories (``rejoin`` does).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from guactors.alternatives import taking
from guactors.messages import (
    DeathReport,
    DemandInfeasible,
    Displaced,
    Fault,
    LeaseDue,
    LeaseEnded,
    LeaseGranted,
    LeaseLost,
    LeaseRecalled,
    LeaseStarted,
    ReturnLease,
    SetDemand,
    StartLease,
    StopLease,
)
from guactors.scheduling.departing import DepartingBook
from guactors.scheduling.desk import Caller, Desk
from guactors.scheduling.groups import Bundle
from guactors.scheduling.judge import Judge
from guactors.scheduling.leases import Lease, LeaseState
from guactors.scheduling.placement import Need, Slot, lease_needs
from guactors.scheduling.queues import Demand
from guactors.scheduling.quotas import TASKS
from guactors.scheduling.thrash import bequeath, inherit
from guactors.security.marks import lease_mark

MOST_SHAPES = 512
"""Different kinds of workers that one caller may ask for at a time: each round looks at all."""
MOST_FAILURES = 3
"""Starts that may fail one after the other before the demand is refused."""
WITHOUT_FAULT = frozenset({"link_lost", "provider_lost", "not_displaced", "not_lent"})
"""Ends before the beginning that are nobody's failure."""
FIRST_PAUSE = 0.1
"""Seconds before the second start; doubled with each failure."""
SETUP_FAILED = "RuntimeEnvSetupError"
"""The error's name of a demand whose environment cannot be built."""


class LeaseRules:
    """Works on ``desk``; every method takes what happened and leaves effects there."""

    def __init__(self, desk: Desk, judge: Judge) -> None:
        self._desk = desk
        self._judge = judge
        self._departing = DepartingBook(desk)

    # --- callers --------------------------------------------------------------------------------

    def set_demand(self, caller: Caller, message: SetDemand, now: float) -> None:
        """So much of this shape, from now on."""
        desk = self._desk
        if not caller.session:
            text = f"caller {caller.peer} asked for workers but named no session in its Hello"
            desk.say(caller.peer, Fault("UsageError", text))
            return
        desk.reopen(caller.session)
        demand = desk.demands.find(caller.peer, message.key)
        known = demand.need if demand is not None and demand.shape == message.shape else None
        if demand is not None and known is not None and _is_of(known, caller):
            needs = demand.needs
        else:
            needs = lease_needs(message.shape, caller.python, caller.who)
        bounded = desk.allowance.bounded
        needs = tuple(bounded(need, caller.session, TASKS) for need in needs)
        if demand is None:
            if not message.count:
                return
            if desk.demands.count_of(caller.peer) >= MOST_SHAPES:
                text = f"{caller.peer} asks for {MOST_SHAPES} kinds of workers at a time already"
                desk.say(caller.peer, DemandInfeasible(message.key, text))
                return
            need, *others = needs
            demand = desk.demands.add(
                caller.peer, message.key, need, message.shape, message.count,
                session=caller.session, others=tuple(others),
            )  # fmt: skip
            self._adopt(demand)
            for need in needs:
                desk.ask_again(need)
        elif demand.needs != needs:
            demand.count, demand.infeasible = message.count, False
            desk.demands.move(demand, needs, message.shape)
        demand.prefer = _weights(message.prefer)
        demand.due = now + message.due if message.due else math.inf
        if message.count != demand.count:
            demand.count = message.count
        if demand.given_up:
            demand.given_up, demand.failures, demand.infeasible = False, 0, False
        if not demand.count and not demand.held:
            desk.demands.remove(demand)
            return
        desk.demands.refresh(demand)
        self._judge.judge(demand, now)

    def _adopt(self, demand: Demand) -> None:
        """Leases of this caller that a provider reported, but whose demand nobody remembered."""
        for lease in self._desk.leases.keyless.get(demand.caller, {}).values():
            if not lease.key and demand.asks_for(lease.need):
                lease.key = demand.key
                demand.held.add(lease.id)

    def give_back(self, caller: Caller, message: ReturnLease) -> None:
        """The caller is done with it."""
        lease = self._desk.leases.by_id.get(message.lease)
        caller.claims.pop(message.lease, None)
        if lease is not None and lease.caller == caller.peer:
            self.end(lease, kill=message.dead)

    def due(self, caller: Caller, message: LeaseDue, now: float) -> None:
        """By when what it runs must have ended."""
        at = now + message.due if message.due else math.inf
        lease = self._desk.leases.by_id.get(message.lease)
        if lease is not None and lease.caller == caller.peer:
            lease.due = at
        elif message.lease in caller.claims:
            caller.claims[message.lease] = at

    def caller_left(self, peer: str) -> None:
        """Its demands are void and its workers may be busy."""
        desk = self._desk
        self._departing.caller_left(peer)
        for lease in desk.leases.of_caller(peer):
            self.end(lease, kill=True)
        for demand in desk.demands.of_caller(peer):
            if not demand.is_actor:
                desk.demands.remove(demand)
        desk.demands.forget(peer)

    # --- granting and ending --------------------------------------------------------------------

    def start(
        self,
        demand: Demand,
        need: Need,
        slot: Slot,
        now: float,
        bundle: Bundle | None = None,
        displaces: Sequence[Displaced] = (),
    ) -> str:
        """``slot``, or a ``bundle`` on it, was chosen for one more lease of ``demand`` and, of its
        alternatives, ``need``; for it some stand still. Its id."""
        desk = self._desk
        caller = desk.callers[demand.caller]
        lease = Lease(
            desk.fresh("lease"), caller.session, caller.peer, demand.key, need, slot,
            LeaseState.STARTING, now, slot_epoch=slot.epoch, bundle=bundle,
            brief=bool(displaces) or bool(desk.standing.on(slot.peer)),
        )  # fmt: skip
        if demand.pasts:
            inherit(demand, lease)
        desk.demands.served(demand)
        demand.infeasible = False
        desk.put_lease(lease)
        desk.say(slot.peer, self._order(lease, demand, caller, displaces))
        return lease.id

    def _order(
        self, lease: Lease, demand: Demand, caller: Caller, displaces: Sequence[Displaced]
    ) -> StartLease:
        desk = self._desk
        principal = caller.principal
        return StartLease(
            lease.id, lease.session, lease.caller, taking(demand.shape, lease.need.variant),
            desk.namespace_of(caller),
            caller.standing.transport, principal,
            lease_mark(desk.mark, lease.id, lease.session, lease.caller, principal),
            list(displaces),
        )  # fmt: skip

    def end(self, lease: Lease, *, kill: bool) -> None:
        """End it from this side."""
        self._desk.drop_lease(lease)
        self._desk.say(lease.slot.peer, StopLease(lease.id, kill))

    def lose(self, lease: Lease, death: DeathReport) -> None:
        """Its worker is gone."""
        self._desk.drop_lease(lease)
        if lease.caller in self._desk.callers:
            self._desk.say(lease.caller, LeaseLost(lease.id, death))

    def displace(self, lease: Lease, death: DeathReport, now: float) -> None:
        """It gives way by its end, after its grace if it has one."""
        if lease.need.grace and lease.state is LeaseState.GRANTED:
            self._departing.ask(lease, death, now)
        else:
            self.revoke(lease, death)

    def revoke(self, lease: Lease, death: DeathReport) -> None:
        """End it on both sides."""
        self._desk.say(lease.slot.peer, StopLease(lease.id, kill=True))
        self.lose(lease, death)

    def recall(self, lease: Lease, need: Need, now: float) -> None:
        """Ask for it back, for somebody who waits with ``need``."""
        self._desk.leases.recallable.recall(lease, need, now)
        self._desk.say(lease.caller, LeaseRecalled(lease.id))

    # --- providers ------------------------------------------------------------------------------

    def started(self, slot: Slot, message: LeaseStarted, now: float) -> None:
        """A worker is bound: pass it on, unless nobody wants it any more."""
        desk = self._desk
        lease = desk.leases.by_id.get(message.lease)
        if lease is None or lease.slot is not slot:
            desk.say(slot.peer, StopLease(message.lease, kill=True))
            return
        if lease.state is not LeaseState.STARTING:
            return
        demand = desk.demands.find(lease.caller, lease.key)
        if demand is None or demand.count < len(demand.held):
            self.end(lease, kill=False)
            return
        demand.failures, demand.given_up = 0, False
        desk.demands.refresh(demand)
        lease.worker, lease.endpoints = message.worker, message.endpoints
        self.grant(lease, now)

    def grant(self, lease: Lease, now: float) -> None:
        """Hand it to its caller."""
        desk = self._desk
        lease.state, lease.since = LeaseState.GRANTED, now
        desk.seats.update(lease)
        lease.caller_epoch = desk.callers[lease.caller].epoch
        desk.say(
            lease.caller,
            LeaseGranted(
                lease.key, lease.id, lease.worker, lease.slot.peer, lease.endpoints, lease.brief,
                lease.need.variant,
            ),
        )  # fmt: skip

    def ended(self, slot: Slot, message: LeaseEnded, now: float) -> None:
        """Its worker is gone, or never came. Deaths can be told twice: the second is news to
        nobody."""
        lease = self._desk.leases.by_id.get(message.lease)
        if lease is None:
            self._departing.ended(message.lease)
            return
        if lease.slot is not slot:
            return
        if lease.state is LeaseState.STARTING:
            self.fail(lease, message.death, now)
        else:
            self.lose(lease, message.death)

    def fail(self, lease: Lease, death: DeathReport, now: float) -> None:
        """It ended before anybody had it: try again, with pauses, not for ever."""
        desk = self._desk
        desk.drop_lease(lease)
        demand = desk.demands.find(lease.caller, lease.key)
        bequeath(demand, lease)
        if demand is None or death.cause in WITHOUT_FAULT:
            return
        if death.cause == "refused":
            desk.refused_by(lease.slot, lease.need, death.detail)
            self._judge.judge(demand, now)
            return
        if death.cause == "env_failed":
            # It was tried in earnest; whoever submits anew has it tried anew.
            demand.given_up = True
            desk.say(demand.caller, DemandInfeasible(demand.key, death.detail, SETUP_FAILED))
            desk.demands.refresh(demand)
            return
        demand.failures += 1
        if demand.failures >= MOST_FAILURES:
            demand.given_up = True
            text = f"{demand.failures} workers in a row did not start; the last: {_describe(death)}"
            desk.say(demand.caller, DemandInfeasible(demand.key, text))
        else:
            demand.not_before = now + FIRST_PAUSE * 2 ** (demand.failures - 1)
            desk.agenda.put(demand.not_before, lambda then: self._resume(demand, then))
        desk.demands.refresh(demand)

    def _resume(self, demand: Demand, now: float) -> None:
        if demand.not_before and now >= demand.not_before:
            demand.not_before = 0.0
            if self._desk.demands.find(demand.caller, demand.key) is demand:
                self._desk.demands.refresh(demand)
                self._judge.judge(demand, now)

    def set_blocked(self, slot: Slot, lease_id: str, blocked: bool) -> None:
        """Its worker waits in get(), or goes on; of one that has not started, its environment is
        being built, or is there."""
        desk = self._desk
        lease = desk.leases.by_id.get(lease_id)
        if lease is None or lease.slot is not slot:
            return
        desk.block_lease(lease, blocked)
        demand = desk.demands.find(lease.caller, lease.key)
        if demand is not None:
            if blocked and lease.state is LeaseState.STARTING:
                demand.preparing.add(lease.id)
            else:
                demand.preparing.discard(lease.id)
            desk.demands.refresh(demand)

    def provider_left(self, slot: Slot, reason: str, now: float) -> None:
        """Everything on it is gone."""
        desk = self._desk
        death = desk.died_with(slot, reason)
        self._departing.provider_left(slot.peer)
        for lease in [desk.leases.by_id[x] for x in sorted(slot.leases)]:
            if lease.state is LeaseState.STARTING:
                self.fail(lease, death, now)
            else:
                self.lose(lease, death)

    def who_changed(self, who: str, now: float) -> None:
        """A principal may do other things than before: what it may not hold any more ends."""
        desk = self._desk
        death = DeathReport("revoked", detail="its grant allows it no longer")
        for lease in [lease for lease in desk.leases if lease.need.who == who]:
            if not desk.permission.permits(lease.need, lease.slot, now):
                self.revoke(lease, death)

    def session_over(self, session: str, reason: str) -> None:
        """Its providers are told to kill all of it, so only the books and the callers are left."""
        desk = self._desk
        death = DeathReport("session_ended", detail=reason)
        for lease in [lease for lease in desk.leases if lease.session == session]:
            self.lose(lease, death)
        for caller in [c for c in desk.callers.values() if c.session == session]:
            for demand in desk.demands.of_caller(caller.peer):
                if not demand.is_actor:
                    desk.demands.remove(demand)


def _is_of(need: Need, caller: Caller) -> bool:
    return (need.python, need.who) == (caller.python, caller.who)


def _describe(death: DeathReport) -> str:
    text = f"{death.cause} on {death.provider or 'its provider'}"
    if death.detail:
        text += f": {death.detail}"
    if death.stderr_tail:
        text += f"\nlast words on stderr:\n{death.stderr_tail}"
    return text


def _weights(prefer: list[str]) -> dict[str, float] | None:
    """As ``choose`` wants them: the first weighs most."""
    if not prefer:
        return None
    return {provider: float(len(prefer) - place) for place, provider in enumerate(prefer)}
