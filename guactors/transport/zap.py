"""The answer to "may this key come in?": one request of ZMQ's authentication protocol (RFC 27).

Owns: the rule, which is that only the grid's member key enters. Must never: own the socket, or
admit anything it does not fully understand.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

DOMAIN: Final = b"guactors"
"""Set on every listener together with ZAP_ENFORCE_DOMAIN, so that nobody enters where no handler
answers: without both, libzmq lets every key in."""

_VERSION: Final = b"1.0"


def answer(request: Sequence[bytes], member: bytes) -> list[bytes]:
    """The reply to ``request``; admits the 32-byte client key ``member`` only."""
    number = request[1] if len(request) > 1 else b""
    if len(request) != 7 or request[0] != _VERSION:
        return _reply(number, b"500", b"malformed request")
    domain, mechanism, key = request[2], request[5], request[6]
    if domain != DOMAIN or mechanism != b"CURVE":
        return _reply(number, b"400", b"wrong domain or mechanism")
    if len(member) != 32 or not hmac.compare_digest(key, member):
        return _reply(number, b"400", b"unknown key")
    return _reply(number, b"200", b"OK", b"member")


def _reply(number: bytes, status: bytes, text: bytes, user: bytes = b"") -> list[bytes]:
    return [_VERSION, number, status, text, user, b""]
