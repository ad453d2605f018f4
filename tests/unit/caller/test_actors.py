"""Calls to actors: their order, their incarnations, and what an end means for each."""

from __future__ import annotations

import pickle

import pytest

from guactors import messages as m
from guactors.errors import ActorDied, ActorKilled, ActorUnavailable, TaskCancelled, Unschedulable
from tests.unit.caller.bench import Bench, value

CRASH = m.DeathReport("signal", signal=11, worker="w-1")


def dead(cause: str = "signal", incarnation: int = 0) -> m.ActorUpdate:
    return m.ActorUpdate("a-1", "dead", incarnation, death=m.DeathReport(cause))


def test_calls_wait_for_the_actor_and_leave_in_order() -> None:
    bench = Bench()
    actor = bench.actor()
    ids = [bench.call(actor) for _ in range(3)]
    assert not bench.to_worker
    bench.alive()
    assert bench.calls("w-1") == ids


def test_a_call_whose_argument_is_late_holds_back_those_behind_it() -> None:
    bench = Bench()
    actor = bench.actor()
    bench.alive()
    late = bench.call()
    ids = [bench.call(actor, deps=[late]), bench.call(actor)]
    assert bench.calls("w-1") == []
    bench.grant("l-1", "w-2")
    bench.reply("w-2", late)
    assert bench.calls("w-1") == ids


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_a_call_that_leaves_the_queue_makes_way(how: str) -> None:
    bench = Bench()
    actor = bench.actor()
    bench.alive()
    late = bench.call()
    first, second = bench.call(actor, deps=[late]), bench.call(actor)
    if how == "cancelled":
        bench.cancel(first)
    else:
        bench.cancel(late)
    assert isinstance(bench.failure(first), TaskCancelled)
    assert bench.calls("w-1") == [second]


def test_a_crash_loses_what_was_under_way_and_keeps_what_may_be_retried() -> None:
    bench = Bench()
    actor = bench.actor()
    bench.alive()
    lost, kept = bench.call(actor), bench.call(actor, retries=1)
    bench.calls("w-1")
    bench.hub(m.ActorUpdate("a-1", "restarting", 0, death=CRASH))
    assert isinstance(bench.failure(lost), ActorUnavailable)
    later = bench.call(actor)
    bench.alive(incarnation=1, worker="w-2")
    assert bench.calls("w-2") == [kept, later]
    bench.reply("w-2", kept, value(b"second"), attempt=1)
    assert bench.data(kept) == b"second"


@pytest.mark.parametrize(
    ("cause", "kind"), [("signal", ActorDied), ("killed", ActorKilled), ("released", ActorKilled)]
)
def test_death_settles_every_call_by_its_cause(cause: str, kind: type[Exception]) -> None:
    bench = Bench()
    actor = bench.actor()
    waiting = bench.call(actor)
    bench.hub(dead(cause))
    later = bench.call(actor)
    for id in (waiting, later):
        assert type(bench.failure(id)) is kind


def test_a_call_to_the_dead_lets_its_arguments_go() -> None:
    bench = Bench()
    actor = bench.actor()
    bench.hub(dead())
    arg, lent = bench.put(), bench.put()
    id = bench.call(actor, deps=[arg], lent=[lent])
    bench.drop(id, arg, lent)
    assert bench.kept() == []


def test_a_stream_of_the_dead_ends() -> None:
    bench = Bench()
    actor = bench.actor()
    bench.hub(dead())
    id = bench.call(actor, returns=-1)
    assert bench.core.streams[id].finished


def test_a_constructors_error_is_the_outcome_of_every_call() -> None:
    bench = Bench()
    actor = bench.actor()
    id = bench.call(actor)
    data = pickle.dumps(ValueError("constructor"))
    death = m.DeathReport("creation_failed")
    bench.hub(m.ActorUpdate("a-1", "dead", 0, death=death, error=data))
    assert isinstance(bench.failure(id), ValueError)
    assert isinstance(bench.failure(bench.call(actor)), ValueError)


