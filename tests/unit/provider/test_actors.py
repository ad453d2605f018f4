"""Actors: from StartActor to ActorEnded, and messages that overtake each other."""

from __future__ import annotations

from guactors.errors import Death
from guactors.messages import (
    ActorEnded,
    ActorLoaded,
    ActorStarted,
    Bind,
    EndSession,
    Goodbye,
    Leave,
    LoadActor,
    StopActor,
    StopLease,
)
from tests.unit.provider.bench import Bench, endpoint, start_actor


def test_an_actor_is_told_of_when_its_constructor_has_returned() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.actor()
    assert bench.told(worker, Bind) == [Bind("s-1", "space")]
    order = start_actor()
    assert bench.told(worker, LoadActor) == [LoadActor(order.spec, 1, b"class")]
    assert bench.said(ActorStarted) == []
    bench.alive(worker)
    assert bench.said(ActorStarted) == [ActorStarted("a-1", 1, worker, [endpoint(worker)])]


def test_an_actor_never_gets_a_worker_that_ran_tasks() -> None:
    bench = Bench(warm=0)
    bench.lease()
    (used,) = bench.all_up()
    bench.hub(StopLease("l-1"))
    bench.actor()
    (fresh,) = bench.all_up()
    assert bench.told(used, LoadActor) == []
    assert len(bench.told(fresh, LoadActor)) == 1


def test_a_constructor_error_is_told_at_once_and_once() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.actor()
    bench.says(worker, ActorLoaded("a-1", b"pickled"))
    (ended,) = bench.said(ActorEnded)
    assert (ended.death.cause, ended.error) == ("creation_failed", b"pickled")
    assert bench.told(worker, Leave) == [Leave()]
    bench.pass_time(2.0)
    assert worker in bench.killed
    bench.ends(worker)
    assert bench.said(ActorEnded) == []


def test_a_graceful_stop_leaves_thirty_seconds() -> None:
    bench = Bench(warm=0)
    bench.actor()
    (worker,) = bench.all_up()
    bench.alive(worker)
    bench.hub(StopActor("a-1", "released", graceful=True))
    assert bench.told(worker, Leave) == [Leave(graceful=True)]
    bench.pass_time(29.0)
    assert bench.killed == {}
    bench.pass_time(1.5)
    assert bench.killed == {worker: "released"}
    bench.ends(worker)
    (ended,) = bench.said(ActorEnded)
    assert ended.death.cause == "released"


def test_a_kill_overtakes_a_graceful_stop_but_keeps_its_cause() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.actor()
    bench.hub(StopActor("a-1", "released", graceful=True))
    bench.hub(StopActor("a-1", "killed"))
    bench.hub(StopActor("a-1", "killed"))
    assert list(bench.killed) == [worker]
    bench.ends(worker)
    assert [one.death.cause for one in bench.said(ActorEnded)] == ["released"]


def test_a_crash_is_told_with_the_incarnation() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.actor(incarnation=4)
    bench.alive(worker)
    bench.ends(worker, Death("signal", signal=6))
    (ended,) = bench.said(ActorEnded)
    assert (ended.incarnation, ended.death.cause, ended.death.signal) == (4, "signal", 6)


def test_an_actor_that_leaves_by_its_own_will_is_released() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.actor()
    bench.alive(worker)
    bench.says(worker, Goodbye("released"))
    bench.ends(worker, Death("exited", exit_code=0))
    assert [one.death.cause for one in bench.said(ActorEnded)] == ["released"]


def test_an_actor_stopped_while_it_waits_for_a_worker() -> None:
    bench = Bench(warm=0)
    bench.actor()
    bench.hub(StopActor("a-1", "killed"))
    assert [one.death.cause for one in bench.said(ActorEnded)] == ["killed"]
    (worker,) = bench.all_up()
    assert bench.told(worker, LoadActor) == []


