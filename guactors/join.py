"""The join address: one line of text that lets a machine into a grid.

Owns: the text form ``gu://HOST:PORT?key=KEY``. Must never: show the secret in a repr or a message,
draw keys, or connect.

KEY is base32 (lower case, no padding) of 69 bytes: a version byte, the hub's public key and the
grid's member secret (32 bytes each, Curve25519), and the first 4 bytes of the SHA3-256 of all
before, which tells a typing error from a wrong key. Whoever has the line is a member: handle it as
a password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from guactors.config import Identity
from guactors.errors import UsageError
from guactors.messages import Endpoint

SCHEME: Final = "gu://"
VERSION: Final = 1

_KEY_BYTES: Final = 32
_SUM_BYTES: Final = 4
_KEY_TEXT: Final = 111
"""Characters of a key: 69 bytes in base32."""
_HINT: Final = "copy the whole line that the hub printed (gu://HOST:PORT?key=...)"
# Z85 is base 85 with another alphabet than the standard library's.
_LOWER: Final = b"abcdefghijklmnopqrstuvwxyz"
_B85: Final = b"0123456789" + _LOWER.upper() + _LOWER + b"!#$%&()*+-;<=>?@^_`{|}~"
_Z85: Final = b"0123456789" + _LOWER + _LOWER.upper() + b".-:+=^!/*?&<>()[]{}@%$#"
_TO_Z85: Final = bytes.maketrans(_B85, _Z85)
_TO_B85: Final = bytes.maketrans(_Z85, _B85)


class JoinAddress(Struct, frozen=True):
    """Where the hub listens (``host`` without brackets, ``port``), its public key, and the secret
    that all members of the grid share; both keys are z85 text of 40 characters."""

    host: str
    port: int
    hub_public: str
    member_secret: str

    def __repr__(self) -> str:
        return f"JoinAddress(host={self.host!r}, port={self.port}, hub_public={self.hub_public!r})"


def format_join(address: JoinAddress) -> str:
    """The text form; it holds the secret. Raises UsageError for parts that cannot be in one."""
    if not _is_host(address.host) or not 0 < address.port < 65536:
        raise UsageError(f"no join address is possible for {address.host!r} port {address.port}")
    keys = _from_z85("hub_public", address.hub_public)
    keys += _from_z85("member_secret", address.member_secret)
    body = bytes([VERSION]) + keys
    key = base64.b32encode(body + _checksum(body)).decode().rstrip("=").lower()
    return f"{SCHEME}{_place(address.host, address.port)}?key={key}"


def parse_join(text: str) -> JoinAddress:
    """The parts of a join address. Raises UsageError that says what is wrong with it."""
    text = text.strip()
    if not text.startswith(SCHEME):
        scheme, separator, _ = text.partition("://")
        found = f"it begins with {scheme[:16]!r}" if separator else "it has no scheme"
        raise UsageError(f"not a join address, {found}, not with {SCHEME}; {_HINT}")
    place, _, query = text.removeprefix(SCHEME).partition("?")
    host, port = _parse_place(place.removesuffix("/"))
    name, _, key = query.partition("=")
    if name != "key" or not key:
        raise UsageError(f"the join address of {host} has no key; {_HINT}")
    body = _parse_key(key, host)
    return JoinAddress(
        host, port, _to_z85(body[1 : 1 + _KEY_BYTES]), _to_z85(body[1 + _KEY_BYTES :])
    )


def endpoint_of(address: JoinAddress) -> Endpoint:
    """The hub's endpoint: both lanes on the one port of a join address."""
    place = f"tcp://{_place(address.host, address.port)}"
    return Endpoint(control=place, data=place, server_key=address.hub_public)


def identity_from_join(address: JoinAddress, derive_public: Callable[[str], str]) -> Identity:
    """The keys of a member. ``derive_public`` computes the public key of a secret, as
    ``guactors.transport.zmq_link.derive_public`` does."""
    secret = address.member_secret
    return Identity(member_public=derive_public(secret), member_secret=secret)


def _parse_place(place: str) -> tuple[str, int]:
    host, colon, port_text = place.rpartition(":")
    if not colon or "]" in port_text:
        raise UsageError(f"the join address {SCHEME}{place} has no port; {_HINT}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        valid = _is_host(host) and ":" in host
    else:
        valid = _is_host(host) and ":" not in host
    if not valid:
        raise UsageError(
            f"{host!r} is no host for a join address (IPv6 needs brackets: [::1]:61621)"
        )
    port = int(port_text) if port_text.isascii() and port_text.isdigit() else 0
    if not 0 < port < 65536:
        raise UsageError(f"{port_text!r} is no port; it must be a number from 1 to 65535")
    return host, port


def _parse_key(key: str, host: str) -> bytes:
    """Version and keys of a verified key text."""
    where = f"the key in the join address of {host}"
    if len(key) != _KEY_TEXT:
        raise UsageError(
            f"{where} is {'cut short' if len(key) < _KEY_TEXT else 'too long'}; {_HINT}"
        )
    try:
        whole = base64.b32decode(key.upper() + "=" * (-len(key) % 8))
    except (binascii.Error, ValueError):
        # Not chained: a traceback of the cause would carry the text of the key.
        raise UsageError(f"{where} has characters that no key has; {_HINT}") from None
    body, checksum = whole[:-_SUM_BYTES], whole[-_SUM_BYTES:]
    if checksum != _checksum(body):
        raise UsageError(f"{where} has a typing error (its checksum is wrong); {_HINT}")
    if body[0] != VERSION:
        raise UsageError(
            f"{where} has version {body[0]}, this guactors knows {VERSION}; install the version "
            "that the hub runs"
        )
    return body


def _checksum(body: bytes) -> bytes:
    return hashlib.sha3_256(body).digest()[:_SUM_BYTES]


def _is_host(host: str) -> bool:
    return bool(host) and host.isascii() and host.isprintable() and not set(host) & set(" /?#[]@")


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _to_z85(key: bytes) -> str:
    return base64.b85encode(key).translate(_TO_Z85).decode()


def _from_z85(name: str, text: str) -> bytes:
    try:
        key = base64.b85decode(text.encode("ascii").translate(_TO_B85))
    except (UnicodeError, ValueError):
        key = b""
    if len(key) != _KEY_BYTES or _to_z85(key) != text:
        raise UsageError(f"{name} is not a z85 key of 40 characters")
    return key
