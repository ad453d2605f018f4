"""Values as they travel between neighbours: inline, in frames, or as a place in shared memory.

Owns: the choice between these, both ways. Must never: decide whether a neighbour may have a value,
or keep anything.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import TYPE_CHECKING

from guactors.caller.away import Away
from guactors.caller.effects import SendPeer
from guactors.caller.entries import Entry
from guactors.caller.tasks import Buffers
from guactors.errors import ObjectLost
from guactors.messages import BlockName, Release, Stored, Unused, Value
from guactors.objects.base import Held

if TYPE_CHECKING:
    from guactors.caller.objects import ObjectTable


class Travel:
    """Of one table."""

    def __init__(self, table: ObjectTable) -> None:
        self._table = table

    def take_in(
        self, id: int, value: Value, buffers: Buffers, neighbour: str, giver: str = ""
    ) -> None:
        """Settle with a value that came from a neighbour. ``giver``: who gave it away for good."""
        contains = self._table.borrow(value.refs, neighbour) if value.refs else None
        data: bytes | Held | Away = value.data
        error = value.error
        if value.stored is not None and giver and value.stored.store != self._table.places.store:
            data = Away(value.stored, giver)
        elif value.stored is not None:
            try:
                data, buffers = self._table.attach(value.stored, giver), ()
            except ObjectLost as lost:
                if giver:
                    data, buffers = Away(value.stored, giver), ()
                    self._table.missed.append((id, str(lost)))
                else:
                    data, buffers, error = pickle.dumps(lost, 5), (), True
        self._table.settle(id, data, buffers, error=error, contains=contains)

    def refuse(self, neighbour: str, values: Iterable[Value]) -> None:
        """Values that nobody waits for: what came with them goes back."""
        for value in values:
            if value.refs:
                self._table.effects.append(SendPeer(neighbour, Release(value.refs)))
            if value.stored is not None:
                name = BlockName(value.stored.arena, value.stored.offset, value.stored.serial)
                self._table.effects.append(SendPeer(neighbour, Unused([name])))

    def value(self, entry: Entry, neighbour: str, *, whole: bool = False) -> tuple[Value, Buffers]:
        """A ready entry as it travels to a neighbour, what it contains lent along; its frames.
        ``whole``: not as a copy in the neighbour's memory."""
        refs = self._table.lend(entry.contains, neighbour) if entry.contains else []
        places = self._table.places
        copy = places.copy_for(entry.id, neighbour) if places.copies and not whole else None
        if copy is not None:
            return Value(b"", 0, entry.error, refs, copy), ()
        data, frames, stored = self.outgoing(entry.data or b"", entry.buffers, neighbour)
        return Value(data, len(frames), entry.error, refs, stored), frames

    def outgoing(
        self, data: bytes | Held | Away, buffers: Buffers, neighbour: str
    ) -> tuple[bytes, Buffers, Stored | None]:
        """A pickle as it travels to a neighbour: inline, in frames, or as a place in memory."""
        if isinstance(data, bytes):
            return data, buffers, None
        places = self._table.places
        if isinstance(data, Away) or places.of_peer.get(neighbour) == places.store:
            return b"", (), data.word
        return b"", data.parts(), None
