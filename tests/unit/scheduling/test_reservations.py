"""Reservations: their times, their room, who may work in them, and what outlives whom."""

from __future__ import annotations

import math
from typing import Any

import pytest

from guactors import messages as m
from guactors.ids import reservation_id
from guactors.scheduling.explaining import Why
from guactors.scheduling.preemption import GAP
from guactors.scheduling.reservations import LONGEST, PRESS_AGAIN
from tests.unit.hub.bench import TIMING, VERSIONS, Bench, HubCore, numbered
from tests.unit.hub.keyed_bench import APP, OTHER, PROVIDER, KeyedBench

CPU = {"CPU": 1.0}
HIGH = 2 * GAP
IN_IT = m.Placing(group=reservation_id("nightly"))


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.caller("c-1", "s-1")
    made.caller("c-2", "s-2")
    made.provider("p-1", 4.0)
    return made


def reserve(bench: Bench, cpus: float = 2.0, start: float = 10.0, **more: Any) -> m.ReservationSpec:
    """Room from ``start`` seconds from now on, for 100 seconds."""
    spec = m.ReservationSpec(
        **{
            "name": "nightly", "resources": {"CPU": cpus}, "start": bench.now + start,
            "end": bench.now + start + 100.0, "priority": HIGH, **more,
        }
    )  # fmt: skip
    bench.say("c-1", m.Reserve(7, spec))
    return spec


def made(bench: Bench, *args: Any, **more: Any) -> None:
    reserve(bench, *args, **more)
    assert bench.one("c-1", m.Done).request == 7


def refused(bench: Bench, **more: Any) -> m.Fault:
    reserve(bench, **more)
    return bench.one("c-1", m.Fault)


def inside(bench: Bench, count: int = 1, caller: str = "c-1", key: str = "in", **shape: Any) -> int:
    """How many leases begin in it of those that are wanted."""
    bench.demand(caller, key, count, place=IN_IT, **shape)
    started = bench.start_leases()
    return len(started)


def suspended(bench: Bench) -> list[str]:
    return [tenant.id for tenant in bench.core.scheduler.desk.standing]


def rows(bench: Bench, caller: str = "c-1", what: str = "reservations") -> list[dict[str, Any]]:
    bench.say(caller, m.Inquire(5, "", m.Query(what)))
    page = bench.one(caller, m.Page).page
    return [dict(zip(page.columns, row, strict=True)) for row in page.rows]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"resources": {}}, "resources"),
        ({"start": -3600.0}, "start"),
        ({"start": 1e12}, "start"),
        ({"end": 0.0}, "end"),
        ({"end": 1e15}, "end"),
        ({"priority": 2**40}, "priority"),
    ],
)
def test_what_is_impossible_is_refused_by_its_field(
    bench: Bench, wrong: dict[str, Any], field: str
) -> None:
    fault = refused(bench, **wrong)
    assert fault.kind == "UsageError" and fault.detail.startswith(field), fault
    assert rows(bench) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["start", "end"])
def test_no_number_is_refused_by_its_field(bench: Bench, field: str, value: float) -> None:
    spec = m.ReservationSpec("nightly", CPU, bench.now + 1, bench.now + 2)
    broken = m.ReservationSpec(**{**_fields(spec), field: value})
    bench.say("c-1", m.Reserve(7, broken))
    assert bench.one("c-1", m.Fault).detail.startswith(field)


