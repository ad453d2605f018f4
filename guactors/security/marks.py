"""The hub's mark on what it gives away and wants to know again: a keyed digest.

Owns: how it is computed. Must never: be taken for a signature; only the hub itself can check it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from guactors.messages import ActorSpec, GroupSpec

_PURPOSE: Final = b"guactors.mark/1"
_SIZE: Final = 32


Mark = Callable[..., bytes]
"""``mark(*parts)``: what only this hub can make of the parts. A provider that returns it proves
that the hub itself gave it what it reports."""


def marker(secret: str) -> Mark:
    """``mark(*parts)`` of texts and bytes, 32 bytes; the same after a restart with this secret."""
    key = hashlib.sha3_256(_PURPOSE + secret.encode()).digest()

    def mark(*parts: str | bytes) -> bytes:
        digest = hashlib.blake2b(key=key, digest_size=_SIZE)
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
        return digest.digest()

    return mark


def no_mark(*_parts: str | bytes) -> bytes:
    """Of a hub without a key, whose providers are its own processes."""
    return b""


def marker_of(secret: str) -> Mark:
    """``marker``, or ``no_mark`` where there is no secret."""
    return marker(secret) if secret else no_mark


def lease_mark(mark: Mark, lease: str, session: str, caller: str, principal: str) -> bytes:
    """The mark of a lease."""
    return mark("lease", lease, session, caller, principal)


def actor_mark(mark: Mark, spec: ActorSpec, payload: bytes) -> bytes:
    """The mark of an actor; its spec carries it."""
    return mark("actor", spec.actor, spec.session, spec.owner, spec.principal, payload)


def group_mark(mark: Mark, spec: GroupSpec) -> bytes:
    """The mark of a placement group, wherever it is."""
    bare = msgspec.structs.replace(spec, homes=[], seal=b"")
    return mark("group", msgspec.msgpack.encode(bare))
