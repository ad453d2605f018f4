"""The grants that the hub keeps, and the rights they make.

Owns: grants by issuer and serial, and by app; each app's rights, made once and again when they
change. Must never: count a grant that it has not verified, one that is revoked, or one whose issuer
is.

Grants of the store are verified when their app is first asked for: a hub with thousands starts at
once. An app's rights hold what is valid, what will be, and the last one that expired, so that a
refusal can say so; ``Rights`` itself looks at the time of each.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from guactors.gatekeeper_state.keys import KeyBook
from guactors.messages import GrantRow
from guactors.security.grants import Grant, Reason, Refusal, read_grant, valid_at
from guactors.security.keys import Kind, PublicKey, parse_public
from guactors.security.rights import Rights
from guactors.store.base import GrantRecord, Op, PutGrant

Place = tuple[str, int]
"""Issuer and serial."""

_STATES: Final = {None: "valid", Reason.NOT_YET_VALID: "early", Reason.EXPIRED: "expired"}


class _Cached(Struct, frozen=True):
    """``until``: the epoch second at which it must be made anew."""

    rights: Rights
    until: float


class GrantBook:
    """Apps are texts of public keys; where not said otherwise, of the last one of a chain. ``wall``
    is epoch seconds."""

    def __init__(self, hub: PublicKey, keys: KeyBook, records: Iterable[GrantRecord]) -> None:
        self._hub = hub
        self._keys = keys
        self._records: dict[Place, GrantRecord] = {}
        self._of_app: dict[str, list[Place]] = {}
        self._opened: dict[Place, Grant | None] = {}
        self._cache: dict[str, _Cached] = {}
        self._changes: list[tuple[float, str]] = []
        for record in records:
            self._add(record)

    def __repr__(self) -> str:
        return f"<GrantBook grants={len(self._records)} apps={len(self._of_app)}>"

    def _add(self, record: GrantRecord) -> None:
        place = record.issuer, record.serial
        if place not in self._records:
            self._of_app.setdefault(record.app, []).append(place)
        self._records[place] = record

    # --- asking ---------------------------------------------------------------------------------

    def rights(self, app: str, wall: float) -> Rights:
        """What the app may do, to be judged at any moment."""
        cached = self._cache.get(app)
        if cached is None or wall >= cached.until:
            cached = self._make(app, wall)
        return cached.rights

    def _make(self, app: str, wall: float) -> _Cached:
        present: list[Grant] = []
        lapsed: list[Grant] = []
        for _, grant in self._counting(app):
            expired = valid_at(grant, wall) is Reason.EXPIRED
            (lapsed if expired else present).append(grant)
        last = sorted(lapsed, key=lambda grant: grant.expires or 0)[-1:]
        turns = [x for g in present for x in (g.not_before, g.expires) if x and x > wall]
        cached = _Cached(
            Rights(grants=(*present, *last), principal=app), min(turns, default=math.inf)
        )
        self._cache[app] = cached
        if turns:
            heapq.heappush(self._changes, (cached.until, app))
        return cached

    def _counting(self, app: str) -> Iterator[tuple[GrantRecord, Grant]]:
        for name in (app, *self._keys.former(app)):
            for place in self._of_app.get(name, ()):
                record = self._records[place]
                if record.state == "valid" and self._keys.may_issue(record.issuer):
                    grant = self._open(record)
                    if grant is not None:
                        yield record, grant

    def _open(self, record: GrantRecord) -> Grant | None:
        place = record.issuer, record.serial
        if place not in self._opened:
            issuer = parse_public(record.issuer, Kind.OWNER)
            found = read_grant(record.envelope, [issuer], self._hub)
            known = isinstance(found, Grant) and (found.app, found.serial) == (
                record.app, record.serial,
            )  # fmt: skip
            self._opened[place] = found if isinstance(found, Grant) and known else None
        return self._opened[place]

    def find(self, issuer: str, serial: int) -> GrantRecord | None:
        """The grant of that serial, revoked ones included."""
        return self._records.get((issuer, serial))

    def read(self, envelope: bytes) -> Grant | Refusal:
        """A grant that somebody brings: only those who are owners at this time may have signed."""
        return read_grant(envelope, self._keys.owners(), self._hub)

    def envelopes(self, app: str, wall: float) -> list[bytes]:
        """The app's grants that are or will be valid, for providers."""
        return [
            record.envelope
            for record, grant in self._counting(app)
            if valid_at(grant, wall) is not Reason.EXPIRED
        ]

    def rows(self, app: str, wall: float) -> list[GrantRow]:
        """Of an app and the keys it follows, or of all with an empty ``app``; for people."""
        names = [app, *self._keys.former(app)] if app else sorted(self._of_app)
        return [
            GrantRow(r.app, r.issuer, r.serial, self._state(r, wall), r.since, r.envelope)
            for name in names
            for r in (self._records[place] for place in self._of_app.get(name, ()))
        ]

    def _state(self, record: GrantRecord, wall: float) -> str:
        if record.state == "revoked" or not self._keys.may_issue(record.issuer):
            return "revoked"
        grant = self._open(record)
        return "revoked" if grant is None else _STATES[valid_at(grant, wall)]

    def revoked(self, wall: float) -> list[str]:
        """``ISSUER SERIAL`` of what was revoked and would still be valid or become so. Grants of
        a revoked issuer need no naming: its key is named."""
        found = []
        for record in self._records.values():
            if record.state == "revoked" and self._keys.may_issue(record.issuer):
                grant = self._open(record)
                if grant is None or valid_at(grant, wall) is not Reason.EXPIRED:
                    found.append(f"{record.issuer} {record.serial}")
        return sorted(found)

    def apps_of(self, issuer: str) -> list[str]:
        """The apps that hold a grant by this issuer or one of the keys it follows."""
        issuers = {issuer, *self._keys.former(issuer)}
        return sorted(
            {
                self._keys.identity(record.app)
                for record in self._records.values()
                if record.issuer in issuers and record.state == "valid"
            }
        )

    # --- changing -------------------------------------------------------------------------------

    def put(self, grant: Grant, envelope: bytes, wall: float) -> list[Op]:
        """Keep a grant that ``read`` gave, under a serial that is not known yet."""
        place = grant.issuer, grant.serial
        assert place not in self._records, place
        record = GrantRecord(grant.app, *place, envelope, "valid", wall)
        self._opened[place] = grant
        self._add(record)
        self.changed(self._keys.identity(grant.app))
        return [PutGrant(record)]

    def revoke(self, record: GrantRecord, wall: float) -> list[Op]:
        """It counts no more."""
        revoked = replace(record, state="revoked", since=wall)
        self._add(revoked)
        self.changed(self._keys.identity(record.app))
        return [PutGrant(revoked)]

    def changed(self, app: str) -> None:
        """Make the app's rights anew when they are next asked for."""
        self._cache.pop(app, None)

    # --- time -----------------------------------------------------------------------------------

    def due(self, wall: float) -> list[str]:
        """The apps whose rights changed because a grant has begun or ended to be valid."""
        found: dict[str, None] = {}
        while self._changes and self._changes[0][0] <= wall:
            at, app = heapq.heappop(self._changes)
            cached = self._cache.get(app)
            if cached is not None and cached.until == at:
                self.changed(app)
                found[app] = None
        return list(found)

    def next_change(self) -> float | None:
        """The epoch second at which ``due`` may have something."""
        return self._changes[0][0] if self._changes else None

    def check(self) -> None:
        """Every invariant holds."""
        assert sum(map(len, self._of_app.values())) == len(self._records)
        for app, cached in self._cache.items():
            for grant in cached.rights.grants:
                record = self._records[grant.issuer, grant.serial]
                assert record.state == "valid", record
                assert self._keys.may_issue(grant.issuer), record
                assert self._keys.identity(grant.app) == app, record
            if cached.until != math.inf:
                assert (cached.until, app) in self._changes
