"""The port for what the hub must not forget: keys, grants, invitations, and the epoch.

Owns: the records, the changes that can be made to them, and the protocol that every store keeps.
Must never: decide who may do what (the gatekeeper does, on its own copy in memory), import an
adapter, or touch a disk.

Promises of every store, checked by ``tests/contract/test_store.py``:

* ``apply`` takes all of its changes or, when it raises, none;
* what ``apply`` took is there after any crash, that of the machine included;
* a serial belongs to one grant for ever: neither another envelope, nor another app, nor a revoked
  grant as valid again is taken under it;
* a key that is approved or revoked is never forgotten;
* the epoch never goes back.

Threads: one at a time uses a store. Everything here blocks, for about the time of one disk write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from msgspec import Struct

LARGEST: Final = 2**63 - 1
"""The largest serial and epoch that a store keeps."""


class KeyRecord(Struct, frozen=True):
    """What the hub knows of one public key.

    ``kind`` is a ``security.keys.Kind`` value; ``transport`` the z85 key it dials with; ``since``
    (wall seconds) when it got its state, ``by`` whom, ``reason`` why; ``successor`` the public key
    that takes its place, if any; ``running`` what a revocation does to work under way.
    """

    key: str
    kind: str
    name: str
    state: Literal["pending", "approved", "revoked"]
    transport: str
    since: float
    by: str = ""
    reason: str = ""
    successor: str = ""
    running: str = ""


class GrantRecord(Struct, frozen=True):
    """A signed grant as it came (``envelope``: the exact bytes), under its ``issuer`` and
    ``serial`` (1 to :data:`LARGEST`). ``since``: wall seconds of the last change of ``state``."""

    app: str
    issuer: str
    serial: int
    envelope: bytes
    state: Literal["valid", "revoked"]
    since: float


class InvitationRecord(Struct, frozen=True):
    """An invitation, known by the SHA3-256 (hex) of its token, never by the token. Times are wall
    seconds; ``used_by`` is the public key that took it, empty while nobody did."""

    digest: str
    role: str
    name: str
    expires: float
    used_by: str
    created: float


class PutKey(Struct, frozen=True, tag=True):
    """Adds a key, or replaces what was known of it."""

    record: KeyRecord


class DropKey(Struct, frozen=True, tag=True):
    """Forgets a key that is pending; no fault where there is none."""

    key: str


class PutGrant(Struct, frozen=True, tag=True):
    """Adds a grant, or changes its state and ``since``; nothing else of one can change."""

    record: GrantRecord


class PutInvitation(Struct, frozen=True, tag=True):
    """Adds an invitation, or replaces what was known of it."""

    record: InvitationRecord


class DropInvitation(Struct, frozen=True, tag=True):
    """Forgets an invitation; no fault where there is none."""

    digest: str


class SetEpoch(Struct, frozen=True, tag=True):
    """Raises the epoch: the count of changes that providers must have heard of."""

    epoch: int


Op = PutKey | DropKey | PutGrant | PutInvitation | DropInvitation | SetEpoch
"""One change. There is none that removes a grant, or a key that was ever approved: both are
remembered as revoked."""


class Snapshot(Struct, frozen=True):
    """All there is: keys by their text, grants by issuer and serial, invitations by digest."""

    keys: tuple[KeyRecord, ...] = ()
    grants: tuple[GrantRecord, ...] = ()
    invitations: tuple[InvitationRecord, ...] = ()
    epoch: int = 0


class Store(Protocol):
    """Where the records are kept."""

    def load(self) -> Snapshot:
        """All records; for the start. Raises UsageError when the store is damaged."""

    def apply(self, ops: Sequence[Op]) -> None:
        """Make these changes in this order, all or none, and return once they are safe.

        Raises UsageError, saying why, when a change breaks a promise of the store or cannot be
        written; then nothing was changed."""

    def close(self) -> None:
        """Let go of the store; more calls of ``close`` do nothing."""
