"""Succession: how a principal changes its key and stays who it is.

Owns: the statement "the old key is followed by the new one", and the walk along such statements.
Must never: accept a statement that not both keys signed, or choose between two successors.

The old key's signature says who may follow; the new key's that it is there and agrees.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

from msgspec import Struct

from guactors.errors import AuthFailed, UsageError
from guactors.security import canonical
from guactors.security.keys import PublicKey, SecretKey, parse_public
from guactors.security.signing import Envelope, open_signed_by_all, seal

SUCCESSION_TYPE: Final = "application/vnd.guactors.succession.v1+json"
LONGEST: Final = 64
"""Statements of one chain: each costs its reader two verifications."""


class Succession(Struct, frozen=True, forbid_unknown_fields=True):
    """``old`` is followed by ``new``: public key texts of one ``kind``; ``at``: epoch seconds."""

    format: Literal["guactors.succession/1"]
    kind: str
    old: str
    new: str
    at: int


def name_successor(old: SecretKey, new: SecretKey, at: int) -> Envelope:
    """The statement that ``new`` follows ``old``, signed by both. Raises UsageError for keys of two
    kinds, or for one key twice."""
    if old.kind is not new.kind:
        raise UsageError(f"a {new.kind.value} key cannot follow a key of kind {old.kind.value}")
    if old == new:
        raise UsageError("a key cannot follow itself: make a new one")
    statement = Succession(
        "guactors.succession/1", old.kind.value, old.public.text, new.public.text, at
    )
    return seal(old, SUCCESSION_TYPE, canonical.encode(statement), beside=[new])


def open_succession(envelope: Envelope) -> tuple[PublicKey, PublicKey]:
    """The old and the new key of a verified statement. Raises AuthFailed."""
    body, signers = open_signed_by_all(envelope, SUCCESSION_TYPE)
    try:
        statement = canonical.decode(body, Succession, what="the succession statement")
        old, new = parse_public(statement.old), parse_public(statement.new)
    except UsageError as fault:
        raise AuthFailed(str(fault)) from None
    if not statement.kind == old.kind.value == new.kind.value:
        raise AuthFailed(f"{new.short} cannot follow {old.short}: they are keys of two kinds")
    if old == new or signers != {old, new}:
        raise AuthFailed(
            f"{new.short} does not follow {old.short}: the statement must be signed by exactly "
            "these two different keys"
        )
    return old, new


def follow(envelopes: Collection[Envelope], start: PublicKey) -> PublicKey:
    """The key that ``start`` has become: the last of the chain, ``start`` itself if it has no
    successor. The order of the statements does not matter.

    Raises AuthFailed for a statement that is not verified, for two successors of one key, and for
    a chain that comes back to a key it has left."""
    if len(envelopes) > LONGEST:
        raise AuthFailed(
            f"{len(envelopes)} statements of succession are too many, {LONGEST} at most"
        )
    successors: dict[PublicKey, PublicKey] = {}
    for envelope in envelopes:
        old, new = open_succession(envelope)
        if successors.setdefault(old, new) != new:
            raise AuthFailed(f"{old.short} names two successors: one of them is not to be trusted")
    seen = {start}
    while start in successors:
        start = successors[start]
        if start in seen:
            raise AuthFailed(f"the succession comes back to {start.short}, a key that was given up")
        seen.add(start)
    return start
