"""What a simulated call does, and what must come of it.

Owns: programs, how they travel, and the value each has to return: a function of its id and of all
it was given, so that a mixed-up reply cannot pass for the right one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

import msgspec
from msgspec import Struct

from guactors.caller.away import Away
from guactors.messages import Shape
from guactors.objects.base import Held
from guactors.transport.base import Frame

FUNCTIONS = [bytes([65 + i]) * 16 for i in range(4)]
"""Ids of the functions there are. Which one a call names matters for pipelining only."""


class UserError(Exception):
    """What a program raises that is meant to."""


class Program(Struct, array_like=True, frozen=True):
    """``seconds`` of work, then ``ends``: ``value``, ``raise``, or ``crash`` (the process goes, the
    first ``crashes`` times). ``wide``: the value travels in a buffer. ``children`` are called first
    and waited for last; where it ``lends``, it waits for none and returns the last one's reference.
    ``items``: what a stream yields before. ``far``: the value stays with the worker."""

    uid: int
    seconds: float
    ends: str = "value"
    crashes: int = 0
    wide: bool = False
    items: int = 0
    children: list[Child] = []
    lends: bool = False
    far: bool = False


class Child(Struct, array_like=True, frozen=True):
    """A nested call."""

    program: Program
    retries: int = 0
    timeout: float = 0.0
    cpus: float = 1.0

    @property
    def shape(self) -> Shape:
        return Shape({"CPU": self.cpus})


_decode = msgspec.msgpack.Decoder(Program).decode
pack = msgspec.msgpack.Encoder().encode


def unpack(data: bytes) -> Program:
    """The program in a call's arguments."""
    return _decode(data)


def function_of(program: Program) -> bytes:
    """Programs of about one length share a function, as the caller learns service times."""
    return FUNCTIONS[0 if program.seconds < 0.002 else 1 if program.seconds < 0.05 else 2]


def value_of(uid: int, parts: Iterable[bytes]) -> bytes:
    """What the program ``uid`` makes of its parts."""
    return b"%08x" % crc32(b"%d|%s" % (uid, b"|".join(parts)))


def item_of(uid: int, index: int) -> bytes:
    """Item ``index`` of its stream."""
    return value_of(uid, [b"item %d" % index])


def expected(program: Program, parts: Sequence[bytes] = ()) -> bytes:
    """The value of a run in which nothing fails."""
    if program.lends:
        return value_of(program.uid, [*parts, b"lent"])
    children = [expected(child.program) for child in program.children]
    return value_of(program.uid, [*parts, *children])


def read(data: bytes | Held | Away | None, buffers: Sequence[Frame]) -> bytes:
    """The value as it arrived."""
    assert not isinstance(data, Away), "nobody reads what is not here"
    if data is not None and not isinstance(data, bytes):
        return bytes(data.parts()[0])
    return bytes(buffers[0]) if buffers else data or b""
