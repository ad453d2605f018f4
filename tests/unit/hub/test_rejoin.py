"""After a broken link or a new hub: what both sides tell again, merged."""

from __future__ import annotations

import pytest

from guactors import messages as m
from tests.unit.hub.bench import ONE, TIMING, Bench, death, endpoint, spec


def report(lease: str, caller: str = "c-1", worker: str = "w-1") -> m.LeaseReport:
    return m.LeaseReport(lease, "s-1", caller, ONE, worker, [endpoint(worker)])


def actor_report(incarnation: int = 0, *, loading: bool = False, **more: object) -> m.ActorReport:
    ends = [] if loading else [endpoint("w-1")]
    return m.ActorReport(spec(**more), incarnation, "w-1", ends, b"class")  # type: ignore[arg-type]


def known(bench: Bench) -> set[str]:
    return set(bench.core.scheduler.desk.leases.by_id)


# --- a new hub ----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["caller", "provider"])
def test_a_lease_that_both_sides_report_goes_on(first: str) -> None:
    bench = Bench(young=True)
    if first == "caller":
        bench.caller()
        bench.say("c-1", m.HeldLeases(["l-old"]))
        bench.provider(leases=[report("l-old")])
    else:
        bench.provider(leases=[report("l-old")])
        bench.caller()
        bench.say("c-1", m.HeldLeases(["l-old"]))
    bench.demand(count=2)
    assert len(bench.heard("p-1", m.StartLease)) == 1, "the old lease counts for the demand"
    bench.pass_time(TIMING.rejoin_grace * 2)
    bench.nothing_more()
    bench.say("c-1", m.ReturnLease("l-old"))
    assert bench.one("p-1", m.StopLease).lease == "l-old"


def test_a_lease_that_the_caller_does_not_hold_is_stopped() -> None:
    bench = Bench(young=True)
    bench.provider(leases=[report("l-old")])
    bench.caller()
    bench.say("c-1", m.HeldLeases([]))
    assert bench.one("p-1", m.StopLease) == m.StopLease("l-old", kill=True)
    assert not known(bench)


def test_a_lease_that_was_given_back_between_two_links_is_stopped() -> None:
    bench = Bench(young=True)
    bench.caller()
    bench.say("c-1", m.HeldLeases(["l-old"]))
    bench.break_link("c-1")
    bench.caller()
    bench.say("c-1", m.HeldLeases([]))
    bench.provider(leases=[report("l-old")])
    bench.pass_time(TIMING.rejoin_grace * 2)
    assert bench.one("p-1", m.StopLease) == m.StopLease("l-old", kill=True)
    assert not known(bench)


def test_a_lease_that_no_provider_reports_is_lost_when_the_grace_is_over() -> None:
    bench = Bench(young=True)
    bench.caller()
    bench.say("c-1", m.HeldLeases(["l-old"]))
    bench.pass_time(TIMING.rejoin_grace - 0.1)
    bench.nothing_more()
    bench.pass_time(0.2)
    assert bench.one("c-1", m.LeaseLost).lease == "l-old"


def test_an_old_hub_knows_that_nobody_will_report_the_lease() -> None:
    bench = Bench()
    bench.caller()
    bench.say("c-1", m.HeldLeases(["l-old"]))
    assert bench.one("c-1", m.LeaseLost).lease == "l-old"


def test_a_lease_whose_caller_never_comes_is_stopped() -> None:
    bench = Bench(young=True)
    bench.caller("c-2")
    bench.provider(leases=[report("l-old")])
    bench.pass_time(TIMING.rejoin_grace + 0.1)
    assert bench.one("p-1", m.StopLease) == m.StopLease("l-old", kill=True)


def test_a_lease_that_nobody_claimed_and_nobody_reports_any_more_is_forgotten() -> None:
    bench = Bench(young=True)
    bench.provider(leases=[report("l-old")])
    bench.break_link("p-1")
    bench.provider()
    assert not known(bench)
    bench.caller()
    bench.say("c-1", m.HeldLeases(["l-old"]))
    bench.pass_time(TIMING.rejoin_grace)
    assert bench.one("c-1", m.LeaseLost).lease == "l-old"


def test_nobody_is_called_infeasible_before_all_can_be_back() -> None:
    bench = Bench(young=True)
    bench.caller()
    bench.demand(resources={"GPU": 1.0})
    bench.create(spec(shape=m.Shape({"GPU": 1.0})))
    bench.provider()
    bench.pass_time(TIMING.redial_most)
    assert not bench.heard("c-1", m.DemandInfeasible)
    bench.pass_time(1.0)
    keys = {message.key for message in bench.heard("c-1", m.DemandInfeasible)}
    assert keys == {"d-1", "a-1"}


