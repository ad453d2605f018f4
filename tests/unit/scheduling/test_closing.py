"""A provider whose owner has the machine back: what gives way, what goes elsewhere, who returns."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.scheduling.closing import LOOK_AGAIN
from guactors.scheduling.displacing import STEADY
from guactors.scheduling.preemption import GAP
from tests.unit.hub.bench import Bench, death, endpoint, spec
from tests.unit.scheduling.test_preemption import displaced, still, urgent

AWAY = m.AvailabilityIs(m.Availability(False, "it is used: a game", 0.0, 600.0))
BACK = m.AvailabilityIs(m.Availability())


def grid(*cpus: float) -> Bench:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    for number, count in enumerate(cpus, 1):
        bench.provider(f"p-{number}", count)
    return bench


def closes(bench: Bench, peer: str = "p-1", word: m.AvailabilityIs = AWAY) -> list[str]:
    """The owner comes, and what runs there is told to stand still, and does; who that is."""
    bench.say(peer, word)
    asked = bench.heard(peer, m.Suspend)
    bench.say(peer, *(m.Suspended(one.key, one.number) for one in asked))
    return [one.key for one in asked]


def opens(bench: Bench, peer: str = "p-1") -> list[str]:
    """The owner leaves; who goes on."""
    bench.say(peer, BACK)
    return [one.key for one in bench.heard(peer, m.Resume)]


def test_what_runs_stands_still_and_goes_on() -> None:
    bench = grid(2.0)
    mine = bench.leases("c-1", 2)
    assert closes(bench) == mine
    told = bench.heard("c-1", m.LeaseSuspended)
    assert [one.lease for one in told] == mine
    assert told[0].standing.reason == "its provider is not available: it is used: a game"
    assert sorted(opens(bench)) == sorted(mine)
    assert sorted(x.lease for x in bench.heard("c-1", m.LeaseResumed)) == sorted(mine)
    assert not still(bench)


def test_never_gives_way_to_the_owner_all_the_same() -> None:
    bench = grid(1.0)
    mine = bench.leases("c-1", 1, preemption=["never"])
    assert closes(bench) == mine


def test_nothing_new_is_put_there() -> None:
    bench = grid(2.0)
    closes(bench)
    bench.demand("c-1", "d-1", 2)
    assert not bench.heard("p-1", m.StartLease)
    bench.provider("p-2", 1.0)
    assert len(bench.heard("p-2", m.StartLease)) == 1
    opens(bench)
    assert len(bench.heard("p-1", m.StartLease)) == 1


def test_a_closed_provider_is_kept_for_nobody() -> None:
    """What waits is nearest to room elsewhere."""
    bench = grid(4.0, 1.0)
    closes(bench)
    bench.demand("c-2", "big", 1, priority=5, resources={"CPU": 4.0})
    bench.demand("c-1", "d-1", 1)
    assert len(bench.heard("p-2", m.StartLease)) == 1


def test_a_lease_that_starts_is_placed_elsewhere() -> None:
    bench = grid(1.0)
    bench.demand("c-1", "d-1", 1)
    order = bench.one("p-1", m.StartLease)
    bench.provider("p-2", 1.0)
    assert closes(bench) == []
    assert bench.one("p-1", m.StopLease).lease == order.lease
    assert bench.one("p-2", m.StartLease)
    bench.say("p-1", m.LeaseStarted(order.lease, "w", []))
    assert bench.one("p-1", m.StopLease).lease == order.lease, "it crossed the word"


def test_an_order_that_the_provider_turned_away_is_nobodys_failure() -> None:
    bench = grid(1.0)
    bench.demand("c-1", "d-1", 1)
    for _ in range(5):
        order = bench.one("p-1", m.StartLease)
        bench.say("p-1", m.LeaseEnded(order.lease, death("not_lent")))
    assert bench.one("p-1", m.StartLease) and not bench.heard("c-1", m.DemandInfeasible)


def test_an_actor_stands_still_and_one_that_starts_moves() -> None:
    bench = grid(1.0)
    bench.actor(spec("a-1", max_restarts=0))
    bench.create(spec("a-2", max_restarts=0))
    order = bench.one("p-1", m.StartActor)
    bench.provider("p-2", 1.0)
    assert closes(bench) == ["a-1"]
    stop = bench.one("p-1", m.StopActor)
    assert (stop.actor, stop.incarnation) == ("a-2", order.incarnation)
    moved = bench.one("p-2", m.StartActor)
    assert moved.spec.actor == "a-2" and moved.incarnation > order.incarnation
    updates = bench.heard("c-1", m.ActorUpdate)
    assert any(x.actor == "a-1" and x.standing is not None for x in updates)
    assert opens(bench) == ["a-1"]


def test_an_actor_that_ends_is_left_to_it() -> None:
    bench = grid(1.0)
    bench.actor()
    bench.say("c-1", m.KillActor("a-1", released=True))
    assert closes(bench) == []


def test_one_that_waits_in_get_stands_still_too() -> None:
    bench = grid(1.0)
    (mine,) = bench.leases("c-1", 1)
    bench.say("p-1", m.WorkerBlocked(mine))
    assert closes(bench) == [mine]
    bench.say("p-1", m.WorkerResumed(mine))
    assert opens(bench) == [mine]


def test_preemption_does_not_choose_a_closed_provider() -> None:
    bench = grid(1.0, 1.0)
    bench.leases("c-1", 2)
    closes(bench, "p-1")
    urgent(bench)
    assert displaced(bench, "p-1") == []
    assert len(displaced(bench, "p-2")) == 1
    urgent(bench, count=2, priority=GAP + 5)
    assert displaced(bench, "p-1") == []


def test_a_newcomer_for_which_somebody_gave_way_is_placed_elsewhere() -> None:
    bench = grid(1.0)
    (low,) = bench.leases("c-1", 1)
    urgent(bench)
    order = bench.one("p-1", m.StartLease)
    bench.provider("p-2", 1.0)
    closes(bench)
    assert bench.one("p-1", m.StopLease).lease == order.lease
    assert bench.one("p-2", m.StartLease)
    assert still(bench) == {low}
    assert opens(bench) == [low]


def test_who_gave_way_returns_after_the_one_for_whom() -> None:
    bench = grid(1.0)
    (low,) = bench.leases("c-1", 1)
    urgent(bench)
    order = bench.one("p-1", m.StartLease)
    bench.say("p-1", m.Suspended(low, order.displaces[0].number))
    bench.say("p-1", m.LeaseStarted(order.lease, "w-new", []))
    assert closes(bench) == [order.lease]
    assert opens(bench) == [order.lease]
    assert still(bench) == {low}


def test_they_return_before_those_who_wait() -> None:
    bench = grid(2.0)
    mine = bench.leases("c-1", 2)
    closes(bench)
    bench.demand("c-2", "d-9", 2)
    assert sorted(opens(bench)) == sorted(mine)
    assert not bench.heard("p-1", m.StartLease)


# --- leaving --------------------------------------------------------------------------------------


def test_what_may_be_requeued_leaves_after_a_while_and_the_rest_stays() -> None:
    bench = grid(2.0)
    (goes,) = bench.leases("c-1", 1, key="goes", preemption=["suspend", "requeue"])
    (stays,) = bench.leases("c-1", 1, key="stays")
    bench.provider("p-2", 1.0)
    closes(bench)
    bench.pass_time(599.0)
    assert not bench.heard("c-1", m.LeaseLost)
    bench.pass_time(2.0)
    lost = bench.one("c-1", m.LeaseLost)
    assert (lost.lease, lost.death.cause) == (goes, "requeued")
    assert "it is used: a game" in lost.death.detail
    assert bench.one("p-2", m.StartLease)
    assert still(bench) == {stays}


def test_nothing_leaves_where_there_is_nowhere_to_go() -> None:
    bench = grid(1.0)
    (mine,) = bench.leases("c-1", 1, preemption=["requeue"])
    closes(bench)
    bench.pass_time(3600.0)
    assert still(bench) == {mine} and not bench.heard("c-1", m.LeaseLost)
    bench.provider("p-2", 1.0)
    bench.pass_time(LOOK_AGAIN)
    assert bench.one("c-1", m.LeaseLost).lease == mine


def test_an_actor_leaves_at_no_charge() -> None:
    bench = grid(1.0)
    bench.actor(spec("a-1", max_restarts=0, shape=m.Shape({}, preemption=["requeue"])))
    bench.provider("p-2", 1.0)
    closes(bench)
    bench.pass_time(601.0)
    assert bench.one("p-1", m.StopActor).cause == "requeued"
    assert bench.one("p-2", m.StartActor).spec.actor == "a-1"


def test_nothing_leaves_when_it_was_lent_again_meanwhile() -> None:
    bench = grid(1.0, 1.0)
    mine = bench.leases("c-1", 2, preemption=["requeue"])
    bench.pass_time(1.0)
    closes(bench)
    bench.pass_time(590.0)
    opens(bench)
    closes(bench)
    bench.pass_time(500.0)
    assert not bench.heard("c-1", m.LeaseLost) and mine


def test_max_suspended_counts_here_as_well() -> None:
    bench = grid(1.0)
    bench.leases("c-1", 1, preemption=["suspend", "stop"], max_suspended=5.0)
    closes(bench)
    bench.pass_time(6.0)
    lost = bench.one("c-1", m.LeaseLost)
    assert lost.death.cause == "preempted" and "not available" in lost.death.detail


# --- faults ---------------------------------------------------------------------------------------


def test_one_that_does_not_stand_still_is_asked_again() -> None:
    bench = grid(1.0)
    (mine,) = bench.leases("c-1", 1)
    bench.say("p-1", AWAY)
    asked = bench.one("p-1", m.Suspend)
    bench.say("p-1", m.Suspended(mine, asked.number, "the daemon does not answer"))
    assert still(bench) == {mine} and not bench.heard("p-1", m.Resume)
    bench.pass_time(STEADY + 0.1)
    assert bench.one("p-1", m.Suspend) == asked
    bench.say("p-1", m.Suspended(mine, asked.number))
    assert bench.one("c-1", m.LeaseSuspended).lease == mine


def test_a_link_breaks_and_the_offer_says_it_again() -> None:
    bench = grid(1.0)
    (mine,) = bench.leases("c-1", 1)
    closes(bench)
    lease = bench.core.scheduler.desk.leases.by_id[mine]
    report = m.LeaseReport(mine, "s-1", "c-1", m.Shape({"CPU": 1.0}), lease.worker, [endpoint("w")])
    bench.break_link("p-1")
    rejoins(bench, [report], AWAY.availability)
    assert still(bench) == {mine}
    assert bench.one("p-1", m.Suspend).key == mine
    bench.break_link("p-1")
    rejoins(bench, [report], m.Availability())
    assert not bench.heard("p-1", m.Suspend)
    assert bench.one("p-1", m.Resume).key == mine and not still(bench)


def rejoins(bench: Bench, leases: list[m.LeaseReport], word: m.Availability) -> None:
    versions = m.Versions("0", "3.11.7")
    bench.hello(m.Hello("p-1", "provider", versions, 1, "here", name="box1"))
    offer = m.Offer({"CPU": 1.0}, {}, leases, [], m.MachineInfo(availability=word))
    bench.say("p-1", offer)


def test_a_new_hub_hears_of_it() -> None:
    bench = Bench(young=True)
    report = m.LeaseReport("l-7", "s-1", "c-1", m.Shape({"CPU": 1.0}), "w", [endpoint("w")])
    rejoins(bench, [report], AWAY.availability)
    assert bench.one("p-1", m.Suspend).key == "l-7"
    bench.caller("c-1", "s-1")
    bench.say("c-1", m.HeldLeases(["l-7"]))
    assert still(bench) == {"l-7"}
    assert opens(bench) == ["l-7"]


def test_the_provider_is_lost_while_it_is_closed() -> None:
    bench = grid(1.0)
    bench.leases("c-1", 1, preemption=["requeue"])
    closes(bench)
    bench.say("p-1", m.Goodbye())
    bench.pass_time(700.0)
    assert len(bench.heard("c-1", m.LeaseLost)) == 1


def test_a_group_whose_room_is_there_waits_for_it() -> None:
    bench = grid(2.0)
    group = m.GroupSpec("g-1", "s-1", "c-1", [{"CPU": 1.0}], "PACK")
    bench.say("c-1", m.CreateGroups([group]))
    place = m.Placing(group="g-1", bundle=0)
    (mine,) = bench.leases("c-1", 1, place=place, preemption=["requeue"])
    bench.provider("p-2", 2.0)
    assert closes(bench) == [mine]
    bench.demand("c-1", "d-2", 1, place=place, priority=1)
    assert not bench.heard("p-1", m.StartLease)
    bench.pass_time(700.0)
    assert not bench.heard("c-1", m.LeaseLost), "its room is nowhere else"
    assert opens(bench) == [mine]


# --- shown ----------------------------------------------------------------------------------------


def test_its_row_and_its_room() -> None:
    bench = grid(2.0)
    until = 2_000_000_000.0
    word = m.Availability(False, "it is lent at sat", until, 1.0)
    closes(bench, word=m.AvailabilityIs(word))
    (row,) = [peer for peer in bench.grid().peers if peer.role == "provider"]
    assert row.availability == word and row.free == {} and row.total["CPU"] == 2.0
    opens(bench)
    (row,) = [peer for peer in bench.grid().peers if peer.role == "provider"]
    assert row.availability.lent and row.free["CPU"] == 2.0


def test_the_listing_of_providers() -> None:
    bench = grid(2.0, 1.0)
    bench.leases("c-1", 1)
    closes(bench)
    bench.say("c-1", m.Inquire(7, "", m.Query("providers")))
    page = bench.one("c-1", m.Page).page
    first, second = (dict(zip(page.columns, row, strict=True)) for row in page.rows)
    assert (first["node_name"], first["state"]) == ("box1", "NOT_LENT")
    assert first["reason"] == "it is used: a game" and first["until"] is None
    assert (first["leases"], first["suspended"]) == (1, 1)
    assert (second["state"], second["reason"], second["suspended"]) == ("LENT", None, 0)


@pytest.mark.parametrize("count", [1, 2])
def test_a_plan_goes_around_it(count: int) -> None:
    bench = grid(2.0, 1.0)
    closes(bench)
    bench.say("c-1", m.AskPlan(3, m.Shape({"CPU": 1.0}), count))
    plan = bench.one("c-1", m.PlanIs)
    assert [place.name for place in plan.places] == ["box2"]
    assert plan.missing == count - 1
