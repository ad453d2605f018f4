"""The words of the protocol between guactors and a driver: ``docs/drivers.md`` in types.

Owns: what a line may say in either direction, its limits, and how long each verb may take. Must
never: keep anything of a conversation (``conversation.py`` does), or touch a pipe.

One JSON object a line. Data is base64. Unknown fields of a driver's line are passed over, so that a
newer driver may say more; what a field says is checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from guactors.errors import ProtocolError

PROTOCOL: Final = 1
"""The version of the protocol."""
LINE: Final = 1 << 20
"""Bytes of a line, its end included."""
PIECE: Final = 65536
"""Bytes of output or input in a line."""
BLOCK: Final = 262144
"""Bytes of a file in a line."""
WINDOW: Final = 262144
"""Bytes of output that a driver may be ahead of the reader, a program."""
MOST_ROOM: Final = 1 << 20
"""Bytes of input that a driver may ask for, a program."""
AHEAD: Final = 4
"""Blocks of a file on the way at a time."""

DEADLINES: Final = {
    "hello": 10.0, "probe": 30.0, "create": 60.0, "restore": 300.0, "start": 60.0, "exec": 30.0,
    "put": 60.0, "put_data": 60.0, "put_end": 300.0, "put_drop": 60.0,
    "get": 300.0, "get_data": 60.0, "get_drop": 60.0,
    "pause": 10.0, "resume": 10.0, "save": 600.0, "stats": 10.0, "stop": 10.0, "forget": 10.0,
    "close": 5.0, "reap": 60.0, "send": 10.0,
}  # fmt: skip
"""Seconds until an answer must be there. ``stop``: more than its grace; ``forget``: until the exit
of the program; ``send``: for the driver to take a line from its standard input."""

NEEDS: Final = {
    "probe": "probe", "reap": "reap", "stats": "stats", "pause": "pause", "resume": "pause",
    "save": "save", "restore": "save", "resize": "tty",
}  # fmt: skip
"""Verbs that only drivers of that capability know."""

T = TypeVar("T")
Id: TypeAlias = Annotated[int, Meta(ge=1, le=2**53)]
Number: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Text: TypeAlias = Annotated[str, Meta(max_length=8192)]
Kind: TypeAlias = Literal[
    "usage", "not_started", "unsupported", "missing", "image", "denied", "lost", "failed"
]


class Ok(Struct, tag="ok", frozen=True):
    """The answer to a request; what ``result`` holds depends on the verb."""

    id: Id
    result: Raw = Raw(b"{}")


class Failure(Struct, tag="error", frozen=True):
    """The other answer. ``code``: of ``not_started``, what a shell would exit with."""

    id: Id
    kind: Kind
    message: Text = ""
    code: Annotated[int, Meta(ge=126, le=127)] = 127


class Said(Struct, tag="output", frozen=True):
    """What a program wrote to its ``stream``."""

    program: Id
    stream: Literal[1, 2]
    data: Annotated[bytes, Meta(min_length=1, max_length=PIECE)]


class Ended(Struct, tag="exit", frozen=True):
    """A program ended, with ``code`` or by ``signal``; the last that is said of it. ``reason``:
    empty, or what made its end."""

    program: Id
    code: Annotated[int, Meta(ge=0, le=2**32)] | None = None
    signal: Annotated[int, Meta(ge=1, le=128)] | None = None
    reason: Literal["", "memory_limit", "disk_limit"] = ""
    detail: Text = ""


class Room(Struct, tag="credit", frozen=True):
    """So many more bytes of input for a program."""

    program: Id
    bytes: Annotated[int, Meta(ge=1, le=MOST_ROOM)]


class Gone(Struct, tag="lost", frozen=True):
    """The instance is not there any more."""

    message: Text


Heard: TypeAlias = Ok | Failure | Said | Ended | Room | Gone

# --- what answers hold ----------------------------------------------------------------------------


class Hello(Struct, frozen=True):
    """Of ``hello``."""

    protocol: int
    name: str
    version: Annotated[str, Meta(max_length=64)] = ""
    capabilities: Annotated[list[str], Meta(max_length=64)] = []


class Probed(Struct, frozen=True):
    """Of ``probe``."""

    usable: bool
    reason: Text = ""
    facts: Annotated[dict[str, Text], Meta(max_length=64)] = {}


class Started(Struct, frozen=True):
    """Of ``exec``: bytes of input that may be sent at first."""

    credit: Annotated[int, Meta(ge=0, le=MOST_ROOM)] = PIECE


class Block(Struct, frozen=True):
    """Of ``get_data``. Only the last may be empty."""

    data: Annotated[bytes, Meta(max_length=BLOCK)] = b""
    end: bool = False


class Counted(Struct, frozen=True):
    """Of ``stats``, as ``Stats``."""

    cpu_seconds: Annotated[float, Meta(ge=0)] | None = None
    memory: Number | None = None
    memory_peak: Number | None = None
    disk: Number | None = None
    read: Number | None = None
    written: Number | None = None
    received: Number | None = None
    sent: Number | None = None
    processes: Number | None = None


class Reaped(Struct, frozen=True):
    """Of ``reap``."""

    ended: Annotated[list[Text], Meta(max_length=10000)] = []


_heard: Final[msgspec.json.Decoder[Heard]] = msgspec.json.Decoder(Heard)


def read_line(line: bytes) -> Heard:
    """What a driver said. Raises ProtocolError."""
    try:
        return _heard.decode(line)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        shown = line[:80].decode(errors="replace")
        raise ProtocolError("malformed", f"{error}, in {shown!r}") from None


def read_result(kind: type[T], raw: Raw) -> T:
    """What an answer holds. Raises ProtocolError."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ProtocolError("malformed", f"an answer: {error}") from None


def write_line(verb: str, body: dict[str, Any], number: int | None = None) -> bytes:
    """A request (with a ``number``) or an order. Raises ProtocolError for one that is too long."""
    head: dict[str, Any] = {"verb": verb} if number is None else {"verb": verb, "id": number}
    line = msgspec.json.encode(head | body) + b"\n"
    if len(line) > LINE:
        raise ProtocolError("too_large", f"{verb} of {len(line)} bytes, where {LINE} are allowed")
    return line


class Lines:
    """Cuts what arrives into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The whole lines so far, without their ends. Raises ProtocolError for one too long."""
        if b"\n" not in data:
            self._rest += data
            self._check(len(self._rest))
            return []
        *lines, rest = data.split(b"\n")
        lines[0] = bytes(self._rest) + lines[0]
        self._rest = bytearray(rest)
        for line in lines:
            self._check(len(line))
        return lines

    @staticmethod
    def _check(length: int) -> None:
        if length >= LINE:
            raise ProtocolError("too_large", f"a line of more than {LINE} bytes")
