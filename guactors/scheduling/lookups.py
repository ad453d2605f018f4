"""Questions about actors, some of which must wait for their answer.

Owns: who watches an actor that this hub does not know (yet), and who looks for a name. Must never:
leave a question without an answer.

An unknown actor may be about to be created (its creation travels on the other lane), or a provider
that runs it may be about to come back after a restart of the hub. So the answer "unknown" is given
only when neither can be.
"""

from __future__ import annotations

from itertools import islice

from guactors.messages import (
    UNKNOWN_HERE,
    ActorInfo,
    ActorUpdate,
    AdmitCaller,
    DeathReport,
    Fault,
    FindActor,
    Found,
    WatchActor,
)
from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.desk import Desk, sees

OVERTAKEN_WATCH = 2.0
"""Seconds for which a watch waits for the creation that it overtook."""
OVERTAKEN_FIND = 0.1
"""The same for a name, where somebody waits for the answer."""
LISTED = 2000
LISTED_DEAD = 100
"""So many live actors and latest dead are listed: the answer must fit one message."""


class Lookups:
    """Works on ``desk``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._watches: dict[str, set[str]] = {}
        self._finds: list[tuple[str, FindActor]] = []

    def watch(self, peer: str, message: WatchActor, now: float) -> None:
        """Tell ``peer`` now, and from now on."""
        desk = self._desk
        record = desk.actors.find(message.actor)
        if record is not None:
            self._show(record, peer)
            return
        self._watches.setdefault(message.actor, set()).add(peer)
        deadline = max(now + OVERTAKEN_WATCH, desk.rejoined_at())
        desk.agenda.put(deadline, lambda _: self._unknown(message.actor, peer))

    def _show(self, record: ActorRecord, peer: str) -> None:
        """The actor to a caller: its worker admits the caller first. One of another principal does
        not exist, whatever its state."""
        desk = self._desk
        caller = desk.callers.get(peer)
        if caller is None:
            return
        if not sees(caller, record):
            death = DeathReport("released", UNKNOWN_HERE)
            desk.say(peer, ActorUpdate(record.id, "dead", 0, death=death))
            return
        if record.state != "dead":
            desk.actors.watch(record, peer)
            transport = caller.standing.transport
            if record.slot is not None and transport and peer != record.spec.owner:
                desk.say(record.slot.peer, AdmitCaller(record.id, transport))
        desk.say(peer, record.update(desk.wall))

    def _unknown(self, actor: str, peer: str) -> None:
        waiting = self._watches.get(actor)
        if waiting is None or peer not in waiting:
            return
        waiting.discard(peer)
        if not waiting:
            del self._watches[actor]
        if peer in self._desk.callers:
            self._desk.deny(actor)
            death = DeathReport("released", UNKNOWN_HERE)
            self._desk.say(peer, ActorUpdate(actor, "dead", 0, death=death))

    def find(self, peer: str, message: FindActor, now: float) -> None:
        """Which actor has the name."""
        if self._answer(peer, message):
            return
        self._finds.append((peer, message))
        deadline = max(now + OVERTAKEN_FIND, self._desk.settled_at())
        self._desk.agenda.put(deadline, lambda _: self._not_found(peer, message))

    def _answer(self, peer: str, message: FindActor) -> bool:
        record = self._desk.actors.named(message.namespace, message.name)
        caller = self._desk.callers.get(peer)
        if record is None or caller is None or not sees(caller, record):
            return False
        self._desk.say(peer, Found(message.request, record.spec))
        return True

    def _not_found(self, peer: str, message: FindActor) -> None:
        if (peer, message) not in self._finds:
            return
        self._finds.remove((peer, message))
        text = (
            f"no live actor is called {message.name!r} in namespace {message.namespace!r}: check "
            "both, and that its owner still runs or that it was made with lifetime='detached'"
        )
        self._desk.say(peer, Fault("UsageError", text, message.request))

    def appeared(self, record: ActorRecord) -> None:
        """An actor has become known: whoever asked for it too early is answered now."""
        for peer in sorted(self._watches.pop(record.id, ())):
            if peer != record.spec.owner:
                self._show(record, peer)
            elif record.state != "dead":
                self._desk.actors.watch(record, peer)
        if record.spec.name:
            self._finds = [
                (peer, message) for peer, message in self._finds if not self._answer(peer, message)
            ]

    def caller_left(self, peer: str) -> None:
        """It asks no more."""
        for actor in [actor for actor, peers in self._watches.items() if peer in peers]:
            self._watches[actor].discard(peer)
            if not self._watches[actor]:
                del self._watches[actor]
        self._finds = [(asker, message) for asker, message in self._finds if asker != peer]

    def listing(self, peer: str) -> list[ActorInfo]:
        """Live and lately dead actors that the caller may see."""
        caller = self._desk.callers.get(peer)
        if caller is None:
            return []
        actors = self._desk.actors
        mine = (record for record in actors if sees(caller, record))
        dead = (record for record in actors.recent_dead(LISTED_DEAD) if sees(caller, record))
        return [record.info() for record in [*islice(mine, LISTED), *dead]]
