"""Messages to bytes and back: one version byte, then a msgpack array, then out-of-band buffers.

Owns: the encoding, its limits, and which lane a message travels on. Must never: do I/O, open a user
payload, or let anything but ProtocolError out of :meth:`Decoder.decode`, whatever the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Generic, TypeVar, get_args

import msgspec

from guactors import messages
from guactors.errors import ProtocolError
from guactors.messages import BULK, PROTOCOL_VERSION, Message
from guactors.transport.base import Frame, Lane

CONTROL_HEADER_LIMIT: Final = 1 << 20
"""Most bytes of the header of a message on the control lane."""
DATA_HEADER_LIMIT: Final = 512 << 20
"""Most bytes of the header of a message on the data lane."""
MAX_FRAMES: Final = 1 << 16
"""Most frames of one message, the header included."""

M = TypeVar("M")

_VERSION: Final = bytes([PROTOCOL_VERSION])
_BULK: Final = frozenset(BULK)
# One encoder for all threads: each encode() call keeps its state on its own stack.
_pack = msgspec.msgpack.Encoder().encode
_FAULTS: Final = (
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    RecursionError,
    MemoryError,
)


def _tag(kind: type[Message]) -> int:
    tag = kind.__struct_config__.tag
    if not isinstance(tag, int):
        raise TypeError(f"{kind.__name__} has no integer tag")
    return tag


_NAMES: Final = {
    _tag(kind): kind.__name__
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
}
_BULK_TAGS: Final = frozenset(_tag(kind) for kind in BULK)


def lane_of(message: Message) -> Lane:
    """The lane ``message`` travels on."""
    return Lane.DATA if type(message) in _BULK else Lane.CONTROL


def encode(message: Message) -> bytes:
    """The header frame of ``message``.

    Raises ProtocolError (``too_large``) before an oversize header can cost the link.
    """
    header = _VERSION + _pack(message)
    if len(header) > CONTROL_HEADER_LIMIT:
        limit = DATA_HEADER_LIMIT if type(message) in _BULK else CONTROL_HEADER_LIMIT
        if len(header) > limit:
            raise ProtocolError(
                "too_large",
                f"{type(message).__name__} takes {len(header)} bytes, the limit is {limit}; "
                "send large values as out-of-band buffers or by reference",
            )
    return header


@cache
def _reader(union: Any) -> Callable[[Any], Any]:
    """One for all who read this direction: it takes milliseconds to make, and keeps nothing."""
    return msgspec.msgpack.Decoder(union).decode


class Decoder(Generic[M]):
    """Reads the messages of one direction, ``union`` (one of the unions of ``messages``).

    ``max_header``: bytes of a data-lane header; other messages are further held to
    :data:`CONTROL_HEADER_LIMIT`. ``max_frames``: frames of one message.
    """

    def __init__(
        self, union: Any, *, max_header: int = DATA_HEADER_LIMIT, max_frames: int = MAX_FRAMES
    ) -> None:
        self._decode = _reader(union)
        self._quick = min(CONTROL_HEADER_LIMIT, max_header)
        self._max_header = max_header
        self._max_frames = max_frames
        self._tags = frozenset(_tag(kind) for kind in get_args(union) or (union,))

    def decode(self, frames: Sequence[Frame]) -> tuple[M, Sequence[Frame]]:
        """The message in ``frames[0]`` and the buffers after it. Raises ProtocolError only."""
        try:
            header = frames[0]
            if (
                header[0] == PROTOCOL_VERSION
                and len(header) <= self._quick
                and len(frames) <= self._max_frames
            ):
                return self._decode(memoryview(header)[1:]), frames[1:]
            self._admit(header, len(frames))
            return self._decode(memoryview(header)[1:]), frames[1:]
        except _FAULTS as fault:
            raise self._explain(frames, fault) from fault

    def _admit(self, header: Frame, count: int) -> None:
        """Raise for what the quick check rightly refused; large bulk messages come through."""
        if header[0] != PROTOCOL_VERSION:
            raise ProtocolError(
                "version",
                f"the message has protocol version {header[0]}, this process speaks "
                f"{PROTOCOL_VERSION}; use the same guactors on both sides",
            )
        if count > self._max_frames:
            raise ProtocolError("too_many_frames", f"{count} frames, limit {self._max_frames}")
        limit = self._max_header if _tag_in(header) in _BULK_TAGS else self._quick
        if len(header) > limit:
            raise ProtocolError("too_large", f"header of {len(header)} bytes, limit {limit}")

    def _explain(self, frames: Sequence[Frame], fault: Exception) -> ProtocolError:
        if not frames or not len(frames[0]):
            return ProtocolError("malformed", "an empty message")
        tag = _tag_in(frames[0])
        name = _NAMES.get(tag)
        if name is not None and tag not in self._tags:
            return ProtocolError("unexpected", f"{name} is no message of this direction")
        what = name or "unknown message"
        return ProtocolError("malformed", f"{what}: {type(fault).__name__}: {fault}"[:500])


def _tag_in(header: Frame) -> int:
    """The message tag if ``header`` begins like a message, else -1."""
    if len(header) > 3 and header[1] & 0xF0 == 0x90:
        at = 2
    elif len(header) > 5 and header[1] == 0xDC:
        at = 4
    else:
        return header[2] if len(header) == 3 and header[1] == 0x91 and header[2] < 0x80 else -1
    if header[at] == 0xCC:
        return header[at + 1]
    return header[at] if header[at] < 0x80 else -1