def test_actors_are_learnt_from_their_providers() -> None:
    bench = Bench(young=True)
    bench.caller()
    bench.say("c-1", m.WatchActor("a-1"))
    bench.pass_time(1.0)
    bench.nothing_more()
    bench.provider(actors=[actor_report(3, name="n", namespace="space", max_restarts=9)])
    update = bench.one("c-1", m.ActorUpdate)
    assert (update.state, update.incarnation) == ("alive", 3)
    assert update.endpoints == [endpoint("w-1")]
    bench.create(spec("a-2", name="n", namespace="space"))
    assert bench.one("c-1", m.Fault).kind == "NameTaken"
    bench.say("p-1", m.ActorEnded("a-1", 3, death()))
    assert bench.one("p-1", m.StartActor).incarnation == 4


def test_an_actor_whose_owner_never_comes_back_ends() -> None:
    bench = Bench(young=True)
    bench.caller("c-2")
    bench.provider(actors=[actor_report()])
    bench.pass_time(TIMING.rejoin_grace + 0.1)
    assert bench.one("p-1", m.StopActor).actor == "a-1"


def test_a_detached_actor_needs_neither_owner_nor_session() -> None:
    bench = Bench(young=True)
    bench.caller("c-2", "s-2")
    bench.provider(actors=[actor_report(name="keeper", namespace="x", detached=True)])
    bench.pass_time(TIMING.rejoin_grace * 2)
    bench.nothing_more()
    bench.say("c-2", m.FindActor(1, "keeper", "x"))
    assert bench.one("c-2", m.Found)


def test_unknown_actors_are_dead_but_not_before_their_providers_can_be_back() -> None:
    bench = Bench(young=True)
    bench.caller()
    bench.say("c-1", m.WatchActor("a-7"))
    bench.pass_time(TIMING.rejoin_grace - 0.1)
    bench.nothing_more()
    bench.pass_time(0.2)
    update = bench.one("c-1", m.ActorUpdate)
    assert update.state == "dead"
    assert update.death is not None
    assert (update.death.cause, update.death.detail) == ("released", "unknown to this hub")


@pytest.mark.parametrize(("here", "there"), [(1, 2), (2, 1)])
def test_of_two_incarnations_the_older_is_stopped(here: int, there: int) -> None:
    bench = Bench(young=True)
    bench.caller()
    bench.provider("p-1", actors=[actor_report(here, max_restarts=-1)])
    bench.provider("p-2", actors=[actor_report(there, max_restarts=-1)])
    older = "p-1" if here < there else "p-2"
    assert bench.one(older, m.StopActor) == m.StopActor("a-1", "killed")
    newer = "p-2" if older == "p-1" else "p-1"
    assert not bench.heard(newer, m.StopActor)
    bench.say(older, m.ActorEnded("a-1", 1, death("killed")))
    assert bench.grid().actors[0].provider == newer
    assert bench.heard("c-1", m.ActorUpdate)[-1].incarnation == 2


def test_a_creation_told_again_meets_the_actor_that_runs_already() -> None:
    bench = Bench(young=True)
    bench.caller()
    bench.provider("p-2")
    bench.create(spec())
    assert bench.one("p-2", m.StartActor)
    bench.provider("p-1", actors=[actor_report()])
    assert bench.one("p-2", m.StopActor)
    assert [x.state for x in bench.heard("c-1", m.ActorUpdate)] == ["pending", "alive"]


def test_a_provider_that_has_a_newer_incarnation_than_ordered_is_believed() -> None:
    bench = Bench(young=True)
    bench.caller()
    bench.provider()
    bench.create(spec())
    assert bench.one("p-1", m.StartActor).incarnation == 0
    bench.say("p-1", m.ActorStarted("a-1", 2, "w-1", [endpoint("w-1")]))
    assert bench.heard("c-1", m.ActorUpdate)[-1].incarnation == 2


# --- the same hub, a new link -------------------------------------------------------------------


def again(bench: Bench, **offer: object) -> None:
    bench.break_link("p-1")
    bench.provider(**offer)  # type: ignore[arg-type]


def test_an_order_that_was_lost_with_the_link_is_given_anew() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.demand()
    bench.heard("p-1", m.StartLease)
    again(bench)
    (stop,) = bench.heard("p-1", m.StopLease)
    assert bench.one("p-1", m.StartLease).lease != stop.lease


def test_an_answer_that_was_lost_with_the_link_is_found_in_the_offer() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.demand()
    lease = bench.one("p-1", m.StartLease).lease
    again(bench, leases=[report(lease)])
    assert bench.one("c-1", m.LeaseGranted).lease == lease
    bench.nothing_more()