def _fields(spec: m.ReservationSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


def test_too_large_for_every_provider(bench: Bench) -> None:
    fault = refused(bench, cpus=5.0)
    assert fault.kind == "Unschedulable" and "asked 5 CPU" in fault.detail


def test_too_long(bench: Bench) -> None:
    assert refused(bench, end=bench.now + LONGEST + 60.0).detail.startswith("end")


def test_a_name_is_taken_once_and_the_same_may_be_said_again(bench: Bench) -> None:
    spec = reserve(bench)
    bench.say("c-1", m.Reserve(8, spec))
    assert [x.request for x in bench.heard("c-1", m.Done)] == [7, 8]
    assert refused(bench, cpus=1.0).kind == "NameTaken"


def test_a_name_that_nobody_knows(bench: Bench) -> None:
    bench.say("c-1", m.Unreserve(9, "weekly"))
    assert bench.one("c-1", m.Fault).kind == "NoSuchReservation"
    inside(bench)
    refusal = bench.one("c-1", m.DemandInfeasible)
    assert refusal.kind == "NoSuchReservation" and "'nightly'" in refusal.reason


def test_its_id_is_no_name_for_a_group(bench: Bench) -> None:
    bench.say("c-1", m.CreateGroups([m.GroupSpec(IN_IT.group, "s-1", "c-1", [CPU], "PACK")]))
    assert "reservations" in bench.one("c-1", m.GroupsAre).groups[0].reason


def test_more_than_it_has_is_refused_before_it_begins(bench: Bench) -> None:
    made(bench)
    assert inside(bench, resources={"CPU": 3.0}) == 0
    assert bench.one("c-1", m.DemandInfeasible).kind == "Unschedulable"


# --- times ----------------------------------------------------------------------------------------


def test_from_its_start_to_its_end(bench: Bench) -> None:
    made(bench)
    assert [row["state"] for row in rows(bench)] == ["to come"]
    assert inside(bench, 2) == 0, "it waits for the start"
    bench.demand("c-2", "d-1", 4)
    others = bench.start_leases()
    assert len(others) == 4, "nothing is kept before"
    bench.demand("c-2", "d-1", 0)
    for order in others:
        bench.say("c-2", m.ReturnLease(order.lease))
    bench.pass_time(11.0)
    assert len(bench.start_leases()) == 2
    (row,) = rows(bench)
    assert (row["state"], row["node_id"], row["leases"]) == ("standing", "p-1", 2)
    bench.demand("c-2", "d-1", 4)
    assert len(bench.start_leases()) == 2, "only the rest is there for others"
    bench.pass_time(101.0)
    assert rows(bench) == []
    desk = bench.core.scheduler.desk
    assert len(desk.slots["p-1"].leases) == 4, "what ran in it goes on"
    assert all(lease.bundle is None for lease in desk.leases)


def test_what_waits_for_it_at_its_end_fails_by_name(bench: Bench) -> None:
    made(bench, cpus=1.0)
    bench.pass_time(11.0)
    assert inside(bench, 2) == 1
    bench.pass_time(101.0)
    refusal = bench.one("c-1", m.DemandInfeasible)
    assert refusal.kind == "NoSuchReservation" and "its time is over" in refusal.reason


def test_removed_before_its_end_and_made_again(bench: Bench) -> None:
    made(bench)
    bench.pass_time(11.0)
    bench.say("c-1", m.Unreserve(9, "nightly"))
    assert bench.one("c-1", m.Done).request == 9
    assert bench.core.scheduler.desk.slots["p-1"].pool.free()["CPU"] == 4.0
    made(bench, start=0.0)
    assert inside(bench, 2) == 2


def test_removed_before_it_begins(bench: Bench) -> None:
    made(bench)
    bench.say("c-1", m.Unreserve(9, "nightly"))
    bench.pass_time(200.0)
    assert rows(bench) == [] and bench.core.scheduler.next_wake(bench.now) is None


def test_where_it_is_to_be(bench: Bench) -> None:
    bench.provider("p-2", 4.0, labels={"rack": "b"})
    made(bench, labels={"rack": "b"}, start=0.0)
    made(bench, name="pinned", provider="p-1", start=0.0)
    assert {row["name"]: row["node_id"] for row in rows(bench)} == {
        "nightly": "p-2", "pinned": "p-1",
    }  # fmt: skip


# --- room that others hold ------------------------------------------------------------------------


def test_what_may_give_way_does_so_at_its_start_and_comes_back_at_its_end(bench: Bench) -> None:
    low = bench.leases("c-2", 4)
    made(bench, cpus=2.0)
    assert not suspended(bench)
    bench.pass_time(11.0)
    still = suspended(bench)
    assert len(still) == 2 and set(still) <= set(low)
    orders = bench.heard("p-1", m.Suspend)
    assert [order.key for order in orders] == still
    for order in orders:
        bench.say("p-1", m.Suspended(order.key, order.number))
    told = bench.heard("c-2", m.LeaseSuspended)
    assert {x.standing.by for x in told} == {reservation_id("nightly")}
    assert inside(bench, 2) == 2
    bench.demand("c-1", "in", 0)
    for lease in bench.granted("c-1"):
        bench.say("c-1", m.ReturnLease(lease))
    assert suspended(bench) == still, "its room is kept, also while it is empty"
    bench.pass_time(101.0)
    assert not suspended(bench)
    assert {x.key for x in bench.heard("p-1", m.Resume)} == set(still)


def test_it_may_only_push_aside_what_is_low_enough(bench: Bench) -> None:
    """What stays keeps its place until it ends; the reservation has the rest, and then all."""
    low = bench.leases("c-2", 3)
    made(bench, cpus=2.0, priority=GAP - 1)
    bench.pass_time(11.0)
    assert not suspended(bench)
    assert inside(bench, 2) == 1
    bench.demand("c-2", "d-1", 2)
    bench.say("c-2", m.ReturnLease(low[0]))
    assert len(bench.start_leases()) == 1, "what came free is the reservation's"


def test_who_may_not_be_touched_yet_is_looked_at_again(bench: Bench) -> None:
    bench.leases("c-2", 4, min_runtime=15.0)
    made(bench, cpus=1.0)
    bench.pass_time(11.0)
    assert not suspended(bench)
    bench.pass_time(5.0 + PRESS_AGAIN)
    assert len(suspended(bench)) == 1


@pytest.mark.parametrize(("mode", "cause"), [("requeue", "requeued"), ("stop", "preempted")])
def test_by_the_list_of_its_owner(bench: Bench, mode: str, cause: str) -> None:
    bench.leases("c-2", 4, preemption=[mode])
    made(bench, cpus=1.0)
    bench.pass_time(11.0)
    assert bench.one("c-2", m.LeaseLost).death.cause == cause
    assert inside(bench) == 1


def test_it_takes_the_provider_where_the_least_gives_way(bench: Bench) -> None:
    bench.leases("c-2", 4, preemption=["never"])
    bench.provider("p-2", 4.0)
    bench.leases("c-2", 3, key="d-2", provider="p-2")
    made(bench, cpus=2.0)
    bench.pass_time(11.0)
    assert rows(bench)[0]["node_id"] == "p-2" and len(suspended(bench)) == 1


def test_at_its_end_what_it_pushed_aside_comes_before_what_is_lower(bench: Bench) -> None:
    """What ran in it is of priority 0, what it pushed aside of 15: the first gives way in turn."""
    middle = bench.leases("c-2", 4, priority=GAP + 5)
    made(bench, cpus=2.0, priority=2 * GAP + 5)
    bench.pass_time(11.0)
    assert inside(bench, 2) == 2
    lower = set(bench.granted("c-1"))
    assert set(suspended(bench)) <= set(middle)
    bench.pass_time(101.0)
    assert set(suspended(bench)) == lower


# --- who may --------------------------------------------------------------------------------------


def test_others_do_not_get_its_room_and_are_told_why(bench: Bench) -> None:
    made(bench, cpus=4.0, start=0.0)
    bench.demand("c-2", "d-1", 1)
    assert bench.start_leases() == []
    (row,) = rows(bench, "c-2", "explanations")
    assert row["reason"] == Why.RESERVED and "nightly until" in row["detail"]


def test_before_its_time_it_says_when_that_is(bench: Bench) -> None:
    made(bench)
    inside(bench)
    (row,) = rows(bench, "c-1", "explanations")
    assert row["reason"] == Why.RESERVED and "nightly begins at" in row["detail"]


@pytest.fixture
def keyed() -> KeyedBench:
    """An owner's tool, and two apps with grants."""
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, OTHER, PROVIDER)
    bench.keyed_provider(cpus=2.0)
    bench.grant(APP)
    bench.grant(OTHER)
    bench.come(APP, "c-1", "s-1")
    bench.come(OTHER, "c-2", "s-2")
    bench.caller("c-3", "s-3")
    return bench


