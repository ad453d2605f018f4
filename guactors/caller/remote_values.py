"""Values that other machines keep for us: when they come here, and what is done when they are lost.

Owns: the decision to bring a value, to leave it, to copy it to where a call runs, or to have it
made again. Must never: move bytes itself (``away`` and ``depots`` have that done), or choose a
machine for a call (``leases`` do).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Final

from guactors.caller.actors import ActorBook, RemoteActor
from guactors.caller.away import Away, Bringing, Name
from guactors.caller.depots import Depots
from guactors.caller.endings import Endings
from guactors.caller.lineage import Lineage
from guactors.caller.objects import ObjectTable
from guactors.caller.replicas import Replicas
from guactors.caller.tasks import Buffers, Task
from guactors.errors import GuactorsError, ObjectLost
from guactors.messages import (
    BlockChunk,
    BringValue,
    DropValues,
    KeepBlock,
    Leaving,
    Message,
    Placed,
    ReadValue,
)
from guactors.objects.base import Held

LOOK: Final = 5.0
"""Seconds between two looks whether values on their way still come."""


class RemoteValues:
    """``resubmit(task, ready)``: run a call once more; ``ready``: its dependencies are there.
    ``now()``: when the present event came."""

    def __init__(
        self,
        objects: ObjectTable,
        actors: ActorBook,
        endings: Endings,
        resubmit: Callable[[Task, bool], None],
        now: Callable[[], float],
    ) -> None:
        self._objects = objects
        self._actors = actors
        self._endings = endings
        self._resubmit = resubmit
        self._now = now
        self.lineage = Lineage()
        self.bringing = bringing = Bringing(objects.effects)
        self.replicas = Replicas(objects, bringing)
        self.depots = Depots(objects, actors, now)
        bringing.reach = self._reach
        bringing.arrived = self._arrived
        bringing.failed = self._failed
        bringing.lost = self._not_brought
        bringing.grown = self.replicas.grew
        self.depots.lost = self._no_depot_has
        self.depots.placed = self._placed
        objects.bring = self._bring
        objects.keep = self.depots.keep
        objects.place = self._place
        objects.on_left = self._left
        objects.on_dropped = self.depots.drop
        objects.on_neighbour_gone = self._neighbour_gone
        endings.on_away = self.lineage.keep

    # --- getting a call's values to where it runs ------------------------------------------------

    def gather_firmly(self, task: Task) -> bool:
        """As ``gather`` for a call to an actor, which must not be overtaken: a neighbour that finds
        a value gone would have it sent once more."""
        target = task.home.target
        return self._gather(task, target.peer, firmly=True)

    def gather(self, task: Task, neighbour: str) -> bool:
        """Whether the task can go to the neighbour as things are; else what the neighbour cannot
        reach is copied to its machine, or brought here, and the task is ready when it is."""
        return self._gather(task, neighbour, firmly=False)

    def _gather(self, task: Task, neighbour: str, *, firmly: bool) -> bool:
        objects = self._objects
        ids = dict.fromkeys(task.deps)
        far = [id for id in ids if not objects.within_reach(id, neighbour, firmly=firmly)]
        store = objects.places.of_peer.get(neighbour, "")
        self.fetch_for(task, [id for id in far if not self.depots.place(id, store, task)])
        return not far

    def fetch_for(self, task: Task, ids: list[int]) -> None:
        """Have these brought here, or made again; the task is ready when they are."""
        objects = self._objects
        for id in ids:
            entry = objects.entries[id]
            task.unmet += 1
            entry.dependents = [*(entry.dependents or ()), task]
        for id in ids:
            away = objects.entries[id].data
            if isinstance(away, Away):
                self._bring(id, away)

    def missed(self, task: Task) -> list[int]:
        """A worker could not reach what it needs where we said it is; what is not here of that, and
        no depot may have elsewhere."""
        objects = self._objects
        store = objects.places.of_peer.get(task.peer, "")
        asked = [id for id in dict.fromkeys(task.deps) if self.depots.recheck(id, store)]
        return [
            id for id in dict.fromkeys(task.deps) if not objects.is_here(id) and id not in asked
        ]

    def _place(self, id: int, neighbour: str) -> bool:
        return self.depots.place(id, self._objects.places.of_peer.get(neighbour, ""))

    def _placed(self, id: int) -> None:
        entry = self._objects.entries[id]
        if isinstance(entry.data, Away) and entry.wanted:
            self._bring(id, entry.data)
        self._free_giver(id)
        if entry.fetchers and entry.data is not None:
            self._objects.fetches.came(entry)

    def _free_giver(self, id: int) -> None:
        """Once a depot has the value, its worker need not keep it, unless it is sending it."""
        entry = self._objects.entries[id]
        copies = self._objects.places.copies.get(id)
        away = entry.data
        if copies and isinstance(away, Away) and away.giver and id not in self.bringing:
            self._objects.kept_by_depots(
                id, copies.get(away.word.store, next(iter(copies.values())))
            )

    # --- bringing -------------------------------------------------------------------------------

    def on_message(self, peer: str, message: Message, buffers: Buffers) -> None:
        """Any message about values on other machines."""
        match message:
            case BlockChunk():
                self.bringing.on_chunk(peer, message, buffers, self._now())
            case Placed():
                self.depots.on_placed(peer, message)
            case ReadValue():
                self.replicas.on_read(peer, message, self._now())
            case KeepBlock():
                self.replicas.on_keep(peer, message)
            case BringValue():
                self._on_bring(peer, message)
            case DropValues():
                self.replicas.on_drop(peer, message)
            case Leaving():
                self._on_leaving(peer)
            case _:
                pass

    def on_actor(self, actor: RemoteActor) -> None:
        """There is news of an actor, which may be a depot of ours or of our caller."""
        self.depots.on_actor(actor)
        if actor.state == "dead":
            self.bringing.on_source_lost(actor.id, self._now())
        elif actor.target is not None:
            self.bringing.on_reached(actor.id)

    def on_tick(self, now: float) -> None:
        """Neighbours that keep what they do not send are given up."""
        if self.bringing:
            self.bringing.on_tick(now)
        self.replicas.on_tick(now)
        self.depots.on_tick(now)

    def next_wake(self, now: float) -> float | None:
        """When to look for neighbours that do not send."""
        wakes = (
            now + LOOK if self.bringing else None,
            self.replicas.next_wake(),
            self.depots.next_wake(),
        )
        return min((wake for wake in wakes if wake is not None), default=None)

    def _on_bring(self, peer: str, message: BringValue) -> None:
        for name in (*message.sources, *message.spares):
            if name:
                self._actors.watch(name, "depot")
        self.replicas.on_bring(peer, message, self._now())

    def _on_leaving(self, neighbour: str) -> None:
        """It ends soon: what it keeps for us is kept by others, or comes here."""
        if neighbour in self._objects.kept_at:
            for id in self._given_by(neighbour):
                away = self._objects.entries[id].data
                if isinstance(away, Away) and not self.depots.keep(id):
                    self._bring(id, away)

    def _reach(self, source: str) -> str:
        actor = self._actors.actors.get(source)
        if actor is None:
            return source
        return actor.target.peer if actor.target is not None and not actor.target.lost else ""

    def _bring(self, id: int, away: Away) -> None:
        sources: dict[str, Name] = {}
        if self._objects.places.copies.get(id):
            sources.update(self.depots.sources(id))
        elif away.giver in self._objects.places.of_peer:
            sources[away.giver] = away.name
        elif away.giver and self.depots.keep(id):
            return  # its worker is gone, a depot may come by it
        self.bringing.bring(id, away.word.sizes, sources, self._now())

    def _arrived(self, id: int, held: Held) -> None:
        if self._objects.is_away(id):
            self._objects.come(id, held)
        else:
            self._objects.settle(id, held)
            self.replicas.came(id)

    def _left(self, id: int) -> None:
        """The value is here, or nobody wants it: the call that made it is not needed, unless it is
        being made again for another result."""
        self.bringing.forget(id)
        task = self.lineage.let_go(id)
        if task is not None and not self._running(task):
            self._endings.finish(task)

    # --- loss -----------------------------------------------------------------------------------

    def on_missed(self) -> None:
        """Values were gone when we heard of them."""
        missed, self._objects.missed = self._objects.missed, []
        for id, why in missed:
            if self._objects.is_away(id):
                self._lost(id, why)

    def _given_by(self, neighbour: str) -> list[int]:
        entries = self._objects.entries.values()
        return [
            entry.id
            for entry in entries
            if isinstance(entry.data, Away) and entry.data.giver == neighbour
        ]

    def _neighbour_gone(self, neighbour: str) -> None:
        """What it kept for us is gone with it, where no depot keeps it or can come by it still."""
        self.replicas.on_lost(neighbour)
        if self.bringing:
            self.bringing.on_source_lost(neighbour, self._now())
        self.depots.on_lost(neighbour)
        if neighbour in self._objects.kept_at:
            for id in self._given_by(neighbour):
                self._free_giver(id)
                if self._still_of(id, neighbour) and not self.depots.keep(id):
                    self._lost(id, f"{neighbour} is gone")

    def _still_of(self, id: int, giver: str) -> bool:
        entry = self._objects.entries.get(id)
        return entry is not None and isinstance(entry.data, Away) and entry.data.giver == giver

    def _not_brought(self, id: int, why: str) -> None:
        """No source had it: a depot may have it by now, or be about to."""
        if not self._objects.is_away(id):
            self.replicas.failed(id, why)
            return
        away = self._objects.entries[id].data
        assert isinstance(away, Away)
        if not away.giver:
            for store in list(self._objects.places.copies.get(id, ())):
                self.depots.distrust(id, store)  # the last one ends in _no_depot_has
            return
        self._free_giver(id)
        now_at = self._objects.entries[id].data
        if now_at is not away and isinstance(now_at, Away):
            self._bring(id, now_at)
        elif not self.depots.keep(id):
            self._lost(id, why)

    def _no_depot_has(self, id: int, why: str) -> None:
        entry = self._objects.entries[id]
        assert isinstance(entry.data, Away)
        giver = entry.data.giver
        if giver and giver in self._objects.places.of_peer:
            return  # the worker has it
        self._lost(id, why)

    def _lost(self, id: int, why: str) -> None:
        self.bringing.forget(id)
        waiting = self.depots.drop(id)
        self._make_again(id, why)
        self.depots.release(waiting)

    def _make_again(self, id: int, why: str) -> None:
        task = self.lineage.maker(id)
        running = task is not None and self._running(task)
        if task is None or task.cancelled or task.fault or not (running or task.retries):
            reason = (
                f"the memory that held the value is gone ({why}), and it cannot be made again: it "
                "came of an actor or a stream, or of a call that has no retries left or whose "
                "arguments were too large to be kept"
            )
            self._fail(id, ObjectLost(reason))
            return
        self.lineage.let_go(id)
        self._objects.unsettle(id, task)
        if running:
            return
        task.retries -= task.retries > 0
        task.attempt += 1
        task.peer = ""
        self._resubmit(task, self._await_again(task))

    def _running(self, task: Task) -> bool:
        """Whether the call is under way again already."""
        entries = (self._objects.entries.get(id) for id in task.results())
        return any(entry is not None and entry.data is None for entry in entries)

    def _await_again(self, task: Task) -> bool:
        """Whether all that the task depends on is there; some of it may be made again as well."""
        task.unmet = 0
        for id in task.deps:
            entry = self._objects.entries[id]
            if entry.data is None:
                task.unmet += 1
                entry.dependents = [*(entry.dependents or ()), task]
        return not task.unmet

    def _failed(self, id: int, error: GuactorsError) -> None:
        """There is no memory for it."""
        if self._objects.is_away(id):
            self._fail(id, error)
        else:
            self.replicas.failed(id, str(error))

    def _fail(self, id: int, error: GuactorsError) -> None:
        self._objects.come(id, pickle.dumps(error, 5), error=True)
