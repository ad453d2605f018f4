"""Values that this process keeps for others on its machine, and bytes of values for other machines.

Owns: what was brought or is held for whom, and who waits for which part of it. Must never: decide
that a value is needed here: its caller does (``depots``).

A value that is still on its way is handed on as far as it came.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from guactors.caller.away import Away, Bringing
from guactors.caller.effects import SendPeer
from guactors.caller.objects import ObjectTable
from guactors.errors import ObjectLost
from guactors.messages import (
    BlockChunk,
    BringValue,
    DropValues,
    KeepBlock,
    Placed,
    ReadValue,
    RefWord,
)

EARLY: Final = 5.0
"""Seconds for which a question for a value that is not known here waits to be: word that it is to
come may be on another link."""


class Replicas:
    """Of one process."""

    def __init__(self, objects: ObjectTable, bringing: Bringing) -> None:
        self._objects = objects
        self._bringing = bringing
        self._kept: dict[str, dict[int, RefWord]] = {}
        """Neighbour -> values that it wants here, each held once for it."""
        self._waiting: dict[int, list[tuple[str, ReadValue]]] = {}
        """Value on its way -> questions for parts of it that have not come."""
        self._early: list[tuple[float, str, ReadValue]] = []
        """Questions for values that are not known here, each with the moment of its refusal."""

    # --- what a caller wants here -------------------------------------------------------------

    def on_keep(self, peer: str, message: KeepBlock) -> None:
        """Hold what a worker of this machine made."""
        id = self._take(peer, message.ref)
        if self._objects.entries[id].data is None:
            try:
                held = self._objects.attach(message.stored, "")
            except ObjectLost as lost:
                self._fail(peer, id, message.ref, str(lost))
                return
            self._objects.settle(id, held)
        self._tell(peer, id, message.ref)
        self._hear(message.ref)

    def on_bring(self, peer: str, message: BringValue, now: float) -> None:
        """Have it come; a source that is no depot is the neighbour that asks."""
        id = self._take(peer, message.ref)
        if self._objects.entries[id].data is not None or id in self._bringing:
            self._tell(peer, id, message.ref)
            return
        sources = {name or peer: message.ref for name in (*message.sources, *message.spares)}
        spares = [name or peer for name in message.spares]
        self._bringing.bring(id, message.sizes, sources, now, spares)
        self._hear(message.ref)

    def on_drop(self, peer: str, message: DropValues) -> None:
        """Wanted here no more."""
        mine = self._kept.get(peer, {})
        for ref in message.refs:
            id = self._objects.find(ref)
            if id is not None and mine.pop(id, None) is not None:
                self._let_go(id)

    def on_lost(self, peer: str) -> None:
        """Who wanted them is gone, and the questions of it with it."""
        for id in self._kept.pop(peer, {}):
            self._let_go(id)
        for id, questions in self._waiting.items():
            self._waiting[id] = [one for one in questions if one[0] != peer]
        self._early = [one for one in self._early if one[1] != peer]

    def _take(self, peer: str, ref: RefWord) -> int:
        mine = self._kept.setdefault(peer, {})
        id = self._objects.find(ref)
        if id is None or id not in mine:
            id = self._objects.stray(ref)
            mine[id] = ref
        return id

    def _let_go(self, id: int) -> None:
        if self._objects.entries[id].holds == 1:
            self._bringing.forget(id)
            self._refuse(id)
        self._objects.drop(id)

    # --- on its way ---------------------------------------------------------------------------

    def came(self, id: int) -> None:
        """All of it is here."""
        self.grew(id)
        for peer, mine in self._kept.items():
            if id in mine:
                self._tell(peer, id, mine[id])

    def failed(self, id: int, why: str) -> None:
        """It will not come."""
        self._refuse(id)
        for peer, mine in list(self._kept.items()):
            if id in mine:
                self._fail(peer, id, mine[id], why)

    def grew(self, id: int) -> None:
        """A part of it is here."""
        waiting = self._waiting.pop(id, ())
        for peer, question in waiting:
            self.on_read(peer, question)

    def _tell(self, peer: str, id: int, ref: RefWord) -> None:
        data = self._objects.entries[id].data
        if data is None or isinstance(data, bytes | Away):
            return  # said when it is here
        self._objects.effects.append(SendPeer(peer, Placed(ref, data.word)))

    def _fail(self, peer: str, id: int, ref: RefWord, why: str) -> None:
        del self._kept[peer][id]
        self._objects.effects.append(SendPeer(peer, Placed(ref, None, why)))
        self._objects.drop(id)

    # --- bytes for others ---------------------------------------------------------------------

    def on_read(self, peer: str, message: ReadValue, now: float = 0.0) -> None:
        """Send them, now or when they are here; nothing, where they are not to come."""
        id = self._objects.find(message.ref)
        if id is None and now:
            self._early.append((now + EARLY, peer, message))
            return
        if id is not None and id in self._bringing:
            part = self._bringing.part(id, message.offset, message.length)
            if part is None:
                self._waiting.setdefault(id, []).append((peer, message))
                return
        else:
            part = self._stored(id, message)
        self._answer(peer, message, part)

    def _hear(self, ref: RefWord) -> None:
        """The value is known here now."""
        if self._early:
            mine = [one for one in self._early if one[2].ref == ref]
            self._early = [one for one in self._early if one[2].ref != ref]
            for _, peer, question in mine:
                self.on_read(peer, question)

    def on_tick(self, now: float) -> None:
        """Questions that waited in vain."""
        while self._early and self._early[0][0] <= now:
            _, peer, question = self._early.pop(0)
            self._answer(peer, question, None)

    def next_wake(self) -> float | None:
        """When the next one has."""
        return self._early[0][0] if self._early else None

    def _stored(self, id: int | None, message: ReadValue) -> memoryview | None:
        data = self._objects.entries[id].data if id is not None else None
        if data is None or isinstance(data, bytes | Away):
            return None
        body = data.body()
        end = message.offset + message.length
        return body[message.offset : end] if end <= len(body) else None

    def _answer(self, peer: str, message: ReadValue, part: memoryview | None) -> None:
        if part is None:
            chunk = BlockChunk(message.request, message.offset)
            self._objects.effects.append(SendPeer(peer, chunk))
        else:
            chunk = BlockChunk(message.request, message.offset, crc32(part))
            self._objects.effects.append(SendPeer(peer, chunk, [part]))

    def _refuse(self, id: int) -> None:
        for peer, question in self._waiting.pop(id, ()):
            self._answer(peer, question, None)