def test_an_app_makes_and_removes_none(keyed: KeyedBench) -> None:
    assert refused(keyed).kind == "PermissionDenied"
    begin = keyed.core.scheduler.desk.wall(keyed.now)
    spec = m.ReservationSpec("nightly", CPU, begin, begin + 100.0, allow=["*"])
    keyed.say("c-3", m.Reserve(7, spec))
    assert keyed.one("c-3", m.Done).request == 7
    keyed.say("c-1", m.Unreserve(8, "nightly"))
    assert keyed.one("c-1", m.Fault).kind == "PermissionDenied"
    assert [row["name"] for row in rows(keyed)] == ["nightly"]


def test_who_is_not_allowed_does_not_know_of_it(keyed: KeyedBench) -> None:
    begin = keyed.core.scheduler.desk.wall(keyed.now)
    me = keyed.core.scheduler.desk.callers["c-1"].principal
    spec = m.ReservationSpec("nightly", {"CPU": 2.0}, begin, begin + 100.0, allow=[me])
    keyed.say("c-3", m.Reserve(7, spec))
    assert inside(keyed, 1, "c-1") == 1
    assert inside(keyed, 1, "c-2") == 0
    refusal = keyed.one("c-2", m.DemandInfeasible)
    assert refusal.kind == "NoSuchReservation" and "'nightly'" in refusal.reason
    assert rows(keyed, "c-2") == []
    keyed.say("c-2", m.Unreserve(8, "nightly"))
    assert keyed.one("c-2", m.Fault).kind == "NoSuchReservation"
    keyed.say("c-1", m.RemoveGroups([reservation_id("nightly")]))
    assert [row["name"] for row in rows(keyed)] == ["nightly"], "it is no group of theirs"


