"""The answer to "may this key come in?": one request of ZMQ's authentication protocol (RFC 27).

Owns: the rule, which is that a listener's own doors decide about the client's CURVE key, and that
this key, as z85 text, becomes the User-Id of every message on the connection. Must never: own the
socket, or admit anything it does not fully understand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from guactors.transport.base import Doors

DOMAIN: Final = b"guactors"
"""Begins the name of every listener's domain, which is set together with ZAP_ENFORCE_DOMAIN, so
that nobody enters where no handler answers: without both, libzmq lets every key in."""

_VERSION: Final = b"1.0"
_KEY_BYTES: Final = 32


def answer(
    request: Sequence[bytes], doors: Mapping[bytes, Doors], z85: Callable[[bytes], str]
) -> list[bytes]:
    """The reply to ``request``; ``doors`` by domain, ``z85`` gives the text of a 32-byte key."""
    number = request[1] if len(request) > 1 else b""
    if len(request) != 7 or request[0] != _VERSION:
        return _reply(number, b"500", b"malformed request")
    domain, mechanism, key = request[2], request[5], request[6]
    asked = doors.get(domain)
    if asked is None or mechanism != b"CURVE" or len(key) != _KEY_BYTES:
        return _reply(number, b"400", b"wrong domain or mechanism")
    user = z85(key)
    if not asked.admits(user):
        return _reply(number, b"400", b"unknown key")
    return _reply(number, b"200", b"OK", user.encode())


def _reply(number: bytes, status: bytes, text: bytes, user: bytes = b"") -> list[bytes]:
    return [_VERSION, number, status, text, user, b""]
