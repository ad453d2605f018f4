"""A store that forgets at the end of the process: for simulations, and grids of one machine.

Owns: the records, in dictionaries. Must never: promise more than the memory of one process can.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from guactors.errors import UsageError
from guactors.store.base import (
    LARGEST,
    DropInvitation,
    DropKey,
    GrantRecord,
    InvitationRecord,
    KeyRecord,
    Op,
    PutGrant,
    PutInvitation,
    PutKey,
    SetEpoch,
    Snapshot,
)


class _Tables:
    """The records, and a copy of them to try changes on."""

    def __init__(self, before: _Tables | None = None) -> None:
        self.keys: dict[str, KeyRecord] = dict(before.keys) if before else {}
        self.grants: dict[tuple[str, int], GrantRecord] = dict(before.grants) if before else {}
        self.invitations: dict[str, InvitationRecord] = dict(before.invitations) if before else {}
        self.epoch: int = before.epoch if before else 0

    def make(self, op: Op) -> None:
        match op:
            case PutKey(record):
                self.keys[record.key] = record
            case DropKey(key):
                self.drop_key(key)
            case PutGrant(record):
                self.put_grant(record)
            case PutInvitation(record):
                self.invitations[record.digest] = record
            case DropInvitation(digest):
                self.invitations.pop(digest, None)
            case SetEpoch(epoch):
                if not self.epoch <= epoch <= LARGEST:
                    raise UsageError(f"the epoch is {self.epoch} and cannot become {epoch}")
                self.epoch = epoch

    def drop_key(self, key: str) -> None:
        known = self.keys.get(key)
        if known is not None and known.state != "pending":
            raise UsageError(f"the key {key} is {known.state} and cannot be forgotten")
        self.keys.pop(key, None)

    def put_grant(self, record: GrantRecord) -> None:
        if not 0 < record.serial <= LARGEST:
            raise UsageError(f"{record.serial} is no serial of a grant")
        known = self.grants.get((record.issuer, record.serial))
        if known is not None:
            revived = (known.state, record.state) == ("revoked", "valid")
            if revived or replace(known, state=record.state, since=record.since) != record:
                raise UsageError(
                    f"serial {record.serial} of {record.issuer} was used for another grant, or for "
                    "one that is revoked: sign it again under a new serial"
                )
        self.grants[record.issuer, record.serial] = record


class MemoryStore:
    """A :class:`guactors.store.base.Store`; what it holds lives as long as the object, also after
    ``close``, so that a simulated hub can start again."""

    def __init__(self) -> None:
        self._tables = _Tables()

    def load(self) -> Snapshot:
        """All records."""
        tables = self._tables
        return Snapshot(
            keys=tuple(tables.keys[key] for key in sorted(tables.keys)),
            grants=tuple(tables.grants[place] for place in sorted(tables.grants)),
            invitations=tuple(tables.invitations[at] for at in sorted(tables.invitations)),
            epoch=tables.epoch,
        )

    def apply(self, ops: Sequence[Op]) -> None:
        """Make these changes in this order, all or none."""
        tables = _Tables(self._tables)
        for op in ops:
            tables.make(op)
        self._tables = tables

    def close(self) -> None:
        """Nothing to let go of."""
