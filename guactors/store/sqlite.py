"""The store of a hub on its disk: one SQLite file.

Owns: the schema and its version, the file's mode (0600 in a directory of 0700), the exclusive lock
that keeps a second hub out, and the durability of each change. Must never: hold a second copy of
the records, judge them beyond the promises of ``store/base.py``, or repair a damaged file.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import asdict

from guactors import home
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

SCHEMA: Final = 1
"""Version of the tables, in the file's ``user_version``."""
APPLICATION: Final = 0x6775_6163
"""The file's ``application_id``: "guac", which tells a store from other SQLite files."""

_TABLES: Final = """
CREATE TABLE keys (
    key TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'revoked')),
    transport TEXT NOT NULL,
    since REAL NOT NULL,
    "by" TEXT NOT NULL,
    reason TEXT NOT NULL,
    successor TEXT NOT NULL,
    running TEXT NOT NULL
);
CREATE TABLE grants (
    app TEXT NOT NULL,
    issuer TEXT NOT NULL,
    serial INTEGER NOT NULL CHECK (serial > 0),
    envelope BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('valid', 'revoked')),
    since REAL NOT NULL,
    PRIMARY KEY (issuer, serial)
);
CREATE TABLE invitations (
    digest TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    expires REAL NOT NULL,
    used_by TEXT NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO meta VALUES ('epoch', 0);
"""

_PUT_KEY: Final = """
INSERT OR REPLACE INTO keys VALUES
    (:key, :kind, :name, :state, :transport, :since, :by, :reason, :successor, :running)
"""
# A condition that fails changes no row, which is how a serial in use shows.
_PUT_GRANT: Final = """
INSERT INTO grants VALUES (:app, :issuer, :serial, :envelope, :state, :since)
ON CONFLICT (issuer, serial) DO UPDATE SET state = excluded.state, since = excluded.since
WHERE app = excluded.app AND envelope = excluded.envelope
    AND NOT (state = 'revoked' AND excluded.state = 'valid')
"""
_PUT_INVITATION: Final = """
INSERT OR REPLACE INTO invitations VALUES (:digest, :role, :name, :expires, :used_by, :created)
"""
_SET_EPOCH: Final = "UPDATE meta SET value = :epoch WHERE name = 'epoch' AND value <= :epoch"

_IN_USE: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

Record = TypeVar("Record", KeyRecord, GrantRecord, InvitationRecord)


