"""Values this process holds, waits for, lends and borrows.

Owns: the object table: one entry per value with its references, loans in both directions, and the
tasks that wait for it. Must never: unpickle, send anything itself (it returns effects), or block.

A value travels between neighbours only: whoever sends a reference lends it, whoever receives it
fetches from the lender. An entry lives while a local reference, a loan to a neighbour, a value that
contains it, or a task that needs it holds it.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable

from guactors.caller.away import Away
from guactors.caller.effects import Effect, SendPeer
from guactors.caller.entries import Entry
from guactors.caller.fetches import Fetches
from guactors.caller.places import Places
from guactors.caller.tasks import Buffers, Task
from guactors.caller.travel import Travel
from guactors.errors import ObjectLost, OwnerDied
from guactors.messages import (
    Fetch,
    RefWord,
    Release,
    Stored,
    Unused,
)
from guactors.objects.base import Held


class ObjectTable:
    """All entries of one process, ``me`` being the owner id it signs references with."""

    def __init__(self, me: str, store: str = "") -> None:
        self.me = me
        self.places = Places(store)
        self.attach: Callable[[Stored, str], Held] = _nowhere
        """Holds a value in shared memory; raises ObjectLost."""
        self.kept_at: Counter[str] = Counter()
        """Neighbour -> values that it keeps for us."""
        self.remade: set[int] = set()
        """Values that were there, are lost, and are being made again."""
        self.missed: list[tuple[int, str]] = []
        """Values that were gone when we heard of them, and why."""
        self.bring: Callable[[int, Away], None] = lambda id, away: None
        """Has a value that is away brought here."""
        self.on_left: Callable[[int], None] = lambda id: None
        """A value is away no longer, and not because it was lost."""
        self.on_neighbour_gone: Callable[[str], None] = lambda neighbour: None
        self.on_dropped: Callable[[int], object] = lambda id: None
        """A value that other machines have, or are to have, is wanted no more."""
        self.keep: Callable[[int], object] = lambda id: None
        """Has the machine where a value was made keep it beyond the life of its worker."""
        self.place: Callable[[int, str], bool] = lambda id, neighbour: False
        """Has a value copied to the neighbour's machine; whether that can be."""
        self.entries: dict[int, Entry] = {}
        self.settled: list[int] = []
        self.effects: list[Effect] = []
        self.on_ready: Callable[[Task], None] = lambda task: None
        self._next = 1
        self._borrowed: dict[tuple[str, int], int] = {}
        self._loans: dict[str, Counter[int]] = {}
        self.captured: dict[bytes, list[int]] = {}
        """Function -> objects that its code refers to, held till the session ends."""
        self.travel = Travel(self)
        self.fetches = Fetches(self)

    # --- making and dropping ---------------------------------------------------------------

    def new(self, count: int = 1) -> int:
        """Reserve ``count`` consecutive pending entries, each held once; the first id."""
        first = self._next
        self._next = first + count
        entries = self.entries
        for id in range(first, self._next):
            entries[id] = Entry(id)
        return first

    def new_one(self) -> int:
        """As ``new(1)``, for the hot path."""
        id = self._next
        self._next = id + 1
        self.entries[id] = Entry(id)
        return id

    def settle(
        self,
        id: int,
        data: bytes | Held | Away,
        buffers: Buffers = (),
        *,
        error: bool = False,
        contains: list[int] | None = None,
    ) -> None:
        """The value is there. A second value for the same id is dropped (late retry)."""
        entry = self.entries.get(id)
        if entry is None or entry.data is not None:
            for inner in contains or ():
                self.drop(inner)
            if isinstance(data, Away) and data.giver:
                self.effects.append(SendPeer(data.giver, Unused([data.name])))
            return
        if isinstance(data, Away) and data.giver:
            self.kept_at[data.giver] += 1
        entry.data = data
        entry.buffers = buffers
        entry.error = error
        entry.contains = contains
        entry.task = None
        if self.remade:
            self.remade.discard(id)
        self._news(entry)

    def _news(self, entry: Entry) -> None:
        """Tell who waits for the value."""
        id = entry.id
        if isinstance(entry.data, Away):
            if entry.wanted:
                self.bring(id, entry.data)
            elif entry.data.giver:
                self.keep(id)
        if entry.watched:
            self.settled.append(id)
        if entry.dependents:
            waiting, entry.dependents = entry.dependents, None
            for task in waiting:
                task.unmet -= 1
                if task.unmet == 0:
                    self.on_ready(task)
        if entry.fetchers:
            self.fetches.came(entry)

    def fail(self, id: int, error: BaseException) -> None:
        """Settle with an error of our own."""
        self.settle(id, pickle.dumps(error, 5), error=True)

    def hold(self, id: int) -> None:
        """One more reason to keep it."""
        self.entries[id].holds += 1

    def drop(self, id: int) -> None:
        """One reason less; at none the entry and its loans go."""
        entry = self.entries.get(id)
        if entry is None:
            return
        entry.holds -= 1
        if entry.holds > 0:
            return
        del self.entries[id]
        self.remade.discard(id)
        if isinstance(entry.data, Away):
            self._leave(entry)
            self.on_left(id)
        if id in self.places.touched:
            self.on_dropped(id)
        for inner in entry.contains or ():
            self.drop(inner)
        if entry.origin is not None:
            del self._borrowed[entry.origin.owner, entry.origin.object]
            for lender, count in (entry.lenders or {}).items():
                self.effects.append(SendPeer(lender, Release([entry.origin] * count)))

    # --- waiting ----------------------------------------------------------------------------

    def depend(self, task: Task) -> bool:
        """Hold the task's dependencies; True when all are there already."""
        task.unmet = 0
        for id in task.deps:
            entry = self.entries[id]
            entry.holds += 1
            if entry.data is None:
                task.unmet += 1
                if entry.dependents is None:
                    entry.dependents = []
                entry.dependents.append(task)
                self.need(id)
        return task.unmet == 0

    def need(self, id: int) -> None:
        """Somebody here wants the value: fetch it where it is borrowed and not yet asked for."""
        entry = self.entries[id]
        if entry.origin is None or entry.data is not None or entry.fetching:
            return
        lender = next(iter(entry.lenders or ()), "")
        if not lender:
            self.fail(id, OwnerDied(f"{entry.origin.owner} no longer lends object {id}"))
            return
        entry.fetching = True
        self.effects.append(SendPeer(lender, Fetch(id, entry.origin)))

    # --- lending and borrowing --------------------------------------------------------------

    def word(self, id: int) -> RefWord:
        """The reference as it travels."""
        origin = self.entries[id].origin
        return origin if origin is not None else RefWord(self.me, id)

    def lend(self, ids: Iterable[int], neighbour: str) -> list[RefWord]:
        """Keep these until the neighbour releases them or is lost."""
        words = []
        loans = self._loans.setdefault(neighbour, Counter())
        for id in ids:
            self.entries[id].holds += 1
            loans[id] += 1
            words.append(self.word(id))
        return words

    def borrow(self, words: Iterable[RefWord], neighbour: str) -> list[int]:
        """Local ids for references that a neighbour lent us, each held once more."""
        ids = []
        for word in words:
            id = self.find(word)
            if id is None:
                id = self.new()
                self._adopt(id, word)
            else:
                self.entries[id].holds += 1
            lenders = self.entries[id].lenders
            if lenders is None:
                self.effects.append(SendPeer(neighbour, Release([word])))
            else:
                lenders[neighbour] += 1
            ids.append(id)
        return ids

    def _adopt(self, id: int, word: RefWord) -> None:
        entry = self.entries[id]
        entry.origin = word
        entry.lenders = Counter()
        self._borrowed[word.owner, word.object] = id

    def find(self, word: RefWord) -> int | None:
        """The local id of a reference, or None where it is unknown here."""
        if word.owner == self.me and word.object in self.entries:
            return word.object
        # One of our own that we have let go may come back to us: then it is borrowed, too.
        return self._borrowed.get((word.owner, word.object))

    def close(self) -> None:
        """Nobody else needs anything of ours any more: no function, no neighbour."""
        captured, self.captured = self.captured, {}
        for ids in captured.values():
            for id in ids:
                self.drop(id)
        loans, self._loans = self._loans, {}
        for lent in loans.values():
            for id in lent.elements():
                self.drop(id)

    def settle_in(
        self, word: RefWord, data: bytes, buffers: Buffers, contains: list[int], *, error: bool
    ) -> int:
        """An id, held once, for a reference whose value came with it."""
        id = self.stray(word)
        for inner in contains:
            self.entries[inner].holds += 1
        self.settle(id, data, buffers, error=error, contains=contains)
        return id

    def stray(self, word: RefWord) -> int:
        """An id, held once, for a reference that came outside any message (a user's own pickle):
        nobody lends it, so its value arrives only if it is already here."""
        id = self.find(word)
        if id is not None:
            self.entries[id].holds += 1
            return id
        id = self.new()
        self._adopt(id, word)
        return id

    def on_release(self, neighbour: str, words: Iterable[RefWord]) -> None:
        """A neighbour gives loans back; unknown ones are ignored, they ended with a lost link."""
        loans = self._loans.get(neighbour)
        for word in words:
            id = self.find(word)
            if loans is not None and id is not None and loans[id] > 0:
                loans[id] -= 1
                self.drop(id)

    def lent(self) -> Counter[int]:
        """How often each object is lent."""
        return sum(self._loans.values(), Counter[int]())

    def lends_to(self, neighbour: str) -> bool:
        """Whether the neighbour still holds loans of ours."""
        return any(self._loans.get(neighbour, {}).values())

    def lends(self) -> bool:
        """Whether anybody holds loans of ours."""
        return any(any(loans.values()) for loans in self._loans.values())

    def borrows_from(self, neighbour: str) -> bool:
        """Whether something here was borrowed from the neighbour."""
        return neighbour in self.kept_at or any(
            neighbour in (self.entries[id].lenders or ()) for id in self._borrowed.values()
        )

    def on_neighbour_lost(self, neighbour: str) -> None:
        """Its loans are over; what we still had to fetch from it has no source left."""
        self.places.forget(neighbour)
        for id, count in self._loans.pop(neighbour, Counter()).items():
            for _ in range(count):
                self.drop(id)
        self.fetches.forget(neighbour)
        for id in list(self._borrowed.values()):
            entry = self.entries.get(id)
            if entry is None or not entry.lenders or neighbour not in entry.lenders:
                continue
            del entry.lenders[neighbour]
            if entry.fetching and entry.data is None:
                entry.fetching = False
                self.need(id)
        self.on_neighbour_gone(neighbour)

    # --- values on other machines -----------------------------------------------------------

    def is_away(self, id: int) -> bool:
        """Whether the value is there, but not here."""
        entry = self.entries.get(id)
        return entry is not None and isinstance(entry.data, Away)

    def is_here(self, id: int) -> bool:
        """Whether the value is there, and here."""
        data = self.entries[id].data
        return data is not None and not isinstance(data, Away)

    @property
    def all_here(self) -> bool:
        """Whether each value that is there at all is here, and all neighbours are on this machine
        or may be sent it, as it nearly always is."""
        return not (self.kept_at or self.remade or self.places.far)

    def within_reach(self, id: int, neighbour: str, *, firmly: bool = False) -> bool:
        """See ``Places.reaches``."""
        return self.places.reaches(self.entries[id], neighbour, firmly=firmly)

    def kept_by_depots(self, id: int, word: Stored) -> None:
        """A value that is away is where it was, or elsewhere, and no worker need keep it."""
        entry = self.entries[id]
        self._leave(entry)
        entry.data = Away(word, "")

    def come(self, id: int, data: bytes | Held, *, error: bool = False) -> None:
        """A value that was away is here, or will never be (``error``)."""
        entry = self.entries[id]
        self._leave(entry)
        entry.data = data
        entry.error = error
        self.on_left(id)
        self._news(entry)

    def unsettle(self, id: int, task: Task) -> None:
        """A value that was away is lost; ``task`` makes it again."""
        entry = self.entries[id]
        self._leave(entry)
        entry.data = None
        entry.task = task
        self.remade.add(id)
        for inner in entry.contains or ():
            self.drop(inner)
        entry.contains = None

    def _leave(self, entry: Entry) -> None:
        """The giver need not keep it for us any longer."""
        away = entry.data
        assert isinstance(away, Away)
        if not away.giver:
            return
        self.kept_at[away.giver] -= 1
        if not self.kept_at[away.giver]:
            del self.kept_at[away.giver]
        self.effects.append(SendPeer(away.giver, Unused([away.name])))

    def check(self) -> None:
        """Invariants, for tests."""
        kept: Counter[str] = Counter()
        for entry in self.entries.values():
            if isinstance(entry.data, Away) and entry.data.giver:
                kept[entry.data.giver] += 1
        assert kept == self.kept_at, (kept, self.kept_at)
        for id, entry in self.entries.items():
            assert entry.id == id
            assert entry.holds > 0, entry
            assert entry.data is None or self.is_away(id) or not entry.dependents, entry
        for loans in self._loans.values():
            assert all(count >= 0 for count in loans.values())
            assert all(id in self.entries for id, count in loans.items() if count)


def _nowhere(word: Stored, giver: str) -> Held:
    raise ObjectLost(f"{word.arena} of {giver} is nothing to this process: it has no shared memory")
