"""Grants: what one app may do in one grid, signed by an owner of that grid.

Owns: the form of a grant, its checks, signing and opening it, when it is valid, and the words for
why something was refused. Must never: read a clock, or decide about work (``rights`` does).

A grant says only what it writes out: an empty list allows nothing, and everything is ``"*"``. The
signed text is canonical JSON with every field in it, so it can be read in one way only; a missing,
unknown, repeated or otherwise typed field is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from guactors.errors import AuthFailed, UsageError
from guactors.security import canonical, signing
from guactors.security.keys import Kind, PublicKey, SecretKey, parse_public
from guactors.security.words import PREEMPTION, RUNTIMES

GRANT_TYPE: Final = "application/vnd.guactors.grant.v1+json"
ANY: Final = "*"
LABEL: Final = "label:"
"""Begins an entry of ``providers`` that is no key: ``label:NAME=VALUE``."""
ACTIONS: Final = (
    "submit", "read_stats", "read_logs", "upload_images", "suspend_others", "admin",
)  # fmt: skip
MOST_PRIORITY: Final = 2**31 - 1
MOST_ENTRIES: Final = 1000
"""Of each list."""

SHOWN: Final = 4
"""Entries of a list that a sentence names."""

_HASH_SHOWN: Final = len("sha3-256:") + 12
_LEAST_PRIORITY: Final = -(2**31)
_MOST_NUMBER: Final = 2**53 - 1
"""Every reader of JSON keeps whole numbers up to here."""
_LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999: later times cannot be shown as a date."""
_IMAGE_HASH: Final = re.compile(r"sha3-256:[0-9a-f]{64}")
_PLACE: Final = re.compile(r"[!-~]{1,256}")
_LONGEST: Final = 256


class Reason(StrEnum):
    """Why something was allowed or refused: the words that errors, the audit log and explanations
    share. They are stable, programs may compare them."""

    ALLOWED = "allowed"
    # Who asks.
    NO_KEY = "no_key"
    UNKNOWN_KEY = "unknown_key"
    WRONG_KIND = "wrong_kind"
    PENDING = "pending"
    REVOKED = "revoked"
    SESSION = "session"
    REPLAY = "replay"
    HANDSHAKE = "handshake"
    # The grant as a document.
    NO_GRANT = "no_grant"
    MALFORMED = "malformed"
    BAD_SIGNATURE = "bad_signature"
    WRONG_HUB = "wrong_hub"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    # What it does not allow.
    ACTION = "action"
    RUNTIME = "runtime"
    IMAGE = "image"
    IMAGE_SIGNER = "image_signer"
    PRIORITY = "priority"
    PREEMPTION = "preemption"
    PROVIDER = "provider"
    QUOTA = "quota"
    NETWORK = "network"
    FUNCTION_SIGNER = "function_signer"
    # The owner of the machine.
    APP = "app"
    LOCAL_POLICY = "local_policy"


Amount = int | Literal["*"]


class Quotas(Struct, frozen=True, forbid_unknown_fields=True):
    """The most an app may hold at one time: ``cpu`` and ``gpu`` in thousandths of a device,
    ``memory`` and ``storage`` in bytes, ``instances`` in workers and programs; 0 is nothing."""

    cpu: Amount = 0
    memory: Amount = 0
    gpu: Amount = 0
    storage: Amount = 0
    instances: Amount = 0


class Network(Struct, frozen=True, forbid_unknown_fields=True):
    """``overlay``: the virtual networks that work may be in, by name. ``egress``: the places
    outside the grid it may reach. ``"*"`` in either is any."""

    overlay: list[str] = []
    egress: list[str] = []