class SqliteStore:
    """A :class:`guactors.store.base.Store` in the file ``path``, made if it is missing.

    Raises UsageError that says what to do when the file is in use by another process, readable by
    other users, damaged, of a newer guactors, or no store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        home.private_directory(path.parent)
        _make_private(path)
        with self._explained("opened"):
            # The hub's shell may start on another thread than it runs on; never on two at once.
            self._db = sqlite3.connect(
                path, isolation_level=None, timeout=0, check_same_thread=False
            )
        try:
            with self._explained("opened"):
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def load(self) -> Snapshot:
        """All records."""
        with self._explained("read"):
            epoch = self._epoch()
            return Snapshot(
                keys=self._all(KeyRecord, "SELECT * FROM keys ORDER BY key"),
                grants=self._all(GrantRecord, "SELECT * FROM grants ORDER BY issuer, serial"),
                invitations=self._all(
                    InvitationRecord, "SELECT * FROM invitations ORDER BY digest"
                ),
                epoch=epoch,
            )

    def apply(self, ops: Sequence[Op]) -> None:
        """Make these changes in one transaction; on return they are on the disk."""
        with self._explained("written"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for op in ops:
                    self._make(op)
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back after some errors, a full disk among them.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the file, with all changes in it."""
        self._db.close()

    def _make(self, op: Op) -> None:
        match op:
            case PutKey(record):
                self._db.execute(_PUT_KEY, asdict(record))
            case DropKey(key):
                self._drop_key(key)
            case PutGrant(record):
                self._put_grant(record)
            case PutInvitation(record):
                self._db.execute(_PUT_INVITATION, asdict(record))
            case DropInvitation(digest):
                self._db.execute("DELETE FROM invitations WHERE digest = ?", (digest,))
            case SetEpoch(epoch):
                self._set_epoch(epoch)

    def _drop_key(self, key: str) -> None:
        self._db.execute("DELETE FROM keys WHERE key = ? AND state = 'pending'", (key,))
        known = self._db.execute("SELECT state FROM keys WHERE key = ?", (key,)).fetchone()
        if known is not None:
            raise UsageError(f"the key {key} is {known[0]} and cannot be forgotten")

    def _put_grant(self, record: GrantRecord) -> None:
        if not 0 < record.serial <= LARGEST:
            raise UsageError(f"{record.serial} is no serial of a grant")
        if self._db.execute(_PUT_GRANT, asdict(record)).rowcount != 1:
            raise UsageError(
                f"serial {record.serial} of {record.issuer} was used for another grant, or for "
                "one that is revoked: sign it again under a new serial"
            )

    def _set_epoch(self, epoch: int) -> None:
        if epoch > LARGEST or self._db.execute(_SET_EPOCH, {"epoch": epoch}).rowcount != 1:
            raise UsageError(f"the epoch is {self._epoch()} and cannot become {epoch}")

    def _epoch(self) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
        if row is None or not isinstance(row[0], int):
            raise self._damaged("it has no epoch")
        return row[0]

    def _all(self, kind: type[Record], query: str) -> tuple[Record, ...]:
        names = kind.__struct_fields__
        try:
            return tuple(
                msgspec.convert(dict(zip(names, row, strict=True)), kind)
                for row in self._db.execute(query)
            )
        except (msgspec.ValidationError, ValueError) as error:
            raise self._damaged(f"a {kind.__name__} in it is wrong: {error}") from None

    def _prepare(self) -> None:
        """Lock the file, see that it is a sound store of this version, make the tables of a new
        one."""
        # Before the first access, so that no second process gets in, and none needs shared memory.
        self._pragma("locking_mode = EXCLUSIVE")
        self._pragma("journal_mode = WAL")
        self._pragma("synchronous = FULL")
        self._pragma("trusted_schema = OFF")
        self._db.execute("BEGIN IMMEDIATE")
        application, version = self._pragma("application_id"), self._pragma("user_version")
        if (application, version) == (0, 0) and not self._pragma("schema_version"):
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._pragma(f"application_id = {APPLICATION}")
            self._pragma(f"user_version = {SCHEMA}")
        elif application != APPLICATION:
            raise UsageError(f"{self._path} is a database, but no store of guactors: move it away")
        elif version > SCHEMA:
            raise UsageError(
                f"the store {self._path} was written by a newer guactors (schema {version}, this "
                f"one knows {SCHEMA}): install that version, or start with another home (GU_HOME)"
            )
        self._db.execute("COMMIT")
        if (found := self._pragma("integrity_check(1)")) != "ok":
            raise self._damaged(str(found))

    def _pragma(self, text: str) -> Any:
        row = self._db.execute(f"PRAGMA {text}").fetchone()
        return None if row is None else row[0]

    def _damaged(self, why: str) -> UsageError:
        return UsageError(
            f"the store {self._path} is damaged ({' '.join(why.split())}): move it and its -wal "
            "file away and restore a backup; without one, start anew, approve the keys and bring "
            "the grants again, but for those that were revoked: nothing else remembers them"
        )

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        """SQLite's errors as ones that say what to do. ``done``: what could not be."""
        try:
            yield
        except sqlite3.Error as error:
            # The low byte: the rest tells apart causes that ask for the same.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _IN_USE:
                raise UsageError(
                    f"the store {self._path} is in use: one hub at a time may have it, end the "
                    "other one (gu down) or give this one a home of its own (GU_HOME)"
                ) from None
            if code in _DAMAGED:
                raise self._damaged(str(error)) from None
            raise UsageError(
                f"the store {self._path} cannot be {done} ({error}): see that its disk is there, "
                "writable and not full; nothing was changed"
            ) from error


def _make_private(path: Path) -> None:
    """A file of mode 0600 at ``path``; SQLite gives the same to those it makes beside it."""
    # Only a new file is opened here: closing one that is in use in this process would take away
    # the locks that SQLite holds on it.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        found = path.lstat()
    except OSError as error:
        raise UsageError(f"the store {path} cannot be made: {error.strerror}") from None
    else:
        return
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"the store {path} is no plain file: move it away")
    mode = stat.S_IMODE(found.st_mode)
    if sys.platform != "win32" and mode & 0o077:
        raise UsageError(
            f"the store {path} is open to other users (mode {mode:o}), who may have changed what "
            f"is allowed: look through its keys and grants, then run chmod 600 {path}"
        )
