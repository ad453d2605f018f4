"""Alternatives: several amounts, of which one is enough."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.alternatives import is_taking, taking, variants
from guactors.ids import demand_id
from guactors.scheduling.preemption import GAP
from guactors.security.grants import Quotas
from tests.unit.hub.bench import SETTLED, Bench, death, endpoint, spec
from tests.unit.hub.keyed_bench import APP, PROVIDER, KeyedBench

GPU = {"CPU": 1.0, "GPU": 1.0}
CPUS = {"CPU": 4.0}


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    return bench


def want(bench: Any, count: int = 1, peer: str = "c-1", **more: Any) -> None:
    bench.demand(peer, "d-9", count, resources=GPU, alternatives=[CPUS], **more)


def took(bench: Bench) -> list[dict[str, float]]:
    return [order.shape.resources for order in bench.start_leases()]


def test_a_shape_keeps_the_order_whichever_is_taken() -> None:
    shape = m.Shape(GPU, 3, alternatives=[CPUS, {"CPU": 8.0}])
    for number in range(3):
        one = taking(shape, number)
        assert variants(one) == variants(shape) == [GPU, CPUS, {"CPU": 8.0}]
        assert (one.resources, is_taking(one)) == (variants(shape)[number], number)
        assert taking(one, 0) == shape
    assert is_taking(m.Shape(GPU, taken=5)) == 0


def test_sixteen_cpus_and_four_gpus_run_four_of_the_first_and_three_of_the_second(
    bench: Bench,
) -> None:
    bench.provider("p-1", 16.0, GPU=4.0)
    want(bench, 20)
    assert took(bench) == [GPU] * 4 + [CPUS] * 3
    pool = bench.core.scheduler.desk.slots["p-1"].pool
    assert pool.free() == {"CPU": 0.0, "GPU": 0.0}
    assert bench.core.scheduler.desk.demands.waiting() == 13


def test_the_first_is_taken_wherever_it_is_before_the_second(bench: Bench) -> None:
    bench.provider("p-1", 16.0)
    bench.provider("p-2", 1.0, GPU=1.0)
    want(bench, 2)
    orders = {peer: bench.heard(peer, m.StartLease) for peer in ("p-1", "p-2")}
    assert [x.shape.resources for x in orders["p-2"]] == [GPU]
    assert [x.shape.resources for x in orders["p-1"]] == [CPUS]


def test_its_caller_is_told_which(bench: Bench) -> None:
    bench.provider("p-1", 5.0, GPU=1.0)
    want(bench, 2)
    orders = bench.start_leases()
    assert [grant.taken for grant in bench.heard("c-1", m.LeaseGranted)] == [0, 1]
    assert [(x.shape.taken, x.shape.alternatives) for x in orders] == [(0, [CPUS]), (1, [GPU])]


def test_room_that_comes_later_goes_to_the_best_that_it_is_enough_for(bench: Bench) -> None:
    bench.provider("p-1", 4.0, GPU=1.0)
    other = bench.leases("c-2", 4)
    want(bench)
    bench.say("c-2", m.ReturnLease(other[0]))
    assert took(bench) == [GPU]


def test_none_is_infeasible_as_long_as_another_can_be(bench: Bench) -> None:
    bench.provider("p-1", 4.0)
    want(bench)
    assert took(bench) == [CPUS]
    assert not bench.heard("c-1", m.DemandInfeasible)


def test_all_infeasible_is_told_once_with_each_reason(bench: Bench) -> None:
    bench.provider("p-1", 2.0)
    want(bench)
    told = bench.one("c-1", m.DemandInfeasible)
    assert "asked 1 GPU" in told.reason and "asked 4 CPU" in told.reason
    bench.provider("p-2", 4.0)
    assert took(bench) == [CPUS]


def keyed(**quotas: Any) -> KeyedBench:
    """An app with these quotas, and a provider with 16 processors and 4 GPUs."""
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, PROVIDER)
    bench.come(PROVIDER, "p-1")
    bench.say("p-1", m.Offer({"CPU": 16.0, "GPU": 4.0}, {}, [], [], m.MachineInfo()))
    bench.grant(APP, quotas=Quotas(**{"cpu": "*", "memory": "*", "instances": "*", **quotas}))
    bench.come(APP, "c-1", "s-1")
    return bench


def test_the_quota_is_of_the_one_taken() -> None:
    bench = keyed(cpu=9000, gpu=2000)
    want(bench, 20)
    assert took(bench) == [GPU, GPU, CPUS]


def test_where_the_first_is_beyond_the_rights_the_second_is_taken() -> None:
    bench = keyed(gpu=0)
    want(bench)
    assert took(bench) == [CPUS]
    assert not bench.heard("c-1", m.DemandInfeasible)


def test_where_all_are_beyond_the_rights_that_is_said() -> None:
    bench = keyed(gpu=0, cpu=3000)
    want(bench)
    assert bench.one("c-1", m.DemandInfeasible).kind == "PermissionDenied"


def test_only_what_is_held_gives_way_and_comes_back(bench: Bench) -> None:
    bench.provider("p-1", 4.0)
    want(bench)
    bench.start_leases()
    bench.demand("c-2", "d-2", 1, priority=GAP, resources={"CPU": 3.0})
    order = bench.one("p-1", m.StartLease)
    (victim,) = order.displaces
    pool = bench.core.scheduler.desk.slots["p-1"].pool
    assert pool.free() == {"CPU": 1.0}
    bench.say("p-1", m.Suspended(victim.key, victim.number))
    bench.say("p-1", m.LeaseStarted(order.lease, "w-9", [endpoint("w-9")]))
    bench.demand("c-2", "d-2", 0)
    bench.say("c-2", m.ReturnLease(order.lease))
    assert bench.one("p-1", m.Resume).key == victim.key
    assert pool.free() == {"CPU": 0.0}


def test_who_asks_for_room_takes_the_one_for_which_somebody_can_give_way(bench: Bench) -> None:
    bench.provider("p-1", 4.0, GPU=1.0)
    bench.leases("c-2", 1, resources={"CPU": 4.0, "GPU": 1.0})
    want(bench, priority=GAP)
    order = bench.one("p-1", m.StartLease)
    # Suspended work keeps its GPU, and gives its processors.
    assert order.shape.resources == CPUS and len(order.displaces) == 1


def test_an_actor_takes_one_and_may_take_another_after_a_restart(bench: Bench) -> None:
    bench.provider("p-1", 1.0, GPU=1.0)
    made = spec(shape=m.Shape(GPU, alternatives=[CPUS]), placement={}, max_restarts=1)
    bench.create(made)
    (order,) = bench.start_actors()
    assert order.spec.shape.resources == GPU
    bench.provider("p-2", 4.0)
    bench.break_link("p-1")
    bench.pass_time(30.0)
    (order,) = bench.start_actors()
    assert (order.spec.shape.resources, order.spec.shape.alternatives) == (CPUS, [GPU])
    assert bench.core.scheduler.desk.slots["p-2"].pool.free() == {"CPU": 0.0}


def test_an_actor_that_a_provider_refuses_goes_where_another_will_do(bench: Bench) -> None:
    bench.provider("p-1", 1.0, GPU=1.0)
    bench.provider("p-2", 4.0)
    bench.create(spec(shape=m.Shape(GPU, alternatives=[CPUS]), placement={}))
    bench.one("p-1", m.StartActor)
    bench.say("p-1", m.ActorEnded("a-1", 0, death("refused", "no GPUs for you")))
    assert bench.one("p-2", m.StartActor).spec.shape.resources == CPUS


def test_a_new_hub_hears_which_was_taken() -> None:
    bench = Bench(young=True)
    shape = taking(m.Shape(GPU, alternatives=[CPUS]), 1)
    lease = m.LeaseReport("l-1", "s-1", "c-1", shape, "w-1", [endpoint("w-1")])
    actor = m.ActorReport(spec(shape=shape, placement={}), 0, "w-2", [endpoint("w-2")], b"class")
    bench.provider("p-1", 8.0, GPU=1.0, leases=[lease], actors=[actor])
    desk = bench.core.scheduler.desk
    assert desk.slots["p-1"].pool.free() == {"CPU": 0.0, "GPU": 1.0}
    bench.caller("c-1", "s-1")
    bench.say("c-1", m.HeldLeases(["l-1"]))
    want(bench)
    bench.pass_time(SETTLED)
    assert desk.demands.find("c-1", "d-9").held == {"l-1"}  # type: ignore[union-attr]
    assert desk.demands.waiting() == 0


def test_inside_a_placement_group_the_best_that_a_bundle_has_room_for(bench: Bench) -> None:
    bench.provider("p-1", 8.0, GPU=1.0)
    group = m.GroupSpec("g-1", "s-1", "c-1", [{"CPU": 5.0, "GPU": 1.0}], "PACK")
    bench.say("c-1", m.CreateGroups([group]))
    want(bench, 3, place=m.Placing(group="g-1"))
    assert took(bench) == [GPU, CPUS]


def test_explain_has_a_row_for_each_provider_and_alternative(bench: Bench) -> None:
    bench.provider("p-1", 4.0)
    bench.provider("p-2", 4.0, GPU=1.0)
    bench.leases("c-2", 8)
    want(bench)
    bench.say("c-1", m.Inquire(5, "", m.Query("explanations", subject=demand_id("c-1", "d-9"))))
    page = bench.one("c-1", m.Page).page
    rows = [dict(zip(page.columns, row, strict=True)) for row in page.rows]
    found = [(x["node_id"], x["reason"], str(x["detail"]).split(":")[0]) for x in rows]
    assert found == [
        ("p-1", "too_small", "with 1 CPU, 1 GPU"),
        ("p-1", "short", "with 4 CPU"),
        ("p-2", "short", "with 1 CPU, 1 GPU"),
        ("p-2", "short", "with 4 CPU"),
    ]


def test_a_plan_says_which(bench: Bench) -> None:
    bench.provider("p-1", 5.0, GPU=1.0)
    bench.say("c-1", m.AskPlan(7, m.Shape(GPU, alternatives=[CPUS]), 3))
    answer = bench.one("c-1", m.PlanIs)
    assert [place.takes for place in answer.places] == [GPU, CPUS]
    assert answer.missing == 1 and len(answer.misses) == 2
