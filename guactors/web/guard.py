"""What the head of a request must be like before anybody looks at what it asks for.

Owns: the checks of Host, Origin, Authorization, sizes and media types. Must never: make an
exception for a method, guess what a client is by its User-Agent, or allow another origin anything.

Browsers are why it is strict: any page that somebody on this machine opens can send requests here,
and by DNS rebinding with a name of its own for our address. A page's requests are told by their
Origin or Sec-Fetch-Site, a rebound name by the Host.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

from msgspec import Struct

from guactors.images.manifest import CHUNK
from guactors.web.settings import Limits

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""Names in lower case, as ASGI has them."""

PUBLIC: Final = frozenset({
    ("POST", "/auth/challenge"),
    ("POST", "/auth/session"),
    ("GET", "/health"),
    ("GET", "/openapi.json"),
})  # fmt: skip
"""All that needs no token."""
TRIES: Final = frozenset({"/auth/challenge", "/auth/session"})
"""What costs the hub something before anybody has proved who he is."""
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
JSON: Final = "application/json"
RAW: Final = "application/octet-stream"
LONGEST_TOKEN: Final = 256

_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,252}[a-z0-9_])?", re.ASCII)
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_OFFER: Final = "/images"
_BEARER: Final = "Bearer"
_DEPLOYMENT: Final = re.compile(r"/sessions/[^/]+/peers/[^/]+/deployments/[^/]+(/files)?")


class Refusal(Struct, frozen=True):
    """``error`` and ``reason`` are words for programs, ``detail`` is for people; ``headers`` come
    on top of the usual ones."""

    status: int
    error: str
    reason: str
    detail: str
    headers: dict[str, str] = {}


def values_of(headers: Headers, name: bytes) -> list[str]:
    """Every value that was sent under a name, which is in lower case."""
    return [value.decode("latin-1") for key, value in headers if key == name]


# --- who is called, and from where ----------------------------------------------------------------


def split_host(text: str) -> tuple[str, int | None] | None:
    """Name (lower case, no brackets) and port of ``NAME[:PORT]`` or ``[IPV6][:PORT]``; None for
    all else."""
    text = text.lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or _address(name) is None or ":" not in name:
            return None
    else:
        name, colon, rest = text.partition(":")
        rest = colon + rest
        if not _NAME.fullmatch(name):
            return None
    if not rest:
        return name, None
    digits = rest[1:]
    if rest[0] != ":" or not (digits.isascii() and digits.isdigit()) or len(digits) > 5:
        return None
    port = int(digits)
    return (name, port) if 0 < port < 65536 else None


def host_fits(host: str, names: Collection[str], local: str) -> bool:
    """Whether a Host is ours: one of ``names``, or the very address that the connection came to
    (``local``), or on loopback one of its usual names. The port is the client's affair: it may come
    through a tunnel."""
    parts = split_host(host)
    if parts is None:
        return False
    name = parts[0]
    if name in names:
        return True
    here, asked = _address(local), _address(name)
    if here is None:
        return False
    return asked == here or (here.is_loopback and name in LOOPBACK_NAMES)


def origin_fits(headers: Headers, scheme: str, host: str) -> bool:
    """Whether a request is none of a page of another origin, as far as browsers tell."""
    for origin in values_of(headers, b"origin"):
        if origin.lower() != f"{scheme}://{host}".lower():
            return False
    return all(site in {"same-origin", "none"} for site in values_of(headers, b"sec-fetch-site"))


