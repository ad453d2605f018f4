"""The depots of other machines as their caller uses them: what is copied where, and from where.

Owns: one depot per machine, made when something is to be kept there; which values it was asked to
keep or bring; and who waits for that. Must never: move bytes (depots pull them, see ``replicas``).

A depot is an actor of the caller that does nothing: its process holds blocks of its machine's
memory. So a value outlives the worker that made it, goes to a machine once for all calls there, and
comes from several at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from guactors.caller.actors import ActorBook, RemoteActor
from guactors.caller.away import Away, Name
from guactors.caller.effects import NeedDepot, SendPeer
from guactors.caller.objects import ObjectTable
from guactors.caller.tasks import Task
from guactors.messages import (
    BringValue,
    DropValues,
    KeepBlock,
    KillActor,
    Placed,
    RefWord,
    Stored,
)
from guactors.objects.pulling import Spread

IDLE: Final = 30.0
"""Seconds after which a depot that keeps nothing is ended."""
PATIENCE: Final = 20.0
"""Seconds within which a depot has to be there."""
MOST_FAILURES: Final = 3
"""Depots of a machine that may end one after the other before they kept anything."""
BARRED: Final = 60.0
"""Seconds for which none is asked for where none could be had, or so many ended at once."""
HERE: Final = ""
"""This process, as a source of values."""


class Depot(Struct, eq=False):
    """One machine's. ``link``: the neighbour it is, empty as long as it is none; ``asked``: what it
    has not answered; ``kept``: values it has; ``since``: when it was last of use."""

    store: str
    since: float
    actor: RemoteActor | None = None
    link: str = ""
    asked: dict[int, RefWord] = {}
    kept: dict[int, RefWord] = {}


class Depots:
    """Of one caller. ``lost(id, why)``: no depot keeps the value, or none will; ``placed(id)``: it
    is somewhere else as well now, or will not be."""

    def __init__(self, objects: ObjectTable, actors: ActorBook, now: Callable[[], float]) -> None:
        self._objects = objects
        self._places = objects.places
        self._actors = actors
        self._now = now
        self._depots: dict[str, Depot] = {}
        self._spread: dict[int, Spread] = {}
        """Value -> the machines that have it, or are to have it."""
        self._tasks: dict[tuple[int, str], list[Task]] = {}
        """Value and memory -> calls that wait for it there."""
        self._then: dict[int, dict[str, None]] = {}
        """Value -> memories that it goes to once its own machine's depot has it."""
        self._barred: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        """Memory -> depots that ended one after the other before they kept anything."""
        self.lost: Callable[[int, str], None]
        self.placed: Callable[[int], None] = lambda id: None

    def enable(self) -> None:
        """This process is one that may make depots."""
        self._places.spreads = True

    # --- what is wanted -------------------------------------------------------------------------

    def keep(self, id: int) -> bool:
        """Have the machine where a value was made keep it; whether it is asked to."""
        away = self._objects.entries[id].data
        if not isinstance(away, Away) or not away.giver:
            return False
        return self._ask(id, away.word.store)

    def place(self, id: int, store: str, task: Task | None = None) -> bool:
        """Have a value copied to that memory, for a task that waits for it; False where that cannot
        be."""
        entry = self._objects.entries[id]
        data = entry.data
        if data is None or isinstance(data, bytes) or entry.error:
            return False
        if (id, store) in self._places.refused:
            return False
        if isinstance(data, Away) and data.giver and data.word.store != store:
            if not (self._usable(store) and self.keep(id)):
                return False
            self._then.setdefault(id, {})[store] = None
        elif not self._ask(id, store):
            return False
        if task is not None:
            task.unmet += 1
            self._tasks.setdefault((id, store), []).append(task)
        return True

    def sources(self, id: int) -> dict[str, Name]:
        """Depots that have the value, by their actors."""
        ref = self._objects.word(id)
        return {
            depot.actor.id: ref
            for store in self._places.copies.get(id, ())
            if (depot := self._depots[store]).actor is not None
        }

    def drop(self, id: int) -> list[Task]:
        """The value is wanted no more, or is to be made again; calls that waited for it."""
        for depot in self._depots.values():
            ref = depot.kept.pop(id, None) or depot.asked.pop(id, None)
            if ref is not None:
                self._say(depot, DropValues([ref]))
        self._places.forget_value(id)
        self._spread.pop(id, None)
        self._then.pop(id, None)
        keys = [key for key in self._tasks if key[0] == id]
        return [task for key in keys for task in self._tasks.pop(key)]

    def distrust(self, id: int, store: str) -> None:
        """It is said to be there, and was not found."""
        depot = self._depots.get(store)
        if depot is not None and (ref := depot.kept.pop(id, None)) is not None:
            self._say(depot, DropValues([ref]))
            self._uncopied(id, store)

    def recheck(self, id: int, store: str) -> bool:
        """A worker there did not find the value where it was: the depot may have moved it, and is
        asked; whether it is."""
        depot = self._depots.get(store)
        if depot is None or (ref := depot.kept.pop(id, None)) is None:
            return depot is not None and id in depot.asked
        copies = self._places.copies[id]
        del copies[store]
        if not copies:
            del self._places.copies[id]
        depot.asked[id] = ref
        self._put(depot, id)
        return True

    def _usable(self, store: str) -> bool:
        places = self._places
        return places.spreads and store in places.providers and store not in places.barred

    def _ask(self, id: int, store: str) -> bool:
        if not self._usable(store):
            return False
        depot = self._depots.get(store)
        if depot is None:
            depot = self._depots[store] = Depot(store, self._now(), asked={}, kept={})
            self._objects.effects.append(NeedDepot(store, self._places.providers[store]))
        if id not in depot.asked and id not in depot.kept:
            depot.asked[id] = self._objects.word(id)
            self._places.touched.add(id)
            self._spread_of(id).sources_for(store)
            self._put(depot, id)
        return True

    def _spread_of(self, id: int) -> Spread:
        spread = self._spread.get(id)
        if spread is None:
            data = self._objects.entries[id].data
            origin = data.word.store if isinstance(data, Away) else HERE
            spread = self._spread[id] = Spread(origin)
        return spread

    def _put(self, depot: Depot, id: int) -> None:
        """Say it, if the depot is there to hear it."""
        if not depot.link:
            return
        ref, data = depot.asked[id], self._objects.entries[id].data
        if isinstance(data, Away) and data.word.store == depot.store:
            self._say(depot, KeepBlock(ref, data.word))
        elif data is not None and not isinstance(data, bytes):
            asked, spares = self._spread_of(id).sources_for(depot.store)
            sources = [self._named(store) for store in asked]
            rest = [self._named(store) for store in spares]
            if self._objects.is_here(id):
                rest.append(HERE)
            spares = [name for name in dict.fromkeys(rest) if name not in sources]
            self._say(depot, BringValue(ref, data.word.sizes, sources, spares))

    def _named(self, store: str) -> str:
        """A source as depots know it."""
        depot = self._depots.get(store)
        return depot.actor.id if depot is not None and depot.actor is not None else HERE

    def _say(self, depot: Depot, message: KeepBlock | BringValue | DropValues) -> None:
        if depot.link:
            self._objects.effects.append(SendPeer(depot.link, message))

    # --- depots come and go ---------------------------------------------------------------------

    def made(self, store: str, actor: RemoteActor | None) -> None:
        """The shell has made one, or cannot."""
        depot = self._depots.get(store)
        if depot is None:
            return
        if actor is None:
            self._gone(depot, "none can be made")
            return
        depot.actor = actor
        self.on_actor(actor)

    def on_actor(self, actor: RemoteActor) -> None:
        """There is news of an actor."""
        depot = next((one for one in self._depots.values() if one.actor is actor), None)
        if depot is None:
            return
        if actor.state == "dead":
            self._gone(depot, str(actor.death))
        elif actor.target is not None and not depot.link:
            depot.link = actor.target.peer
            for id in depot.asked:
                self._put(depot, id)

    def on_lost(self, peer: str) -> None:
        """A neighbour is gone: a depot keeps nothing for whom it has lost."""
        depot = self._of(peer)
        if depot is not None:
            self._end(depot, "its link broke")

    def _of(self, peer: str) -> Depot | None:
        return next((one for one in self._depots.values() if one.link == peer), None)

    def _end(self, depot: Depot, why: str) -> None:
        if depot.actor is not None and depot.actor.state != "dead":
            self._actors.end(depot.actor.id, KillActor(depot.actor.id, released=True))
        self._gone(depot, why)

    def _gone(self, depot: Depot, why: str) -> None:
        del self._depots[depot.store]
        if depot.asked and not depot.kept:
            self._failures[depot.store] += 1
            if not depot.link or self._failures[depot.store] >= MOST_FAILURES:
                self._places.barred.add(depot.store)
                self._barred[depot.store] = self._now() + BARRED
        for id in depot.kept:
            self._uncopied(id, depot.store)
        for id in depot.asked:
            self._failed(id, depot.store, why)

    def _uncopied(self, id: int, store: str) -> None:
        """One copy less; the value may have been there only."""
        copies = self._places.copies.get(id, {})
        copies.pop(store, None)
        spread = self._spread.get(id)
        if spread is not None and not spread.on_lost(store):
            del self._spread[id]
        entry = self._objects.entries.get(id)
        if not copies:
            self._places.copies.pop(id, None)
        if entry is None or not isinstance(entry.data, Away) or entry.data.giver:
            return
        if copies:
            self._objects.kept_by_depots(id, next(iter(copies.values())))
        else:
            self.lost(id, "the depot that kept it is gone")

    # --- answers --------------------------------------------------------------------------------

    def on_placed(self, peer: str, message: Placed) -> None:
        """A value is where it was to be, or will not be."""
        depot = self._of(peer)
        id = self._objects.find(message.ref)
        if depot is None:
            return
        if id is None or depot.asked.pop(id, None) is None:
            self._say(depot, DropValues([message.ref]))
        elif message.stored is None:
            self._refused(id, depot.store, message.why)
        else:
            depot.kept[id] = message.ref
            self._failures.pop(depot.store, None)
            self._copied(id, depot.store, message.stored)

    def _copied(self, id: int, store: str, word: Stored) -> None:
        self._places.copies.setdefault(id, {})[store] = word
        away = self._objects.entries[id].data
        if isinstance(away, Away) and not away.giver and away.word.store == store:
            self._objects.kept_by_depots(id, word)
        self._spread_of(id).on_whole(store)
        for other in self._then.pop(id, ()):
            if not self._ask(id, other):
                self._failed(id, other, "it has no depot")
        self._go_on(id, store)

    def _refused(self, id: int, store: str, why: str) -> None:
        """A depot that is there cannot have it."""
        self._spread_of(id)
        self._places.refused.add((id, store))
        self._failed(id, store, why)

    def _failed(self, id: int, store: str, why: str) -> None:
        spread = self._spread.get(id)
        if spread is not None and not spread.on_lost(store):
            del self._spread[id]
        for other in self._then.pop(id, ()):
            self._refused(id, other, why)
        entry = self._objects.entries.get(id)
        data = entry.data if entry is not None else None
        if isinstance(data, Away) and data.word.store == store:
            copies = self._places.copies.get(id)
            if not copies:
                self.lost(id, why)
            elif not data.giver:
                self._objects.kept_by_depots(id, next(iter(copies.values())))
        self._go_on(id, store)

    def _go_on(self, id: int, store: str) -> None:
        self.release(self._tasks.pop((id, store), ()))
        if id in self._objects.entries:
            self.placed(id)

    def release(self, tasks: Iterable[Task]) -> None:
        """They wait for one value less."""
        for task in tasks:
            task.unmet -= 1
            if task.unmet == 0:
                self._objects.on_ready(task)

    # --- time -----------------------------------------------------------------------------------

    def on_tick(self, now: float) -> None:
        """Depots that are not there in time, and those that keep nothing."""
        for depot in list(self._depots.values()):
            if depot.asked and not depot.link and now - depot.since >= PATIENCE:
                self._end(depot, f"it was not there within {PATIENCE:g} s")
            elif depot.link and (depot.asked or depot.kept):
                depot.since = now
            elif now - depot.since >= IDLE:
                self._end(depot, "it kept nothing")
        for store, until in list(self._barred.items()):
            if now >= until:
                del self._barred[store]
                self._places.barred.discard(store)

    def next_wake(self) -> float | None:
        """When something is due."""
        waits = [
            depot.since + (PATIENCE if depot.asked else IDLE)
            for depot in self._depots.values()
            if not (depot.kept or (depot.link and depot.asked))
        ]
        return min((*waits, *self._barred.values()), default=None)

    def check(self) -> None:
        """Invariants, for tests."""
        for id, copies in self._places.copies.items():
            assert id in self._objects.entries, id
            for store in copies:
                assert id in self._depots[store].kept, (id, store)
        for (id, store), tasks in self._tasks.items():
            assert id in self._objects.entries, id
            assert all(task.unmet for task in tasks)
            waits = id in self._depots[store].asked or store in self._then.get(id, ())
            assert waits, (id, store)
