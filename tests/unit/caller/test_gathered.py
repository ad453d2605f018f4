"""Streams that become one value, and what a session's end lets go of."""

from __future__ import annotations

import pickle

import pytest

from guactors import messages as m
from guactors.caller.tasks import STREAM
from tests.unit.caller.bench import Bench, error, value


@pytest.fixture
def bench() -> Bench:
    return Bench(pack_refs=lambda words: pickle.dumps([word.object for word in words]))


def gathered(bench: Bench, items: int) -> int:
    call = bench.call(returns=STREAM, gather=True)
    bench.grant()
    for index in range(items):
        bench.says("w-1", m.StreamItem(call, index, value(b"%d" % index)))
    return call


def test_the_items_become_references_in_one_value(bench: Bench) -> None:
    call = gathered(bench, 3)
    assert bench.data(call) is None
    bench.says("w-1", m.Replies([m.Reply(call, [])]))
    inner = pickle.loads(bench.data(call) or b"")
    assert [bench.data(id) for id in inner] == [b"0", b"1", b"2"]
    assert bench.core.streams == {}
    bench.drop(call)
    assert bench.kept() == []


def test_a_failed_one_keeps_nothing(bench: Bench) -> None:
    call = gathered(bench, 2)
    bench.reply("w-1", call, error("late"))
    assert isinstance(bench.failure(call), ValueError)
    assert bench.core.streams == {}
    assert bench.kept() == [call]


def test_one_that_nobody_waits_for_keeps_nothing(bench: Bench) -> None:
    call = gathered(bench, 2)
    bench.drop(call)
    bench.says("w-1", m.Replies([m.Reply(call, [])]))
    assert bench.core.streams == {}
    assert bench.kept() == []


def test_a_cancelled_one_keeps_nothing(bench: Bench) -> None:
    call = gathered(bench, 2)
    bench.cancel(call)
    bench.reply("w-1", call, error("cancelled"))
    assert bench.core.streams == {}
    assert bench.kept() == [call]


def test_its_news_are_nobody_s(bench: Bench) -> None:
    call = bench.call(returns=STREAM, gather=True)
    bench.core.objects.entries[call].watched = True
    bench.grant()
    bench.says("w-1", m.StreamItem(call, 0, value()))
    assert bench.core.objects.settled == []


def test_the_end_of_the_session_ends_loans_and_what_code_holds(bench: Bench) -> None:
    objects = bench.core.objects
    lent, captured = bench.put(), bench.put()
    objects.lend([lent], "w-1")
    objects.captured[b"f"] = [captured]
    objects.hold(captured)
    bench.drop(lent, captured)
    assert bench.kept() == [lent, captured]
    bench.core.close()
    assert bench.kept() == []


def test_what_code_captured_is_lent_with_each_definition(bench: Bench) -> None:
    from tests.unit.caller.bench import FN

    objects = bench.core.objects
    captured = bench.put()
    objects.captured[FN] = [captured]
    objects.hold(captured)
    call = bench.call()
    bench.grant()
    (define,) = bench.sent("w-1", m.Define)
    assert define.refs == [m.RefWord("c-1", captured)]
    bench.reply("w-1", call)
    bench.drop(captured, call)
    assert objects.lends_to("w-1")
    bench.says("w-1", m.Release(define.refs))
    assert not objects.lends_to("w-1")
    assert bench.kept() == [captured]


def test_values_that_came_with_an_actor_are_here_by_their_names(bench: Bench) -> None:
    objects = bench.core.objects
    inner_word, outer_word = m.RefWord("c-9", 4), m.RefWord("c-9", 5)
    inner = objects.settle_in(inner_word, b"inner", [], [], error=False)
    outer = objects.settle_in(outer_word, b"outer", [], [inner], error=False)
    assert objects.stray(outer_word) == outer
    bench.drop(inner, outer)
    # What the outer one contains lives as long as that.
    assert bench.kept() == [inner, outer]
    bench.drop(outer)
    assert bench.kept() == []


def test_an_actor_that_cannot_be_made_answers_its_calls(bench: Bench) -> None:
    actor = bench.core.actors.add("a-1", "Counter")
    call = bench.call(actor)
    bench.core.fail_actor(actor, error("no value").data, bench.now)
    assert str(bench.failure(call)) == "no value"
    assert str(bench.failure(bench.call(actor))) == "no value"