class Terms(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a grant and the policy of a machine's owner both say about work.

    ``runtimes``: words of RUNTIMES. ``image_hashes``: ``sha3-256:`` and 64 hex digits.
    ``image_signers``: signer keys; ``"*"`` is a signature of anybody, which is little. An image
    must be listed or signed (``image_mode`` "any"), or both ("all"). ``function_signers``: whose
    Python functions may run; ``"*"`` is unsigned ones, too. ``max_priority``: the highest, bigger
    goes first."""

    runtimes: list[str] = []
    image_hashes: list[str] = []
    image_signers: list[str] = []
    image_mode: Literal["any", "all"] = "any"
    function_signers: list[str] = []
    max_priority: int = 0


class Grant(Terms, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``hub``, ``app``, ``issuer``: public keys as text, the issuer's is an owner's. ``serial``:
    above 0, one grant of an issuer each. ``not_before``, ``expires``: seconds since 1970, the
    latter the first moment it is no longer valid, or None. ``providers``: provider keys,
    ``label:NAME=VALUE``, or ``"*"``. ``preemption``: how its work may push other work aside.
    ``actions``: words of ACTIONS; there is no ``"*"`` among them."""

    format: Literal["guactors.grant/1"] = "guactors.grant/1"
    hub: str
    app: str
    issuer: str
    serial: int
    not_before: int
    expires: int | None = None
    providers: list[str] = []
    preemption: list[str] = []
    quotas: Quotas = Quotas()
    network: Network = Network()
    actions: list[str] = []


class Refusal(Struct, frozen=True):
    """Why a document is no grant here; ``detail`` is for people."""

    reason: Reason
    detail: str


def build_grant(
    *, hub: str, app: str, issuer: str, serial: int, now: float, **fields: Any
) -> Grant:
    """A checked grant that is valid from ``now`` and allows what ``fields`` write out, nothing
    else. Raises UsageError that names the wrong field."""
    document = {
        "hub": hub,
        "app": app,
        "issuer": issuer,
        "serial": serial,
        "not_before": int(now),
        **msgspec.to_builtins(fields),
    }
    try:
        grant = msgspec.convert(document, Grant)
    except msgspec.ValidationError as error:
        raise UsageError(f"grant {serial} is not possible: {error}") from None
    check_grant(grant)
    return grant


def check_grant(grant: Grant) -> None:
    """Raises UsageError where a grant says something that cannot be meant."""
    what = f"grant {grant.serial}"
    for field, kind in (("hub", Kind.HUB), ("app", Kind.APP), ("issuer", Kind.OWNER)):
        _check_entry(f"{what}, {field}", getattr(grant, field), a_key(kind))
    _check_number(f"{what}, serial", grant.serial, 1, _MOST_NUMBER)
    _check_number(f"{what}, not_before", grant.not_before, 0, _LAST_SECOND)
    if grant.expires is not None:
        _check_number(f"{what}, expires", grant.expires, grant.not_before + 1, _LAST_SECOND)
    check_terms(what, grant)
    check_list(f"{what}, providers", grant.providers, _provider_fault)
    check_list(f"{what}, preemption", grant.preemption, one_of(PREEMPTION))
    check_list(f"{what}, actions", grant.actions, one_of(ACTIONS), star=False)
    check_list(f"{what}, network overlay", grant.network.overlay, _place_fault)
    check_list(f"{what}, network egress", grant.network.egress, _place_fault)
    for field in Quotas.__struct_fields__:
        amount = getattr(grant.quotas, field)
        if amount != ANY:
            _check_number(f"{what}, quota of {field}", amount, 0, _MOST_NUMBER)


def check_terms(what: str, terms: Terms) -> None:
    """As check_grant, for the part that policies share; ``what`` names the document."""
    check_list(f"{what}, runtimes", terms.runtimes, one_of(RUNTIMES))
    check_list(f"{what}, image_hashes", terms.image_hashes, image_hash_fault)
    check_list(f"{what}, image_signers", terms.image_signers, a_key(Kind.SIGNER))
    check_list(f"{what}, function_signers", terms.function_signers, a_key(Kind.SIGNER))
    _check_number(f"{what}, max_priority", terms.max_priority, _LEAST_PRIORITY, MOST_PRIORITY)


def sign_grant(grant: Grant, owner: SecretKey) -> bytes:
    """The text of the envelope. Raises UsageError for a grant that nobody would accept."""
    body = canonical.encode(grant)
    # What Python lets a struct hold need not be what its fields say: read it as a receiver would.
    check_grant(canonical.decode(body, Grant, what=f"grant {grant.serial}"))
    if grant.issuer != owner.public.text:
        raise UsageError(
            f"grant {grant.serial} names the issuer {grant.issuer}, but the key to sign it with is "
            f"{owner.public.text}: sign with the issuer's key or name this one"
        )
    return signing.envelope_text(signing.seal(owner, GRANT_TYPE, body))


def open_grant(data: bytes, owners: Collection[PublicKey], hub: PublicKey | None) -> Grant:
    """The grant in an envelope that one of ``owners`` signed for ``hub`` (None: for any hub).
    Raises AuthFailed that says which check failed. Whether it is valid yet: ``valid_at``."""
    found = read_grant(data, owners, hub)
    if isinstance(found, Refusal):
        raise AuthFailed(found.detail)
    return found


def read_grant(
    data: bytes, owners: Collection[PublicKey], hub: PublicKey | None
) -> Grant | Refusal:
    """As open_grant, for whoever must go on with the other grants and log this one."""
    try:
        envelope = signing.parse_envelope(data, "a grant")
    except UsageError as error:
        return Refusal(Reason.MALFORMED, str(error))
    try:
        body, signer = signing.open_envelope(envelope, GRANT_TYPE, owners)
    except AuthFailed as error:
        return Refusal(
            Reason.BAD_SIGNATURE,
            f"a grant was refused: {error}; only grants by the owners known here count",
        )
    try:
        grant = canonical.decode(body, Grant, what="a grant")
        check_grant(grant)
    except UsageError as error:
        return Refusal(Reason.MALFORMED, str(error))
    if grant.issuer != signer.text:
        return Refusal(
            Reason.BAD_SIGNATURE,
            f"grant {grant.serial} names the issuer {grant.issuer}, but {signer.text} signed it",
        )
    if hub is not None and grant.hub != hub.text:
        return Refusal(
            Reason.WRONG_HUB,
            f"grant {grant.serial} is for the hub {grant.hub}, this is {hub.text}: ask the owner "
            "for a grant for this hub",
        )
    return grant


def valid_at(grant: Grant, now: float) -> Reason | None:
    """None while it is valid, else why it is not. A ``now`` that is no number is never valid."""
    if not grant.not_before <= now:
        return Reason.NOT_YET_VALID
    if grant.expires is not None and not now < grant.expires:
        return Reason.EXPIRED
    return None


Signers = frozenset[str] | None
"""Whose functions may run, as public keys; None: anybody's, unsigned ones, too."""


def signers_of(terms: Terms) -> Signers:
    """Whose functions the terms admit."""
    return None if ANY in terms.function_signers else frozenset(terms.function_signers)


Fault = Callable[[str], str]
"""What is wrong with an entry, empty if nothing is; or raises UsageError itself."""


def check_list(what: str, entries: list[str], fault: Fault, *, star: bool = True) -> None:
    """Raises UsageError for too many entries, equal ones, or one with a ``fault``; ``star``:
    ``"*"`` is an entry, too."""
    if len(entries) > MOST_ENTRIES:
        raise UsageError(f"{what}: {len(entries)} entries, at most {MOST_ENTRIES} are possible")
    if len(set(entries)) != len(entries):
        raise UsageError(f"{what}: an entry is there twice")
    for entry in entries:
        if not (star and entry == ANY):
            _check_entry(what, entry, fault)


def one_of(words: tuple[str, ...]) -> Fault:
    """For check_list: a word of ``words``."""
    return lambda entry: "" if entry in words else f"is none of {', '.join(words)}"


def a_key(kind: Kind) -> Fault:
    """For check_list: a public key of ``kind``. A key has one text, so texts can be compared."""

    def fault(entry: str) -> str:
        parse_public(entry, kind)
        return ""

    return fault


def image_hash_fault(entry: str) -> str:
    """For check_list: an image's hash."""
    whole = _IMAGE_HASH.fullmatch(entry)
    return "" if whole else "is no image hash: it takes sha3-256: and 64 hex digits, in lower case"


def short_name(principal: str) -> str:
    """A principal as sentences name it."""
    if principal.startswith("gu_"):
        try:
            return parse_public(principal).short
        except UsageError:
            return "a key that is none"
    return canonical.shown(principal) or "somebody without a key"


def list_entries(entries: list[str], everything: str = "of any kind") -> str:
    """A list of a document as sentences tell it, the first few of a long one; ``everything`` is
    how they say ``"*"``."""
    if ANY in entries:
        return everything
    names = [_entry(entry) for entry in entries[:SHOWN]]
    if len(entries) > SHOWN:
        names.append(f"{len(entries) - SHOWN} more")
    return ", ".join(names) or "(none)"


def _entry(entry: str) -> str:
    if entry.startswith("sha3-256:"):
        return entry[:_HASH_SHOWN] + "..."
    return short_name(entry)


def _provider_fault(entry: str) -> str:
    if not entry.startswith(LABEL):
        return a_key(Kind.PROVIDER)(entry)
    name, equals, _ = entry.removeprefix(LABEL).partition("=")
    whole = name and equals and entry.isprintable() and len(entry) <= _LONGEST
    return "" if whole else "is no label: it takes label:NAME=VALUE"


def _place_fault(entry: str) -> str:
    return "" if _PLACE.fullmatch(entry) else "takes 1 to 256 ASCII characters without spaces"


def _check_entry(what: str, entry: str, fault: Fault) -> None:
    try:
        found = fault(entry)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from None
    if found:
        # A secret that was pasted in the wrong place is not repeated.
        shown = "this" if "_secret_" in entry else repr(canonical.shown(entry))
        raise UsageError(f"{what}: {shown} {found}")


def _check_number(what: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        given = canonical.shown(str(number))
        raise UsageError(f"{what}: {given} is not possible, it takes {least} to {most}")
