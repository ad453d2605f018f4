"""Who gives way, what is told to whom, and how everybody comes back."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.scheduling.departing import LATE
from guactors.scheduling.preemption import GAP, make_plan, spared
from tests.unit.hub.bench import Bench, death, spec

LOW, HIGH = 0, GAP


def full(cpus: float = 2.0, *, count: int = 0, **shape: object) -> tuple[Bench, list[str]]:
    """A provider that is full of low work of c-1, and a second caller."""
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", cpus)
    low = bench.leases("c-1", count or int(cpus), **shape)
    return bench, low


def urgent(bench: Bench, priority: int = HIGH, count: int = 1, **shape: object) -> None:
    bench.demand("c-2", "d-9", count, priority=priority, **shape)


def displaced(bench: Bench, peer: str = "p-1") -> list[tuple[str, list[str]]]:
    """Each order to start with those that must stand still first."""
    orders = bench.heard(peer, m.StartLease)
    return [(order.lease, [word.key for word in order.displaces]) for order in orders]


def start(bench: Bench, peer: str = "p-1") -> m.StartLease:
    """The provider does what it was told, in the promised order."""
    order = bench.one(peer, m.StartLease)
    for word in order.displaces:
        bench.say(peer, m.Suspended(word.key, word.number))
    bench.say(peer, m.LeaseStarted(order.lease, "w-new", []))
    return order


def still(bench: Bench) -> set[str]:
    return {tenant.id for tenant in bench.core.scheduler.desk.standing}


def test_one_victim_stands_still_and_comes_back() -> None:
    bench, low = full(2.0)
    urgent(bench)
    order = start(bench)
    victim = order.displaces[0].key
    assert [x.key for x in order.displaces] == [victim] and victim in low
    told = bench.one("c-1", m.LeaseSuspended)
    assert told.lease == victim and told.standing.by == order.lease
    assert "priority 10" in told.standing.reason
    grant = bench.one("c-2", m.LeaseGranted)
    assert grant.brief
    bench.demand("c-2", "d-9", 0)
    bench.say("c-2", m.ReturnLease(grant.lease))
    assert bench.one("p-1", m.Resume).key == victim
    assert bench.one("c-1", m.LeaseResumed).lease == victim
    assert not still(bench)


def test_nobody_of_equal_or_higher_priority_gives_way() -> None:
    bench, _ = full(2.0, priority=HIGH)
    urgent(bench, HIGH)
    assert displaced(bench) == []


def test_a_gap_that_is_too_small_only_orders() -> None:
    bench, _ = full(2.0)
    urgent(bench, GAP - 1)
    assert displaced(bench) == []


def test_not_enough_even_with_all_of_them_touches_nobody() -> None:
    bench, _ = full(2.0, count=1)
    bench.demand("c-1", "d-2", 1, priority=HIGH)
    bench.start_leases()
    urgent(bench, HIGH + 5, resources={"CPU": 2.0})
    assert displaced(bench) == [] and not still(bench)


def test_memory_of_what_stands_still_is_not_free() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 2.0, memory=100.0)
    bench.leases("c-1", 1, resources={"CPU": 2.0, "memory": 60.0})
    urgent(bench, resources={"CPU": 1.0, "memory": 50.0})
    assert displaced(bench) == []
    bench.demand("c-2", "d-9", 1, priority=HIGH, resources={"CPU": 1.0, "memory": 40.0})
    assert len(displaced(bench)) == 1


def test_a_device_is_not_taken_by_suspending() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 4.0, GPU=1.0)
    bench.leases("c-1", 1, resources={"CPU": 1.0, "GPU": 1.0})
    urgent(bench, resources={"CPU": 1.0, "GPU": 1.0})
    assert displaced(bench) == []


def test_one_that_is_enough_is_taken_alone_and_the_smallest_such() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 8.0)
    small = bench.leases("c-1", 2, key="small", resources={"CPU": 1.0})
    big = bench.leases("c-1", 1, key="big", resources={"CPU": 4.0})
    middle = bench.leases("c-1", 1, key="middle", resources={"CPU": 2.0})
    urgent(bench, resources={"CPU": 2.0})
    assert displaced(bench)[0][1] == middle
    assert small and big


def test_superfluous_victims_are_spared() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 4.0)
    bench.leases("c-1", 1, key="small", resources={"CPU": 1.0}, priority=-1)
    big = bench.leases("c-1", 1, key="big", resources={"CPU": 3.0})
    urgent(bench, resources={"CPU": 3.0})
    assert displaced(bench)[0][1] == big


def test_the_lowest_priority_goes_first_and_then_the_youngest() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 3.0)
    bench.leases("c-1", 1, key="more", priority=1)
    first = bench.leases("c-1", 1, key="first")
    bench.pass_time(1.0)
    second = bench.leases("c-1", 1, key="second")
    urgent(bench)
    assert start(bench).displaces[0].key == second[0]
    urgent(bench, count=2)
    assert start(bench).displaces[0].key == first[0]


def test_one_that_gave_way_is_spared_while_another_can() -> None:
    bench, low = full(2.0)
    seen = []
    for _ in range(2):
        urgent(bench)
        seen.append(start(bench).displaces[0].key)
        grant = bench.one("c-2", m.LeaseGranted)
        bench.demand("c-2", "d-9", 0)
        bench.say("c-2", m.ReturnLease(grant.lease))
        bench.pass_time(1.0)
    assert sorted(seen) == sorted(low)


def test_never_is_respected() -> None:
    bench, _ = full(2.0, preemption=["never"])
    urgent(bench)
    assert displaced(bench) == []


def test_it_runs_for_a_while_first() -> None:
    bench, low = full(1.0, min_runtime=5.0)
    urgent(bench)
    bench.pass_time(4.8)
    assert displaced(bench) == []
    bench.pass_time(0.4)
    assert [victims for _, victims in displaced(bench)] == [low]


def test_a_constraint_that_cannot_be_met_preempts_nobody() -> None:
    bench, _ = full(2.0)
    urgent(bench, labels={"disk": "ssd"})
    assert displaced(bench) == [] and not still(bench)


def test_a_preemption_is_issued_once() -> None:
    bench, _ = full(2.0)
    urgent(bench)
    bench.pass_time(3.0)
    assert len(displaced(bench)) == 1


def test_many_preemptors_at_once() -> None:
    bench, low = full(4.0)
    urgent(bench, count=9)
    orders = displaced(bench)
    assert sorted(key for _, keys in orders for key in keys) == sorted(low)
    assert len(orders) == 4


def test_freed_room_goes_to_the_victim_before_its_equals() -> None:
    bench, _ = full(1.0)
    urgent(bench)
    start(bench)
    grant = bench.one("c-2", m.LeaseGranted)
    bench.demand("c-2", "d-9", 0)
    bench.demand("c-2", "d-8", 1)  # of the victim's priority
    bench.say("c-2", m.ReturnLease(grant.lease))
    assert bench.one("p-1", m.Resume)
    assert displaced(bench) == []


def test_a_higher_priority_that_waits_goes_before_the_victim() -> None:
    bench, _ = full(1.0)
    urgent(bench)
    start(bench)
    grant = bench.one("c-2", m.LeaseGranted)
    bench.demand("c-2", "d-9", 0)
    bench.demand("c-2", "d-8", 1, priority=3)
    bench.say("c-2", m.ReturnLease(grant.lease))
    assert not bench.heard("p-1", m.Resume)
    assert len(displaced(bench)) == 1


def test_room_that_is_too_small_for_the_victim_is_kept_for_it() -> None:
    bench, _ = full(2.0, count=1, resources={"CPU": 2.0})
    urgent(bench, count=2)
    order, second = bench.heard("p-1", m.StartLease)
    assert [len(one.displaces) for one in (order, second)] == [1, 0], "it gave room for both"
    word = order.displaces[0]
    bench.say("p-1", m.Suspended(word.key, word.number))
    for one in (order, second):
        bench.say("p-1", m.LeaseStarted(one.lease, "w-new", []))
    bench.demand("c-1", "d-3", 1)
    bench.demand("c-2", "d-9", 1)
    bench.say("c-2", m.ReturnLease(second.lease))
    assert displaced(bench) == [], "half of what the victim needs is not given to its equals"
    bench.demand("c-2", "d-9", 0)
    bench.say("c-2", m.ReturnLease(order.lease))
    assert bench.one("p-1", m.Resume)


def test_one_that_cannot_stand_still_goes_on_and_another_is_tried() -> None:
    bench, low = full(2.0)
    urgent(bench)
    order = bench.one("p-1", m.StartLease)
    word = order.displaces[0]
    bench.say("p-1", m.Suspended(word.key, word.number, "the daemon does not answer"))
    bench.say("p-1", m.LeaseEnded(order.lease, death("not_displaced")))
    assert bench.one("p-1", m.Resume).key == word.key
    second = bench.one("p-1", m.StartLease)
    assert [x.key for x in second.displaces] == [x for x in low if x != word.key]
    assert not bench.heard("c-2", m.DemandInfeasible)


def test_a_victim_that_ends_meanwhile_is_no_harm() -> None:
    bench, _ = full(1.0)
    urgent(bench)
    order = bench.one("p-1", m.StartLease)
    victim = order.displaces[0].key
    bench.say("p-1", m.LeaseEnded(victim, death("exited")))
    bench.say("p-1", m.LeaseStarted(order.lease, "w-new", []))
    assert bench.one("c-1", m.LeaseLost).lease == victim
    assert bench.one("c-2", m.LeaseGranted)
    bench.say("p-1", m.Suspended(victim, 1))
    assert not still(bench)


def test_a_victim_that_is_given_back_meanwhile() -> None:
    bench, _ = full(1.0)
    urgent(bench)
    order = start(bench)
    bench.say("c-1", m.ReturnLease(order.displaces[0].key))
    assert bench.one("p-1", m.StopLease).lease == order.displaces[0].key
    assert not still(bench)


def test_a_preemptor_that_is_cancelled_half_way_brings_the_victim_back() -> None:
    bench, low = full(1.0)
    urgent(bench)
    order = bench.one("p-1", m.StartLease)
    bench.demand("c-2", "d-9", 0)
    bench.say("p-1", m.Suspended(order.displaces[0].key, order.displaces[0].number))
    bench.say("p-1", m.LeaseStarted(order.lease, "w-new", []))
    assert bench.one("p-1", m.Resume).key == low[0]


def test_a_preemptor_whose_caller_dies_brings_the_victim_back() -> None:
    bench, low = full(1.0)
    urgent(bench)
    start(bench)
    bench.say("c-2", m.Goodbye())
    assert bench.one("p-1", m.Resume).key == low[0]


def test_a_provider_that_is_lost_takes_both() -> None:
    bench, _ = full(1.0)
    urgent(bench)
    start(bench)
    bench.say("p-1", m.Goodbye())
    assert bench.one("c-1", m.LeaseLost) and bench.one("c-2", m.LeaseLost)
    assert not still(bench)


def test_an_actor_gives_way_and_its_callers_know() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 1.0)
    bench.actor(spec(shape=m.Shape({"CPU": 1.0})))
    urgent(bench)
    start(bench)
    update = bench.one("c-1", m.ActorUpdate)
    assert update.state == "alive" and update.standing is not None
    grant = bench.one("c-2", m.LeaseGranted)
    bench.demand("c-2", "d-9", 0)
    bench.say("c-2", m.ReturnLease(grant.lease))
    assert bench.one("p-1", m.Resume).key == "a-1"
    assert bench.one("c-1", m.ActorUpdate).standing is None


def test_an_actor_displaces() -> None:
    bench, low = full(1.0)
    bench.create(spec("a-2", "c-2", "s-2", shape=m.Shape({"CPU": 1.0}, HIGH)))
    order = bench.one("p-1", m.StartActor)
    assert [x.key for x in order.displaces] == low


def test_whose_workers_others_work_for_is_spared() -> None:
    """It would hold what it cannot use, and those who wait for it would wait for ever."""
    bench, _ = full(2.0)
    worker = next(iter(bench.core.scheduler.desk.leases)).worker
    versions = m.Versions("0", "3.11.7")
    bench.hello(m.Hello("c-3", "caller", versions, 1, "here", "s-1", False, worker))
    desk = bench.core.scheduler.desk
    lease = next(iter(desk.leases))
    need = lease.need._replace(priority=HIGH)
    assert not spared(desk, lease, need, "c-2", bench.now)
    assert spared(desk, lease, need, "c-3", bench.now), "its own caller"
    plan = make_plan(desk, need, bench.now, caller="c-3")
    assert plan is not None and lease not in plan.victims


def test_what_stands_still_is_given_nothing_that_it_could_not_give_back() -> None:
    bench, low = full(1.0)
    lease = bench.core.scheduler.desk.leases.by_id[low[0]]
    versions = m.Versions("0", "3.11.7")
    bench.hello(m.Hello("c-3", "caller", versions, 1, "here", "s-1", False, lease.worker))
    bench.demand("c-3", "d-3", 1, priority=5)
    urgent(bench)
    order = start(bench)
    assert [word.key for word in order.displaces] == low
    bench.demand("c-2", "d-9", 0)
    bench.say("c-2", m.ReturnLease(order.lease))
    assert bench.one("p-1", m.Resume).key == low[0], "its own call would have taken its place"
    assert displaced(bench) == []
    bench.demand("c-1", "d-1", 0)
    bench.say("c-1", m.ReturnLease(low[0]))
    assert len(displaced(bench)) == 1, "it waits as before"


def test_a_new_hub_takes_over_what_stands_still() -> None:
    bench, low = full(1.0)
    urgent(bench)
    order = start(bench)
    old = bench.core.scheduler.desk.leases.by_id
    reports = [
        m.LeaseReport(
            x.id, x.session, x.caller, m.Shape({"CPU": 1.0}, x.need.priority), x.worker, []
        )
        for x in old.values()
    ]
    new = Bench(young=True)
    new.caller("c-1", "s-1")
    new.caller("c-2", "s-2")
    new.provider("p-1", 1.0, leases=reports)
    new.say("c-1", m.HeldLeases(low))
    new.say("c-2", m.HeldLeases([order.lease]))
    new.say("p-1", m.Suspended(low[0], order.displaces[0].number))
    assert still(new) == set(low)
    new.say("c-2", m.ReturnLease(order.lease))
    assert new.one("p-1", m.Resume).key == low[0]


def test_what_was_said_on_a_link_that_broke_is_said_again() -> None:
    bench, low = full(1.0)
    urgent(bench)
    order = start(bench)
    reports = [
        m.LeaseReport(
            x.id, x.session, x.caller, m.Shape({"CPU": 1.0}, x.need.priority), x.worker, []
        )
        for x in bench.core.scheduler.desk.leases
    ]
    bench.break_link("p-1")
    bench.provider("p-1", 1.0, leases=reports)
    assert bench.one("p-1", m.Suspend).key == low[0]
    assert order.displaces[0].key == low[0]


def test_a_word_to_go_on_that_was_lost_is_said_again() -> None:
    bench, low = full(1.0)
    urgent(bench)
    order = start(bench)
    bench.demand("c-2", "d-9", 0)
    bench.say("c-2", m.ReturnLease(order.lease))
    resume = bench.one("p-1", m.Resume)
    bench.say("p-1", m.Suspended(low[0], resume.number))
    assert bench.one("p-1", m.Resume) == resume
    assert not still(bench)


@pytest.mark.parametrize("priority", [HIGH, 1000])
def test_one_preemptor_is_preempted_itself(priority: int) -> None:
    bench, _ = full(1.0)
    urgent(bench, HIGH)
    first = start(bench)
    bench.demand("c-1", "d-5", 1, priority=priority + GAP)
    second = start(bench)
    assert [x.key for x in second.displaces] == [first.lease]
    assert len(still(bench)) == 2
    bench.demand("c-1", "d-5", 0)
    bench.say("c-1", m.ReturnLease(second.lease))
    assert bench.one("p-1", m.Resume).key == first.lease


# --- by its end -----------------------------------------------------------------------------------


def test_requeue_frees_all_and_the_calls_begin_anew() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 2.0, memory=100.0)
    low = bench.leases(
        "c-1", 1, resources={"CPU": 1.0, "memory": 80.0}, preemption=["suspend", "requeue"]
    )
    urgent(bench, resources={"CPU": 1.0, "memory": 50.0})
    assert bench.one("p-1", m.StopLease) == m.StopLease(low[0], kill=True)
    (order,) = bench.heard("p-1", m.StartLease)
    assert [(x.key, x.mode) for x in order.displaces] == [(low[0], "requeue")]
    lost = bench.one("c-1", m.LeaseLost)
    assert (lost.lease, lost.death.cause) == (low[0], "requeued")
    assert "priority 10" in lost.death.detail


def test_stop_ends_for_good() -> None:
    bench, low = full(1.0, preemption=["stop"])
    urgent(bench)
    assert bench.one("p-1", m.StopLease).lease == low[0]
    assert bench.one("c-1", m.LeaseLost).death.cause == "preempted"


def test_no_work_is_lost_where_another_can_stand_still() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 2.0)
    bench.leases("c-1", 1, key="gentle")
    bench.pass_time(1.0)
    bench.leases("c-1", 1, key="hard", preemption=["stop"])
    urgent(bench)
    (order,) = bench.heard("p-1", m.StartLease)
    assert [x.mode for x in order.displaces] == ["suspend"]


def test_what_stands_still_for_too_long_begins_anew_where_its_owner_said_so() -> None:
    bench, low = full(1.0, preemption=["suspend", "requeue"], max_suspended=2.0)
    urgent(bench)
    start(bench)
    bench.pass_time(1.9)
    assert not bench.heard("c-1", m.LeaseLost)
    bench.pass_time(0.2)
    assert bench.one("c-1", m.LeaseLost).death.cause == "requeued"
    assert bench.one("p-1", m.StopLease).lease == low[0]
    assert not still(bench)


def test_what_stands_still_for_too_long_waits_on_where_its_owner_said_nothing() -> None:
    bench, low = full(1.0, max_suspended=2.0)
    urgent(bench)
    start(bench)
    bench.pass_time(60.0)
    assert still(bench) == set(low)


def test_one_that_ended_as_it_stood_is_not_ended_again() -> None:
    bench, low = full(1.0, preemption=["suspend", "requeue"], max_suspended=2.0)
    urgent(bench)
    start(bench)
    bench.say("p-1", m.LeaseEnded(low[0], death("exited")))
    bench.pass_time(5.0)
    assert bench.one("c-1", m.LeaseLost).death.cause == "exited"


def test_an_actor_begins_anew_at_no_cost_to_its_restarts() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 1.0)
    bench.actor(spec(shape=m.Shape({"CPU": 1.0}, preemption=["requeue"]), max_restarts=0))
    urgent(bench)
    assert bench.one("p-1", m.StopActor).actor == "a-1"
    order = start(bench)
    assert [x.key for x in order.displaces] == ["a-1"]
    assert bench.one("c-1", m.ActorUpdate).state == "restarting"
    bench.demand("c-2", "d-9", 0)
    bench.say("c-2", m.ReturnLease(order.lease))
    assert bench.start_actors()[0].incarnation == 1
    assert bench.one("c-1", m.ActorUpdate).state == "alive"


def grace(bench: Bench) -> m.StopLease:
    """The order to end the first one's lease."""
    (stop,) = bench.heard("p-1", m.StopLease)
    return stop


