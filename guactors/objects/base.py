"""What the thinking rooms know of values in shared memory.

Owns: the port between them and ``objects.store``. Types only.
"""

from __future__ import annotations

from typing import Final, Protocol

from guactors.messages import Stored

LARGE: Final = 100 << 10
"""Bytes from which a value goes to shared memory; smaller ones travel in messages."""


class Held(Protocol):
    """A value in shared memory, which is there as long as this object, or a view of it, lives."""

    @property
    def word(self) -> Stored:
        """How it is spoken of to other processes of the same store."""

    @property
    def size(self) -> int:
        """Bytes of all parts."""

    def parts(self) -> list[memoryview]:
        """The pickle and its buffers, read-only and in place; each view keeps them there."""

    def body(self) -> memoryview:
        """All that follows the block's header, as it travels to other machines."""


class Draft(Protocol):
    """Memory for a value that comes in pieces; it is given back if it is dropped unfinished."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Bytes of the value, ``offset`` counted from the end of the block's header."""

    def read(self, offset: int, length: int) -> memoryview:
        """What was written there."""

    def finish(self) -> Held:
        """All of it is written."""
