"""Signing keys: their text forms, and the signing and verifying with them.

Owns: kinds of principals, Ed25519 keys, typed and checksummed text forms, what exactly is signed
(``pae``). Must never: draw a key, read or write a file, show a secret in a repr or a message, or
take a key of one kind for another's.

A text is ``gu_KIND_BODY``, of a secret ``gu_KIND_secret_BODY``. BODY is base32 (lower case, no
padding) of 39 bytes: version, kind, visibility (0 public, 1 secret), the 32 bytes of the key or
seed, and the first 4 bytes of the SHA3-256 of all before, the text of the prefix included. So a
key for another purpose, a secret in the place of a public key, and a typing error each have a name.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import re
from functools import cached_property, lru_cache
from typing import Any, Final, NoReturn, final

from msgspec import Struct

from guactors.errors import UsageError

VERSION: Final = 1
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_SUM_BYTES: Final = 4
_HEAD_BYTES: Final = 3
_BODY_TEXT: Final = 63
"""Characters of a body: 39 bytes in base32."""
_SHORT: Final = slice(5, 13)
"""Where the characters of a body begin to tell keys apart: those before are equal for a kind."""
_PREFIX: Final = re.compile(r"gu_([a-z]+)_(secret_)?", re.ASCII)
_REMEMBERED: Final = 4096


class Kind(enum.Enum):
    """Whose key it is. Owners sign grants, signers sign images and functions; hubs, providers and
    apps prove who they are."""

    OWNER = "owner"
    HUB = "hub"
    PROVIDER = "provider"
    APP = "app"
    SIGNER = "signer"


_CODES: Final = {kind: code for code, kind in enumerate(Kind, start=1)}
_KINDS: Final = {kind.value: kind for kind in Kind}
_WITH_ARTICLE: Final = {
    kind: f"{'an' if kind.value[0] in 'ao' else 'a'} {kind.value}" for kind in Kind
}


def pae(payload_type: str, body: bytes) -> bytes:
    """What is signed: the pre-authentication encoding of DSSE version 1. The type is signed with
    the body, so a signature for one purpose says nothing for another."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


class PublicKey(Struct, frozen=True, dict=True, cache_hash=True):
    """Who somebody is: ``raw`` is the Ed25519 public key, 32 bytes. Ordered by text."""

    kind: Kind
    raw: bytes

    def __post_init__(self) -> None:
        # libsodium reads 32 bytes from where it is told to, whatever is there.
        _check_key(self.kind, self.raw)

    @cached_property
    def text(self) -> str:
        """The text form, ``gu_app_...``: what people copy and documents name."""
        return _format(self.kind, self.raw, secret=False)

    @property
    def short(self) -> str:
        """The kind and 8 characters that differ between keys: for listings, never for decisions."""
        prefix = f"gu_{self.kind.value}_"
        return prefix + self.text[len(prefix) :][_SHORT]

    def verify(self, payload_type: str, body: bytes, signature: bytes) -> bool:
        """Whether ``signature`` (64 bytes) is this key's for ``body`` under ``payload_type``. False
        for whatever is wrong; never raises."""
        from nacl import bindings, exceptions

        if type(signature) is not bytes or len(signature) != SIGNATURE_BYTES:
            return False
        try:
            bindings.crypto_sign_open(signature + pae(payload_type, body), self.raw)
        except (exceptions.CryptoError, TypeError, ValueError, AttributeError):
            return False
        return True

    def __lt__(self, other: PublicKey) -> bool:
        return self.text < other.text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"PublicKey({self.text})"


@final
class SecretKey:
    """What proves who somebody is: the seed of an Ed25519 key, 32 bytes.

    No Struct, so that no encoder and no printer of fields finds the seed; it does not pickle."""

    __slots__ = ("_pair", "_public", "kind", "seed")

    kind: Kind
    seed: bytes
    _pair: bytes
    _public: PublicKey

    def __init__(self, kind: Kind, seed: bytes) -> None:
        from nacl import bindings

        _check_key(kind, seed)
        public, pair = bindings.crypto_sign_seed_keypair(seed)
        fill = object.__setattr__
        fill(self, "kind", kind)
        fill(self, "seed", seed)
        fill(self, "_pair", pair)
        fill(self, "_public", PublicKey(kind, public))

    @property
    def public(self) -> PublicKey:
        """The key that verifies what this one signs."""
        return self._public

    @property
    def text(self) -> str:
        """The text form, ``gu_app_secret_...``: for key files only."""
        return _format(self.kind, self.seed, secret=True)

    def sign(self, payload_type: str, body: bytes) -> bytes:
        """The signature of ``body`` under ``payload_type``, 64 bytes; always the same."""
        from nacl import bindings

        return bindings.crypto_sign(pae(payload_type, body), self._pair)[:SIGNATURE_BYTES]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a secret key does not change: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a secret key does not change: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretKey):
            return NotImplemented
        return self.kind is other.kind and hmac.compare_digest(self.seed, other.seed)

    def __hash__(self) -> int:
        return hash(self._public)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key does not travel: send its public key, or sign here")

    def __repr__(self) -> str:
        return f"SecretKey(of {self._public.text})"


