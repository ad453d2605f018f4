"""The shared-memory store between real processes: sharing, recycling, spilling, dying."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guactors.errors import ObjectLost, StoreFull
from guactors.messages import BlockName, Stored
from guactors.objects import process, sweeping
from guactors.objects.place import own_place, place_at
from guactors.objects.room import Bounds, Room
from guactors.objects.space import rounded
from guactors.objects.store import KEEP, ObjectStore
from guactors.objects.sweeping import arenas_in, sweep

MIB = 1 << 20


class Other:
    """A second process of the same store; see object_process.py."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.object_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *order: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        plain = [msgspec.to_builtins(one) for one in order]
        self.process.stdin.write(json.dumps(plain) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait(30)


@pytest.fixture
def others() -> Iterator[Callable[[], Other]]:
    started: list[Other] = []

    def start() -> Other:
        started.append(Other())
        return started[-1]

    yield start
    for one in started:
        one.end()
    sweep(own_place())


@pytest.fixture
def store(gu_home: Path) -> Iterator[ObjectStore]:
    yield process.store()
    process.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[ObjectStore]:
    """A store with little room: 4 MiB of memory, 8 on disk."""
    place = place_at(Path(f"/dev/shm/guactors-small-{os.getpid()}"), tmp_path / "disk")
    store = ObjectStore(Room(place, Bounds(4 * MIB, 8 * MIB)))
    yield store
    check(store)
    store.close()
    assert not place.directory.exists()
    assert not place.disk.exists()


def block(word: Stored) -> BlockName:
    return BlockName(word.arena, word.offset, word.serial)


def check(store: ObjectStore) -> None:
    """What must hold at any time."""
    for key, block in store._blocks.items():
        assert key == block.key
        assert block.holds >= 0 <= block.loans
    for arena in store._arenas:
        arena.space.check()
        used = sum(rounded(x.length) for x in store._blocks.values() if x.arena is arena)
        assert used == arena.space.used, (used, arena.space.used)
    for seen in store._seen.values():
        assert sum(x.arena is seen for x in store._blocks.values()) == seen.users


def in_use(store: ObjectStore) -> list[str]:
    return sorted(entry.name for entry in arenas_in(store._room.directory))


# --- one process ----------------------------------------------------------------------------------


def test_parts_come_back_read_only_and_aligned(store: ObjectStore) -> None:
    parts = [b"a" * 7, b"", b"b" * 200_001, memoryview(bytearray(b"c" * 64))]
    views = store.write(parts).parts()
    assert [bytes(view) for view in views] == [bytes(part) for part in parts]
    assert all(view.readonly for view in views)
    with pytest.raises(TypeError):
        views[0][0] = 1


def test_a_view_keeps_the_value_and_its_end_frees_it(store: ObjectStore) -> None:
    held = store.write([b"x" * MIB])
    word = held.word
    (view,) = held.parts()
    part = view[5:10]
    del held, view
    again = store.write([b"y" * MIB])
    assert bytes(part) == b"xxxxx"
    assert again.word.offset != word.offset
    del part
    third = store.write([b"z" * MIB])
    assert third.word.offset == word.offset, "touched pages are used again"
    with pytest.raises(ObjectLost, match="recycled"):
        store.attach(word)


def test_what_was_given_away_stays_until_it_comes_back(store: ObjectStore) -> None:
    held = store.write([b"x" * MIB])
    word = store.give(held, "caller")
    del held
    store.settle()
    check(store)
    store.given_back("stranger", [block(word)])
    assert bytes(store.attach(word).parts()[0][:1]) == b"x"
    store.settle()
    store.given_back("caller", [block(word)])
    with pytest.raises(ObjectLost):
        store.attach(word)
    store.given_back("caller", [block(word)])
    check(store)


def test_a_lost_taker_gives_everything_back(store: ObjectStore) -> None:
    words = [store.give(store.write([bytes(MIB)]), "caller") for _ in range(3)]
    store.settle()
    store.lost("caller")
    for word in words:
        with pytest.raises(ObjectLost):
            store.attach(word)
    check(store)


def test_an_empty_arena_is_kept_for_a_while(store: ObjectStore) -> None:
    held = store.write([bytes(MIB)])
    store.on_tick(100.0)
    del held
    store.on_tick(101.0)
    store.on_tick(100.9 + KEEP)
    assert in_use(store)
    store.on_tick(101.1 + KEEP)
    assert not in_use(store)
    assert store.idle


def test_a_view_outlives_the_store(store: ObjectStore) -> None:
    (view,) = store.write([b"x" * MIB]).parts()
    process.close()
    assert bytes(view[-3:]) == b"xxx"
    del view
    assert not own_place().directory.exists()


# --- room -----------------------------------------------------------------------------------------


def test_what_was_unused_for_longest_goes_to_disk(small: ObjectStore) -> None:
    held = [small.write([bytes([i]) * MIB]) for i in range(3)]
    small.parts(held[0].block)
    more = [small.write([bytes([i]) * MIB]) for i in range(3, 7)]
    where = [one.word.arena[0] for one in held + more]
    assert where.count("m") == 3, "a block takes a page more than its value"
    assert where[0] == "m" or where[1] == "d"
    assert [bytes(one.parts()[0][:1]) for one in held + more] == [bytes([i]) for i in range(7)]


def test_what_is_looked_at_is_not_moved(small: ObjectStore) -> None:
    held = [small.write([bytes([i]) * MIB]) for i in range(3)]
    views = [one.parts()[0] for one in held]
    more = [small.write([b"m" * MIB]) for _ in range(2)]
    assert [one.word.arena[0] for one in held] == ["m"] * 3
    assert [one.word.arena[0] for one in more] == ["d"] * 2
    assert [bytes(view[:1]) for view in views] == [b"\0", b"\1", b"\2"]


def test_full_is_an_error_and_nothing_is_lost(small: ObjectStore) -> None:
    held = []

    def fill() -> None:
        for i in range(20):
            held.append(small.write([bytes([i]) * MIB]))

    with pytest.raises(StoreFull, match=r"no room for a value of 1,048,\d+ bytes.*GU_OBJECT"):
        fill()
    assert 8 <= len(held) <= 11
    assert [one.parts()[0][-1] for one in held] == list(range(len(held)))
    held.pop()
    small.write([b"again" * 200_000])


def test_larger_than_the_store(small: ObjectStore) -> None:
    with pytest.raises(StoreFull):
        small.write([bytes(9 * MIB)])
    assert small.write([bytes(6 * MIB)]).word.arena[0] == "d", "it fits the disk alone"


def test_a_full_device_is_an_error(small: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    held = small.write([b"kept" * MIB])
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreFull):
        small.write([bytes(2 * MIB)])
    assert bytes(held.parts()[0][:4]) == b"kept"


# --- two processes --------------------------------------------------------------------------------


def test_another_process_reads_in_place(store: ObjectStore, others: Callable[[], Other]) -> None:
    other = others()
    held = store.write([b"a" * MIB, b"b" * MIB])
    other("attach", "it", held.word)
    assert other("read", "it") == ["61", "62"]
    word = other("write", "theirs", 300_000, 99)
    theirs = store.attach(msgspec.convert(word, Stored))
    assert theirs.parts()[0][:1] == b"c"


def borrowed(other: Other, count: int) -> list[Stored]:
    return [msgspec.convert(other("write", f"{i}", MIB, i), Stored) for i in range(count)]


def test_others_need_not_hear_at_once_of_a_little(
    store: ObjectStore, others: Callable[[], Other]
) -> None:
    words = borrowed(others(), 5)
    held, much = [], []
    for word in words:
        held.append(store.attach(word, "w-1"))
        much.append(store.borrowing)
    assert much == [False, False, False, True, True]
    del held
    store.let_go()
    assert store.borrowing, "they do not know, though this process's other keeper let go"
    told = store.settle()
    assert {name.serial for name in told["w-1"]} == {word.serial for word in words}
    assert not store.borrowing
    assert not store.settle()


def test_a_little_is_less_where_there_is_little(
    gu_home: Path, others: Callable[[], Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GU_OBJECT_MEMORY", str(16 * MIB))
    (word,) = borrowed(others(), 1)
    held = process.store().attach(word, "w-1")
    assert process.store().borrowing
    del held
    process.store().settle()
    assert not process.store().borrowing
    process.close()


def test_what_a_lender_knows_already_is_not_told(
    store: ObjectStore, others: Callable[[], Other]
) -> None:
    held = [store.attach(word) for word in borrowed(others(), 5)]
    assert store.borrowing
    del held
    assert not store.settle()
    assert not store.borrowing


def test_what_another_process_holds_is_not_recycled(
    store: ObjectStore, others: Callable[[], Other]
) -> None:
    other = others()
    held = store.write([b"a" * MIB])
    word = held.word
    other("attach", "it", word)
    del held
    store.settle()
    assert store.write([b"b" * MIB]).word.offset != word.offset
    assert other("read", "it") == ["61"]
    other("drop", "it")
    store.on_tick(1.0)
    assert store.write([b"c" * MIB]).word.offset == word.offset


def test_what_is_used_again_while_another_holds_it_is_recycled_once(
    store: ObjectStore, others: Callable[[], Other]
) -> None:
    other = others()
    held = store.write([b"a" * MIB])
    word = held.word
    other("attach", "it", word)
    del held
    store.settle()
    for _ in range(2):
        again = store.attach(word)
        del again
        store.settle()
    other("drop", "it")
    again = store.attach(word)
    del again
    store.settle()
    check(store)
    kept = store.write([b"b" * MIB])
    store.on_tick(1.0)
    check(store)
    assert bytes(kept.parts()[0][:1]) == b"b"
    assert store.attach(kept.word) is not kept


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_what_was_promised_to_another_machine_stays_for_a_while(
    store: ObjectStore, others: Callable[[], Other], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = others()
    first = msgspec.convert(other("write", "first", MIB, 1), Stored)
    second = msgspec.convert(other("write", "second", MIB, 2), Stored)
    other("give", "first")
    other("give", "second")
    if how == "killed":
        other.kill()
    else:
        other("close")
        other.end()
    sweep(own_place())
    held = store.attach(first)
    store.on_tick(1.0)
    assert bytes(held.parts()[0][:1]) == b"\x01"
    monkeypatch.setattr(sweeping, "LINGER", 0.0)
    sweep(own_place())
    assert store.attach(second).size, "somebody still has the arena"
    del held
    store.settle()
    store.on_tick(2.0)
    store.on_tick(2.0 + KEEP)
    assert not in_use(store)


def test_a_writer_killed_in_the_middle_leaves_nothing_that_could_be_read(
    store: ObjectStore, others: Callable[[], Other]
) -> None:
    other = others()
    word = msgspec.convert(other("draft", "it", MIB), Stored)
    with pytest.raises(ObjectLost, match="recycled"):
        store.attach(word)
    other.kill()
    with pytest.raises(ObjectLost):
        store.attach(word)
    sweep(own_place())
    assert word.arena not in in_use(store)


def test_a_value_is_not_looked_at_when_its_store_has_ended(gu_home: Path) -> None:
    held = process.store().write([b"a" * MIB])
    process.close()
    with pytest.raises(ObjectLost, match="closed"):
        held.parts()
    with pytest.raises(ObjectLost, match="closed"):
        held.body()


def test_what_nobody_came_for_is_swept(store: ObjectStore, others: Callable[[], Other]) -> None:
    other = others()
    word = msgspec.convert(other("write", "it", MIB, 1), Stored)
    other("give", "it")
    other.kill()
    assert sweep(own_place()) == 0
    assert sweep(own_place(), at_once=True) == 1
    with pytest.raises(ObjectLost, match="is gone"):
        store.attach(word)


def test_a_killed_reader_holds_nothing(store: ObjectStore, others: Callable[[], Other]) -> None:
    other = others()
    held = store.write([b"a" * MIB])
    word = held.word
    other("attach", "it", word)
    other("view", "it")
    del held
    store.settle()
    other.kill()
    store.on_tick(1.0)
    assert store.write([b"b" * MIB]).word.offset == word.offset


def test_a_killed_writer_leaves_what_others_hold(
    store: ObjectStore, others: Callable[[], Other]
) -> None:
    other, third = others(), others()
    kept = msgspec.convert(other("write", "kept", MIB, 1), Stored)
    lost = msgspec.convert(other("write", "lost", 65 * MIB, 2), Stored)
    held = store.attach(kept)
    other.kill()
    sweep(own_place())
    assert held.parts()[0][-1] == 1
    third("attach", "it", kept)
    assert third("read", "it") == ["01"], "who holds it can still pass it on"
    with pytest.raises(ObjectLost, match="is gone"):
        store.attach(lost)
    third("drop", "it")
    third("close")
    del held
    store.settle()
    assert kept.arena in in_use(store), "it stays mapped for what may come"
    store.on_tick(10.0)
    store.on_tick(10.0 + KEEP)
    assert kept.arena not in in_use(store), "the last one out removed the file"


def test_a_writer_that_ends_leaves_what_others_hold(
    store: ObjectStore, others: Callable[[], Other]
) -> None:
    other = others()
    word = msgspec.convert(other("write", "kept", MIB, 7), Stored)
    held = store.attach(word)
    (view,) = held.parts()
    other("close")
    other.end()
    assert view[0] == 7
    del held, view
    store.settle()
    store.on_tick(10.0)
    store.on_tick(10.0 + KEEP)
    assert not in_use(store)


def test_a_word_is_not_believed(store: ObjectStore, others: Callable[[], Other]) -> None:
    other = others()
    word = msgspec.convert(other("write", "it", MIB, 7), Stored)
    for change in (
        {"serial": word.serial + 1},
        {"offset": word.offset + 4096},
        {"offset": word.offset + 1},
        {"offset": 2**52},
        {"sizes": [MIB + 64]},
        {"sizes": [2**50]},
        {"arena": "m-" + "0" * 32},
        {"store": "elsewhere"},
    ):
        with pytest.raises(ObjectLost):
            store.attach(msgspec.structs.replace(word, **change))
    assert store.attach(word).parts()[0][0] == 7
    store.settle()


def test_others_make_way_for_who_finds_no_memory(
    others: Callable[[], Other], gu_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GU_OBJECT_MEMORY", str(8 * MIB))
    monkeypatch.setenv("GU_OBJECT_DISK", str(64 * MIB))
    other = others()
    words = [other("write", f"{i}", 2 * MIB, i) for i in range(3)]
    assert all(word[1].startswith("m") for word in words)
    store = process.store()
    mine = store.write([bytes(3 * MIB)])
    assert mine.word.arena.startswith("d"), "nobody is waited for"
    other("tick", 1.0)
    assert store.write([bytes(MIB)]).word.arena.startswith("m")
    assert [other("read", f"{i}") for i in range(3)] == [["00"], ["01"], ["02"]]
    del mine
    process.close()
