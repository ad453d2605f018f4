"""One call: arguments that come late, buffers, several results, streams, and the end of it all."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.caller.tasks import Task
from guactors.errors import SessionClosed
from tests.unit.caller.bench import FN, Bench, error, value


def test_a_call_waits_for_its_arguments_and_carries_them() -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call(deps=[first, first])
    bench.grant()
    assert bench.calls("w-1") == [first]
    bench.reply("w-1", first, value(b"one"))
    (batch,) = bench.sent("w-1", m.Calls)
    assert [dep.data for dep in batch.calls[0].deps] == [b"one", b"one"]
    bench.reply("w-1", second)
    bench.drop(first, second)
    assert bench.kept() == []


def test_an_argument_that_failed_late_is_the_outcome() -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call(deps=[first])
    third = bench.call(deps=[second])
    bench.grant()
    bench.reply("w-1", first, error())
    assert isinstance(bench.failure(third), ValueError)
    assert bench.calls("w-1") == [first]


def test_a_call_whose_result_nobody_keeps_still_runs() -> None:
    bench = Bench()
    arg = bench.call()
    forgotten = bench.call(deps=[arg])
    bench.drop(forgotten)
    bench.grant()
    bench.reply("w-1", arg)
    assert bench.calls("w-1") == [arg, forgotten]
    bench.reply("w-1", forgotten)
    bench.drop(arg)
    assert bench.kept() == []


def test_buffers_find_their_call_and_their_value() -> None:
    bench = Bench()
    bench.core.leases.service[FN] = 0.001
    wide = bench.put()
    bench.core.objects.entries[wide].buffers = [b"dep"]
    ids = [
        bench.call(buffers=[b"a", b"b"], deps=[wide]),
        bench.call(),
        bench.call(buffers=[b"c"], returns=2),
    ]
    bench.grant()
    frames = [buffer for _, buffers in bench.to_worker["w-1"] for buffer in buffers]
    assert frames == [b"a", b"b", b"dep", b"c"]
    wide_value = value(b"", buffers=1)
    replies = [
        m.Reply(ids[0], [wide_value]),
        m.Reply(99, [wide_value]),
        m.Reply(ids[1], [value()]),
        m.Reply(ids[2], [wide_value, wide_value]),
    ]
    bench.says("w-1", m.Replies(replies), b"1", b"stranger", b"2", b"3")
    entries = bench.core.objects.entries
    got = [entries[id].buffers for id in (ids[0], ids[1], ids[2], ids[2] + 1)]
    assert [[bytes(x) for x in one] for one in got] == [[b"1"], [], [b"2"], [b"3"]]


def test_a_call_taken_out_of_its_frame_takes_its_buffers_and_loans_along() -> None:
    bench = Bench()
    core = bench.core
    core.leases.service[FN] = 0.001
    lent = bench.put()
    first = bench.call()
    bench.grant()
    ids = []
    for frame in (b"a", b"b"):
        ids.append(core.objects.new())
        task = core_task(ids[-1], [frame], lent)
        core.submit(core.leases.demands["0||CPU=1"], task, bench.now)
    core.cancel(ids[0], bench.now)
    bench.cancel(first)
    ((batch, buffers),) = [x for x in bench.to_worker["w-1"] if isinstance(x[0], m.Calls)][1:]
    assert isinstance(batch, m.Calls)
    assert [call.id for call in batch.calls] == ids[1:]
    assert [bytes(buffer) for buffer in buffers] == [b"b"]
    bench.says("w-1", m.Release([m.RefWord("c-1", lent)]))
    bench.reply("w-1", ids[1])
    bench.drop(lent)
    assert lent not in bench.kept()


def core_task(id: int, buffers: list[bytes], lent: int) -> Task:
    return Task(id, fn=FN, name="f", buffers=buffers, lent=[lent])


def test_an_error_fills_all_results() -> None:
    bench = Bench()
    id = bench.call(returns=3)
    bench.grant()
    bench.reply("w-1", id, error())
    assert all(isinstance(bench.failure(id + i), ValueError) for i in range(3))


def test_a_reference_in_a_result_is_borrowed_from_whoever_sent_it() -> None:
    bench = Bench()
    id = bench.call()
    bench.grant()
    word = m.RefWord("c-9", 4)
    bench.reply("w-1", id, value(refs=[word]))
    (inner,) = bench.core.objects.entries[id].contains or []
    bench.core.objects.need(inner)
    bench.pass_time(1.0)
    assert bench.sent("w-1", m.Fetch) == [m.Fetch(inner, word)]
    assert bench.hung_up == [], "the link stays while something borrowed crosses it"
    bench.drop(id)
    assert bench.sent("w-1", m.Release) == [m.Release([word])]


def test_a_worker_that_lends_is_not_dialled_again_when_it_comes_back() -> None:
    """The loans of a link end with it."""
    bench = Bench()
    id = bench.call()
    bench.grant()
    bench.reply("w-1", id, value(refs=[m.RefWord("c-9", 4)]))
    bench.pass_time(1.0)
    assert bench.told(m.ReturnLease)
    later = bench.call()
    bench.grant("l-2")
    assert later in bench.calls("w-1")
    assert bench.dialled == ["w-1"]
    bench.reply("w-1", later)
    bench.drop(id, later)
    bench.pass_time(1.0)
    assert bench.hung_up == ["w-1"]
    bench.call()
    bench.grant("l-3")
    assert bench.dialled == ["w-1", "w-1"]


def test_a_stream_is_read_in_order_and_repeats_nothing_after_a_retry() -> None:
    bench = Bench()
    id = bench.call(returns=-1, retries=1)
    bench.grant()
    for index in range(2):
        bench.says("w-1", m.StreamItem(id, index, value(b"%d" % index)))
    bench.lose("w-1")
    bench.grant("l-2", "w-2")
    for index in range(3):
        bench.says("w-2", m.StreamItem(id, index, value(b"%d" % index)))
    bench.says("w-2", m.Replies([m.Reply(id, [], 1)]))
    stream = bench.core.streams[id]
    assert [bench.data(item) for item in stream.items] == [b"0", b"1", b"2"]
    assert stream.finished


def test_a_forgotten_stream_is_cancelled_and_leaves_nothing() -> None:
    bench = Bench()
    id = bench.call(returns=-1)
    bench.grant()
    bench.says("w-1", m.StreamItem(id, 0, value()))
    bench.core.forget_stream(id, bench.now)
    bench.says("w-1", m.StreamItem(id, 1, value()))
    assert bench.sent("w-1", m.CancelCall) == [m.CancelCall(id)]
    assert bench.kept() == []


def test_children_are_cancelled_with_their_parent() -> None:
    bench = Bench()
    parent = ("k-1", 7)
    mine, other = bench.call(parent=parent), bench.call()
    bench.core.cancel_children(parent, bench.now)
    assert bench.failure(mine) is not None
    assert bench.failure(other) is None


@pytest.mark.parametrize("sent", [False, True])
def test_the_end_of_the_session_settles_everything(sent: bool) -> None:
    bench = Bench()
    ids = [bench.call(), bench.call(bench.actor())]
    stream = bench.call(returns=-1)
    if sent:
        bench.grant()
        bench.alive(worker="w-2")
    bench.core.close()
    assert all(isinstance(bench.failure(id), SessionClosed) for id in ids)
    assert bench.core.streams[stream].finished
