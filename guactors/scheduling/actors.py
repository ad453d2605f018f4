"""User actors as the hub knows them: records, names, watchers, and the memory of the dead.

Owns: the record of an actor over all its restarts, and the indices over them. Must never: decide
about one (``actor_rules`` does), open a payload, or grow without bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from msgspec.structs import replace

from guactors.alternatives import is_taking, taking
from guactors.messages import ActorInfo, ActorSpec, ActorUpdate, DeathReport, Endpoint
from guactors.scheduling.groups import Bundle
from guactors.scheduling.placement import Need, Needs, Slot
from guactors.scheduling.resources import Units, yielded
from guactors.scheduling.standing import Phase, Suspension
from guactors.scheduling.thrash import Past

MOST_DEAD = 10_000
"""So many dead actors are remembered, for those who ask late."""


@dataclass(eq=False, slots=True)
class ActorRecord:
    """One actor. ``state`` as in ActorUpdate; with a ``slot`` but not alive it is being started."""

    spec: ActorSpec
    payload: bytes
    need: Need
    """Of its alternatives the one that it has, or had last."""
    signatures: bytes = b""
    state: str = "pending"
    incarnation: int = 0
    starts: int = 0
    """The number of the next incarnation."""
    slot: Slot | None = None
    bundle: Bundle | None = None
    """Of a placement group, from which it takes its room."""
    slot_epoch: int = 0
    worker: str = ""
    endpoints: list[Endpoint] = field(default_factory=list)
    death: DeathReport | None = None
    error: bytes = b""
    watchers: set[str] = field(default_factory=set)
    restarts: int = 0
    failures: int = 0
    """Starts that failed, one after the other."""
    stopping: str = ""
    """The cause with which it was asked to end for good."""
    crashing: bool = False
    """It was asked to end as if by a crash."""
    alive_since: float = 0.0
    adopted: bool = False
    """A provider told of it, and its owner was not asked yet whether it should live."""
    suspension: Suspension | None = None
    """See Lease; so all that follow."""
    displaced: int = 0
    last_number: int = 0
    steady: float = 0.0
    state_taken: bytes = b""
    """Of the incarnation before, for the next one to go on with; opened by nobody here."""
    unsavable: bool = False
    """Its state could not be taken."""
    past: Past | None = None
    displaces: tuple[str, ...] = ()
    needs: Needs = ()
    """All alternatives."""

    @property
    def id(self) -> str:
        return self.spec.actor

    def taken(self) -> Units:
        """What it takes now."""
        if self.suspension is None:
            return self.need.hold
        if self.suspension.ending:
            return ()
        free = dict(yielded(self.need.hold))
        return tuple(pair for pair in self.need.hold if pair[0] not in free)

    def take(self, need: Need) -> None:
        """Of its alternatives it is to have this one."""
        self.need = need
        if need.variant != self.spec.shape.taken:
            self.spec = replace(self.spec, shape=taking(self.spec.shape, need.variant))

    def number(self, incarnation: int) -> None:
        """This is now the current incarnation."""
        self.incarnation = incarnation
        self.starts = max(self.starts, incarnation + 1)

    def update(self, wall: Callable[[float], float] = float) -> ActorUpdate:
        """What watchers are told. ``wall`` turns monotonic into epoch seconds."""
        alive = self.state == "alive"
        found = self.suspension
        still = found is not None and found.phase is Phase.STILL
        return ActorUpdate(
            self.spec.actor,
            self.state,
            self.incarnation,
            self.worker if alive else "",
            self.endpoints if alive else [],
            self.death,
            self.error,
            self.slot.peer if alive and self.slot is not None else "",
            found.word(wall) if found is not None and still else None,
        )

    def info(self) -> ActorInfo:
        """Its row in a listing."""
        place = self.slot.peer if self.slot is not None else ""
        return ActorInfo(self.spec, self.state, self.incarnation, place)


class ActorBook:
    """Live actors, their names, and the latest dead."""

    def __init__(self) -> None:
        self.live: dict[str, ActorRecord] = {}
        self._dead: dict[str, ActorRecord] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._owned: dict[str, dict[str, ActorRecord]] = {}
        self._watched: dict[str, dict[str, ActorRecord]] = {}

    def __iter__(self) -> Iterator[ActorRecord]:
        return iter(self.live.values())

    def find(self, actor: str) -> ActorRecord | None:
        """Alive or remembered."""
        return self.live.get(actor) or self._dead.get(actor)

    def named(self, namespace: str, name: str) -> ActorRecord | None:
        """The live actor of that name."""
        actor = self._names.get((namespace, name))
        return None if actor is None else self.live.get(actor)

    def add(self, record: ActorRecord) -> None:
        """A new one; its name, if it has one and nobody else has it, is taken."""
        self._dead.pop(record.id, None)
        self.live[record.id] = record
        self._owned.setdefault(record.spec.owner, {})[record.id] = record
        if record.spec.name:
            self._names.setdefault((record.spec.namespace, record.spec.name), record.id)

    def free_name(self, record: ActorRecord) -> None:
        """The name may be taken by another from now on."""
        key = (record.spec.namespace, record.spec.name)
        if self._names.get(key) == record.id:
            del self._names[key]

    def bury(self, record: ActorRecord) -> None:
        """It is dead for good: keep the certificate, not the payload."""
        self.free_name(record)
        self.live.pop(record.id, None)
        _discard(self._owned, record.spec.owner, record.id)
        for peer in record.watchers:
            _discard(self._watched, peer, record.id)
        record.payload = record.state_taken = b""
        record.watchers.clear()
        self._dead[record.id] = record
        while len(self._dead) > MOST_DEAD:
            del self._dead[next(iter(self._dead))]

    def owned_by(self, owner: str) -> list[ActorRecord]:
        """Live actors that end with their owner."""
        return [r for r in self._owned.get(owner, {}).values() if not r.spec.detached]

    def of_session(self, session: str) -> list[ActorRecord]:
        """Live actors that end with their session."""
        return [r for r in self if r.spec.session == session and not r.spec.detached]

    def watch(self, record: ActorRecord, peer: str) -> None:
        """The peer wants to know how a live actor fares."""
        record.watchers.add(peer)
        self._watched.setdefault(peer, {})[record.id] = record

    def forget(self, peer: str) -> None:
        """The peer is gone and watches no more."""
        for record in self._watched.pop(peer, {}).values():
            record.watchers.discard(peer)

    def recent_dead(self, count: int) -> list[ActorRecord]:
        """The latest ``count`` dead, latest first."""
        return list(islice(reversed(self._dead.values()), count))

    def check(self) -> None:
        """The indices agree."""
        for (namespace, name), actor in self._names.items():
            record = self.live.get(actor)
            assert record is not None, f"the name {name!r} is held by the dead {actor}"
            assert (record.spec.namespace, record.spec.name) == (namespace, name)
        for record in self:
            assert record.id in self._owned[record.spec.owner]
            assert all(record.id in self._watched[peer] for peer in record.watchers)
            assert record.state in ("pending", "alive", "restarting"), record
            assert record.state != "alive" or record.slot is not None
            if record.slot is not None:
                assert record.id in record.slot.actors, f"{record.id} is not on {record.slot!r}"
                assert record.need.variant == is_taking(record.spec.shape), record


def _discard(index: dict[str, dict[str, ActorRecord]], key: str, actor: str) -> None:
    entries = index.get(key, {})
    entries.pop(actor, None)
    if not entries:
        index.pop(key, None)
