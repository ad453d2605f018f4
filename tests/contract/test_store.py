"""The promises of ``store/base.py``, over every adapter: one suite, two stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    Store,
)
from guactors.store.memory import MemoryStore
from guactors.store.sqlite import SqliteStore

KEY = KeyRecord("gu_app_a", "app", "laptop", "pending", "z" * 40, since=1.25)
GRANT = GrantRecord("gu_app_a", "gu_owner_o", 7, b"\x00envelope\xff", "valid", since=2.5)
INVITATION = InvitationRecord("d" * 64, "provider", "näme", 100.0, "", created=3.0)


class Holder:
    """A store that can be opened again, as after a restart of the hub."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.memory = MemoryStore() if kind == "memory" else None
        self.path = directory / "hub" / "store.db"
        self.store = self.open()

    def open(self) -> Store:
        return self.memory or SqliteStore(self.path)

    def again(self) -> Store:
        self.store.close()
        self.store = self.open()
        return self.store


@pytest.fixture(params=["memory", "sqlite"])
def holder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Holder]:
    holder = Holder(request.param, tmp_path)
    yield holder
    holder.store.close()


def test_a_new_store_is_empty(holder: Holder) -> None:
    assert holder.store.load() == Snapshot()


def test_what_was_applied_is_there_after_a_restart(holder: Holder) -> None:
    holder.store.apply([PutKey(KEY), PutGrant(GRANT), PutInvitation(INVITATION), SetEpoch(3)])
    assert holder.store.load() == Snapshot((KEY,), (GRANT,), (INVITATION,), 3)
    assert holder.again().load() == Snapshot((KEY,), (GRANT,), (INVITATION,), 3)


def test_records_come_in_the_order_of_their_names(holder: Holder) -> None:
    keys = [replace(KEY, key=f"gu_app_{letter}") for letter in "cab"]
    grants = [
        replace(GRANT, issuer=issuer, serial=serial) for issuer in "ba" for serial in (10, 9, 2)
    ]
    holder.store.apply([*map(PutKey, keys), *map(PutGrant, grants)])
    found = holder.store.load()
    assert [record.key for record in found.keys] == ["gu_app_a", "gu_app_b", "gu_app_c"]
    assert [(record.issuer, record.serial) for record in found.grants] == [
        (issuer, serial) for issuer in "ab" for serial in (2, 9, 10)
    ]


def test_a_key_is_replaced_as_a_whole(holder: Holder) -> None:
    revoked = replace(
        KEY,
        state="revoked",
        since=9.0,
        by="gu_owner_o",
        reason="lost",
        successor="b",
        running="stop",
    )
    holder.store.apply([PutKey(KEY), PutKey(revoked)])
    assert holder.store.load().keys == (revoked,)


def test_a_key_that_waits_is_dropped(holder: Holder) -> None:
    other = replace(KEY, key="gu_app_b")
    holder.store.apply([PutKey(KEY), PutKey(other)])
    holder.store.apply([DropKey(KEY.key)])
    assert holder.again().load().keys == (other,)
    holder.store.apply([DropKey(KEY.key)])
    assert holder.store.load().keys == (other,)


@pytest.mark.parametrize("state", ["approved", "revoked"])
def test_a_key_that_somebody_decided_about_is_never_forgotten(holder: Holder, state: str) -> None:
    known = replace(KEY, state=state)
    holder.store.apply([PutKey(known)])
    with pytest.raises(UsageError, match=f"gu_app_a is {state} and cannot be forgotten"):
        holder.store.apply([PutKey(replace(KEY, key="gu_app_b")), DropKey(KEY.key)])
    assert holder.again().load().keys == (known,)


def test_an_invitation_is_used_and_dropped(holder: Holder) -> None:
    used = replace(INVITATION, used_by="gu_provider_p")
    holder.store.apply([PutInvitation(INVITATION)])
    holder.store.apply([PutInvitation(used)])
    assert holder.store.load().invitations == (used,)
    holder.store.apply([DropInvitation(used.digest)])
    assert holder.again().load().invitations == ()


def test_dropping_what_is_not_there_is_no_fault(holder: Holder) -> None:
    holder.store.apply([PutInvitation(INVITATION), DropInvitation("e" * 64)])
    assert holder.store.load().invitations == (INVITATION,)


def test_a_grant_is_revoked_and_stays_known(holder: Holder) -> None:
    revoked = replace(GRANT, state="revoked", since=5.0)
    holder.store.apply([PutGrant(GRANT)])
    holder.store.apply([PutGrant(revoked)])
    assert holder.again().load().grants == (revoked,)