def new_secret(kind: Kind, seed: bytes) -> SecretKey:
    """The key of a ``seed``: 32 bytes that nobody else can guess."""
    return SecretKey(kind, seed)


def parse_public(text: str, kind: Kind | None = None) -> PublicKey:
    """The public key of a text, exactly as it was printed. Raises UsageError that says what is
    wrong with it, also for a key of another kind than ``kind``."""
    if not isinstance(text, str):
        raise UsageError(f"a key is a text, not a {type(text).__name__}")
    key = _parse_public(text)
    _check_kind(key.kind, kind)
    return key


def parse_secret(text: str, kind: Kind | None = None) -> SecretKey:
    """The secret key of a text. Raises UsageError as ``parse_public`` does; never quotes it."""
    if not isinstance(text, str):
        raise UsageError(f"a key is a text, not a {type(text).__name__}")
    found, secret, raw = _parse(text, "secret key")
    if not secret:
        raise UsageError("that is a public key: its secret key is needed, from the key file")
    _check_kind(found, kind)
    return SecretKey(found, raw)


# Only public keys are ever remembered: an error, such as that for a secret, is not.
@lru_cache(_REMEMBERED)
def _parse_public(text: str) -> PublicKey:
    match = _PREFIX.match(text)
    if match is not None and match[2]:
        raise UsageError(
            "that is a SECRET key: whoever has it is you, so never paste it; a public key is "
            "needed, the one that begins with gu_ and has no 'secret' in it"
        )
    kind, _, raw = _parse(text, "public key")
    return PublicKey(kind, raw)


def _check_kind(found: Kind, wanted: Kind | None) -> None:
    if wanted is not None and found is not wanted:
        raise UsageError(
            f"that is {_WITH_ARTICLE[found]} key, {_WITH_ARTICLE[wanted]} key is needed"
        )


def _check_key(kind: Kind, raw: bytes) -> None:
    if not isinstance(kind, Kind):
        raise UsageError(f"a key has a Kind, not a {type(kind).__name__}")
    if type(raw) is not bytes or len(raw) != KEY_BYTES:
        size = f"{len(raw)} bytes" if type(raw) is bytes else f"a {type(raw).__name__}"
        raise UsageError(f"a key has {KEY_BYTES} bytes, not {size}")


def _format(kind: Kind, raw: bytes, *, secret: bool) -> str:
    prefix = f"gu_{kind.value}_{'secret_' if secret else ''}"
    body = bytes((VERSION, _CODES[kind], secret)) + raw
    return prefix + _base32(body + _checksum(prefix, body))


# No message below quotes the text: it may be a secret that was pasted in the wrong place.
def _parse(text: str, needed: str) -> tuple[Kind, bool, bytes]:
    """Kind, whether it is secret, and the 32 bytes of a verified text."""
    match = _PREFIX.match(text)
    if match is None:
        raise UsageError(f"that is no {needed}: {_guess(text)}")
    kind = _KINDS.get(match[1])
    if kind is None:
        raise UsageError(
            f"that is no {needed}: no kind of key has this prefix; there are "
            f"{', '.join(f'gu_{name}_' for name in _KINDS)}"
        )
    prefix, body_text = match[0], text[match.end() :]
    name = f"the {kind.value} key ({prefix}...)"
    if len(body_text) != _BODY_TEXT:
        fault = "cut short" if len(body_text) < _BODY_TEXT else "too long"
        raise UsageError(f"{name} is {fault}: copy the whole of it, and nothing beside it")
    try:
        whole = base64.b32decode(body_text.upper() + "=")
    except (binascii.Error, ValueError):
        whole = b""
    # The last character has bits to spare: without this a key would have several texts.
    if _base32(whole) != body_text:
        raise UsageError(f"{name} has characters that no key has there: copy it again")
    body, checksum = whole[:-_SUM_BYTES], whole[-_SUM_BYTES:]
    if checksum != _checksum(prefix, body):
        raise UsageError(f"{name} has a typing error (its checksum is wrong): copy it again")
    if body[0] != VERSION:
        raise UsageError(
            f"{name} has version {body[0]}, this guactors knows {VERSION}; install the version "
            "that made it"
        )
    secret = match[2] is not None
    if body[1] != _CODES[kind] or body[2] != secret:
        raise UsageError(f"{name} contradicts itself: its prefix is not that of its content")
    return kind, secret, body[_HEAD_BYTES:]


def _guess(text: str) -> str:
    if not text:
        return "it is empty"
    if text.strip() != text:
        return "it has spaces or line ends around it"
    if text.startswith("gu://"):
        return "it is a join address, and whoever has that line may join the grid"
    if len(text) == 40:
        return "it has the length of a transport key; keys of people and machines begin with gu_"
    return "it does not begin with gu_KIND_, such as gu_app_"


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _checksum(prefix: str, body: bytes) -> bytes:
    return hashlib.sha3_256(prefix.encode() + body).digest()[:_SUM_BYTES]
