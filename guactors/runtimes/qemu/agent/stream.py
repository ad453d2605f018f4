"""The stream of bytes of one transfer, between the host and a child of the agent.

Owns: its records, and the slots of the mailbox disk. Must never: read the disk through the page
cache, which would be stale.

::

    D u32 size, and so many bytes           in the line itself
    B u32 slot, u32 size                    in that slot of the mailbox disk
    A u32 slot                              the other way: the slot is free again
    E u32 0                                 the end, and all of it was right

They are on the child's input (put) or output (get).
"""

from __future__ import annotations

import os
import struct
import sys

assert sys.platform == "linux", "runs in guests"

from guactors.runtimes.qemu.agent.wire import PIECE, SLOT, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ALIGN = 4096
RECORD = struct.Struct("<cI")
_HUGE = 14
"""MADV_HUGEPAGE."""


class Wrong(Exception):
    """What the host asked for cannot be done."""


class Source:
    """What the host sends."""

    def __init__(self, box: int) -> None:
        self._box = box
        self._buffer: memoryview | None = None

    def pieces(self) -> Iterator[memoryview]:
        """One after another; each is of use until the next is asked for. Raises Wrong for a stream
        that is cut short."""
        while True:
            head = exactly(RECORD.size)
            kind, value = RECORD.unpack(head)
            if kind == b"D" and value <= SLOT:
                yield memoryview(exactly(value))
            elif kind == b"B":
                (size,) = struct.unpack("<I", exactly(4))
                yield self._read(value, size)
                write_all(1, RECORD.pack(b"A", value))
            elif kind == b"E":
                return
            else:
                raise WireError("a transfer that is not understood")

    def _read(self, slot: int, size: int) -> memoryview:
        if self._buffer is None:
            self._buffer = aligned()
        if size > SLOT or self._box < 0:
            raise WireError("a slot of another size, or no mailbox disk")
        whole = -(-size // ALIGN) * ALIGN
        got = 0
        while got < size:
            part = os.preadv(self._box, [self._buffer[got:whole]], slot * SLOT + got)
            if not part:
                raise Wrong("the mailbox disk ends")
            got += part
        return self._buffer[:size]


class Sink:
    """What goes to the host."""

    def __init__(self, box: int, slots: list[int]) -> None:
        self._box = box
        self._free = slots if box >= 0 else []
        self._slots = len(self._free)
        self._buffer = aligned() if self._slots else memoryview(bytearray(PIECE))
        self._filled = 0

    def add(self, data: bytes | memoryview) -> None:
        """Bytes of the stream."""
        left = memoryview(data)
        while left:
            size = min(len(left), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + size] = left[:size]
            self._filled += size
            left = left[size:]
            if self._filled == len(self._buffer):
                self.flush()

    def room(self) -> memoryview:
        """Where the next bytes may be put, ahead of ``filled``."""
        return self._buffer[self._filled :]

    def filled(self, size: int) -> None:
        """So many were put into ``room``."""
        self._filled += size
        if self._filled == len(self._buffer):
            self.flush()

    def flush(self) -> None:
        """Send what is held."""
        size, self._filled = self._filled, 0
        if size > PIECE:
            while not self._free:
                kind, slot = RECORD.unpack(exactly(RECORD.size))
                if kind != b"A":
                    raise WireError("a transfer that is not understood")
                self._free.append(slot)
            slot = self._free.pop(0)
            whole = -(-size // ALIGN) * ALIGN
            sent = 0
            while sent < whole:
                sent += os.pwritev(self._box, [self._buffer[sent:whole]], slot * SLOT + sent)
            write_all(1, RECORD.pack(b"B", slot) + struct.pack("<I", size))
        elif size:
            write_all(1, RECORD.pack(b"D", size) + bytes(self._buffer[:size]))

    def end(self) -> None:
        """That was all."""
        self.flush()
        write_all(1, RECORD.pack(b"E", 0))


def aligned() -> memoryview:
    """A buffer that a disk may read into without the page cache; one large page where there is one,
    for to look up hundreds is most of an emulated guest's work."""
    import mmap  # a file of its own: only who needs it waits for it

    made = mmap.mmap(-1, SLOT)
    try:
        made.madvise(_HUGE)
    except OSError:
        return memoryview(made)  # of small pages
    return memoryview(made)


def exactly(size: int) -> bytes:
    """So many bytes of the child's input. Raises Wrong where it ends before."""
    got = os.read(0, size)
    while len(got) < size:
        piece = os.read(0, size - len(got))
        if not piece:
            raise Wrong("the transfer was cut short")
        got += piece
    return got


def write_all(fd: int, data: bytes | memoryview) -> None:
    """All of it, however long that takes."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
