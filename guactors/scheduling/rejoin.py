"""What peers tell again after a new link, merged into what the hub believes.

Owns: the merge of a provider's Offer and of a caller's HeldLeases. Must never: invent a death that
somebody is about to report, or let a lease live on that only one side knows.

Both sides tell their absolute state on each new link, and some messages were lost with the old one.
Epochs (links counted per peer) tell what may be lost, sent on an earlier link, from what is on its
way on this one.
"""

from __future__ import annotations

import math

from guactors.messages import (
    ActorReport,
    DeathReport,
    EndSession,
    HeldLeases,
    LeaseLost,
    LeaseRecalled,
    LeaseReport,
    LeaseSuspended,
    Offer,
    StopActor,
    StopLease,
)
from guactors.scheduling.actor_rules import ActorRules
from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.desk import Caller, Desk, sees
from guactors.scheduling.events import Decision
from guactors.scheduling.lease_rules import LeaseRules
from guactors.scheduling.leases import Lease, LeaseState
from guactors.scheduling.lookups import Lookups
from guactors.scheduling.placement import EVERYWHERE, Slot, actor_needs, lease_need, variant_of
from guactors.scheduling.standing import Phase
from guactors.security.marks import lease_mark

WORTH_TELLING = 300.0
"""Seconds after a session's end in which a provider may still have missed it."""
AWAIT_DEATH = 1.0
"""Seconds for which a provider that no longer lists something may still report how it died."""