def test_a_stop_overtakes_the_start_of_the_next_incarnation() -> None:
    bench = Bench(warm=0)
    bench.actor()
    (worker,) = bench.all_up()
    bench.alive(worker)
    bench.ends(worker, Death("signal", signal=11))
    bench.said(ActorEnded)
    bench.hub(StopActor("a-1", "killed", incarnation=2))
    bench.actor(incarnation=2)
    assert bench.all_up() == []
    (ended,) = bench.said(ActorEnded)
    assert (ended.incarnation, ended.death.cause) == (2, "killed")


def test_a_stop_that_overtakes_the_start_holds() -> None:
    bench = Bench()
    bench.all_up()
    bench.hub(StopActor("a-1", "killed"))
    bench.actor()
    (ended,) = bench.said(ActorEnded)
    assert (ended.actor, ended.incarnation, ended.death.cause) == ("a-1", 1, "killed")
    assert bench.core.counts()["actors"] == 0


def test_a_stop_that_crosses_the_actors_death_does_not_hold_against_its_restart() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.actor()
    bench.ends(worker, Death("signal", signal=11))
    bench.hub(StopActor("a-1", "killed"))
    bench.actor(incarnation=2)
    bench.all_up()
    assert len(bench.said(ActorEnded)) == 1
    assert bench.core.counts()["actors"] == 1


def test_a_stop_is_not_held_for_ever() -> None:
    bench = Bench()
    bench.all_up()
    bench.hub(StopActor("a-1", "killed"))
    bench.pass_time(6.0)
    bench.actor()
    assert bench.said(ActorEnded) == []


def test_the_end_of_a_session_that_overtakes_its_actors_holds_but_not_for_detached_ones() -> None:
    bench = Bench()
    bench.all_up()
    bench.hub(EndSession("s-1"))
    bench.actor("a-1")
    bench.actor("a-2", detached=True)
    assert [(one.actor, one.death.cause) for one in bench.said(ActorEnded)] == [
        ("a-1", "session_ended")
    ]
    assert bench.core.counts()["actors"] == 1


def test_the_end_of_a_session_spares_detached_actors_also_those_that_wait() -> None:
    bench = Bench(warm=0)
    bench.actor("a-kept", detached=True)
    bench.actor("a-1")
    kept, other = bench.all_up()
    bench.actor("a-waits", detached=True)
    bench.hub(EndSession("s-1"))
    assert bench.killed == {other: "session_ended"}
    bench.all_up()
    assert bench.core.counts() == {"workers": 3, "leases": 0, "actors": 3, "waiting": 0}
    assert kept not in bench.killed


def test_the_same_actor_asked_for_again_is_told_again_once_alive() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.actor()
    bench.actor()
    assert bench.said(ActorStarted) == []
    bench.alive(worker)
    bench.actor()
    assert len(bench.said(ActorStarted)) == 2
    assert bench.core.counts()["actors"] == 1


def test_a_newer_incarnation_replaces_the_older_and_both_ends_are_told_apart() -> None:
    bench = Bench()
    (old,) = bench.all_up()
    bench.actor(incarnation=1)
    bench.alive(old)
    bench.actor(incarnation=2)
    assert list(bench.killed) == [old]
    (new, *_) = bench.all_up()
    bench.alive(new)
    bench.ends(old)
    assert [(one.incarnation, one.death.cause) for one in bench.said(ActorEnded)] == [(1, "killed")]
    assert [one.incarnation for one in bench.said(ActorStarted)] == [1, 2]
    bench.hub(StopActor("a-1", "killed"))
    assert new in bench.killed


def test_an_older_incarnation_is_ignored() -> None:
    bench = Bench(warm=0)
    bench.actor(incarnation=2)
    bench.actor(incarnation=1)
    (worker,) = bench.all_up()
    assert [one.incarnation for one in bench.told(worker, LoadActor)] == [2]


def test_an_unknown_cause_from_the_hub_becomes_the_detail() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.actor()
    bench.hub(StopActor("a-1", "bored"))
    bench.ends(worker)
    (ended,) = bench.said(ActorEnded)
    assert (ended.death.cause, ended.death.detail) == ("killed", "bored")