@pytest.mark.parametrize(
    "other", [replace(GRANT, envelope=b"another"), replace(GRANT, app="gu_app_b")]
)
@pytest.mark.parametrize("state", ["valid", "revoked"])
def test_a_serial_is_never_used_again(holder: Holder, other: GrantRecord, state: str) -> None:
    known = replace(GRANT, state=state)
    holder.store.apply([PutGrant(known)])
    store = holder.again()
    with pytest.raises(UsageError, match=r"serial 7 of gu_owner_o was used"):
        store.apply([PutGrant(replace(other, state=state))])
    assert store.load().grants == (known,)


def test_a_revoked_grant_stays_revoked(holder: Holder) -> None:
    revoked = replace(GRANT, state="revoked")
    holder.store.apply([PutGrant(revoked), PutGrant(revoked)])
    with pytest.raises(UsageError, match="was used"):
        holder.store.apply([PutGrant(GRANT)])
    assert holder.store.load().grants == (revoked,)


def test_the_same_serial_of_another_issuer_is_another_grant(holder: Holder) -> None:
    other = replace(GRANT, issuer="gu_owner_p", envelope=b"another")
    holder.store.apply([PutGrant(GRANT), PutGrant(other)])
    assert holder.store.load().grants == (GRANT, other)


@pytest.mark.parametrize("serial", [0, -1, LARGEST + 1])
def test_impossible_serials_are_refused(holder: Holder, serial: int) -> None:
    with pytest.raises(UsageError, match="no serial"):
        holder.store.apply([PutGrant(replace(GRANT, serial=serial))])


def test_the_largest_numbers_fit(holder: Holder) -> None:
    largest = replace(GRANT, serial=LARGEST)
    holder.store.apply([PutGrant(largest), SetEpoch(LARGEST)])
    assert holder.again().load() == Snapshot(grants=(largest,), epoch=LARGEST)


@pytest.mark.parametrize("epoch", [4, -1, LARGEST + 1])
def test_the_epoch_never_goes_back(holder: Holder, epoch: int) -> None:
    holder.store.apply([SetEpoch(5), SetEpoch(5)])
    with pytest.raises(UsageError, match="epoch is 5"):
        holder.store.apply([SetEpoch(epoch)])
    assert holder.again().load().epoch == 5


@pytest.mark.parametrize(
    "refused", [PutGrant(replace(GRANT, envelope=b"another")), SetEpoch(1)], ids=["grant", "epoch"]
)
def test_all_changes_or_none(holder: Holder, refused: Op) -> None:
    holder.store.apply([PutKey(KEY), PutGrant(GRANT), SetEpoch(2)])
    before = holder.store.load()
    with pytest.raises(UsageError):
        holder.store.apply([
            PutKey(replace(KEY, state="approved")),
            PutKey(replace(KEY, key="gu_app_b")),
            PutInvitation(INVITATION),
            SetEpoch(3),
            refused,
        ])  # fmt: skip
    assert holder.store.load() == before
    holder.store.apply([SetEpoch(3)])
    assert holder.again().load() == replace(before, epoch=3)


def test_no_changes_change_nothing(holder: Holder) -> None:
    holder.store.apply([])
    assert holder.store.load() == Snapshot()


def test_closing_twice_is_no_fault(holder: Holder) -> None:
    holder.store.close()
    holder.store.close()


words = st.sampled_from(["", "a", "b'\"; DROP TABLE keys", "\x00", "ü\U0001f600"])
times = st.floats(0, 2e9)
ops = st.one_of(
    st.builds(
        KeyRecord,
        words, words, words, st.sampled_from(["pending", "approved", "revoked"]), words, times,
        words, words, words, words,
    ).map(PutKey),
    st.builds(
        GrantRecord,
        words, st.sampled_from(["o", "p"]), st.integers(0, 3),
        st.sampled_from([b"", b"1", b"\x00\xff"]), st.sampled_from(["valid", "revoked"]), times,
    ).map(PutGrant),
    st.builds(InvitationRecord, words, words, words, times, words, times).map(PutInvitation),
    words.map(DropInvitation),
    words.map(DropKey),
    st.integers(0, 5).map(SetEpoch),
)  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Fresh directories: hypothesis runs many cases in one test."""
    root = tmp_path_factory.mktemp("stores")
    return (root / str(number) for number in range(10**9))


def said(store: Store, batch: list[Op]) -> str:
    """The refusal, empty where all was taken."""
    try:
        store.apply(batch)
    except UsageError as error:
        return str(error)
    return ""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(ops, max_size=4), max_size=6))
def test_the_stores_agree(directory: Iterator[Path], batches: list[list[Op]]) -> None:
    memory, path = MemoryStore(), next(directory) / "store.db"
    disk = SqliteStore(path)
    try:
        for batch in batches:
            assert said(memory, batch) == said(disk, batch)
            assert memory.load() == disk.load()
    finally:
        disk.close()
    again = SqliteStore(path)
    assert memory.load() == again.load()
    again.close()
