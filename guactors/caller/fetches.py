"""Values that neighbours fetch from each other.

Owns: who waits for which value, and the answers. Must never: decide who may have a value: whoever
was lent a reference may.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from guactors.caller.away import Away
from guactors.caller.effects import SendPeer
from guactors.caller.entries import Entry
from guactors.caller.tasks import Buffers
from guactors.errors import ObjectLost, OwnerDied
from guactors.messages import Fetch, Object, RefWord, Release, Value

if TYPE_CHECKING:
    from guactors.caller.objects import ObjectTable


class Fetches:
    """Of one table."""

    def __init__(self, table: ObjectTable) -> None:
        self._table = table
        self._asking: dict[str, set[int]] = {}
        """Neighbour -> objects it waits for."""

    def came(self, entry: Entry) -> None:
        """A value is there: answer who waits for it."""
        fetchers, entry.fetchers = entry.fetchers or (), None
        for neighbour, request in fetchers:
            self._asking[neighbour].discard(entry.id)
            self.answer(neighbour, request, entry)

    def forget(self, neighbour: str) -> None:
        """It is gone: an answer would lend to nobody what it contains."""
        for id in self._asking.pop(neighbour, ()):
            asked = self._table.entries.get(id)
            if asked is not None and asked.fetchers:
                asked.fetchers = [one for one in asked.fetchers if one[0] != neighbour]

    def on_fetch(self, neighbour: str, request: int, word: RefWord, *, whole: bool = False) -> None:
        """Answer now, or when the value comes."""
        id = self._table.find(word)
        if id is None:
            gone = OwnerDied(
                f"{self._table.me} no longer holds object {word.object} of {word.owner}"
            )
            value = Value(pickle.dumps(gone, 5), 0, True)
            self._table.effects.append(SendPeer(neighbour, Object(request, value)))
            return
        entry = self._table.entries[id]
        if entry.data is not None:
            self.answer(neighbour, request, entry, whole=whole)
            return
        self._wait(neighbour, request, entry)
        self._table.need(id)

    def answer(self, neighbour: str, request: int, entry: Entry, *, whole: bool = False) -> None:
        """Send a value that is there, or have it come here first, or to the neighbour's machine."""
        far = whole or not self._table.within_reach(entry.id, neighbour)
        if far and not whole and self._table.place(entry.id, neighbour):
            self._wait(neighbour, request, entry)
        elif far and isinstance(entry.data, Away):
            self._wait(neighbour, request, entry)
            self._table.bring(entry.id, entry.data)
        else:
            self._send(neighbour, request, entry, whole=whole)

    def _wait(self, neighbour: str, request: int, entry: Entry) -> None:
        entry.fetchers = [*(entry.fetchers or ()), (neighbour, request)]
        self._asking.setdefault(neighbour, set()).add(entry.id)

    def on_object(self, neighbour: str, request: int, value: Value, buffers: Buffers) -> None:
        """A value that was fetched."""
        entry = self._table.entries.get(request)
        if value.stored is not None and entry is not None and entry.origin is not None:
            try:
                # Its lender keeps it for us: nobody needs to be told when it is unused here.
                held = self._table.attach(value.stored, "")
            except ObjectLost:
                if value.refs:
                    self._table.effects.append(SendPeer(neighbour, Release(value.refs)))
                self._table.effects.append(
                    SendPeer(neighbour, Fetch(request, entry.origin, whole=True))
                )
            else:
                contains = self._table.borrow(value.refs, neighbour) if value.refs else None
                self._table.settle(request, held, error=value.error, contains=contains)
            return
        self._table.travel.take_in(request, value, buffers, neighbour)

    def _send(self, neighbour: str, request: int, entry: Entry, *, whole: bool = False) -> None:
        value, frames = self._table.travel.value(entry, neighbour, whole=whole)
        self._table.effects.append(SendPeer(neighbour, Object(request, value), list(frames)))
