"""Deadlines at the hub: the order among the demands of one caller, and who gives way."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.scheduling.preemption import DUE_SOON, GAP, due, spared
from tests.unit.hub.bench import Bench

CPU = {"CPU": 1.0}


def ask(bench: Bench, caller: str, key: str, due: float = 0.0, **shape: object) -> None:
    shape.setdefault("resources", CPU)
    bench.say(caller, m.SetDemand(key, m.Shape(**shape), 1, [], due))  # type: ignore[arg-type]


def victim(bench: Bench) -> list[str]:
    """Who gave way for what c-2 asks for now."""
    bench.demand("c-2", "d-9", 1, priority=GAP)
    orders = bench.heard("p-1", m.StartLease)
    return [word.key for order in orders for word in order.displaces]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.caller("c-1", "s-1")
    made.caller("c-2", "s-2")
    made.provider("p-1", 2.0)
    return made


def test_the_earliest_deadline_of_a_caller_goes_first(bench: Bench) -> None:
    held = bench.leases("c-1", 2)
    ask(bench, "c-1", "none", resources={"CPU": 0.5})
    ask(bench, "c-1", "late", 20.0, resources={"CPU": 0.75})
    ask(bench, "c-1", "early", 10.0, resources={"CPU": 1.0})
    bench.say("c-1", m.SetDemand("d-1", m.Shape(CPU), 0))
    order = []
    for lease in held:
        bench.say("c-1", m.ReturnLease(lease))
        order += [x.shape.resources["CPU"] for x in bench.heard("p-1", m.StartLease)]
    assert order == [1.0, 0.75]


def test_a_deadline_is_no_way_to_get_ahead_of_others(bench: Bench) -> None:
    """c-1 holds all; c-2, which holds nothing, has its turn first all the same."""
    held = bench.leases("c-1", 2)
    ask(bench, "c-1", "hurry", 0.5)
    ask(bench, "c-2", "patient")
    bench.say("c-1", m.SetDemand("d-1", m.Shape(CPU), 0), m.ReturnLease(held[0]))
    (order,) = bench.heard("p-1", m.StartLease)
    assert order.caller == "c-2"


def busy(bench: Bench, *dues: float) -> list[str]:
    """A lease of c-1 for each of these, in this order, with a call that is due then."""
    found: list[str] = []
    for seconds in dues:
        bench.demand("c-1", "d-1", len(found) + 1)
        bench.start_leases()
        found += bench.granted("c-1")
        bench.say("c-1", m.LeaseDue(found[-1], seconds))
        bench.pass_time(0.1)
    return found


@pytest.mark.parametrize("dues", [(0.0, 60.0), (90.0, 60.0)])
def test_a_victim_that_has_a_deadline_goes_last_among_equals(
    bench: Bench, dues: tuple[float, ...]
) -> None:
    """The second is younger, and would go first without it."""
    leases = busy(bench, *dues)
    assert victim(bench) == [leases[0]]


def test_without_deadlines_the_youngest_goes(bench: Bench) -> None:
    leases = busy(bench, 0.0, 0.0)
    assert victim(bench) == [leases[1]]


def test_a_victim_whose_deadline_is_near_is_spared_and_explained(bench: Bench) -> None:
    leases = busy(bench, DUE_SOON, DUE_SOON)
    assert victim(bench) == []
    desk = bench.core.scheduler.desk
    demand = desk.demands.find("c-2", "d-9")
    assert demand is not None
    for lease in leases:
        tenant = desk.leases.by_id[lease]
        assert spared(desk, tenant, demand.need, "c-2", bench.now) == "deadline"
    bench.say("c-2", m.Inquire(5, "", m.Query("explanations")))
    page = bench.one("c-2", m.Page).page
    (row,) = [dict(zip(page.columns, row, strict=True)) for row in page.rows]
    assert row["preemption"] == "deadline" and "to have ended within 1 s" in row["detail"]


def test_a_deadline_that_has_passed_protects_no_more(bench: Bench) -> None:
    """Its caller ends the calls themselves; the lease that is left is as any other."""
    leases = busy(bench, 0.3, 0.3)
    bench.pass_time(0.5)
    assert victim(bench) == [leases[1]]


def test_a_lease_is_protected_for_what_it_runs_now(bench: Bench) -> None:
    leases = busy(bench, 0.0, 60.0)
    bench.say("c-1", m.LeaseDue(leases[1]))
    assert victim(bench) == [leases[1]]


def test_nobody_speaks_for_the_lease_of_another(bench: Bench) -> None:
    leases = busy(bench, 0.0, 0.0)
    bench.say("c-2", m.LeaseDue(leases[1], 60.0))
    assert victim(bench) == [leases[1]]


def test_a_hub_that_is_new_hears_of_it_before_it_knows_the_lease() -> None:
    bench = Bench(young=True)
    bench.caller("c-1", "s-1")
    bench.say("c-1", m.HeldLeases(["l-7"]), m.LeaseDue("l-7", 60.0))
    report = m.LeaseReport("l-7", "s-1", "c-1", m.Shape(CPU), "w-7", [])
    bench.provider("p-1", 1.0, leases=[report])
    desk = bench.core.scheduler.desk
    assert due(desk, desk.leases.by_id["l-7"]) == pytest.approx(bench.now + 60.0, abs=0.1)


def test_a_suspended_one_whose_deadline_is_next_comes_back_first(bench: Bench) -> None:
    first, second = busy(bench, 90.0, 60.0)
    bench.demand("c-2", "d-9", 2, priority=GAP)
    orders = bench.heard("p-1", m.StartLease)
    displaced = [word.key for order in orders for word in order.displaces]
    assert displaced == [first, second]
    grants = []
    for order in orders:
        for word in order.displaces:
            bench.say("p-1", m.Suspended(word.key, word.number))
        bench.say("p-1", m.LeaseStarted(order.lease, f"w-{order.lease}", []))
        grants += bench.granted("c-2")
    bench.demand("c-2", "d-9", 0)
    bench.say("c-2", m.ReturnLease(grants[0]))
    assert bench.one("p-1", m.Resume).key == second
