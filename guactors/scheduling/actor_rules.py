"""The life of a user actor: created, placed, alive, restarted, dead.

Owns: what is said to callers and providers about actors, restarts, and the races between the two
lanes of a link (a kill or a watch may overtake the creation it belongs to). Must never: choose a
provider, or open a payload.
"""

from __future__ import annotations

from collections.abc import Sequence

from guactors.messages import (
    ActorEnded,
    ActorStarted,
    ActorUpdate,
    CreateActor,
    DeathReport,
    Displaced,
    Fault,
    KillActor,
    StartActor,
    StopActor,
)
from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.demand import Demand
from guactors.scheduling.desk import Caller, Desk, sees
from guactors.scheduling.groups import Bundle
from guactors.scheduling.judge import Judge
from guactors.scheduling.lease_rules import WITHOUT_FAULT
from guactors.scheduling.placement import Slot, actor_need

MOST_FAILURES = 3
"""Starts that may fail one after the other before the actor is given up."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Bounds of the pause before a restart; the first restart of a healthy actor has none."""
HEALTHY = 10.0
"""An actor that lived so long starts its pauses anew."""
FINAL_CAUSES = frozenset({
    "released", "session_ended", "creation_failed", "killed", "revoked", "env_failed",
    "group_removed", "preempted",
})  # fmt: skip
"""Ends after which there is no restart."""
OVERTAKEN = 5.0
"""Seconds for which a kill waits for the creation that it overtook."""


