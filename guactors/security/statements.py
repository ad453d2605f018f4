"""What a principal signs when it comes to a hub, and how a provider sees by whose right a session
runs.

Owns: the form of the statement, its checks, and those of a warrant. Must never: draw a nonce or
know which were used (the gatekeeper does), or take one field of a statement for another's.

A statement is made for one hub, one link, one nonce, one process and one session. Of a root caller
the hub hands it on to providers, so that a session rests on its principal's own signature and not
on the hub's word.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal

from msgspec import Struct

from guactors.errors import AuthFailed, UsageError
from guactors.messages import WarrantWord
from guactors.security import canonical
from guactors.security.grants import Reason, Refusal
from guactors.security.keys import Kind, PublicKey, parse_public
from guactors.security.signing import parse_envelope
from guactors.security.succession import LONGEST, open_succession

HELLO_TYPE: Final = "application/vnd.guactors.hello.v1+json"
SKEW: Final = 3600.0
"""Seconds that two clocks may differ. The nonce keeps out old statements; the time in them only
says when a warrant grows too old."""
WARRANT_MOST: Final = 30 * 86_400.0
"""Seconds that a statement is good for as the warrant of a session."""

_LIMIT: Final = 8192
"""Bytes of a statement: its longest texts fit many times."""


class HelloStatement(Struct, frozen=True, forbid_unknown_fields=True):
    """``hub``, ``key``: public keys as text. ``link``: the id of the link it is sent on; ``nonce``:
    the challenge as hex; ``peer``, ``role``, ``session``, ``transport``: as in Hello. For a token
    of the HTTP server the role is ``http``; link, peer, session and transport are empty. ``at``:
    epoch seconds."""

    format: Literal["guactors.hello/1"]
    hub: str
    key: str
    link: str
    nonce: str
    peer: str
    role: str
    session: str
    transport: str
    at: int


def make_statement(
    *,
    hub: str,
    key: str,
    link: str,
    nonce: bytes,
    peer: str,
    role: str,
    session: str,
    transport: str,
    at: float,
) -> bytes:
    """The bytes to sign under HELLO_TYPE; ``hub`` and ``key`` are texts of public keys."""
    return canonical.encode(
        HelloStatement(
            "guactors.hello/1", hub, key, link, nonce.hex(), peer, role, session, transport, int(at)
        )
    )


def read_statement(statement: bytes) -> HelloStatement:
    """The fields of a statement; nothing in it is verified. Raises AuthFailed if it is none."""
    try:
        return canonical.decode(statement, HelloStatement, what="the statement", limit=_LIMIT)
    except UsageError as fault:
        raise AuthFailed(str(fault)) from None


def judge_statement(
    statement: bytes,
    signature: bytes,
    *,
    key: PublicKey,
    hub: PublicKey,
    nonce: bytes,
    link: str,
    peer: str,
    role: str,
    session: str,
    transport: str,
    now: float,
) -> Refusal | None:
    """None if ``key`` signed this statement for exactly these, else the first field that is wrong.
    ``now``: epoch seconds."""
    try:
        said = read_statement(statement)
    except AuthFailed as fault:
        return Refusal(Reason.MALFORMED, str(fault))
    for field, stated, wanted, reason in (
        ("hub", said.hub, hub.text, Reason.WRONG_HUB),
        ("key", said.key, key.text, Reason.BAD_SIGNATURE),
        ("nonce", said.nonce, nonce.hex(), Reason.REPLAY),
        ("link", said.link, link, Reason.REPLAY),
        ("peer", said.peer, peer, Reason.REPLAY),
        ("role", said.role, role, Reason.REPLAY),
        ("session", said.session, session, Reason.SESSION),
        ("transport", said.transport, transport, Reason.REPLAY),
    ):
        if stated != wanted:
            return _differs(field, stated, wanted, reason)
    if abs(said.at - now) > SKEW:
        reason = Reason.NOT_YET_VALID if said.at > now else Reason.EXPIRED
        return Refusal(
            reason,
            f"the time (at) of the statement differs from this clock by {abs(said.at - now):.0f} "
            "seconds: set the clocks of both machines right",
        )
    return _bad_signature(key, statement, signature)


def check_statement(
    statement: bytes,
    signature: bytes,
    *,
    key: PublicKey,
    hub: PublicKey,
    nonce: bytes,
    link: str,
    peer: str,
    role: str,
    session: str,
    transport: str,
    now: float,
) -> None:
    """Raises AuthFailed that names the field, unless ``key`` signed this statement for exactly
    these. ``now``: epoch seconds."""
    refusal = judge_statement(
        statement, signature, key=key, hub=hub, nonce=nonce, link=link, peer=peer, role=role,
        session=session, transport=transport, now=now,
    )  # fmt: skip
    if refusal is not None:
        raise AuthFailed(refusal.detail)


def check_warrant(
    warrant: WarrantWord, *, hub: PublicKey, owners: Collection[PublicKey], now: float
) -> PublicKey:
    """The app or owner by whose right the session runs. An owner must be one of ``owners`` or
    follow one; an app needs grants, which are not looked at here: they name it, or one of its
    ``former_keys``. ``now``: epoch seconds. Raises AuthFailed that names the field."""
    key = _warrant_key(warrant)
    said = read_statement(warrant.statement)
    for field, stated, wanted, reason in (
        ("hub", said.hub, hub.text, Reason.WRONG_HUB),
        ("key", said.key, key.text, Reason.BAD_SIGNATURE),
        ("role", said.role, "caller", Reason.REPLAY),
        ("session", said.session, warrant.session, Reason.SESSION),
    ):
        if stated != wanted:
            raise AuthFailed(_differs(field, stated, wanted, reason).detail)
    if said.at - now > SKEW:
        raise AuthFailed(
            f"the time (at) of the statement is {said.at - now:.0f} seconds ahead of this clock: "
            "set the clocks of both machines right"
        )
    # The form that a NaN does not pass.
    if not now - said.at <= WARRANT_MOST:
        raise AuthFailed(
            f"the time (at) of the statement is too long ago: the session {warrant.session} was "
            f"signed more than {WARRANT_MOST / 86_400:.0f} days before; open a new one"
        )
    bad = _bad_signature(key, warrant.statement, warrant.signature)
    if bad is not None:
        raise AuthFailed(bad.detail)
    former = former_keys(warrant.successions, key)
    if key.kind is Kind.OWNER and not ({key} | former) & set(owners):
        raise AuthFailed(f"{key.text} is none of the owners known here")
    return key


def former_keys(successions: Sequence[bytes], key: PublicKey) -> frozenset[PublicKey]:
    """The keys that ``key`` follows, by verified statements of succession (envelope texts, in any
    order). Raises AuthFailed for a statement that is wrong, and for two successors of one key."""
    if len(successions) > LONGEST:
        raise AuthFailed(
            f"{len(successions)} statements of succession are too many, {LONGEST} at most"
        )
    before: dict[PublicKey, list[PublicKey]] = {}
    after: dict[PublicKey, PublicKey] = {}
    for data in successions:
        try:
            envelope = parse_envelope(data, "a statement of succession")
        except UsageError as fault:
            raise AuthFailed(str(fault)) from None
        old, new = open_succession(envelope)
        if after.setdefault(old, new) != new:
            raise AuthFailed(f"{old.short} names two successors: one of them is not to be trusted")
        before.setdefault(new, []).append(old)
    if key in after:
        raise AuthFailed(f"{key.short} was given up for {after[key].short}: use that one")
    found: set[PublicKey] = set()
    todo = [key]
    while todo:
        for old in before.get(todo.pop(), ()):
            if old not in found:
                found.add(old)
                todo.append(old)
    return frozenset(found)


def _warrant_key(warrant: WarrantWord) -> PublicKey:
    if not warrant.key or not warrant.session:
        raise AuthFailed("the warrant names no key or no session: nobody answers for it")
    try:
        key = parse_public(warrant.key)
    except UsageError as fault:
        raise AuthFailed(f"the warrant's key is wrong: {fault}") from None
    if key.kind not in {Kind.APP, Kind.OWNER}:
        raise AuthFailed(f"{key.text} cannot open a session: an app or owner key is needed")
    return key


def _differs(field: str, stated: str, wanted: str, reason: Reason) -> Refusal:
    return Refusal(
        reason,
        f"the {field} in the statement is {canonical.shown(stated)!r}, not "
        f"{canonical.shown(wanted)!r}: it was not made for this",
    )


def _bad_signature(key: PublicKey, statement: bytes, signature: bytes) -> Refusal | None:
    if key.verify(HELLO_TYPE, statement, signature):
        return None
    return Refusal(Reason.BAD_SIGNATURE, f"the signature of the statement is not one by {key.text}")
