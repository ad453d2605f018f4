"""Streams with a window: what the producer is told of what its reader took."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.caller.streams import Stream
from guactors.caller.tasks import STREAM
from tests.unit.caller.bench import Bench, value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def stream(bench: Bench, window: int) -> int:
    call = bench.call(returns=STREAM, window=window, retries=1)
    bench.grant()
    return call


def items(bench: Bench, call: int, *indices: int, worker: str = "w-1") -> None:
    for index in indices:
        bench.says(worker, m.StreamItem(call, index, value(b"%d" % index)))


def take(bench: Bench, call: int, count: int = 1) -> list[bytes | None]:
    taken = []
    for _ in range(count):
        id = bench.core.endings.take_item(call)
        assert id is not None
        taken.append(bench.data(id))
        bench.drop(id)
    return taken


def told(bench: Bench, worker: str = "w-1") -> list[tuple[int, int]]:
    return [(word.call, word.taken) for word in bench.sent(worker, m.StreamTaken)]


def test_the_window_travels_with_the_call(bench: Bench) -> None:
    stream(bench, 3)
    (batch,) = bench.sent("w-1", m.Calls)
    assert [call.window for call in batch.calls] == [3]


def test_of_a_small_window_each_item_taken_is_told(bench: Bench) -> None:
    call = stream(bench, 2)
    items(bench, call, 0, 1)
    assert told(bench) == []
    assert take(bench, call, 2) == [b"0", b"1"]
    assert told(bench) == [(call, 1), (call, 2)]
    assert bench.core.endings.take_item(call) is None
    assert told(bench) == []


def test_of_a_wide_window_not_each_item_is_told(bench: Bench) -> None:
    call = stream(bench, 80)
    items(bench, call, *range(40))
    take(bench, call, 40)
    assert told(bench) == [(call, 10), (call, 20), (call, 30), (call, 40)]


def test_without_a_window_nothing_is_told(bench: Bench) -> None:
    call = stream(bench, 0)
    items(bench, call, 0, 1)
    take(bench, call, 2)
    assert told(bench) == []


def test_the_end_needs_no_word(bench: Bench) -> None:
    call = stream(bench, 2)
    items(bench, call, 0, 1)
    bench.says("w-1", m.Replies([m.Reply(call, [])]))
    take(bench, call, 2)
    assert told(bench) == []


def test_a_producer_that_began_again_hears_what_was_taken_before(bench: Bench) -> None:
    call = stream(bench, 2)
    items(bench, call, 0, 1)
    take(bench, call)
    told(bench)
    bench.lose("w-1")
    bench.hub(m.LeaseLost("l-1", m.DeathReport("killed")))
    bench.grant("l-2", "w-2")
    # Nobody could be told of this one: the call is on its way to its second worker.
    take(bench, call)
    told(bench, "w-2")
    items(bench, call, 0, worker="w-2")
    assert told(bench, "w-2") == [(call, 2)]
    items(bench, call, 1, 2, worker="w-2")
    assert take(bench, call) == [b"2"]
    assert told(bench, "w-2") == [(call, 3)]


@pytest.mark.parametrize("window", [1, 2, 7, 8, 9, 64, 1000])
def test_reader_and_producer_never_wait_for_each_other(window: int) -> None:
    """The producer makes whatever it may, the reader takes whatever is there: all gets through,
    and there is never more unread than the window."""
    reader = Stream(window)
    made = known = received = 0
    while received < 3000:
        before = made, received
        while made < 3000 and made - known < window:
            reader.items.append(made)
            made += 1
            assert len(reader.items) <= window
        while True:
            item, due = reader.take()
            if item is None:
                break
            assert item == received
            received += 1
            if due:
                known = reader.announce()
        assert (made, received) != before, "both wait"