class ActorRules:
    """Works on ``desk``; every method takes what happened and leaves effects there."""

    def __init__(self, desk: Desk, judge: Judge) -> None:
        self._desk = desk
        self._judge = judge
        self._early_kills: dict[str, dict[str, tuple[Caller, KillActor]]] = {}
        """By actor and principal: whose actor it will be is not known yet."""

    # --- callers --------------------------------------------------------------------------------

    def create(self, caller: Caller, message: CreateActor, now: float) -> ActorRecord | None:
        """A new actor, or one told again after a reconnect. None where it was refused."""
        desk = self._desk
        known = desk.actors.find(message.spec.actor)
        if known is not None and known.spec.principal == caller.principal:
            desk.say(caller.peer, known.update(desk.wall))
            return known
        refusal = self._refusal(caller, message)
        if refusal is not None:
            desk.say(caller.peer, refusal)
            return None
        spec = desk.marked(message, caller)
        need = actor_need(spec.shape, spec.placement, caller.python, caller.who)
        record = ActorRecord(spec, message.payload, need, signatures=message.signatures)
        desk.actors.add(record)
        desk.reopen(spec.session)
        if not self._kill_early(record, now):
            desk.tell_callers(record)
            self.queue(record, now)
        return record

    def _refusal(self, caller: Caller, message: CreateActor) -> Fault | ActorUpdate | None:
        spec = message.spec
        own = (spec.session, spec.owner) == (caller.session, caller.peer)
        if not own or self._desk.actors.find(spec.actor) is not None:
            text = f"{caller.peer} cannot make {spec.actor} in session {spec.session}: not its own"
            return ActorUpdate(spec.actor, "dead", 0, death=DeathReport("refused", text))
        if spec.detached and not spec.name:
            text = (
                f"the detached actor {spec.class_name} has no name, so nobody could find it again"
            )
            return Fault("UsageError", text, message.request)
        holder = self._desk.actors.named(spec.namespace, spec.name) if spec.name else None
        if holder is None:
            return None
        if holder.spec.principal != caller.principal:
            text = f"the name {spec.name!r} in namespace {spec.namespace!r} is somebody else's"
            return Fault("NameTaken", text, message.request)
        text = (
            f"the name {spec.name!r} in namespace {spec.namespace!r} is taken by {holder.id} "
            f"({holder.spec.class_name}, {holder.state}, made by {holder.spec.owner}): choose "
            "another, or get that actor by its name"
        )
        return Fault("NameTaken", text, message.request)

    def kill(self, caller: Caller, message: KillActor, now: float) -> None:
        """End it, for good or as if by a crash; somebody else's does not exist for the caller."""
        desk = self._desk
        record = desk.actors.live.get(message.actor)
        if record is None:
            if message.no_restart and desk.actors.find(message.actor) is None:
                kills = self._early_kills.setdefault(message.actor, {})
                known = kills.get(caller.principal)
                if known is None or _hardness(message) > _hardness(known[1]):
                    kills[caller.principal] = caller, message
                until = max(now + OVERTAKEN, desk.rejoined_at())
                desk.agenda.put(until, lambda _: self._forget_kill(message.actor))
            return
        if not sees(caller, record):
            return
        if not message.no_restart and not message.released:
            if record.slot is not None:
                record.crashing = True
                desk.say(record.slot.peer, _stop(record, "killed"))
            return
        # A graceful end may still be turned into a hard one, never the other way round.
        if record.stopping == "killed":
            return
        cause = record.stopping = "released" if message.released else "killed"
        desk.seats.update(record)
        if not message.released:
            desk.actors.free_name(record)
        if record.slot is None:
            self.bury(record, DeathReport(cause, "it had not started yet"))
        else:
            desk.say(record.slot.peer, _stop(record, cause, graceful=message.released))

    def adopted(self, record: ActorRecord, now: float) -> None:
        """A provider reported an actor that this hub did not know; its end may have been asked
        for already."""
        self._kill_early(record, now)

    def _kill_early(self, record: ActorRecord, now: float) -> bool:
        """Whether somebody wanted its end before it was known here, and may."""
        kills = self._early_kills.pop(record.id, {})
        may = [kill for kill in kills.values() if sees(kill[0], record)]
        for caller, message in sorted(may, key=lambda kill: _hardness(kill[1])):
            self.kill(caller, message, now)
        return bool(may)

    def _forget_kill(self, actor: str) -> None:
        if self._early_kills.pop(actor, None) is not None:
            self._desk.deny(actor)

    def caller_left(self, peer: str, reason: str) -> None:
        """What it owned ends with it."""
        self._desk.actors.forget(peer)
        death = DeathReport("released", f"its owner {peer} is gone: {reason}")
        for record in self._desk.actors.owned_by(peer):
            self.finish(record, death)

    def session_over(self, session: str, reason: str) -> None:
        """Providers end its processes by themselves."""
        death = DeathReport("session_ended", reason)
        for record in self._desk.actors.of_session(session):
            self.bury(record, death)

    # --- placing --------------------------------------------------------------------------------

    def queue(self, record: ActorRecord, now: float) -> None:
        """Let it wait for a place."""
        spec = record.spec
        if self._desk.actors.live.get(record.id) is not record or record.slot is not None:
            return
        gone = self._desk.groups.gone.get(record.need.wish.group)
        if gone is not None:
            self.bury(record, DeathReport("group_removed", f"{gone.id} is gone: {gone.reason}"))
            return
        if self._desk.demands.find(spec.owner, record.id) is None:
            demand = self._desk.demands.add(
                spec.owner, record.id, record.need, spec.shape, 1, is_actor=True
            )
            self._judge.judge(demand, now)

    def start(
        self,
        demand: Demand,
        slot: Slot,
        _now: float,
        bundle: Bundle | None = None,
        displaces: Sequence[Displaced] = (),
    ) -> str:
        """``slot``, or a ``bundle`` on it, was chosen for the actor of ``demand``, for which some
        stand still. Its id."""
        desk = self._desk
        record = desk.actors.live[demand.key]
        desk.demands.served(demand)
        desk.demands.remove(demand)
        desk.seat(record, slot, bundle)
        record.number(record.starts)
        desk.say(
            slot.peer,
            StartActor(
                record.spec, record.incarnation, record.payload, record.signatures,
                desk.transports_of(record), list(displaces),
            ),
        )  # fmt: skip
        return record.id

    # --- providers ------------------------------------------------------------------------------

    def started(self, slot: Slot, message: ActorStarted, now: float) -> None:
        """Its constructor ran."""
        desk = self._desk
        record = desk.actors.live.get(message.actor)
        if record is None or record.slot is not slot:
            cause = "released" if record is None else "killed"
            desk.say(slot.peer, StopActor(message.actor, cause))
            return
        if message.incarnation < record.incarnation or record.state == "alive":
            return
        record.number(message.incarnation)
        record.state, record.alive_since, record.death = "alive", now, None
        desk.seats.update(record)
        record.worker, record.endpoints = message.worker, message.endpoints
        desk.tell_callers(record)

    def ended(self, slot: Slot, message: ActorEnded, now: float) -> None:
        """Its worker is gone. Deaths can be told twice: the second is news to nobody."""
        record = self._desk.actors.live.get(message.actor)
        if record is None or record.slot is not slot or message.incarnation != record.incarnation:
            return
        self.died(record, message.death, message.error, now)

    def provider_left(self, slot: Slot, reason: str, now: float) -> None:
        """Every actor on it is gone."""
        death = self._desk.died_with(slot, reason)
        for record in [self._desk.actors.live[x] for x in sorted(slot.actors)]:
            self.died(record, death, b"", now)

    # --- deaths ---------------------------------------------------------------------------------

    def died(self, record: ActorRecord, death: DeathReport, error: bytes, now: float) -> None:
        """This incarnation is over: restart it, or let it be dead."""
        was_alive = record.state == "alive"
        if death.cause == "refused" and not was_alive and record.slot is not None:
            self._refused(record, record.slot, death, now)
            return
        if record.stopping:
            final = True
        elif death.cause == "killed" and record.crashing:
            final = False
        else:
            final = death.cause in FINAL_CAUSES
        record.crashing = False
        self._desk.unseat(record)
        if death.cause == "start_failed" and not final:
            record.failures += 1
            if record.failures >= MOST_FAILURES:
                self.bury(record, death, error)
            else:
                self._again(record, death, FIRST_PAUSE * 2 ** (record.failures - 1), now)
        elif not was_alive and death.cause in WITHOUT_FAULT and not final:
            # It never ran to its owner's knowledge: moving it is no restart.
            self._again(record, death, 0.0, now)
        elif final or not self._may_restart(record):
            self.bury(record, death, error)
        else:
            self._restart(record, death, was_alive, now)

    def _refused(self, record: ActorRecord, slot: Slot, death: DeathReport, now: float) -> None:
        """The owner of that provider does not allow it there: perhaps another one does."""
        desk = self._desk
        desk.refused_by(slot, record.need, death.detail)
        if desk.candidates(record.need) and not record.stopping:
            desk.unseat(record)
            self._again(record, death, 0.0, now)
        else:
            self.bury(record, death)

    def displace(self, record: ActorRecord, death: DeathReport, now: float) -> None:
        """It gives way by its end, from this side; where the cause is ``requeued`` it begins again
        at no cost to its restarts."""
        if record.slot is not None:
            grace = record.need.grace
            self._desk.say(record.slot.peer, _stop(record, death.cause, grace=grace))
        if death.cause in FINAL_CAUSES or record.stopping:
            self.bury(record, death)
            return
        self._desk.unseat(record)
        # It does not begin beside itself.
        self._again(record, death, record.need.grace, now)

    def who_changed(self, who: str, now: float) -> None:
        """A principal may do other things than before: its actors that it may not have any more
        end."""
        desk = self._desk
        death = DeathReport("revoked", "its grant allows it no longer")
        for record in [record for record in desk.actors if record.need.who == who]:
            if record.slot is not None and not desk.permission.permits(
                record.need, record.slot, now
            ):
                self.finish(record, death)

    @staticmethod
    def _may_restart(record: ActorRecord) -> bool:
        return record.spec.max_restarts < 0 or record.restarts < record.spec.max_restarts

    def _restart(
        self, record: ActorRecord, death: DeathReport, was_alive: bool, now: float
    ) -> None:
        healthy = was_alive and now - record.alive_since >= HEALTHY
        record.failures = 0 if healthy else record.failures + 1
        pause = 0.0
        if record.failures > 1:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(record.failures - 2, 16))
        record.restarts += 1
        record.state = "restarting"
        self._again(record, death, pause, now)

    def _again(self, record: ActorRecord, death: DeathReport, pause: float, now: float) -> None:
        record.death = death
        if record.state == "alive":
            record.state = "restarting"
        self._desk.tell_callers(record)
        if pause:
            self._desk.agenda.put(now + pause, lambda then: self.queue(record, then))
        else:
            self.queue(record, now)

    def finish(self, record: ActorRecord, death: DeathReport) -> None:
        """End it from this side, at once."""
        if record.slot is not None:
            self._desk.say(record.slot.peer, _stop(record, death.cause))
        self.bury(record, death)

    def bury(self, record: ActorRecord, death: DeathReport, error: bytes = b"") -> None:
        """Dead for good: out of everything but the memory, and everybody is told."""
        desk = self._desk
        demand = desk.demands.find(record.spec.owner, record.id)
        if demand is not None:
            desk.demands.remove(demand)
        desk.unseat(record)
        record.state, record.death, record.error = "dead", death, error
        desk.tell_callers(record)
        desk.actors.bury(record)
        desk.orphaned += desk.groups.of_actor(record.id)


def _stop(
    record: ActorRecord, cause: str, *, graceful: bool = False, grace: float = 0.0
) -> StopActor:
    return StopActor(record.id, cause, graceful, record.incarnation, grace)


def _hardness(message: KillActor) -> int:
    """The harder of two kills counts."""
    return 1 if message.released else 2
