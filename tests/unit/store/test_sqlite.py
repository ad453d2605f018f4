"""The file of the SQLite store: its modes, its lock, and what a damaged or foreign one says."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from guactors.errors import UsageError
from guactors.store.base import GrantRecord, KeyRecord, PutGrant, PutKey, SetEpoch, Snapshot
from guactors.store.sqlite import APPLICATION, SCHEMA, SqliteStore

KEY = KeyRecord("gu_app_a", "app", "laptop", "approved", "z" * 40, since=1.0)
GRANT = GrantRecord("gu_app_a", "gu_owner_o", 7, b"envelope", "valid", since=2.0)

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX modes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub" / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def filled(path: Path) -> bytes:
    """The bytes of a closed store with some records."""
    store = SqliteStore(path)
    store.apply([
        PutGrant(replace(GRANT, serial=serial, envelope=b"e" * 900)) for serial in range(1, 40)
    ])  # fmt: skip
    store.apply([PutKey(KEY), SetEpoch(3)])
    store.close()
    return path.read_bytes()


def sql(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


@posix
def test_no_other_user_may_read_any_of_its_files(store: SqliteStore, path: Path) -> None:
    before = os.umask(0)
    try:
        store.apply([PutKey(KEY)])
    finally:
        os.umask(before)
    found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(found.values()) == {0o600}
    assert "store.db-wal" in found
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_open_to_others_is_refused(path: Path, mode: int) -> None:
    filled(path)
    path.chmod(mode)
    with pytest.raises(UsageError, match=rf"open to other users \(mode {mode:o}\).*chmod 600"):
        SqliteStore(path)


@posix
def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    filled(tmp_path / "other" / "store.db")
    path.parent.mkdir(mode=0o700)
    path.symlink_to(tmp_path / "other" / "store.db")
    with pytest.raises(UsageError, match="no plain file"):
        SqliteStore(path)


def test_a_directory_in_its_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(UsageError, match="no plain file"):
        SqliteStore(path)


def test_one_holder_at_a_time(store: SqliteStore, path: Path) -> None:
    with pytest.raises(UsageError, match=r"store\.db is in use: one hub at a time"):
        SqliteStore(path)
    store.apply([SetEpoch(1)])
    with pytest.raises(UsageError, match="in use"):
        SqliteStore(path)


_OTHER = """
import sys
from pathlib import Path
from guactors.store.base import SetEpoch
from guactors.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
number = store.load().epoch
while True:
    number += 1
    store.apply([SetEpoch(number)])
    print(number, flush=True)
"""


@pytest.fixture
def child(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that raises the epoch without end, and says each one that is safe."""
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        yield child
        child.kill()


def test_another_process_is_kept_out(child: subprocess.Popen[str], path: Path) -> None:
    assert child.stdout is not None
    assert child.stdout.readline()
    with pytest.raises(UsageError, match="in use"):
        SqliteStore(path)


def test_what_was_said_before_a_kill_is_there(child: subprocess.Popen[str], path: Path) -> None:
    assert child.stdout is not None
    for _ in range(20):
        assert child.stdout.readline()
    child.kill()
    said = [20, *(int(line) for line in child.stdout.read().splitlines())]
    child.wait()
    store = SqliteStore(path)
    # The last change may be safe without its word having come through.
    assert store.load().epoch - said[-1] in {0, 1}
    store.close()


def test_the_version_is_in_the_file(path: Path) -> None:
    filled(path)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
    db.close()


def test_a_newer_schema_is_refused_and_kept(path: Path) -> None:
    filled(path)
    sql(path, f"PRAGMA user_version = {SCHEMA + 1}")
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"newer guactors \(schema 2, this one knows 1\)"):
        SqliteStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("statement", ["CREATE TABLE mine (a)", "PRAGMA user_version = 1"])
def test_a_foreign_database_is_refused_and_kept(path: Path, statement: str) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    sql(path, statement)
    with pytest.raises(UsageError, match="no store of guactors: move it away"):
        SqliteStore(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'keys'").fetchone() == (0,)
    db.close()


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    """A crash between the making of the file and that of its tables leaves one."""
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    store = SqliteStore(path)
    assert store.load() == Snapshot()
    store.close()


def load(path: Path) -> Snapshot:
    store = SqliteStore(path)
    try:
        return store.load()
    finally:
        store.close()


@pytest.mark.parametrize("page", range(1, 12))
def test_a_damaged_page_is_noticed(path: Path, page: int) -> None:
    data = filled(path)
    assert len(data) >= 12 * 4096
    path.write_bytes(data[: page * 4096] + b"\xff" * 64 + data[page * 4096 + 64 :])
    with pytest.raises(UsageError, match=r"store\.db is damaged .*restore a backup"):
        load(path)


@pytest.mark.parametrize("size", [100, 4096, 5000, 20_000])
def test_a_file_cut_short_is_noticed(path: Path, size: int) -> None:
    path.write_bytes(filled(path)[:size])
    with pytest.raises(UsageError, match="is damaged"):
        load(path)


def test_a_file_of_something_else_is_noticed(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"no database at all" * 100)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="is damaged"):
        load(path)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE keys SET transport = x'00'", "a KeyRecord in it is wrong"),
        ("UPDATE grants SET serial = 3.5 WHERE serial = 3", "a GrantRecord in it is wrong"),
        ("INSERT INTO invitations VALUES ('d', 'r', 'n', 'soon', '', 1)", "a InvitationRecord"),
        ("ALTER TABLE keys ADD COLUMN more", "a KeyRecord in it is wrong"),
        ("UPDATE meta SET value = 'many'", "no epoch"),
        ("DELETE FROM meta", "no epoch"),
    ],
)
def test_wrong_records_are_noticed(path: Path, statement: str, said: str) -> None:
    filled(path)
    sql(path, statement)
    with pytest.raises(UsageError, match=rf"is damaged \(.*{said}"):
        load(path)


def test_a_full_disk_is_told_and_takes_nothing(store: SqliteStore) -> None:
    store.apply([PutGrant(GRANT), SetEpoch(1)])
    before = store.load()
    store._db.execute("PRAGMA max_page_count = 12")
    large = replace(GRANT, serial=8, envelope=b"e" * 100_000)
    with pytest.raises(UsageError, match=r"cannot be written \(.*full\).*nothing was changed"):
        store.apply([SetEpoch(2), PutGrant(large)])
    assert store.load() == before
    store.apply([SetEpoch(2)])
    assert store.load() == replace(before, epoch=2)


def test_every_change_is_synced(store: SqliteStore) -> None:
    asked = {name: store._pragma(name) for name in ("journal_mode", "synchronous", "locking_mode")}
    assert asked == {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive"}


def test_a_refused_start_lets_go_of_the_file(path: Path) -> None:
    filled(path)
    sql(path, f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(UsageError):
        SqliteStore(path)
    sql(path, f"PRAGMA user_version = {SCHEMA}")
    assert load(path).epoch == 3