def test_an_order_on_the_new_link_is_not_taken_for_lost() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.demand()
    bench.heard("p-1", m.StartLease)
    bench.say("p-1", m.Offer({"CPU": 4.0}, {}, [], [], m.MachineInfo()))
    bench.nothing_more()


def test_a_lease_the_provider_no_longer_lists_waits_for_the_report_of_its_death() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    (lease,) = bench.leases()
    again(bench)
    bench.nothing_more()
    bench.say("p-1", m.LeaseEnded(lease, death("out_of_memory")))
    assert bench.one("c-1", m.LeaseLost).death.cause == "out_of_memory"
    bench.say("p-1", m.LeaseEnded(lease, death("out_of_memory")))
    bench.pass_time(5.0)
    assert not bench.heard("c-1", m.LeaseLost)


def test_a_lease_that_is_gone_without_a_report_is_lost_all_the_same() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    (lease,) = bench.leases()
    again(bench)
    bench.pass_time(1.1)
    assert bench.one("c-1", m.LeaseLost).lease == lease


def test_blocked_workers_are_told_after_the_offer_and_the_others_are_not_blocked() -> None:
    bench = Bench()
    bench.caller()
    bench.provider(cpus=1.0)
    (first,) = bench.leases()
    bench.say("p-1", m.WorkerBlocked(first))
    (second,) = bench.leases(key="d-2")
    bench.break_link("p-1")
    bench.provider(cpus=1.0, leases=[report(first), report(second)])
    bench.demand(key="d-3")
    assert not bench.heard("p-1", m.StartLease)
    bench.say("p-1", m.WorkerBlocked(second))
    assert not bench.heard("p-1", m.StartLease), "the first one resumed while the link was down"
    bench.say("p-1", m.WorkerBlocked(first))
    assert bench.one("p-1", m.StartLease)


def test_a_grant_that_was_lost_with_the_callers_link_is_taken_back() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.leases()
    bench.break_link("c-1")
    bench.caller()
    bench.say("c-1", m.HeldLeases([]))
    assert bench.one("p-1", m.StopLease).kill
    assert bench.one("c-1", m.LeaseLost)


def test_a_grant_on_the_callers_new_link_is_not_taken_for_lost() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.demand()
    bench.break_link("c-1")
    bench.caller()
    bench.start_leases()
    assert bench.granted()
    bench.say("c-1", m.HeldLeases([]))
    bench.nothing_more()


def test_a_recall_is_told_again() -> None:
    bench = Bench()
    bench.caller()
    bench.caller("c-2", "s-2")
    bench.provider()
    held = bench.leases(count=2)
    bench.demand("c-2")
    recalled = bench.one("c-1", m.LeaseRecalled).lease
    bench.break_link("c-1")
    bench.caller()
    bench.say("c-1", m.HeldLeases(held))
    assert bench.one("c-1", m.LeaseRecalled).lease == recalled


@pytest.mark.parametrize("loading", [True, False])
def test_an_actor_in_the_offer_goes_on(loading: bool) -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.create(spec())
    bench.heard("p-1", m.StartActor)
    bench.heard("c-1", m.ActorUpdate)
    again(bench, actors=[actor_report(0, loading=loading)])
    assert not bench.heard("p-1", m.StartActor)
    assert bool(bench.heard("c-1", m.ActorUpdate)) is not loading


def test_an_actor_whose_order_was_lost_is_started_anew_and_that_is_no_restart() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.create(spec(max_restarts=0))
    bench.heard("p-1", m.StartActor)
    again(bench)
    assert bench.one("p-1", m.StartActor).incarnation == 1
    assert {x.state for x in bench.heard("c-1", m.ActorUpdate)} == {"pending"}


def test_an_actor_that_is_not_listed_waits_for_the_report_of_its_death() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.actor()
    again(bench)
    bench.nothing_more()
    bench.say("p-1", m.ActorEnded("a-1", 0, death("signal", "boom")))
    update = bench.one("c-1", m.ActorUpdate)
    assert update.state == "dead"
    assert update.death is not None
    assert update.death.detail == "boom"


def test_an_actor_that_is_gone_without_a_report_is_dead_all_the_same() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.actor()
    again(bench)
    bench.pass_time(1.1)
    assert bench.one("c-1", m.ActorUpdate).state == "dead"


def test_a_stop_that_was_lost_is_told_again() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.actor()
    bench.say("c-1", m.KillActor("a-1"))
    bench.heard("p-1", m.StopActor)
    again(bench, actors=[actor_report()])
    assert bench.one("p-1", m.StopActor) == m.StopActor("a-1", "killed")
