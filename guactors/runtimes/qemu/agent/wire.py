"""What host and guest say to each other: frames on one line, values in them.

Owns: the form of both, and every kind of frame. Must never: import more than ``struct``: it is of
both sides, and each import costs an emulated guest tens of milliseconds; or believe a length.

::

    frame   u32 size of the rest | u32 channel | u8 kind | content        little endian
    value   one letter for its type, then a number or a length and that many

Channel 0 is about the guest; the others are drawn by the host, one for each question, program or
transfer. A content is bytes for INPUT and OUTPUT, a value else. What a stream may have under way is
:data:`WINDOW` bytes; who takes them away gives CREDIT for as many. The host begins, with HELLO,
also after the guest was restored from a file, and the guest answers.
"""

from __future__ import annotations

import struct

VERSION = 2
FRAME_MOST = 1 << 20
WINDOW = 262144
PIECE = 65536
"""Bytes of a stream in one frame, at most."""
SLOT = 4 << 20
"""Bytes of a slot of the mailbox disk."""
MEMBER = struct.Struct("<cIIIQQHH")
"""Of a tree: d, f, l or h (directory, file, link, hard link), mode, uid, gid, mtime, size, and the
lengths of name and target."""
WRONG = 3
"""How a transfer ends whose reason it has said."""
_HEAD = struct.Struct("<IIB")
_HEAD_REST = 5
_DEPTH_MOST = 8
_ITEMS_MOST = 4096

# Host to guest.
HELLO, SPAWN, INPUT, INPUT_END, SIGNAL, RESIZE, CLOSE, PING = 1, 2, 3, 4, 5, 6, 7, 8
STATS, STOP, QUIET, QUIT, FILES, PREPARE, MOUNT = 9, 10, 11, 12, 13, 14, 15
# Both ways.
CREDIT = 32
# Guest to host.
WELCOME, STARTED, OUTPUT, ERRORS, EXIT, ANSWER, PONG, FAULT = 65, 66, 67, 68, 69, 70, 71, 72
"""ERRORS is stream 2; FAULT: a frame that was not understood, or a question that cannot be answered
on its channel."""


class WireError(ValueError):
    """What arrived is not of this form."""


def frame(channel: int, kind: int, content: bytes | memoryview = b"") -> bytes:
    """One frame, ready to be sent."""
    size = _HEAD_REST + len(content)
    if size > FRAME_MOST:
        raise WireError(f"a frame of {size} bytes, at most {FRAME_MOST} are possible")
    return _HEAD.pack(size, channel, kind) + bytes(content)


class Decoder:
    """Cuts what arrives into frames. Raises WireError once, and is of no more use then."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The whole frames, each as channel, kind and content."""
        held = self._held
        held += data
        found = []
        at = 0
        while len(held) - at >= _HEAD.size:
            size, channel, kind = _HEAD.unpack_from(held, at)
            if not _HEAD_REST <= size <= FRAME_MOST:
                raise WireError(f"a frame that says it has {size} bytes")
            end = at + 4 + size
            if end > len(held):
                break
            found.append((channel, kind, bytes(held[at + _HEAD.size : end])))
            at = end
        del held[:at]
        return found


def pack(value: object) -> bytes:
    """A value as bytes: None, a bool, int (64 bits), bytes, str, list or dict with str keys."""
    if value is None:
        return b"n"
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, int):
        return b"i" + struct.pack("<q", value)
    if isinstance(value, bytes):
        return b"b" + struct.pack("<I", len(value)) + value
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        return b"s" + struct.pack("<I", len(data)) + data
    if isinstance(value, list | tuple):
        return b"l" + struct.pack("<I", len(value)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        items = (pack(key) + pack(one) for key, one in value.items())
        return b"d" + struct.pack("<I", len(value)) + b"".join(items)
    raise WireError(f"a {type(value).__name__} cannot be sent")


def unpack(data: bytes) -> object:
    """The value. Raises WireError for anything that ``pack`` does not make."""
    try:
        value, end = _value(data, 0, _DEPTH_MOST)
    except (struct.error, IndexError):
        raise WireError("a value that is cut short") from None
    if end != len(data):
        raise WireError(f"{len(data) - end} bytes after a value")
    return value


def unpack_dict(data: bytes) -> dict[str, object]:
    """As ``unpack``, of a dict."""
    value = unpack(data)
    if not isinstance(value, dict):
        raise WireError("a value of another kind")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[object, int]:
    kind = data[at : at + 1]
    at += 1
    if kind == b"n":
        return None, at
    if kind in {b"t", b"f"}:
        return kind == b"t", at
    if kind == b"i":
        return struct.unpack_from("<q", data, at)[0], at + 8
    (size,) = struct.unpack_from("<I", data, at)
    at += 4
    if kind in {b"b", b"s"}:
        if at + size > len(data):
            raise WireError("a value that is cut short")
        content = data[at : at + size]
        text = content if kind == b"b" else content.decode("utf-8", "surrogateescape")
        return text, at + size
    if kind not in {b"l", b"d"} or not depth or size > _ITEMS_MOST:
        raise WireError("a value of no known kind, too deep, or with too many items")
    items = []
    for _ in range(size):
        key: object = None
        if kind == b"d":
            key, at = _value(data, at, 0)
        one, at = _value(data, at, depth - 1)
        items.append((key, one))
    if kind == b"l":
        return [one for _, one in items], at
    if not all(isinstance(key, str) for key, _ in items):
        raise WireError("a key that is no text")
    return dict(items), at


def text(fields: dict[str, object], name: str, default: str | None = None) -> str:
    """A field that is a str. Raises WireError where it is missing or something else."""
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise WireError(f"{name} is no text")
    return value


def number(fields: dict[str, object], name: str, default: int | None = None) -> int:
    """A field that is an int."""
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise WireError(f"{name} is no number")
    return value


def texts(fields: dict[str, object], name: str) -> list[str]:
    """A field that is a list of str."""
    value = fields.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise WireError(f"{name} is no list of texts")
    return value


def variables(fields: dict[str, object]) -> dict[str, str]:
    """Those of a program, in the field ``env``."""
    pairs = (pair.partition("=") for pair in texts(fields, "env"))
    return {name: value for name, _, value in pairs}


class Window:
    """The account of one direction of one stream. The sender takes, the receiver gives back."""

    def __init__(self) -> None:
        self.left = WINDOW

    def take(self, size: int) -> None:
        """So many bytes are under way. Raises WireError for more than there is room for."""
        if size > self.left:
            raise WireError(f"{size} bytes on a stream that has room for {self.left}")
        self.left -= size

    def give(self, size: int) -> None:
        """So many were taken away. Raises WireError for more than were under way."""
        if not 0 <= size <= WINDOW - self.left:
            raise WireError(f"credit for {size} bytes, and {WINDOW - self.left} are under way")
        self.left += size
