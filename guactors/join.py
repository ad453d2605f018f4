"""The join address: one line of text that says where a hub is and who it is.

Owns: the text form ``gu://HOST:PORT?hub=KEYS`` and ``...&invite=TOKEN``. Must never: draw keys, or
connect.

KEYS is base32 (lower case, no padding) of 101 bytes: a version byte, the hub's transport key
(Curve25519), its signing key and the owner's (Ed25519), and the first 4 bytes of the SHA3-256 of
all before, which tells a typing error from a wrong key. The address alone is no secret: whoever has
it may knock. An invitation is one, until it is used or has expired.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from msgspec import Struct

from guactors.errors import UsageError
from guactors.messages import Endpoint
from guactors.security.keys import KEY_BYTES, Kind, PublicKey, parse_public

SCHEME: Final = "gu://"
VERSION: Final = 2

_SUM_BYTES: Final = 4
_KEYS_TEXT: Final = 162
"""Characters of the keys: 101 bytes in base32."""
_HINT: Final = "copy the whole line that the hub printed (gu://HOST:PORT?hub=...)"
_INVITE_MOST: Final = 128
# Z85 is base 85 with another alphabet than the standard library's.
_LOWER: Final = b"abcdefghijklmnopqrstuvwxyz"
_B85: Final = b"0123456789" + _LOWER.upper() + _LOWER + b"!#$%&()*+-;<=>?@^_`{|}~"
_Z85: Final = b"0123456789" + _LOWER + _LOWER.upper() + b".-:+=^!/*?&<>()[]{}@%$#"
_TO_Z85: Final = bytes.maketrans(_B85, _Z85)
_TO_B85: Final = bytes.maketrans(_Z85, _B85)


class JoinAddress(Struct, frozen=True):
    """Where the hub listens (``host`` without brackets, ``port``), its transport key (z85), its
    public key and its owner's as text, and an invitation or nothing."""

    host: str
    port: int
    transport: str
    hub: str
    owner: str
    invitation: str = ""

    def __repr__(self) -> str:
        return f"JoinAddress(host={self.host!r}, port={self.port}, hub={self.hub!r})"


def format_join(address: JoinAddress) -> str:
    """The text form. Raises UsageError for parts that cannot be in one."""
    if not _is_host(address.host) or not 0 < address.port < 65536:
        raise UsageError(f"no join address is possible for {address.host!r} port {address.port}")
    body = bytes([VERSION]) + _from_z85("transport", address.transport)
    body += parse_public(address.hub, Kind.HUB).raw + parse_public(address.owner, Kind.OWNER).raw
    keys = base64.b32encode(body + _checksum(body)).decode().rstrip("=").lower()
    text = f"{SCHEME}{_place(address.host, address.port)}?hub={keys}"
    return f"{text}&invite={address.invitation}" if address.invitation else text


def parse_join(text: str) -> JoinAddress:
    """The parts of a join address. Raises UsageError that says what is wrong with it."""
    text = text.strip()
    if not text.startswith(SCHEME):
        scheme, separator, _ = text.partition("://")
        found = f"it begins with {scheme[:16]!r}" if separator else "it has no scheme"
        raise UsageError(f"not a join address, {found}, not with {SCHEME}; {_HINT}")
    place, _, query = text.removeprefix(SCHEME).partition("?")
    host, port = _parse_place(place.removesuffix("/"))
    keys, invitation = _parse_query(query, host)
    body = _parse_keys(keys, host)
    transport, hub, owner = (body[at : at + KEY_BYTES] for at in (1, 33, 65))
    return JoinAddress(
        host,
        port,
        _to_z85(transport),
        PublicKey(Kind.HUB, hub).text,
        PublicKey(Kind.OWNER, owner).text,
        invitation,
    )


def without_invitation(text: str) -> str:
    """The part of a join address that is no secret."""
    return text.strip().partition("&invite=")[0]


def endpoint_of(address: JoinAddress) -> Endpoint:
    """The hub's endpoint: both lanes on the one port of a join address."""
    place = f"tcp://{_place(address.host, address.port)}"
    return Endpoint(control=place, data=place, server_key=address.transport)


def _parse_query(query: str, host: str) -> tuple[str, str]:
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name == "key":
            raise UsageError(
                f"the join address of {host} is of an older guactors, which had one key for all: "
                "ask for a new one"
            )
        if name not in ("hub", "invite") or name in found or not value:
            raise UsageError(f"the join address of {host} has a part that none has; {_HINT}")
        found[name] = value
    if "hub" not in found:
        raise UsageError(f"the join address of {host} does not say which hub it means; {_HINT}")
    invitation = found.get("invite", "")
    if len(invitation) > _INVITE_MOST or (not invitation.replace("_", "").isalnum() and invitation):
        raise UsageError(f"the invitation in the join address of {host} is none; {_HINT}")
    return found["hub"], invitation


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


def _parse_keys(keys: str, host: str) -> bytes:
    """Version and keys of a verified text."""
    where = f"the key in the join address of {host}"
    if len(keys) != _KEYS_TEXT:
        raise UsageError(
            f"{where} is {'cut short' if len(keys) < _KEYS_TEXT else 'too long'}; {_HINT}"
        )
    try:
        whole = base64.b32decode(keys.upper() + "=" * (-len(keys) % 8))
    except (binascii.Error, ValueError):
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
    return bool(host) and host.isascii() and host.isprintable() and not set(host) & set(" /?#[]@&")


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _to_z85(key: bytes) -> str:
    return base64.b85encode(key).translate(_TO_Z85).decode()


def _from_z85(name: str, text: str) -> bytes:
    try:
        key = base64.b85decode(text.encode("ascii").translate(_TO_B85))
    except (UnicodeError, ValueError):
        key = b""
    if len(key) != KEY_BYTES or _to_z85(key) != text:
        raise UsageError(f"{name} is not a z85 key of 40 characters")
    return key
