"""The life of a lease, from the demand to its end."""

from __future__ import annotations

import pytest

from guactors import messages as m
from tests.unit.hub.bench import Bench, death, endpoint


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.caller()
    made.provider(cpus=2.0)
    return made


def test_a_demand_becomes_a_lease(bench: Bench) -> None:
    bench.demand()
    order = bench.one("p-1", m.StartLease)
    assert (order.session, order.caller, order.namespace) == ("s-1", "c-1", "space")
    assert order.shape.resources == {"CPU": 1.0}
    bench.nothing_more()
    bench.say("p-1", m.LeaseStarted(order.lease, "w-1", [endpoint("w-1")]))
    assert bench.one("c-1", m.LeaseGranted) == m.LeaseGranted(
        "d-1", order.lease, "w-1", "p-1", [endpoint("w-1")]
    )
    bench.nothing_more()


def test_never_more_than_there_is_and_never_more_than_is_wanted(bench: Bench) -> None:
    bench.demand(count=5)
    assert len(bench.start_leases()) == 2
    bench.provider("p-2", cpus=8.0)
    assert len(bench.start_leases()) == 3
    assert len(bench.granted()) == 5
    bench.nothing_more()


def test_demand_is_absolute(bench: Bench) -> None:
    for count in (1, 1, 2):
        bench.demand(count=count)
    assert len(bench.start_leases()) == len(bench.granted()) == 2
    bench.demand(count=0)
    bench.nothing_more()


def test_a_grant_that_nobody_wants_any_more_is_stopped(bench: Bench) -> None:
    bench.demand(count=2)
    bench.demand(count=1)
    assert len(bench.start_leases()) == 2
    assert len(bench.granted()) == 1
    assert not bench.one("p-1", m.StopLease).kill
    assert bench.grid().leases == 1


@pytest.mark.parametrize("dead", [True, False])
def test_a_returned_lease_makes_room(bench: Bench, dead: bool) -> None:
    held = bench.leases(count=2)
    bench.demand(key="d-2")
    assert not bench.start_leases()
    bench.say("c-1", m.ReturnLease(held[0], dead))
    assert bench.one("p-1", m.StopLease) == m.StopLease(held[0], kill=dead)
    bench.start_leases()
    assert bench.one("c-1", m.LeaseGranted).key == "d-2" or dead


def test_only_its_caller_can_return_a_lease(bench: Bench) -> None:
    bench.caller("c-2", "s-2")
    (lease,) = bench.leases()
    bench.say("c-2", m.ReturnLease(lease), m.ReturnLease("l-unknown"))
    bench.nothing_more()


def test_the_death_of_a_worker_reaches_the_caller_in_full_and_once(bench: Bench) -> None:
    (lease,) = bench.leases()
    told = m.DeathReport("signal", "", None, 11, "last words", 12345, "w-1", "box1")
    bench.say("p-1", m.LeaseEnded(lease, told), m.LeaseEnded(lease, told))
    assert bench.one("c-1", m.LeaseLost) == m.LeaseLost(lease, told)
    # The demand stands until the caller says otherwise.
    assert bench.one("p-1", m.StartLease)


def test_a_lease_that_nobody_knows_is_stopped(bench: Bench) -> None:
    bench.say("p-1", m.LeaseStarted("l-unknown", "w-1", []))
    assert bench.one("p-1", m.StopLease) == m.StopLease("l-unknown", kill=True)


def test_a_provider_cannot_speak_for_another(bench: Bench) -> None:
    bench.provider("p-2", cpus=1.0)
    (lease,) = bench.leases()
    holder = next(iter(bench.core.scheduler.desk.leases)).slot.peer
    other = "p-2" if holder == "p-1" else "p-1"
    bench.say(other, m.LeaseEnded(lease, death()), m.WorkerBlocked(lease))
    bench.nothing_more()
    assert bench.grid().leases == 1


# --- starts that fail ---------------------------------------------------------------------------


def fail(bench: Bench, cause: str = "start_failed") -> None:
    order = bench.one("p-1", m.StartLease)
    bench.say("p-1", m.LeaseEnded(order.lease, death(cause, "no memory")))


def test_failed_starts_are_tried_again_with_growing_pauses_then_given_up(bench: Bench) -> None:
    bench.demand()
    for pause in (0.1, 0.2):
        fail(bench)
        bench.pass_time(pause * 0.9)
        assert not bench.trays["p-1"]
        bench.pass_time(pause * 0.2)
    fail(bench)
    reason = bench.one("c-1", m.DemandInfeasible).reason
    assert "3 workers in a row" in reason
    assert "no memory" in reason
    bench.pass_time(60.0)
    bench.nothing_more()
    bench.demand()
    assert bench.one("p-1", m.StartLease), "asked for again, it is tried again"


def test_one_good_start_clears_the_record(bench: Bench) -> None:
    bench.demand(count=1)
    for _ in range(2):
        fail(bench)
        bench.pass_time(1.0)
    bench.start_leases()
    (lease,) = bench.granted()
    bench.say("p-1", m.LeaseEnded(lease, death()))
    fail(bench)
    bench.pass_time(1.0)
    assert bench.one("p-1", m.StartLease)
    assert not bench.heard("c-1", m.DemandInfeasible)