def test_one_with_a_grace_is_told_of_when_it_has_ended() -> None:
    bench, (low,) = full(1.0, preemption=["requeue"], grace=3.0)
    urgent(bench)
    assert grace(bench) == m.StopLease(low, True, 3.0, "requeued")
    (order,) = bench.heard("p-1", m.StartLease)
    assert [word.key for word in order.displaces] == [low], "its provider waits for the end"
    assert not bench.heard("c-1", m.LeaseLost), "it may still be done"
    bench.say("p-1", m.LeaseEnded(low, death("exited")))
    assert bench.one("c-1", m.LeaseLost).death.cause == "requeued"
    bench.say("p-1", m.LeaseEnded(low, death("exited")))
    assert not bench.heard("c-1", m.LeaseLost)


def test_of_one_with_a_grace_nothing_is_heard() -> None:
    bench, (low,) = full(1.0, preemption=["stop"], grace=3.0)
    urgent(bench)
    bench.pass_time(3.0)
    assert not bench.heard("c-1", m.LeaseLost)
    bench.pass_time(LATE + 1.0)
    told = bench.one("c-1", m.LeaseLost)
    assert (told.lease, told.death.cause) == (low, "preempted")


def test_a_provider_or_a_caller_that_leaves_within_the_grace() -> None:
    bench, (low,) = full(1.0, preemption=["requeue"], grace=3.0)
    urgent(bench)
    grace(bench)
    bench.say("p-1", m.Goodbye("stops"))
    assert [lost.lease for lost in bench.heard("c-1", m.LeaseLost)] == [low]
    bench, (low,) = full(1.0, preemption=["requeue"], grace=3.0)
    urgent(bench)
    grace(bench)
    bench.say("c-1", m.Goodbye("done"))
    assert grace(bench) == m.StopLease(low, kill=True), "nobody wants what it does"


def test_an_actor_with_a_grace_does_not_begin_beside_itself() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 1.0)
    made = spec(shape=m.Shape({"CPU": 1.0}, preemption=["requeue"], grace=3.0))
    bench.actor(made)
    bench.provider("p-2", 1.0)
    bench.demand("c-2", "d-8", 1, priority=HIGH)
    bench.start_leases()
    urgent(bench, count=1)
    stop = bench.one("p-1", m.StopActor)
    assert (stop.cause, stop.grace) == ("requeued", 3.0)
    bench.demand("c-2", "d-8", 0)
    (grant, *_) = bench.heard("c-2", m.LeaseGranted)
    bench.say("c-2", m.ReturnLease(grant.lease))
    assert not bench.heard("p-2", m.StartActor)
    bench.pass_time(3.1)
    assert [order.incarnation for order in bench.heard("p-2", m.StartActor)] == [1]
