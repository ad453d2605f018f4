"""Files of a guest, as its instance's users see them: the host's side of ``agent/transfer.py``.

Owns: the records of a transfer, and archives made of and into them. Must never: unpack anything on
this machine, or hand on a name from a guest that no archive may have.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, Final

from guactors.errors import ImageRefused, InstanceLost, ProtocolError, UsageError
from guactors.images.archive import read_archive
from guactors.images.members import (
    LIMITS,
    Budget,
    Entries,
    Gate,
    Kind,
    Member,
    decoded,
    encoded,
)
from guactors.images.tar_writer import END, member_header, padding, stream_of
from guactors.runtimes.base import Exit, Output
from guactors.runtimes.qemu.agent import wire
from guactors.runtimes.qemu.agent.wire import MEMBER, PIECE, SLOT, WRONG
from guactors.runtimes.qemu.box import Box
from guactors.runtimes.qemu.process import GuestProcess

SMALL: Final = 2 * PIECE
"""Bytes that go over the line itself: for less the mailbox is not worth its turn."""
_SILENCE: Final = 60.0
_TAKE_BACK: Final = 5.0
_RECORD: Final = struct.Struct("<cI")
_SIZE: Final = struct.Struct("<I")
_KINDS: Final = {b"d": Kind.DIRECTORY, b"f": Kind.FILE, b"l": Kind.SYMLINK, b"h": Kind.HARDLINK}
_LETTERS: Final = {kind: letter for letter, kind in _KINDS.items()}
_COPY: Final = 1 << 20

Begin = Callable[..., GuestProcess]
"""Starts a transfer with the fields of a FILES question."""


class Files:
    """Of one guest. ``box``: its mailbox disk, if it has one; ``settled``: returns once the guest
    has done what it was told before: until then a transfer that was ended may use its slots."""

    def __init__(self, begin: Begin, box: Box | None, settled: Callable[[], object]) -> None:
        self._begin = begin
        self._box = box
        self._settled = settled

    def _settle(self) -> None:
        with suppress(InstanceLost):
            self._settled()

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """See Driver."""
        _check(path)
        if not tar:
            self._send("put", path, data)
            return
        gate = Gate(Budget(LIMITS), f"the archive for {path!r}")
        try:
            self._send("put-tree", path, _records(read_archive(stream_of(data), gate)))
        except ImageRefused as error:
            raise UsageError(str(error)) from None

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """See Driver."""
        _check(path)
        if not tar:
            return self._receive("get", path)
        return self._tar(path)

    # --- in -------------------------------------------------------------------------------------

    def _send(self, operation: str, path: str, data: Iterable[bytes]) -> None:
        pieces = _chunks(data, SLOT)
        first = next(pieces, b"")
        if self._box is None or len(first) <= SMALL:
            self._send_in(operation, path, first, pieces, [])
            return
        with self._box.slots() as slots:
            self._send_in(operation, path, first, pieces, slots)

    def _send_in(
        self,
        operation: str,
        path: str,
        first: bytes | memoryview,
        pieces: Iterator[bytes | memoryview],
        slots: list[int],
    ) -> None:
        sending = _Transfer(self._begin(wire.FILES, op=operation, path=path), path)
        try:
            if self._box is None or not slots:
                sending.plainly(first)
                for piece in pieces:
                    sending.plainly(piece)
            else:
                sending.boxed(self._box, slots, first, pieces)
            sending.write(_RECORD.pack(b"E", 0))
            sending.finish()
        except BaseException:
            sending.take_back()
            raise
        finally:
            if not sending.close():
                self._settle()

    # --- out ------------------------------------------------------------------------------------

    def _receive(self, operation: str, path: str) -> Iterator[bytes]:
        if self._box is None:
            yield from self._received(operation, path, [])
            return
        with self._box.slots() as slots:
            yield from self._received(operation, path, slots)

    def _received(self, operation: str, path: str, slots: list[int]) -> Iterator[bytes]:
        box, mine = self._box, set(slots)
        fields: dict[str, Any] = {"op": operation, "path": path, "slots": slots}
        receiving = _Transfer(self._begin(wire.FILES, **fields), path)
        try:
            while (head := receiving.take(_RECORD.size)) is not None:
                kind, value = _RECORD.unpack(head)
                if kind == b"E":
                    break
                if kind == b"D" and value <= SLOT:
                    data = receiving.take(value)
                elif kind == b"B" and box is not None and value in mine:
                    size = receiving.take(_SIZE.size)
                    data = box.read(value, *_SIZE.unpack(size)) if size is not None else None
                    receiving.write(_RECORD.pack(b"A", value))
                else:
                    raise ProtocolError("its agent sends a transfer that is not understood")
                if data is None:
                    break
                yield data
            receiving.finish()
        finally:
            if not receiving.close():
                self._settle()

    def _tar(self, path: str) -> Iterator[bytes]:
        stream = stream_of(self._receive("get-tree", path))
        gate = Gate(Budget(LIMITS), f"{path!r} in the guest")
        try:
            while head := stream.read(MEMBER.size):
                member = _member(_whole(head, MEMBER.size), stream, gate)
                yield member_header(member)
                left = member.size
                while left:
                    piece = stream.read(min(left, _COPY))
                    if not piece:
                        raise ProtocolError("a file in the guest is cut short")
                    left -= len(piece)
                    yield piece
                yield padding(member.size)
            yield END
        except ImageRefused as error:
            raise UsageError(str(error)) from None
        finally:
            stream.close()


class _Transfer:
    """One that is under way."""

    def __init__(self, process: GuestProcess, path: str) -> None:
        self._process = process
        self._path = path
        self._held = b""
        self._said = b""
        self._exit: Exit | None = None
        self.write = process.write

    def plainly(self, data: bytes | memoryview) -> None:
        """Over the line."""
        left = memoryview(data)
        while left:
            piece, left = left[:PIECE], left[PIECE:]
            self.write(_RECORD.pack(b"D", len(piece)) + bytes(piece))

    def boxed(
        self,
        box: Box,
        slots: list[int],
        first: bytes | memoryview,
        pieces: Iterator[bytes | memoryview],
    ) -> None:
        """Over the mailbox disk."""
        mine, free = set(slots), slots
        piece: bytes | memoryview | None = first
        while piece is not None:
            if not free:
                found = self.take(_RECORD.size)
                if found is None:
                    return
                kind, slot = _RECORD.unpack(found)
                if kind != b"A" or slot not in mine or slot in free:
                    raise ProtocolError("its agent gives back a slot that it does not have")
                free.append(slot)
            slot = free.pop()
            box.write(slot, piece)
            self.write(_RECORD.pack(b"B", slot) + _SIZE.pack(len(piece)))
            piece = next(pieces, None)

    def take(self, size: int) -> bytes | None:
        """So many bytes of its output, None where it ends before."""
        while len(self._held) < size:
            if not self._read():
                return None
        found, self._held = self._held[:size], self._held[size:]
        return found

    def _read(self) -> bool:
        if self._exit is None:
            found = self._process.read(_SILENCE)
            if found is None:
                raise InstanceLost(f"the transfer of {self._path!r} stands still")
            if isinstance(found, Output):
                if found.stream == 1:
                    self._held += found.data
                else:
                    self._said = (self._said + found.data)[:PIECE]
                return True
            self._exit = found
        return False

    def finish(self) -> None:
        """Until its end. Raises what went wrong."""
        while self._read():
            if len(self._held) > PIECE:
                raise ProtocolError("its agent says more than a transfer has to say")
        assert self._exit is not None
        if self._exit.code == 0:
            return
        said = self._said.decode("utf-8", "replace")
        if self._exit.code == WRONG:
            raise UsageError(f"{self._path!r}: {said}")
        if self._exit.detail:
            raise InstanceLost(self._exit.detail)
        raise ProtocolError(f"the transfer of {self._path!r} ended with {self._exit}: {said}")

    def take_back(self) -> None:
        """Its input ends before its time: it removes what it has begun."""
        self._process.close_input()
        until = time.monotonic() + _TAKE_BACK
        while self._exit is None and (left := until - time.monotonic()) > 0:
            found = self._process.read(left)
            if isinstance(found, Exit):
                self._exit = found

    def close(self) -> bool:
        """It is over: whether it ended by itself."""
        self._process.close()
        return self._exit is not None


def _records(entries: Entries) -> Iterator[bytes]:
    for member, reader in entries:
        if not member.parts:
            continue
        name, target = encoded(member.name), encoded(member.target)
        head = MEMBER.pack(
            _LETTERS[member.kind], member.mode, member.uid, member.gid, member.mtime, member.size,
            len(name), len(target),
        )  # fmt: skip
        yield head + name + target
        left = member.size if member.kind is Kind.FILE else 0
        while left:
            piece = reader.read(min(left, _COPY))
            if not piece:
                raise ImageRefused(f"{member.name!r} is cut short")
            left -= len(piece)
            yield piece


def _member(head: bytes, stream: BinaryIO, gate: Gate) -> Member:
    letter, mode, uid, gid, mtime, size, name_size, target_size = MEMBER.unpack(head)
    name = decoded(_whole(stream.read(name_size), name_size))
    target = decoded(_whole(stream.read(target_size), target_size))
    kind = _KINDS.get(letter)
    if kind is None:
        raise ProtocolError("its agent sends a file of an unknown kind")
    if kind is not Kind.FILE:
        size = 0
    return gate.member(
        name, kind, mode=mode, uid=uid, gid=gid, mtime=mtime, size=size, target=target
    )


def _chunks(data: Iterable[bytes], size: int) -> Iterator[bytes | memoryview]:
    """The same bytes in pieces of ``size``, the last one shorter."""
    held = bytearray()
    for piece in data:
        left = memoryview(piece)
        while left:
            if not held and len(left) >= size:
                yield left[:size]
                left = left[size:]
                continue
            room = size - len(held)
            held += left[:room]
            left = left[room:]
            if len(held) == size:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ProtocolError("a list of files in the guest is cut short")
    return data


def _check(path: str) -> None:
    if "\0" in path:
        raise UsageError(f"{path!r} is no path")
