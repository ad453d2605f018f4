"""The keys that the hub knows: who is pending, approved, revoked, and who follows whom.

Owns: the key records and the chains of succession among them. Must never: verify a signature, let a
revoked key come back, or trust an owner key that neither the hub's own list names nor follows.

A key that gave its place to another is revoked too, with ``successor`` set: it lets nobody in, but
what was granted to it, or by it, goes on under the last key of its chain, its *identity*. A chain
is *dead* when that last key is revoked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from guactors.errors import UsageError
from guactors.messages import KeyRow
from guactors.security.canonical import shown
from guactors.security.keys import Kind, PublicKey, parse_public
from guactors.store.base import DropKey, KeyRecord, Op, PutKey

MOST_PENDING: Final = 1000
"""Keys that wait for approval. Anybody may bring one, so there is an end to it."""
ROTATED: Final = "rotated"
LISTED: Final = "the list of the hub's owners"
CONFIGURED: Final = "the hub's configuration"

_OWNER: Final = Kind.OWNER.value
_NAME_MOST: Final = 64


class KeyBook:
    """Keys by their text. What changes a record returns what must be persisted."""

    def __init__(self, owners: Sequence[PublicKey], records: Iterable[KeyRecord]) -> None:
        self._records = {record.key: record for record in records}
        self._before: dict[str, list[str]] = {}
        for record in self._records.values():
            if record.successor:
                self._before.setdefault(record.successor, []).append(record.key)
        waiting = [r for r in self._records.values() if r.state == "pending"]
        self._pending = dict.fromkeys(r.key for r in sorted(waiting, key=lambda r: r.since))
        # Those of strangers that lie in the store, so that these can be forgotten there as well.
        self._stored = set(self._pending)
        self._older_transports: dict[str, set[str]] = {}
        self._cut: frozenset[str] | None = None
        self._trust(owners)

    def __repr__(self) -> str:
        return f"<KeyBook keys={len(self._records)} pending={len(self._pending)}>"

    def _trust(self, owners: Sequence[PublicKey]) -> None:
        trusted: set[str] = set()
        for owner in owners:
            self._records.setdefault(
                owner.text, KeyRecord(owner.text, _OWNER, "", "approved", "", 0.0, by=LISTED)
            )
            last = self.identity(owner.text)
            trusted |= {last, *self.former(last)}
        for record in list(self._records.values()):
            if record.kind == _OWNER and record.key not in trusted and record.state != "revoked":
                reason = f"it is not in {LISTED}"
                self._records[record.key] = replace(record, state="revoked", reason=reason)

    # --- asking ---------------------------------------------------------------------------------

    def find(self, key: str) -> KeyRecord | None:
        """What is known of a key."""
        return self._records.get(key)

    def approved(self, key: str) -> KeyRecord | None:
        """The record of a key that may come in."""
        record = self._records.get(key)
        return record if record is not None and record.state == "approved" else None

    def identity(self, key: str) -> str:
        """The last key of its chain, itself if nothing follows it."""
        while (record := self._records.get(key)) is not None and record.successor:
            key = record.successor
        return key

    def former(self, key: str) -> list[str]:
        """All keys that it follows, over any number of steps."""
        found: list[str] = []
        todo = [key]
        while todo:
            before = self._before.get(todo.pop(), ())
            found += before
            todo += before
        return found

    def is_dead(self, key: str) -> bool:
        """Whether its chain ends in a revoked key."""
        record = self._records.get(self.identity(key))
        return record is not None and record.state == "revoked"

    def may_issue(self, issuer: str) -> bool:
        """Whether grants that it signed still count."""
        record = self._records.get(issuer)
        return record is not None and record.kind == _OWNER and not self.is_dead(issuer)

    def owners(self) -> list[PublicKey]:
        """Those who may sign a new grant."""
        return [
            parse_public(record.key, Kind.OWNER)
            for record in self._records.values()
            if record.kind == _OWNER and record.state == "approved"
        ]

    def rows(self) -> list[KeyRow]:
        """All of them, for people."""
        return [
            KeyRow(r.key, r.kind, r.name, r.state, r.since, r.by, r.reason)
            for _, r in sorted(self._records.items())
        ]

    def revoked(self) -> list[str]:
        """The keys of dead chains."""
        return sorted(key for key in self._records if self.is_dead(key))

    def revoked_transports(self) -> frozenset[str]:
        """The CURVE keys of dead chains, but for those that somebody approved dials with, too."""
        if self._cut is None:
            self._cut = self._find_cut()
        return self._cut

    def _find_cut(self) -> frozenset[str]:
        dead: set[str] = set()
        alive: set[str] = set()
        for key, record in self._records.items():
            if record.state == "approved":
                alive.add(record.transport)
            elif self.is_dead(key):
                dead |= {record.transport, *self._older_transports.get(key, ())}
        return frozenset(dead - alive - {""})

    def newest_running(self) -> str:
        """What the newest revocation of a key said of what runs."""
        revoked = [r for r in self._records.values() if r.state == "revoked" and not r.successor]
        return max(revoked, key=lambda r: r.since).running or "stop" if revoked else "stop"

    # --- changing -------------------------------------------------------------------------------

    def wait(self, key: PublicKey, name: str, transport: str, wall: float) -> list[Op]:
        """A new key asks to be approved. The oldest one that waits is forgotten for it where too
        many do."""
        known = self._records.get(key.text)
        name = tidy(name) or (known.name if known is not None else "")
        since = known.since if known is not None else wall
        record = KeyRecord(key.text, key.kind.value, name, "pending", transport, since)
        if known == record:
            return []
        self._records[key.text] = record
        self._pending.setdefault(key.text)
        # A stranger may change its name and transport as often as it likes, but not make us write;
        # nor may a crowd, of which those that come after the first so many are not stored.
        dropped = self._drop_surplus()
        if key.text in self._stored or dropped is not None:
            return dropped or []
        self._stored.add(key.text)
        return [PutKey(record)]

    def _drop_surplus(self) -> list[Op] | None:
        """Forget the oldest that waits, where too many do: what to persist. None: all may wait."""
        if len(self._pending) <= MOST_PENDING:
            return None
        oldest = next(iter(self._pending))
        del self._pending[oldest], self._records[oldest]
        if oldest not in self._stored:
            return []
        self._stored.discard(oldest)
        return [DropKey(oldest)]

    def approve(
        self, key: PublicKey, *, name: str, transport: str, by: str, wall: float
    ) -> list[Op]:
        """From now on it may come in. An empty ``name`` or ``transport`` keeps what is known."""
        known = self._records.get(key.text)
        assert known is None or known.state != "revoked", key.text
        if known is not None:
            name, transport = tidy(name) or known.name, transport or known.transport
        record = KeyRecord(key.text, key.kind.value, tidy(name), "approved", transport, wall, by=by)
        return self._put(record)

    def rename(self, key: str, name: str) -> list[Op]:
        """Another name for an approved key."""
        return self._put(replace(self._records[key], name=tidy(name)))

    def dialled(self, key: str, transport: str) -> list[Op]:
        """An approved key came with this CURVE key."""
        record = self._records[key]
        if not transport or record.transport == transport:
            return []
        if record.transport:
            self._older_transports.setdefault(key, set()).add(record.transport)
        return self._put(replace(record, transport=transport))

    def revoke(
        self, key: PublicKey, *, by: str, reason: str, running: str, wall: float
    ) -> list[Op]:
        """It is out for good; also one that nobody has seen yet."""
        known = self._records.get(key.text) or KeyRecord(
            key.text, key.kind.value, "", "revoked", "", wall
        )
        return self._put(
            replace(known, state="revoked", since=wall, by=by, reason=reason, running=running)
        )

    def succeed(self, old: str, new: PublicKey, transport: str, wall: float) -> list[Op]:
        """``new`` takes the place of the approved key ``old``."""
        former, known = self._records[old], self._records.get(new.text)
        assert known is None or known.state != "revoked", new.text
        retired = replace(
            former, state="revoked", since=wall, by=new.text, reason=ROTATED, successor=new.text,
            running="finish",
        )  # fmt: skip
        self._before.setdefault(new.text, []).append(old)
        given = known.name if known is not None and known.state == "approved" else ""
        return self._put(retired) + self.approve(
            new,
            name=given or former.name,
            transport=transport,
            by=f"succession of {old}",
            wall=wall,
        )

    def _put(self, record: KeyRecord) -> list[Op]:
        self._records[record.key] = record
        self._cut = None
        self._pending.pop(record.key, None)
        self._stored.discard(record.key)
        return [PutKey(record)]

    def check(self) -> None:
        """Every invariant holds."""
        pending = {key for key, record in self._records.items() if record.state == "pending"}
        assert pending == self._pending.keys()
        assert len(self._pending) <= MOST_PENDING
        assert self._stored <= self._pending.keys()
        for record in self._records.values():
            if record.successor:
                assert record.state == "revoked", record
                assert record.key in self._before[record.successor], record


def tidy(name: str) -> str:
    """A name that a stranger gave, fit for a list on a terminal."""
    return shown(name)[:_NAME_MOST]


def approve_listed(listed: Sequence[str], records: Iterable[KeyRecord], wall: float) -> list[Op]:
    """What to persist so that these keys may come in: those of the hub's own configuration. One
    that was revoked stays so. Raises UsageError for a text that is no key of a provider or app."""
    known = {record.key: record for record in records}
    ops: list[Op] = []
    for text in listed:
        key = parse_public(text)
        if key.kind not in {Kind.PROVIDER, Kind.APP}:
            raise UsageError(f"{text} cannot be approved: only keys of providers and apps can be")
        record = known.get(text)
        if record is None or record.state == "pending":
            name = record.name if record is not None else ""
            transport = record.transport if record is not None else ""
            ops.append(
                PutKey(
                    KeyRecord(
                        text, key.kind.value, name, "approved", transport, wall, by=CONFIGURED
                    )
                )
            )
    return ops
