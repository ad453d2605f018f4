"""The heads of the HTTP exchanges after which a connection is a plain line, "hijacked".

Owns: writing such a request, reading the head of its answer. Must never: touch a socket, or take
more of what came than the head: what follows belongs to the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from guactors.errors import InternalError, ProtocolError

MOST: Final = 65536
"""Bytes of a head."""
_END: Final = b"\r\n\r\n"


class Head(Struct, frozen=True):
    """``fields``: by name in small letters, the last of several."""

    status: int
    fields: dict[str, str]

    @property
    def length(self) -> int | None:
        """Bytes that follow, None if it does not say so. Raises ProtocolError."""
        text = self.fields.get("content-length")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise ProtocolError(f"the daemon says that its answer has {text[:80]!r} bytes")
        return int(text)


def upgrade_request(path: str, body: bytes) -> bytes:
    """A POST that asks for a plain line to and fro."""
    fields = {
        "Host": "docker",
        "Content-Type": "application/json",
        "Connection": "Upgrade",
        "Upgrade": "tcp",
        "Content-Length": str(len(body)),
    }
    return request_head("POST", path, fields) + body


def request_head(method: str, path: str, fields: Mapping[str, str]) -> bytes:
    """The head of a request. Raises InternalError for what would be two."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
    for line in lines:
        if not line.isascii() or not line.isprintable():
            raise InternalError(f"{line[:200]!r} cannot stand in the head of a request")
    if path.count(" "):
        raise InternalError(f"{path[:200]!r} is no path of a request")
    return "\r\n".join([*lines, "", ""]).encode()


def parse_head(data: bytes) -> tuple[Head, bytes] | None:
    """The head that ``data`` begins with, and what follows it; None while it is not whole. Raises
    ProtocolError."""
    head, end, rest = data.partition(_END)
    if len(head) > MOST:
        raise ProtocolError(f"the daemon answers with a head of more than {MOST} bytes")
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if (
        len(words) < 2
        or words[0] not in {"HTTP/1.1", "HTTP/1.0"}
        or not (words[1].isascii() and words[1].isdigit() and len(words[1]) == 3)
    ):
        raise ProtocolError(f"what answers does not speak HTTP: it says {first[:80]!r}")
    fields = {}
    for line in lines:
        name, colon, text = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ProtocolError(f"the daemon answers with the field {line[:80]!r}")
        fields[name.lower()] = text.strip()
    return Head(int(words[1]), fields), rest