def test_old_news_is_no_news_but_death_is_final() -> None:
    """A hub that never met the actor does not know its number."""
    bench = Bench()
    actor = bench.actor()
    bench.alive(incarnation=3)
    bench.hub(m.ActorUpdate("a-1", "restarting", 2))
    assert actor.state == "alive"
    bench.hub(dead("released"))
    assert actor.state == "dead"
    bench.alive(incarnation=4, worker="w-2")
    assert actor.state == "dead"


def test_a_broken_link_asks_the_hub_and_then_gives_up() -> None:
    bench = Bench()
    actor = bench.actor()
    bench.alive()
    id = bench.call(actor)
    bench.lose("w-1")
    assert bench.told(m.WatchActor) == [m.WatchActor("a-1")]
    assert bench.failure(id) is None
    bench.pass_time(2.1)
    assert isinstance(bench.failure(id), ActorUnavailable)
    bench.alive()
    assert bench.dialled == ["w-1", "w-1"]
    again = bench.call(actor)
    assert bench.calls("w-1")[-1:] == [again]


def test_the_end_of_an_actor_ends_the_loans_to_it() -> None:
    bench = Bench()
    actor = bench.actor()
    bench.alive()
    lent = bench.put()
    id = bench.call(actor, lent=[lent])
    bench.drop(lent)
    bench.hub(dead())
    assert bench.hung_up == ["w-1"]
    bench.drop(id)
    assert bench.kept() == []


def test_the_last_handle_ends_the_actor_after_its_calls() -> None:
    bench = Bench()
    actor = bench.actor()
    id = bench.call(actor)
    actor.handles = 0
    bench.core.release_actor(actor)
    bench.alive()
    assert not bench.told(m.KillActor)
    bench.reply("w-1", id)
    assert bench.told(m.KillActor) == [m.KillActor("a-1", released=True)]


def test_a_creation_is_told_again_until_it_is_confirmed() -> None:
    bench = Bench()
    bench.actor()
    assert [type(x) for x in bench.relink()] == [m.HeldLeases, m.CreateActor]
    bench.hub(m.ActorUpdate("a-1", "pending", 0))
    assert [type(x) for x in bench.relink()] == [m.HeldLeases, m.WatchActor]


def test_an_end_is_told_again_until_it_is_confirmed() -> None:
    bench = Bench()
    actor = bench.actor()
    bench.alive()
    bench.core.kill_actor(actor, no_restart=True, now=bench.now)
    assert m.KillActor("a-1") in bench.relink()
    bench.hub(dead("killed"))
    assert not [x for x in bench.relink() if isinstance(x, m.KillActor)]


def test_a_crash_on_demand_is_told_once() -> None:
    bench = Bench()
    actor = bench.actor()
    bench.alive()
    bench.core.kill_actor(actor, no_restart=False, now=bench.now)
    bench.pass_time(0.0)
    assert bench.told(m.KillActor) == [m.KillActor("a-1", no_restart=False)]
    assert not [x for x in bench.relink() if isinstance(x, m.KillActor)]


def test_an_actor_nobody_can_host_is_given_up() -> None:
    bench = Bench(patience=10.0)
    actor = bench.actor()
    id = bench.call(actor)
    bench.hub(m.DemandInfeasible("a-1", "too big"))
    bench.pass_time(11.0)
    assert isinstance(bench.failure(id), Unschedulable)
    assert bench.told(m.KillActor) == [m.KillActor("a-1")]


def test_one_that_is_dead_is_not_let_live_by_a_hub_that_was_not_there() -> None:
    bench = Bench()
    bench.actor()
    bench.alive()
    bench.hub(dead("group_removed"))
    bench.told(m.KillActor)
    bench.alive()
    assert bench.told(m.KillActor) == [m.KillActor("a-1")]


def test_one_that_a_hub_did_not_know_yet_is_let_live() -> None:
    bench = Bench()
    bench.actor()
    bench.hub(m.ActorUpdate("a-1", "dead", 0, death=m.DeathReport("released", m.UNKNOWN_HERE)))
    bench.alive()
    assert bench.told(m.KillActor) == []
