"""Signed documents: envelopes that carry what they sign, and detached signatures for what is kept
elsewhere.

Owns: the form of both (DSSE version 1 with our keys), and the checks. Must never: hand out a body
before a trusted signature over it is verified, or look into the body.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from msgspec import Struct

from guactors.errors import AuthFailed, UsageError
from guactors.security import canonical
from guactors.security.keys import (
    SIGNATURE_BYTES,
    PublicKey,
    SecretKey,
    pae,
    parse_public,
)

__all__ = [
    "Detached",
    "Envelope",
    "Signature",
    "envelope_text",
    "open_detached",
    "open_envelope",
    "open_signed_by_all",
    "pae",
    "parse_envelope",
    "seal",
    "sign_detached",
]

SIGNATURES: Final = 8
"""The most of a document: each one costs its reader a verification."""
ENVELOPE_LIMIT: Final = 2 * canonical.LIMIT
"""Bytes of an envelope; a payload of ``canonical.LIMIT`` grows by a third in it."""


class Signature(Struct, frozen=True, forbid_unknown_fields=True):
    """``key``: the text of the signer's public key; ``sig``: base64url of 64 bytes, unpadded."""

    key: str
    sig: str


class Envelope(Struct, frozen=True, forbid_unknown_fields=True):
    """A document with its signatures; ``payload``: base64url of its exact bytes, unpadded."""

    payload_type: str
    payload: str
    signatures: list[Signature]


class Detached(Struct, frozen=True, forbid_unknown_fields=True):
    """Signatures of a document that is kept elsewhere."""

    payload_type: str
    signatures: list[Signature]


def seal(
    secret: SecretKey, payload_type: str, body: bytes, *, beside: Sequence[SecretKey] = ()
) -> Envelope:
    """``body`` signed by ``secret``, and by those ``beside`` it."""
    return Envelope(payload_type, _pack(body), _sign([secret, *beside], payload_type, body))


def envelope_text(envelope: Envelope) -> bytes:
    """The bytes of an envelope: canonical JSON."""
    return canonical.encode(envelope)


def parse_envelope(data: bytes, what: str) -> Envelope:
    """The envelope in ``data``; nothing in it is verified. Raises UsageError that names ``what``
    when it is no envelope."""
    return canonical.decode(data, Envelope, what=what, limit=ENVELOPE_LIMIT)


def open_envelope(
    envelope: Envelope, payload_type: str, trusted: Collection[PublicKey]
) -> tuple[bytes, PublicKey]:
    """The body, and the first signer that is in ``trusted``. Signatures of others are ignored, but
    each one of a trusted key must be good. Raises AuthFailed that says which check failed."""
    given = _parse_signatures(envelope, payload_type)
    body = _unpack(envelope.payload, "the payload")
    signers = [key for key in given if key in trusted]
    if not signers:
        names = ", ".join(key.short for key in given)
        raise AuthFailed(f"{_name(payload_type)} is signed by nobody trusted here, but by {names}")
    for key in signers:
        _verify(key, payload_type, body, given[key])
    return body, signers[0]


def open_signed_by_all(envelope: Envelope, payload_type: str) -> tuple[bytes, frozenset[PublicKey]]:
    """The body and all its signers; whether one of them is to be trusted is for the caller to
    judge. Raises AuthFailed unless every signature is good."""
    given = _parse_signatures(envelope, payload_type)
    body = _unpack(envelope.payload, "the payload")
    for key, signature in given.items():
        _verify(key, payload_type, body, signature)
    return body, frozenset(given)


def sign_detached(secrets: Iterable[SecretKey], payload_type: str, body: bytes) -> bytes:
    """The signatures of ``body``, as canonical JSON without the body."""
    return canonical.encode(Detached(payload_type, _sign(secrets, payload_type, body)))


def open_detached(data: bytes, payload_type: str, body: bytes) -> frozenset[PublicKey]:
    """All signers of ``body``; whether one of them is to be trusted is for the caller to judge.

    Raises AuthFailed unless every signature in ``data`` is good, UsageError when it is damaged."""
    detached = canonical.decode(data, Detached, what="the signature file")
    given = _parse_signatures(detached, payload_type)
    for key, signature in given.items():
        _verify(key, payload_type, body, signature)
    return frozenset(given)


def _sign(secrets: Iterable[SecretKey], payload_type: str, body: bytes) -> list[Signature]:
    found = list(secrets)
    if not 1 <= len(found) <= SIGNATURES or len(set(found)) != len(found):
        raise UsageError(f"1 to {SIGNATURES} different keys can sign a document")
    return [
        Signature(secret.public.text, _pack(secret.sign(payload_type, body))) for secret in found
    ]


def _parse_signatures(document: Envelope | Detached, payload_type: str) -> dict[PublicKey, bytes]:
    """The signatures by key, in their order; well formed, but not verified."""
    if document.payload_type != payload_type:
        raise AuthFailed(
            f"{_name(payload_type)} is needed, but this is signed as "
            f"{canonical.shown(document.payload_type)!r}"
        )
    count = len(document.signatures)
    if not 1 <= count <= SIGNATURES:
        raise AuthFailed(f"{_name(payload_type)} has {count} signatures, not 1 to {SIGNATURES}")
    found: dict[PublicKey, bytes] = {}
    for given in document.signatures:
        try:
            key = parse_public(given.key)
        except UsageError as fault:
            raise AuthFailed(f"{_name(payload_type)} names a wrong signer: {fault}") from None
        if key in found:
            raise AuthFailed(f"{_name(payload_type)} has two signatures by {key.short}")
        found[key] = _unpack(given.sig, f"the signature by {key.short}")
        if len(found[key]) != SIGNATURE_BYTES:
            raise AuthFailed(f"the signature by {key.short} is cut short or too long")
    return found


def _verify(key: PublicKey, payload_type: str, body: bytes, signature: bytes) -> None:
    if not key.verify(payload_type, body, signature):
        raise AuthFailed(
            f"the signature by {key.text} is wrong: {_name(payload_type)} was changed after it was "
            "signed, or that key never signed it"
        )


def _name(payload_type: str) -> str:
    return f"a document of type {payload_type!r}"


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpack(text: str, what: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        data = b""
    # The decoder skips what it does not know and ignores spare bits: one text for one content.
    if _pack(data) != text:
        raise AuthFailed(f"{what} is damaged: it is not base64url without padding")
    return data