def test_a_start_that_was_lost_on_its_way_is_no_failure(bench: Bench) -> None:
    bench.demand()
    for _ in range(5):
        fail(bench, "link_lost")
    assert bench.one("p-1", m.StartLease)


# --- what cannot be -----------------------------------------------------------------------------


def test_the_infeasible_is_told_once_and_still_served_later(bench: Bench) -> None:
    bench.demand(resources={"GPU": 1.0})
    bench.demand(resources={"GPU": 1.0}, count=2)
    refusal = bench.one("c-1", m.DemandInfeasible)
    assert refusal.key == "d-1"
    assert "asked 1 GPU" in refusal.reason
    bench.nothing_more()
    bench.provider("p-2", GPU=1.0)
    assert bench.one("p-2", m.StartLease)


def test_the_busy_is_not_infeasible(bench: Bench) -> None:
    bench.leases(count=2)
    bench.demand(key="d-2", resources={"CPU": 2.0})
    assert not bench.heard("c-1", m.DemandInfeasible)


def test_a_provider_between_hello_and_offer_may_still_be_the_one(bench: Bench) -> None:
    bench.hello(m.Hello("p-2", "provider", m.Versions("0", "3.11.7"), 1, "here", name="box2"))
    bench.demand(resources={"GPU": 1.0})
    bench.nothing_more()
    bench.say("p-2", m.Offer({"CPU": 1.0, "GPU": 1.0}, {}, [], [], m.MachineInfo()))
    assert bench.one("p-2", m.StartLease)
    bench.pass_time(2.0)
    assert not bench.heard("c-1", m.DemandInfeasible)


def test_other_python_versions_are_not_eligible_and_both_are_named(bench: Bench) -> None:
    bench.caller("c-2", "s-2", python="3.12.1")
    bench.demand("c-2")
    reason = bench.one("c-2", m.DemandInfeasible).reason
    assert "3.12" in reason
    assert "3.11" in reason
    bench.provider("p-2", python="3.12.4")
    assert bench.one("p-2", m.StartLease).caller == "c-2"


def test_labels_and_pins(bench: Bench) -> None:
    bench.provider("p-2", cpus=4.0, labels={"disk": "ssd"})
    bench.demand(key="a", labels={"disk": "ssd"})
    bench.demand(key="b", provider="box1")
    bench.demand(key="c", provider="p-2")
    assert len(bench.heard("p-1", m.StartLease)) == 1
    assert len(bench.heard("p-2", m.StartLease)) == 2


# --- resources ----------------------------------------------------------------------------------


def test_leases_are_spread_over_providers(bench: Bench) -> None:
    bench.provider("p-2", cpus=2.0)
    bench.demand(count=2)
    assert len(bench.heard("p-1", m.StartLease)) == 1
    assert len(bench.heard("p-2", m.StartLease)) == 1


def test_demands_for_nothing_are_spread_and_bounded(bench: Bench) -> None:
    bench.provider("p-2", cpus=2.0)
    bench.demand(count=100_000, resources={"CPU": 0.0})
    first, second = (len(bench.heard(peer, m.StartLease)) for peer in ("p-1", "p-2"))
    assert first == second == 96
    assert bench.grid().peers[1].free == {"CPU": 2.0}


def test_a_blocked_worker_gives_its_cpu_to_nested_tasks(bench: Bench) -> None:
    """Twenty tasks deep on two CPUs."""
    held = bench.leases(count=2)
    for depth in range(20):
        bench.say("p-1", *(m.WorkerBlocked(lease) for lease in held))
        bench.caller(f"c-in{depth}", root=False)
        held = bench.leases(f"c-in{depth}", count=2)
    assert bench.grid().leases == 42


def test_a_resumed_worker_counts_again_even_if_that_overbooks(bench: Bench) -> None:
    (first,) = bench.leases(resources={"CPU": 2.0})
    bench.say("p-1", m.WorkerBlocked(first))
    (second,) = bench.leases(key="d-2", resources={"CPU": 2.0})
    bench.say("p-1", m.WorkerResumed(first))
    bench.demand(key="d-3")
    assert not bench.heard("p-1", m.StartLease)
    bench.say("c-1", m.ReturnLease(second))
    assert not bench.heard("p-1", m.StartLease)
    bench.say("c-1", m.ReturnLease(first))
    assert bench.one("p-1", m.StartLease)


def test_a_lost_provider_s_leases_are_lost_and_what_had_not_started_goes_elsewhere(
    bench: Bench,
) -> None:
    held = bench.leases(count=1)
    bench.demand(count=2)
    bench.heard("p-1", m.StartLease)
    bench.say("p-1", m.Goodbye())
    lost = bench.one("c-1", m.LeaseLost)
    assert lost.lease == held[0]
    assert (lost.death.cause, lost.death.provider) == ("provider_lost", "box1")
    bench.provider("p-2")
    assert len(bench.heard("p-2", m.StartLease)) == 2


def test_a_demand_that_changes_its_shape_waits_anew(bench: Bench) -> None:
    bench.demand(resources={"CPU": 64.0})
    assert bench.heard("c-1", m.DemandInfeasible)
    bench.demand(resources={"CPU": 1.0})
    assert bench.start_leases()
