"""One value in shared memory as this process knows it, and its holds on it.

Owns: the count of reasons for which this process keeps a block. Must never: take a lock where an
object ends, for objects end anywhere: they leave a note, and ``store`` reads it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any, Protocol

from guactors.messages import BlockName, Stored
from guactors.objects.arena import HEADER, OwnArena, SeenArena, aligned

Note = Callable[["Block"], None]


class Block:
    """A block of an own arena, or of another process's.

    ``holds``: live :class:`Held` objects and views; ``loans``: times it was given away with a
    result and has not come back; ``givers``: whom to tell that it is unused; ``used``: a number
    that grows with each use."""

    __slots__ = (
        "arena", "givers", "holds", "length", "loans", "offset", "serial", "sizes", "used", "view",
    )  # fmt: skip

    def __init__(
        self, arena: OwnArena | SeenArena, offset: int, serial: int, sizes: list[int], length: int
    ) -> None:
        self.arena = arena
        self.offset = offset
        self.serial = serial
        self.sizes = sizes
        self.length = length
        self.holds = 0
        self.loans = 0
        self.givers: list[str] = []
        self.used = 0
        self.view: weakref.ref[Any] | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Where it is."""
        return self.arena.name, self.offset

    def name(self) -> BlockName:
        """How its writer knows it."""
        return BlockName(self.arena.name, self.offset, self.serial)

    def word(self, store: str) -> Stored:
        """How others find it."""
        return Stored(store, self.arena.name, self.offset, self.serial, self.sizes)

    def viewed(self) -> bool:
        """Whether somebody in this process looks at it."""
        return self.view is not None and self.view() is not None

    def parts(self, note: Note) -> list[memoryview]:
        """Its parts in place. The views count as one hold, noted when the last one ends."""
        exporter = self.view() if self.view is not None else None
        if exporter is None:
            exporter = self.arena.exporter()
            self.view = weakref.ref(exporter, lambda _: note(self))
            self.holds += 1
        whole = PickleBuffer(exporter).raw().toreadonly()
        at = self.offset + HEADER
        views = []
        for size in self.sizes:
            views.append(whole[at : at + size])
            at += aligned(size)
        return views


class Keeper(Protocol):
    """What a :class:`Held` needs of the store that it came from."""

    id: str

    def note(self, block: Block) -> None:
        """One hold less. From any thread, at any moment."""

    def parts(self, block: Block) -> list[memoryview]:
        """The parts of a block that is held."""


class Held:
    """See ``objects.base.Held``."""

    __slots__ = ("__weakref__", "_store", "block")

    def __init__(self, block: Block, store: Keeper) -> None:
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

    def __repr__(self) -> str:
        return f"<Held {self.size} bytes in {self.block.arena.name}>"
