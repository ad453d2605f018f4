"""Calls to an actor that overtake others, and handles that may have only so many pending."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.caller.tasks import STREAM
from guactors.errors import (
    ActorKilled,
    ActorUnschedulable,
    CallTimeout,
    TaskCancelled,
    TooManyPending,
)
from tests.unit.caller.bench import Bench, error


@pytest.fixture
def bench() -> Bench:
    return Bench(patience=5.0)


def late(bench: Bench) -> int:
    """An object that is not there yet."""
    return bench.core.objects.new()


def settle(bench: Bench, id: int, **more: bool) -> None:
    bench.core.objects.settle(id, error().data if more else b"v", **more)
    bench._settle()


def test_a_plain_actor_keeps_the_order(bench: Bench) -> None:
    actor = bench.actor()
    bench.alive()
    value = late(bench)
    first, second = bench.call(actor, deps=[value]), bench.call(actor)
    assert bench.calls("w-1") == []
    settle(bench, value)
    assert bench.calls("w-1") == [first, second]


@pytest.mark.parametrize(("below", "above"), [(-5, 0), (0, 1), (5, 50)])
def test_a_full_window_holds_up_equals_and_lets_a_higher_priority_through(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, below: int, above: int
) -> None:
    monkeypatch.setattr("guactors.caller.actors.WINDOW", 2)
    actor = bench.actor()
    bench.alive()
    first, second = (bench.call(actor, priority=below) for _ in range(2))
    assert bench.calls("w-1") == [first, second]
    equal, urgent = bench.call(actor, priority=below), bench.call(actor, priority=above)
    assert bench.calls("w-1") == [urgent]
    for id in (first, second):
        bench.reply("w-1", id)
    assert bench.calls("w-1") == [equal]


def test_an_unordered_actor_runs_what_is_ready(bench: Bench) -> None:
    actor = bench.actor()
    actor.unordered = True
    bench.alive()
    value = late(bench)
    first, second = bench.call(actor, deps=[value]), bench.call(actor)
    assert bench.calls("w-1") == [second]
    settle(bench, value)
    assert bench.calls("w-1") == [first]
    bench.reply("w-1", first)
    bench.reply("w-1", second)
    assert bench.data(first) == bench.data(second) == b"v"
    assert actor.pending() == 0


def test_what_waits_before_the_actor_is_there_leaves_in_order_of_readiness(bench: Bench) -> None:
    actor = bench.actor()
    actor.unordered = True
    value = late(bench)
    first, second = bench.call(actor, deps=[value]), bench.call(actor)
    settle(bench, value)
    bench.alive()
    assert bench.calls("w-1") == [second, first]


def test_a_parked_call_ends_with_its_dependency_its_actor_its_time_or_its_user(
    bench: Bench,
) -> None:
    actor = bench.actor()
    actor.unordered = True
    bench.alive()
    broken, never = late(bench), late(bench)
    by_value = bench.call(actor, deps=[broken])
    by_user = bench.call(actor, deps=[never])
    by_time = bench.call(actor, deps=[never], deadline=bench.now + 1.0)
    by_actor = bench.call(actor, deps=[never], returns=STREAM)
    settle(bench, broken, error=True)
    assert isinstance(bench.failure(by_value), ValueError)
    bench.cancel(by_user)
    assert isinstance(bench.failure(by_user), TaskCancelled)
    bench.pass_time(1.5)
    assert isinstance(bench.failure(by_time), CallTimeout)
    bench.core.kill_actor(actor, no_restart=True, now=bench.now)
    assert isinstance(bench.failure(by_actor), ActorKilled)
    assert bench.core.streams[by_actor].finished
    settle(bench, never)
    assert bench.calls("w-1") == []
    bench.drop(by_value, by_user, by_time, by_actor, broken, never)
    assert bench.kept() == []


def test_the_actor_is_not_let_go_while_a_call_is_parked(bench: Bench) -> None:
    actor = bench.actor()
    actor.unordered = True
    bench.alive()
    value = late(bench)
    call = bench.call(actor, deps=[value])
    actor.handles = 0
    bench.core.release_actor(actor)
    assert bench.told(m.KillActor) == []
    settle(bench, value)
    bench.reply("w-1", call)
    bench._settle()
    assert [told.released for told in bench.told(m.KillActor)] == [True]


def test_a_stream_of_an_actor_that_fits_nowhere_ends(bench: Bench) -> None:
    actor = bench.actor()
    call = bench.call(actor, returns=STREAM)
    bench.hub(m.DemandInfeasible("a-1", "too big"))
    bench.pass_time(6)
    assert isinstance(bench.failure(call), ActorUnschedulable)
    assert bench.core.streams[call].finished


def test_so_many_calls_may_be_pending_and_no_more(bench: Bench) -> None:
    actor = bench.actor()
    actor.most_pending = 2
    first = bench.call(actor)
    bench.alive()
    second = bench.call(actor, deps=[late(bench)])
    kept = bench.kept()
    with pytest.raises(TooManyPending, match=r"2 calls.*max_pending_calls=2"):
        bench.call(actor)
    with pytest.raises(TooManyPending):
        bench.call(actor, returns=3)
    assert bench.kept() == kept
    bench.reply("w-1", first)
    third = bench.call(actor)
    bench.core.kill_actor(actor, no_restart=True, now=bench.now)
    assert isinstance(bench.failure(second), ActorKilled)
    assert isinstance(bench.failure(third), ActorKilled)
    # Nothing is pending at a dead actor: the call is answered with its death.
    assert isinstance(bench.failure(bench.call(actor)), ActorKilled)