# --- what is lost ---------------------------------------------------------------------------------


def test_its_provider_is_lost_and_it_goes_elsewhere(bench: Bench) -> None:
    made(bench, start=0.0)
    bench.say("p-1", m.Goodbye("maintenance"))
    assert [row["state"] for row in rows(bench)] == ["looking for room"]
    bench.provider("p-2", 2.0)
    assert [row["node_id"] for row in rows(bench)] == ["p-2"]
    assert inside(bench, 2) == 2


def successor(bench: Bench) -> Bench:
    """Another hub, which knows what the first has kept."""
    after = Bench(young=True)
    after.now = bench.now + 1.0
    after.core = HubCore(
        "h-2", TIMING, numbered(), versions=VERSIONS, now=after.now,
        reservations=bench.core.reservations,
    )  # fmt: skip
    after.caller("c-1", "s-1")
    return after


def test_a_new_hub_knows_those_to_come_and_those_that_are_over(bench: Bench) -> None:
    made(bench)
    made(bench, name="short", start=0.0, end=bench.now + 0.5)
    after = successor(bench)
    assert [(row["name"], row["state"]) for row in rows(after)] == [("nightly", "to come")]
    assert [spec.name for spec in after.core.reservations] == ["nightly"]
    after.provider("p-1", 4.0)
    after.pass_time(11.0)
    assert rows(after)[0]["state"] == "standing"


def test_a_new_hub_leaves_it_where_it_was_with_what_runs_in_it(bench: Bench) -> None:
    bench.provider("p-2", 8.0)
    made(bench, start=0.0, provider="p-2")
    assert inside(bench) == 1
    (lease,) = bench.granted("c-1")
    after = successor(bench)
    after.provider("p-1", 4.0)
    assert rows(after)[0]["state"] == "looking for room", "it goes back where it was"
    report = m.LeaseReport(lease, "s-1", "c-1", m.Shape(CPU, place=IN_IT), "w-1", [])
    after.provider("p-2", 8.0, leases=[report])
    after.say("c-1", m.HeldLeases([lease]))
    (row,) = rows(after)
    assert (row["node_id"], row["leases"]) == ("p-2", 1)
    after.pass_time(101.0)
    assert rows(after) == [] and after.core.scheduler.desk.slots["p-2"].leases == {lease}