def network_of(address: str) -> str:
    """Whom connections are counted for: an IPv4 address, the first 64 bits of an IPv6 one."""
    found = _address(address)
    if isinstance(found, ipaddress.IPv6Address) and not found.is_loopback:
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found) if found is not None else address


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine can reach an address."""
    found = _address(address)
    return found is not None and found.is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


# --- who asks -------------------------------------------------------------------------------------


def bearer_of(headers: Headers) -> str | None:
    """The token of ``Authorization: Bearer TOKEN``; None where there is none, or two."""
    values = values_of(headers, b"authorization")
    if len(values) != 1:
        return None
    scheme, _, token = values[0].strip().partition(" ")
    token = token.strip()
    if scheme.lower() != _BEARER.lower() or len(token) > LONGEST_TOKEN:
        return None
    return token if _TOKEN.fullmatch(token) else None


def no_token(detail: str = "") -> Refusal:
    """The answer to who shows no token, or none that is good."""
    challenge = f'{_BEARER} realm="guactors"' + (', error="invalid_token"' if detail else "")
    told = detail or (
        "this needs a token: POST /auth/challenge and /auth/session with your key, then send "
        "Authorization: Bearer TOKEN"
    )
    return Refusal(401, "AuthFailed", "token", told, {"WWW-Authenticate": challenge})


# --- how much, and of what kind -------------------------------------------------------------------


def passes_through(method: str, path: str) -> bool:
    """Whether the body of a request is handed on as it comes, and never held."""
    found = _DEPLOYMENT.fullmatch(path) if method == "PUT" else None
    return found is not None and bool(found[1])


def body_limit(method: str, path: str, limits: Limits) -> int:
    """Bytes that the body of a request may have."""
    if passes_through(method, path):
        return limits.file
    if method == "PUT":
        return CHUNK
    if method == "PATCH":
        return limits.manifest if _DEPLOYMENT.fullmatch(path) else 0
    if method == "POST":
        return limits.manifest if path == _OFFER else limits.document
    return 0


def announced(headers: Headers) -> int | None:
    """Bytes of body that a request says to have; None where it does not say how many."""
    if values_of(headers, b"transfer-encoding"):
        return None
    lengths = values_of(headers, b"content-length")
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


def too_large(limit: int) -> Refusal:
    """The answer to a body of more bytes than that."""
    detail = f"the body has more than {limit} bytes" if limit else "this takes no body"
    return Refusal(413, "UsageError", "too_large", detail)


def _media_fits(method: str, headers: Headers) -> bool:
    kinds = values_of(headers, b"content-type")
    if method == "PUT":
        return not kinds or (len(kinds) == 1 and kinds[0].strip().lower() == RAW)
    if len(kinds) != 1:
        return False
    kind, _, parameter = kinds[0].lower().partition(";")
    return kind.strip() == JSON and parameter.strip() in {"", "charset=utf-8", 'charset="utf-8"'}


# --- all of it ------------------------------------------------------------------------------------


def judge_head(
    method: str,
    path: str,
    target: bytes,
    headers: Headers,
    *,
    scheme: str,
    local: str,
    names: Collection[str],
    limits: Limits,
) -> Refusal | None:
    """The first thing that is wrong with the head of a request, but for its token. ``local``: our
    address of its connection."""
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > limits.headers or size > limits.head_bytes:
        detail = f"a request has at most {limits.headers} header lines, {limits.head_bytes} bytes"
        return Refusal(431, "UsageError", "headers", detail)
    hosts = values_of(headers, b"host")
    if len(hosts) != 1 or not host_fits(hosts[0], names, local):
        detail = (
            "this server has another name: call it by its address, or start it with --http-name"
        )
        return Refusal(421, "PermissionDenied", "host", detail)
    if not origin_fits(headers, scheme, hosts[0]):
        detail = "pages of other origins may send nothing here"
        return Refusal(403, "PermissionDenied", "origin", detail)
    if len(target) > limits.target:
        return Refusal(414, "UsageError", "target", f"a target has at most {limits.target} bytes")
    length = announced(headers)
    limit = body_limit(method, path, limits)
    if length == 0:
        return None
    if not limit or (length is not None and length > limit):
        return too_large(limit)
    if not _media_fits(method, headers):
        wanted = RAW if method == "PUT" else JSON
        return Refusal(415, "UsageError", "media_type", f"the body must be {wanted}")
    return None


def lower_names(names: Iterable[str]) -> frozenset[str]:
    """Further names of the server, as ``host_fits`` compares them. Raises ValueError, with the
    name, for what cannot be in a Host."""
    found = set()
    for name in names:
        parts = split_host(f"[{name}]" if ":" in name and not name.startswith("[") else name)
        if parts is None or parts[1] is not None:
            raise ValueError(name)
        found.add(parts[0])
    return frozenset(found)
