"""Who may be beside whom."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.scheduling.company import Company, in_the_way, reluctance, welcome
from guactors.scheduling.preemption import GAP
from tests.unit.hub.bench import Bench, death, spec
from tests.unit.hub.keyed_bench import APP, OTHER, PROVIDER, KeyedBench

DB, WEB = (("app", "db"),), (("app", "web"),)
REPLICA = m.Company({"app": "db"}, apart={"app": "db"})
BESIDE = m.Company({"app": "web"}, near={"app": "db"})


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    return bench


def places(bench: Bench) -> list[str]:
    """Where leases were started, in the order of the leases."""
    found = [
        (int(order.lease.partition("-")[2]), peer)
        for peer in sorted(bench.link_of)
        for order in bench.heard(peer, m.StartLease)
    ]
    return [peer for _, peer in sorted(found)]


# --- the judgement --------------------------------------------------------------------------------


def test_that_two_are_to_be_apart_need_only_be_said_by_one() -> None:
    alone, web = Company(apart=WEB), Company(WEB)
    assert in_the_way(alone, web) and in_the_way(web, alone)
    assert not in_the_way(alone, Company(DB)) and not in_the_way(web, web)
    assert not in_the_way(Company(apart=(("app", "!db"),)), Company())
    assert in_the_way(Company(apart=(("app", "!db"),)), web)


def test_only_ones_own_counts() -> None:
    replica = Company(DB, apart=DB)
    there = {("other", replica): 1}
    assert welcome("me", replica, there) and not welcome("other", replica, there)
    assert not welcome("me", Company(near=DB), there)
    assert welcome("other", Company(near=DB), there)


def test_the_more_there_are_the_rather_it_is_elsewhere() -> None:
    rather = Company(WEB, rather_near=DB, rather_apart=WEB)
    assert reluctance("", rather, {}) == 1
    assert reluctance("", rather, {("", Company(DB)): 2}) == 0
    assert reluctance("", rather, {("", Company(DB)): 1, ("", Company(WEB)): 3}) == 3


# --- apart ----------------------------------------------------------------------------------------


def test_replicas_are_on_different_machines_and_the_rest_wait(bench: Bench) -> None:
    bench.provider("p-1", 8.0)
    bench.provider("p-2", 8.0)
    bench.demand("c-1", "d-1", 3, company=REPLICA)
    assert sorted(places(bench)) == ["p-1", "p-2"]
    assert bench.core.scheduler.desk.demands.waiting() == 1
    bench.provider("p-3", 8.0)
    assert places(bench) == ["p-3"]


def test_when_one_has_gone_the_next_may_come(bench: Bench) -> None:
    bench.provider("p-1", 8.0)
    (first,) = bench.leases("c-1", 1, company=REPLICA)
    bench.demand("c-2", "d-9", 1, company=REPLICA)
    assert places(bench) == []
    bench.demand("c-1", "d-1", 0, company=REPLICA)
    bench.say("c-1", m.ReturnLease(first))
    assert places(bench) == ["p-1"]


def test_what_comes_later_keeps_away_from_who_wants_to_be_alone(bench: Bench) -> None:
    bench.provider("p-1", 8.0)
    bench.provider("p-2", 2.0)
    bench.leases("c-1", 1, company=m.Company(apart={"app": "web"}), provider="p-1")
    bench.demand("c-2", "d-9", 2, company=m.Company({"app": "web"}))
    assert places(bench) == ["p-2", "p-2"]
    bench.demand("c-2", "d-8", 1)
    assert places(bench) == ["p-1"], "what has no labels is nobody's concern"


def test_an_actor_and_a_task_keep_apart_and_a_suspended_one_counts(bench: Bench) -> None:
    bench.provider("p-1", 1.0)
    made = spec(shape=m.Shape({"CPU": 1.0}, company=REPLICA), placement={})
    bench.actor(made)
    bench.demand("c-2", "d-2", 1, priority=GAP)
    order = bench.one("p-1", m.StartLease)
    bench.say("p-1", m.Suspended(order.displaces[0].key, order.displaces[0].number))
    bench.provider("p-2", 1.0)
    bench.demand("c-2", "d-9", 2, resources={"CPU": 0.0}, company=REPLICA)
    assert places(bench) == ["p-2"]


def test_an_actor_that_restarts_keeps_away_as_well(bench: Bench) -> None:
    bench.provider("p-1", 4.0)
    bench.provider("p-2", 4.0)
    for name in ("a-1", "a-2"):
        shape = m.Shape({"CPU": 1.0}, company=REPLICA)
        bench.create(spec(name, shape=shape, placement={}, max_restarts=1))
    bench.start_actors()
    desk = bench.core.scheduler.desk
    assert {x.slot.peer for x in desk.actors if x.slot} == {"p-1", "p-2"}
    bench.say("p-1", m.ActorEnded("a-1", 0, death()))
    assert bench.one("p-1", m.StartActor).spec.actor == "a-1"


def test_nobody_is_pushed_aside_for_the_sake_of_distance(bench: Bench) -> None:
    bench.provider("p-1", 2.0)
    bench.leases("c-1", 2, company=m.Company({"app": "db"}), preemption=["requeue"])
    bench.demand("c-2", "d-9", 1, priority=GAP, company=REPLICA)
    assert places(bench) == []
    bench.demand("c-2", "d-9", 0, priority=GAP, company=REPLICA)
    bench.provider("p-2", 1.0)
    bench.leases("c-1", 1, key="d-3", provider="p-2")
    bench.demand("c-2", "d-9", 1, priority=GAP, company=REPLICA)
    order = bench.one("p-2", m.StartLease)
    assert len(order.displaces) == 1, "where room is all that is missing somebody is"


def test_the_room_of_a_provider_where_it_may_not_be_is_kept_for_nobody(bench: Bench) -> None:
    bench.provider("p-1", 2.0)
    bench.leases("c-1", 1, company=REPLICA)
    bench.demand("c-2", "d-9", 1, priority=5, resources={"CPU": 2.0}, company=REPLICA)
    bench.demand("c-1", "d-8", 1)
    assert places(bench) == ["p-1"]


# --- near -----------------------------------------------------------------------------------------


def test_what_is_to_be_near_waits_for_it_and_goes_there(bench: Bench) -> None:
    bench.provider("p-1", 8.0)
    bench.provider("p-2", 8.0)
    bench.demand("c-1", "d-1", 2, company=BESIDE)
    assert places(bench) == [] and not bench.heard("c-1", m.DemandInfeasible)
    bench.demand("c-2", "d-2", 1, provider="p-2", company=m.Company({"app": "db"}))
    assert places(bench) == ["p-2", "p-2", "p-2"]


def test_what_it_is_to_be_near_does_not_give_way_for_it(bench: Bench) -> None:
    bench.provider("p-1", 2.0)
    sought = bench.leases("c-2", 1, company=m.Company({"app": "db"}), preemption=["requeue"])
    other = bench.leases("c-2", 1, key="d-3", preemption=["requeue"])
    bench.demand("c-1", "d-1", 1, priority=GAP, company=BESIDE)
    order = bench.one("p-1", m.StartLease)
    assert [word.key for word in order.displaces] == other != sought


# --- rather ---------------------------------------------------------------------------------------


def test_rather_apart_is_as_even_as_can_be(bench: Bench) -> None:
    bench.provider("p-1", 8.0)
    bench.provider("p-2", 8.0)
    bench.demand("c-1", "d-1", 4, company=m.Company({"app": "a"}, rather_apart={"app": "a"}))
    assert places(bench) == ["p-1", "p-2", "p-1", "p-2"]


def test_rather_near_goes_there_while_there_is_room(bench: Bench) -> None:
    bench.provider("p-1", 8.0)
    bench.provider("p-2", 2.0)
    bench.leases("c-2", 1, provider="p-2", company=m.Company({"app": "db"}))
    bench.demand("c-1", "d-1", 3, company=m.Company(rather_near={"app": "db"}))
    assert places(bench) == ["p-2", "p-1", "p-1"]


# --- everywhere else ------------------------------------------------------------------------------


def test_inside_a_placement_group_too(bench: Bench) -> None:
    bench.provider("p-1", 4.0)
    bench.provider("p-2", 4.0)
    group = m.GroupSpec("g-1", "s-1", "c-1", [{"CPU": 3.0}, {"CPU": 3.0}], "STRICT_SPREAD")
    bench.say("c-1", m.CreateGroups([group]))
    inside = m.Placing(group="g-1")
    bench.demand("c-1", "d-1", 3, company=REPLICA, place=inside)
    assert sorted(places(bench)) == ["p-1", "p-2"]
    bench.demand("c-1", "d-2", 1, company=BESIDE, place=inside)
    assert len(places(bench)) == 1


def test_work_of_others_neither_helps_nor_hinders() -> None:
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, OTHER, PROVIDER)
    bench.keyed_provider(cpus=4.0)
    for app, peer, session in ((APP, "c-1", "s-1"), (OTHER, "c-2", "s-2")):
        bench.grant(app)
        bench.come(app, peer, session)
    bench.leases("c-1", 1, company=REPLICA)
    bench.demand("c-2", "d-1", 1, company=BESIDE)
    bench.demand("c-2", "d-2", 1, company=REPLICA)
    assert len(places(bench)) == 2, "its own replica, and what is to be near that"


def test_explain_names_what_is_in_the_way(bench: Bench) -> None:
    def rows() -> list[Any]:
        bench.say("c-1", m.Inquire(5, "", m.Query("explanations")))
        page = bench.one("c-1", m.Page).page
        return [dict(zip(page.columns, row, strict=True)) for row in page.rows]

    bench.provider("p-1", 4.0)
    bench.demand("c-1", "d-1", 1, company=BESIDE)
    (row,) = rows()
    assert row["reason"] == "apart" and "app=db is there to be near to" in row["detail"]
    bench.demand("c-1", "d-1", 0, company=BESIDE)
    (first,) = bench.leases("c-1", 1, key="d-2", company=REPLICA)
    bench.demand("c-2", "d-9", 1, company=REPLICA)
    (row,) = rows()
    assert row["reason"] == "apart" and f"{first} is there" in row["detail"]


def test_a_plan_keeps_apart_what_it_plans(bench: Bench) -> None:
    bench.provider("p-1", 8.0)
    bench.provider("p-2", 8.0)
    bench.say("c-1", m.AskPlan(7, m.Shape({"CPU": 1.0}, company=REPLICA), 3))
    answer = bench.one("c-1", m.PlanIs)
    assert sorted(place.provider for place in answer.places) == ["p-1", "p-2"]
    assert answer.missing == 1 and {miss.reason for miss in answer.misses} == {"apart"}