class Rejoin:
    """Works on ``desk`` through the rules."""

    def __init__(
        self, desk: Desk, leases: LeaseRules, actors: ActorRules, lookups: Lookups
    ) -> None:
        self._desk = desk
        self._leases = leases
        self._actors = actors
        self._lookups = lookups

    # --- providers ------------------------------------------------------------------------------

    def offer(self, slot: Slot, message: Offer, now: float) -> None:
        """What the provider has, and what runs there."""
        desk = self._desk
        slot.offered = True
        desk.coming.pop(slot.peer, None)
        slot.pool.resize(message.resources)
        slot.forced = True
        slot.labels = dict(message.labels)
        slot.runtimes = EVERYWHERE | set(message.runtimes)
        desk.roomier[slot.peer] = slot
        for session, end in desk.ended_sessions.items():
            if now - end.at < WORTH_TELLING:
                desk.say(slot.peer, EndSession(session))
        for lease_report in message.leases:
            self._lease_reported(slot, lease_report, now)
        listed = {report.lease for report in message.leases}
        for lease_id in sorted(slot.leases - listed):
            self._lease_unlisted(desk.leases.by_id[lease_id], now)
        for report in message.actors:
            self._actor_reported(slot, report, now)
        listed = {report.spec.actor for report in message.actors}
        for actor_id in sorted(slot.actors - listed):
            self._actor_unlisted(desk.actors.live[actor_id], now)
        slot.forced = slot.pool.overbooked()
        desk.inventory_changed(slot)
        for demand in list(desk.demands.hopeless):
            if not demand.infeasible:
                del desk.demands.hopeless[demand]
            elif any(desk.candidates(need) for need in demand.needs):
                del desk.demands.hopeless[demand]
                demand.infeasible = False
                if demand.is_actor:
                    # Its owner's patience ends here, however long the constructor takes.
                    desk.tell_callers(desk.actors.live[demand.key])

    def _lease_reported(self, slot: Slot, report: LeaseReport, now: float) -> None:
        desk = self._desk
        lease = desk.leases.by_id.get(report.lease)
        if lease is not None:
            self._lease_confirmed(slot, lease, report, now)
            return
        caller = desk.callers.get(report.caller)
        if caller is not None and report.principal not in ("", caller.principal):
            # An id is only a claim: this is somebody else's process.
            caller = None
        claimed = caller is not None and report.lease in caller.claims
        waits = caller is None or now < desk.rejoined_at()
        ours = lease_mark(desk.mark, report.lease, report.session, report.caller, report.principal)
        if report.seal != ours:
            forged(desk, slot, f"lease {report.lease}")
        if report.seal != ours or report.session in desk.ended_sessions or not (claimed or waits):
            desk.say(slot.peer, StopLease(report.lease, kill=True))
            return
        lease = Lease(
            report.lease, report.session, report.caller, "",
            lease_need(report.shape, slot.python, desk.who_is(report.principal)),
            slot, LeaseState.UNCLAIMED, now,
            worker=report.worker, endpoints=report.endpoints,
        )  # fmt: skip
        desk.put_lease(lease)
        if claimed and caller is not None:
            self._claim(caller, lease)
        else:
            deadline = now + desk.timing.rejoin_grace
            desk.agenda.put(deadline, lambda _: self._unclaimed(lease))

    def _lease_confirmed(self, slot: Slot, lease: Lease, report: LeaseReport, now: float) -> None:
        if lease.slot is not slot:
            self._desk.say(slot.peer, StopLease(report.lease, kill=True))
            return
        # A provider tells after its Offer which workers are blocked; the others are not.
        self._desk.block_lease(lease, False)
        if lease.state is LeaseState.MISSING:
            lease.state = LeaseState.GRANTED
            self._desk.seats.update(lease)
        elif lease.state is LeaseState.STARTING and report.endpoints:
            # Its LeaseStarted was lost with the link.
            lease.worker, lease.endpoints = report.worker, report.endpoints
            self._leases.grant(lease, now)

    def _unclaimed(self, lease: Lease) -> None:
        if self._is(lease, LeaseState.UNCLAIMED):
            self._leases.end(lease, kill=True)

    def _lease_unlisted(self, lease: Lease, now: float) -> None:
        desk = self._desk
        if lease.state is LeaseState.STARTING:
            if lease.slot_epoch < lease.slot.epoch:
                desk.say(lease.slot.peer, StopLease(lease.id, kill=True))
                desk.drop_lease(lease)
        elif lease.state is LeaseState.UNCLAIMED:
            # Neither side has it; should its caller come back, it is told that nobody has.
            desk.drop_lease(lease)
        elif lease.state is not LeaseState.MISSING:
            lease.state = LeaseState.MISSING
            desk.seats.update(lease)
            desk.agenda.put(now + AWAIT_DEATH, lambda _: self._missing(lease))

    def _missing(self, lease: Lease) -> None:
        if self._is(lease, LeaseState.MISSING):
            text = f"{lease.slot.name or lease.slot.peer} came back without it"
            self._leases.lose(lease, DeathReport("link_lost", text, worker=lease.worker))

    def _is(self, lease: Lease, state: LeaseState) -> bool:
        return self._desk.leases.by_id.get(lease.id) is lease and lease.state is state

    # --- actors ---------------------------------------------------------------------------------

    def _actor_reported(self, slot: Slot, report: ActorReport, now: float) -> None:
        desk, spec = self._desk, report.spec
        record = desk.actors.live.get(spec.actor)
        adopted = record is None
        if record is None:
            holder = desk.actors.named(spec.namespace, spec.name) if spec.name else None
            # Dead is final: who was told so would not believe that it lives after all.
            ended = not spec.detached and (
                spec.session in desk.ended_sessions or spec.actor in desk.denied
            )
            if spec.seal != desk.actor_mark(spec, report.payload):
                forged(desk, slot, f"actor {spec.actor}")
                ended = True
            if ended or holder is not None or desk.actors.find(spec.actor) is not None:
                desk.say(slot.peer, StopActor(spec.actor, "killed"))
                return
            record = self._adopt(slot, report, now)
        elif not self._supersedes(record, slot, report):
            return
        if report.endpoints and record.state != "alive":
            record.state, record.alive_since = "alive", now
            desk.seats.update(record)
            record.worker, record.endpoints = report.worker, report.endpoints
            desk.tell_callers(record)
        if record.stopping:
            desk.say(
                slot.peer, StopActor(record.id, record.stopping, record.stopping == "released")
            )
        if adopted:
            self._actors.adopted(record, now)
        self._lookups.appeared(record)

    def _adopt(self, slot: Slot, report: ActorReport, now: float) -> ActorRecord:
        desk, spec = self._desk, report.spec
        who = desk.who_is(spec.principal)
        needs = actor_needs(spec.shape, spec.placement, slot.python, who)
        record = ActorRecord(
            spec, report.payload, variant_of(needs, spec.shape.taken), report.signatures, "pending",
            report.incarnation, starts=report.incarnation + 1, restarts=report.incarnation,
            adopted=spec.owner not in desk.callers, needs=needs,
        )  # fmt: skip
        desk.actors.add(record)
        desk.seat(record, slot)
        if not spec.detached and spec.owner not in desk.callers:
            deadline = now + desk.timing.rejoin_grace
            desk.agenda.put(deadline, lambda _: self._unowned(record))
        return record

    def _unowned(self, record: ActorRecord) -> None:
        desk = self._desk
        if desk.actors.live.get(record.id) is record and record.spec.owner not in desk.callers:
            text = f"its owner {record.spec.owner} did not come back to the new hub"
            self._actors.finish(record, DeathReport("released", text))

    def _supersedes(self, record: ActorRecord, slot: Slot, report: ActorReport) -> bool:
        """Whether the report is the incarnation to keep; the other one is stopped."""
        desk = self._desk
        if record.slot is slot:
            if report.incarnation > record.incarnation:
                record.number(report.incarnation)
            return report.incarnation == record.incarnation
        newer = report.incarnation > record.incarnation
        same = report.incarnation == record.incarnation and record.state != "alive"
        if not (newer or (same and report.endpoints)):
            desk.say(slot.peer, StopActor(record.id, "killed"))
            return False
        if record.slot is not None:
            desk.say(record.slot.peer, StopActor(record.id, "killed"))
        demand = desk.demands.find(record.spec.owner, record.id)
        if demand is not None:
            desk.demands.remove(demand)
        desk.unseat(record)
        record.take(variant_of(record.needs, report.spec.shape.taken))
        desk.seat(record, slot)
        record.state = "pending" if record.state == "pending" else "restarting"
        desk.seats.update(record)
        record.number(report.incarnation)
        return True

    def _actor_unlisted(self, record: ActorRecord, now: float) -> None:
        slot = record.slot
        if slot is None or (record.state != "alive" and record.slot_epoch == slot.epoch):
            return
        if record.state != "alive":
            death = DeathReport("link_lost", "the order to start it was lost", provider=slot.name)
            self._actors.died(record, death, b"", now)
            return
        incarnation = record.incarnation
        self._desk.agenda.put(
            now + AWAIT_DEATH, lambda then: self._actor_missing(record, slot, incarnation, then)
        )

    def _actor_missing(self, record: ActorRecord, slot: Slot, incarnation: int, now: float) -> None:
        same = record.slot is slot and record.incarnation == incarnation
        if same and self._desk.actors.live.get(record.id) is record:
            text = f"{slot.name or slot.peer} came back without it"
            self._actors.died(
                record, DeathReport("link_lost", text, worker=record.worker), b"", now
            )

    # --- callers --------------------------------------------------------------------------------

    def owner_came(self, caller: Caller) -> None:
        """It hears of what was taken over from providers before it came: it may know that one of
        these has ended."""
        for record in self._desk.actors.owned_by(caller.peer):
            if record.adopted and sees(caller, record):
                record.adopted = False
                self._desk.say(caller.peer, record.update(self._desk.wall))

    def held(self, caller: Caller, message: HeldLeases, now: float) -> None:
        """The leases that the caller still has."""
        desk = self._desk
        listed = set(message.leases)
        # What it gave back while its link was broken nobody was told.
        caller.claims = {x: due for x, due in caller.claims.items() if x in listed}
        for lease_id in message.leases:
            lease = desk.leases.by_id.get(lease_id)
            if lease is None:
                self._claim_unknown(caller, lease_id, now)
            elif lease.caller == caller.peer and lease.need.who == caller.who:
                self._claim(caller, lease)
        for lease in desk.leases.of_caller(caller.peer):
            if lease.id in listed or lease.state is LeaseState.STARTING:
                continue
            if lease.state is LeaseState.UNCLAIMED or lease.caller_epoch < caller.epoch:
                self._leases.revoke(lease, DeathReport("released", "its caller did not list it"))

    def _claim(self, caller: Caller, lease: Lease) -> None:
        lease.due = caller.claims.pop(lease.id, lease.due)
        lease.caller_epoch = caller.epoch
        if lease.state is LeaseState.UNCLAIMED:
            lease.state = LeaseState.GRANTED
            self._desk.seats.update(lease)
            for demand in self._desk.demands.of_caller(caller.peer):
                if not demand.is_actor and demand.asks_for(lease.need):
                    lease.key = demand.key
                    demand.held.add(lease.id)
                    self._desk.demands.refresh(demand)
                    break
        if lease.recalled_at is not None:
            self._desk.say(caller.peer, LeaseRecalled(lease.id))
        found = lease.suspension
        if found is not None and found.phase is Phase.STILL:
            self._desk.say(caller.peer, LeaseSuspended(lease.id, found.word(self._desk.wall)))

    def _claim_unknown(self, caller: Caller, lease_id: str, now: float) -> None:
        desk = self._desk
        caller.claims[lease_id] = math.inf
        deadline = max(now, desk.rejoined_at())
        if deadline > now:
            desk.agenda.put(deadline, lambda _: self._unreported(caller.peer, lease_id))
        else:
            self._unreported(caller.peer, lease_id)

    def _unreported(self, peer: str, lease_id: str) -> None:
        caller = self._desk.callers.get(peer)
        if caller is not None and lease_id in caller.claims:
            del caller.claims[lease_id]
            text = "no provider has it any more"
            self._desk.say(peer, LeaseLost(lease_id, DeathReport("link_lost", text)))


def forged(desk: Desk, slot: Slot, what: str) -> None:
    """A provider reports what this hub never gave it."""
    text = f"{slot.name or slot.peer} reports {what} without the mark of this hub"
    desk.audit(Decision(slot.key, "report", what, "refused", "bad_signature", text, slot.name))
