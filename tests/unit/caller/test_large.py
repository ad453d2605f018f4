"""The caller's core and values in shared memory: who is told a place, who gets the bytes, and who
hears that a value is unused."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.errors import ObjectLost
from tests.unit.caller.bench import KEY, Bench, endpoints

STORE = "here"


def word(serial: int = 1) -> m.Stored:
    return m.Stored(STORE, f"m-{serial:032x}", 4096, serial, [6, 6])


class InMemory:
    """A value in shared memory, without the memory."""

    def __init__(self, word: m.Stored) -> None:
        self.word = word
        self.size = sum(word.sizes)

    def parts(self) -> list[memoryview]:
        return [memoryview(b"pickle"), memoryview(b"buffer")]


class Large(Bench):
    """A bench whose process has shared memory; ``attached``: what, and given by whom."""

    def __init__(self) -> None:
        super().__init__(store=STORE)
        self.attached: list[tuple[m.Stored, str]] = []
        self.core.objects.attach = self._attach

    def _attach(self, word: m.Stored, giver: str) -> Any:
        if word.serial == 666:
            raise ObjectLost("recycled")
        self.attached.append((word, giver))
        return InMemory(word)

    def lease(self, worker: str, store: str = STORE) -> None:
        places = [m.Endpoint(e.control, e.data, store=store) for e in endpoints(worker)]
        self.hub(m.LeaseGranted(KEY, f"l-{worker}", worker, "p-1", places))


@pytest.fixture
def bench() -> Large:
    return Large()


@pytest.mark.parametrize("way", ["argument", "dependency"])
def test_a_neighbour_of_the_same_store_is_told_the_place(bench: Large, way: str) -> None:
    held: Any = InMemory(word())
    put = bench.put(held)
    bench.call(**({"args": held} if way == "argument" else {"deps": [put]}))
    bench.lease("w-1")
    ((batch, frames),) = bench.to_worker["w-1"][-1:]
    assert isinstance(batch, m.Calls)
    call = batch.calls[0]
    assert (call.stored if way == "argument" else call.deps[0].stored) == word()
    assert not frames


@pytest.mark.parametrize("way", ["argument", "dependency"])
def test_another_machine_gets_the_bytes(bench: Large, way: str) -> None:
    held: Any = InMemory(word())
    put = bench.put(held)
    bench.call(**({"args": held} if way == "argument" else {"deps": [put]}))
    bench.lease("w-1", store="elsewhere")
    ((batch, frames),) = bench.to_worker["w-1"][-1:]
    assert isinstance(batch, m.Calls)
    call = batch.calls[0]
    where = call if way == "argument" else call.deps[0]
    assert (where.stored, where.buffers) == (None, 2)
    assert [bytes(frame) for frame in frames] == [b"pickle", b"buffer"]


def test_a_result_in_memory_is_held_for_its_giver(bench: Large) -> None:
    id = bench.call()
    bench.lease("w-1")
    bench.reply("w-1", id, m.Value(b"", stored=word()))
    assert bench.attached == [(word(), "w-1")]
    assert isinstance(bench.data(id), InMemory)


def test_a_result_that_is_gone_is_made_again(bench: Large) -> None:
    id = bench.call(retries=1)
    bench.lease("w-1")
    assert bench.calls("w-1") == [id]
    bench.reply("w-1", id, m.Value(b"", stored=word(666)))
    assert bench.data(id) is None
    assert bench.calls("w-1") == [id]
    bench.reply("w-1", id, m.Value(b"", stored=word(666)), attempt=1)
    assert isinstance(bench.failure(id), ObjectLost)


def test_a_result_nobody_waits_for_goes_back(bench: Large) -> None:
    id = bench.call()
    bench.lease("w-1")
    refs = [m.RefWord("x", 7)]
    bench.reply("w-1", id, m.Value(b"", refs=refs, stored=word()), attempt=3)
    unused = bench.sent("w-1", m.Unused)
    assert [m.BlockName(word().arena, 4096, 1)] == unused[0].blocks
    assert bench.sent("w-1", m.Release)[0].refs == refs
    assert not bench.attached


def test_a_fetched_value_is_kept_by_its_lender(bench: Large) -> None:
    """Nobody is told that it is unused: the end of the loan says so."""
    id = bench.call()
    bench.lease("w-1")
    bench.reply("w-1", id, m.Value(b"list", refs=[m.RefWord("w-1", 9)]))
    inner = bench.core.objects.entries[id].contains
    assert inner is not None
    bench.core.objects.need(inner[0])
    bench.says("w-1", m.Object(inner[0], m.Value(b"", stored=word())))
    assert bench.attached == [(word(), "")]
    bench.drop(id)
    assert bench.sent("w-1", m.Release)[0].refs == [m.RefWord("w-1", 9)]


def test_an_item_that_comes_twice_is_dropped(bench: Large) -> None:
    id = bench.call(returns=-1)
    bench.lease("w-1")
    for _ in range(2):
        bench.says("w-1", m.StreamItem(id, 0, m.Value(b"", stored=word())))
    assert len(bench.core.streams[id].items) == 1
    assert len(bench.kept()) == 2


def test_a_neighbour_that_left_shares_no_more(bench: Large) -> None:
    bench.call()
    bench.lease("w-1")
    assert bench.core.objects.places.of_peer == {"w-1": STORE}
    bench.lose("w-1")
    assert bench.core.objects.places.of_peer == {}
