"""Invitations: a text that lets one key in, once, in one role.

Owns: which are open. Must never: keep the text of one (its digest will do), or take one twice.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable
from typing import Final

from msgspec.structs import replace

from guactors.gatekeeper_state.keys import tidy
from guactors.security.grants import Reason, Refusal
from guactors.security.keys import PublicKey
from guactors.store.base import DropInvitation, InvitationRecord, Op, PutInvitation

PREFIX: Final = "gu_invite_"
ROLES: Final = ("provider", "app")
LONGEST: Final = 7 * 86_400.0
"""Seconds one may be good for."""
MOST_OPEN: Final = 1000
KEPT_AFTER: Final = 86_400.0
"""For so long after its end we still know why an invitation is refused."""


class InvitationBook:
    """Invitations by digest. Times are epoch seconds."""

    def __init__(self, records: Iterable[InvitationRecord]) -> None:
        self._records = {record.digest: record for record in records}
        self._makers: dict[str, str] = {}

    def is_full(self, wall: float) -> bool:
        """Whether no more can be made until some are used or end."""
        return sum(_is_open(record, wall) for record in self._records.values()) >= MOST_OPEN

    def make(
        self, role: str, name: str, seconds: float, *, maker: str, secret: bytes, wall: float
    ) -> tuple[str, float, list[Op]]:
        """Its text, its end, and what must be persisted. ``secret``: 32 random bytes."""
        old = [r.digest for r in self._records.values() if wall > r.expires + KEPT_AFTER]
        ops = [self._drop(digest) for digest in old]
        text = secret_text(PREFIX, secret)
        record = InvitationRecord(digest_of(text), role, tidy(name), wall + seconds, "", wall)
        self._records[record.digest] = record
        self._makers[record.digest] = maker
        return text, record.expires, [*ops, PutInvitation(record)]

    def take(
        self, text: str, key: PublicKey, wall: float
    ) -> tuple[InvitationRecord, list[Op]] | Refusal:
        """``key`` comes with this invitation."""
        record = self._records.get(digest_of(text))
        again = "ask for a new one (gu key invite)"
        if record is None:
            return Refusal(Reason.UNKNOWN_KEY, f"this hub knows no such invitation: {again}")
        if record.used_by:
            return Refusal(Reason.REPLAY, f"the invitation was used already: {again}")
        if not wall < record.expires:
            return Refusal(Reason.EXPIRED, f"the invitation has expired: {again}")
        if record.role != key.kind.value:
            return Refusal(
                Reason.WRONG_KIND,
                f"the invitation is for the role {record.role}, the key is one of kind "
                f"{key.kind.value}: {again}",
            )
        used = replace(record, used_by=key.text)
        self._records[record.digest] = used
        return used, [PutInvitation(used)]

    def void(self, makers: Collection[str]) -> list[Op]:
        """``makers``, the keys of one principal, are revoked: what they may have made lets nobody
        in. Who made those from before the hub's last start is not known, so they are void, too."""
        return [
            self._drop(digest)
            for digest, record in list(self._records.items())
            if not record.used_by and (digest not in self._makers or self._makers[digest] in makers)
        ]

    def _drop(self, digest: str) -> Op:
        del self._records[digest]
        self._makers.pop(digest, None)
        return DropInvitation(digest)

    def check(self) -> None:
        """Every invariant holds."""
        assert self._makers.keys() <= self._records.keys()


def _is_open(record: InvitationRecord, wall: float) -> bool:
    return not record.used_by and wall < record.expires


def secret_text(prefix: str, secret: bytes) -> str:
    """Random bytes as a text that people can copy."""
    return prefix + base64.b32encode(secret).decode().rstrip("=").lower()


def digest_of(text: str) -> str:
    """What is kept of a secret text: its SHA3-256 as hex."""
    return hashlib.sha3_256(text.encode("utf-8", "replace")).hexdigest()
