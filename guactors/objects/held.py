"""Values of the store as objects: what holds a block, and what writes one piece by piece.

Owns: that the end of such an object is noted. Must never: take the store's lock when it ends, for
objects end anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guactors.messages import Stored
from guactors.objects.arena import OwnArena
from guactors.objects.blocks import Block
from guactors.objects.layout import HEADER

if TYPE_CHECKING:
    from guactors.objects.store import ObjectStore


class Held:
    """See ``objects.base.Held``."""

    __slots__ = ("__weakref__", "_store", "block")

    def __init__(self, block: Block, store: ObjectStore) -> None:
        self.block = block
        self._store = store

    def __del__(self) -> None:
        self._store.note(self.block)

    @property
    def word(self) -> Stored:
        """How it is spoken of to other processes of the same store."""
        return self.block.word(self._store.id)

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(self.block.sizes)

    def parts(self) -> list[memoryview]:
        """The pickle and its buffers, read-only and in place."""
        return self._store.parts(self.block)

    def body(self) -> memoryview:
        """All that follows the header."""
        return self._store.body(self.block)

    def __repr__(self) -> str:
        return f"<Held {self.size} bytes in {self.block.arena.name}>"


class Draft:
    """See ``objects.base.Draft``."""

    def __init__(self, held: Held, arena: OwnArena) -> None:
        self._held = held
        self._arena = arena
        self._view = held._store.parts(held.block)  # what is looked at is not moved

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Bytes of the value."""
        block = self._held.block
        if not 0 <= offset <= block.length - HEADER - len(data):
            raise ValueError(f"{len(data)} bytes at {offset} do not lie in {block.length}")
        self._arena.write_at(block.offset + HEADER + offset, data)

    def read(self, offset: int, length: int) -> memoryview:
        """What was written there."""
        return self._held.body()[offset : offset + length]

    def finish(self) -> Held:
        """Nobody could find it before."""
        block = self._held.block
        self._arena.complete(block.offset, block.serial, block.length)
        return self._held
