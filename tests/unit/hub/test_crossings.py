"""Words that cross on their way, or come too late: found by the simulation, kept here by name."""

from __future__ import annotations

import pytest

from guactors import messages as m
from tests.unit.hub.bench import ONE, TIMING, Bench, death, endpoint, spec


def lease_report(lease: str) -> m.LeaseReport:
    return m.LeaseReport(lease, "s-1", "c-1", ONE, "w-1", [endpoint("w-1")])


def actor_report(**more: object) -> m.ActorReport:
    return m.ActorReport(spec(**more), 0, "w-1", [endpoint("w-1")], b"class")  # type: ignore[arg-type]


def test_who_waits_for_the_only_fit_provider_is_told_when_it_is_lost() -> None:
    bench = Bench()
    bench.caller()
    bench.provider("p-1", 1.0)
    bench.provider("p-2", 4.0)
    bench.demand(count=2, resources={"CPU": 4.0})
    assert not bench.heard("c-1", m.DemandInfeasible)
    bench.break_link("p-2")
    bench.pass_time(1.0)
    assert bench.one("c-1", m.DemandInfeasible).key == "d-1"


def test_what_was_hopeless_and_then_served_is_told_again_when_it_is_hopeless_again() -> None:
    bench = Bench()
    bench.caller()
    bench.demand()
    bench.one("c-1", m.DemandInfeasible)
    bench.provider()
    bench.start_leases()
    bench.granted()
    bench.demand(count=3)
    bench.break_link("p-1")
    bench.pass_time(1.0)
    bench.one("c-1", m.DemandInfeasible)


def test_bad_news_about_an_actor_follows_each_answer_about_it() -> None:
    """Its owner takes every update for a reason to hope."""
    bench = Bench()
    bench.caller()
    bench.create(spec())
    bench.one("c-1", m.DemandInfeasible)
    bench.trays["c-1"].clear()
    bench.say("c-1", m.WatchActor("a-1"))
    assert [type(x) for x in bench.trays["c-1"]] == [m.ActorUpdate, m.DemandInfeasible]


def test_the_owner_of_a_hopeless_actor_hears_that_it_has_a_place() -> None:
    bench = Bench()
    bench.caller()
    bench.create(spec())
    bench.one("c-1", m.DemandInfeasible)
    bench.trays["c-1"].clear()
    bench.provider()
    assert bench.one("p-1", m.StartActor).spec.actor == "a-1"
    assert bench.one("c-1", m.ActorUpdate).state == "pending"


def test_a_good_start_ends_the_verdict_of_the_bad_ones() -> None:
    """The grant makes its caller hope again; the hub must not have given up behind its back."""
    bench = Bench()
    bench.caller()
    bench.provider(cpus=8.0)
    bench.demand(count=4)
    first, *others = bench.heard("p-1", m.StartLease)
    for order in others:
        bench.say("p-1", m.LeaseEnded(order.lease, death("start_failed")))
    bench.one("c-1", m.DemandInfeasible)
    bench.say("p-1", m.LeaseStarted(first.lease, "w-1", [endpoint("w-1")]))
    assert bench.granted() == [first.lease]
    bench.pass_time(1.0)
    assert len(bench.heard("p-1", m.StartLease)) == 3


@pytest.mark.parametrize(
    "second", [m.KillActor("a-1", no_restart=False), m.KillActor("a-1", released=True)]
)
def test_the_hardest_of_the_kills_that_overtook_a_creation_counts(second: m.KillActor) -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.say("c-1", m.KillActor("a-1"), second)
    bench.create(spec())
    update = bench.heard("c-1", m.ActorUpdate)[-1]
    assert update.state == "dead"
    assert update.death is not None
    assert update.death.cause == "killed"


def test_a_crash_that_overtook_the_creation_is_void() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.say("c-1", m.KillActor("a-1", no_restart=False))
    bench.actor()


def test_a_kill_waits_for_the_provider_that_runs_the_actor() -> None:
    """After a restart of the hub its caller may be back first."""
    bench = Bench(young=True)
    bench.caller()
    bench.say("c-1", m.KillActor("a-1"))
    bench.pass_time(TIMING.rejoin_grace - 1.0)
    bench.provider(actors=[actor_report()])
    assert bench.one("p-1", m.StopActor) == m.StopActor("a-1", "killed", incarnation=0)


@pytest.mark.parametrize("detached", [False, True])
def test_an_actor_that_was_declared_dead_is_not_brought_back(detached: bool) -> None:
    bench = Bench(young=True)
    bench.caller()
    bench.say("c-1", m.WatchActor("a-1"))
    bench.pass_time(TIMING.rejoin_grace + 0.1)
    assert bench.one("c-1", m.ActorUpdate).state == "dead"
    more = {"detached": True, "name": "known"} if detached else {}
    bench.provider(actors=[actor_report(**more)])
    stopped = bench.heard("p-1", m.StopActor)
    assert stopped == ([] if detached else [m.StopActor("a-1", "killed")])


def test_a_lease_that_neither_side_has_is_forgotten() -> None:
    bench = Bench(young=True)
    bench.provider(leases=[lease_report("l-old")])
    bench.break_link("p-1")
    bench.provider()
    assert not len(bench.core.scheduler.desk.leases)
