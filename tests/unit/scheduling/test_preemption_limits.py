"""What peers' own tests hold of preemption: where it must not help, how far it goes, and what
becomes of room that changes meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.ids import demand_id
from guactors.scheduling.explaining import NoVictim, Why
from guactors.scheduling.preemption import GAP, Spared
from tests.unit.hub.bench import Bench, death
from tests.unit.hub.keyed_bench import APP, OTHER, PROVIDER, KeyedBench

HIGH = GAP


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    return bench


def urgent(bench: Bench, peer: str = "c-2", **shape: Any) -> None:
    bench.demand(peer, "d-9", 1, priority=HIGH, **shape)


def orders(bench: Bench, peer: str = "p-1") -> dict[str, list[tuple[str, str]]]:
    """By lease, what gives way for it and how."""
    found = bench.heard(peer, m.StartLease)
    return {one.lease: [(word.key, word.mode) for word in one.displaces] for one in found}


def why(bench: Bench, peer: str = "c-2") -> dict[str, Any]:
    subject = demand_id(peer, "d-9")
    bench.say(peer, m.Inquire(5, "", m.Query("explanations", subject=subject)))
    page = bench.one(peer, m.Page).page
    return dict(zip(page.columns, page.rows[0], strict=True))


def test_work_of_the_same_session_and_of_the_same_caller_gives_way_too(bench: Bench) -> None:
    """Whose it is does not matter, only how urgent it is."""
    bench.provider("p-1", 1.0)
    (low,) = bench.leases("c-1", 1)
    urgent(bench, "c-1")
    assert list(orders(bench).values()) == [[(low, "suspend")]]


def test_a_device_that_a_higher_priority_holds_is_not_to_be_had(bench: Bench) -> None:
    bench.provider("p-1", 4.0, GPU=1.0)
    bench.leases("c-1", 1, key="holder", resources={"GPU": 1.0}, priority=HIGH + 1)
    bench.leases("c-1", 3, key="others", preemption=["requeue"])
    urgent(bench, resources={"CPU": 1.0, "GPU": 1.0}, preemption=["requeue"])
    assert orders(bench) == {}
    row = why(bench)
    assert row["reason"] == Why.SHORT and "GPU" in row["detail"]
    assert row["preemption"] == NoVictim.NOT_ENOUGH


def test_several_things_short_at_once_and_one_of_them_not(bench: Bench) -> None:
    """Who holds only what is not short is not touched."""
    bench.provider("p-1", 4.0, memory=100.0, disk=10.0)
    again = {"preemption": ["requeue"]}
    bench.leases("c-1", 1, key="disk", resources={"CPU": 0.0, "disk": 5.0}, **again)
    (wide,) = bench.leases("c-1", 1, key="wide", resources={"CPU": 3.0}, **again)
    (fat,) = bench.leases("c-1", 1, key="fat", resources={"CPU": 1.0, "memory": 90.0}, **again)
    urgent(bench, resources={"CPU": 4.0, "memory": 50.0, "disk": 5.0})
    (victims,) = orders(bench).values()
    assert set(victims) == {(wide, "requeue"), (fat, "requeue")}


def test_devices_of_several_victims_together_are_enough(bench: Bench) -> None:
    bench.provider("p-1", 4.0, GPU=3.0)
    shape = {"resources": {"CPU": 1.0, "GPU": 1.0}, "preemption": ["requeue"]}
    low = bench.leases("c-1", 3, **shape)
    urgent(bench, resources={"CPU": 1.0, "GPU": 2.0})
    (victims,) = orders(bench).values()
    assert len(victims) == 2 and {key for key, _ in victims} < set(low)


def test_more_devices_than_there_are_touch_nobody(bench: Bench) -> None:
    bench.provider("p-1", 4.0, GPU=3.0)
    bench.leases("c-1", 3, resources={"CPU": 1.0, "GPU": 1.0}, preemption=["requeue"])
    urgent(bench, resources={"CPU": 1.0, "GPU": 4.0})
    assert orders(bench) == {}
    assert "asked 4 GPU, the most there is is 3" in bench.one("c-2", m.DemandInfeasible).reason


def test_devices_of_a_placement_group_are_not_taken(bench: Bench) -> None:
    bench.provider("p-1", 4.0, GPU=2.0)
    bundle = {"CPU": 1.0, "GPU": 2.0}
    bench.say("c-1", m.CreateGroups([m.GroupSpec("g-1", "s-1", "c-1", [bundle], "PACK")]))
    inside = {"place": m.Placing(group="g-1"), "preemption": ["requeue"]}
    bench.leases("c-1", 2, resources={"CPU": 0.5, "GPU": 1.0}, **inside)
    urgent(bench, resources={"CPU": 1.0, "GPU": 1.0})
    assert orders(bench) == {}
    assert why(bench)["preemption"] == Spared.GROUP
    bench.say("c-1", m.RemoveGroups(["g-1"]))


def test_room_that_shrinks_while_the_newcomer_starts_lets_the_victim_wait(bench: Bench) -> None:
    """It goes on when there is room on what is left, and not before."""
    bench.provider("p-1", 2.0)
    bench.leases("c-1", 1, key="stays", priority=HIGH)
    (low,) = bench.leases("c-1", 1)
    urgent(bench)
    ((winner, victims),) = orders(bench).items()
    assert victims == [(low, "suspend")]
    reports = [
        m.LeaseReport(one.id, one.session, one.caller, _shape(one.need.priority), "w-x", [])
        for one in bench.core.scheduler.desk.leases
    ]
    bench.say("p-1", m.Offer({"CPU": 1.0}, {}, reports, [], m.MachineInfo()))
    bench.say("p-1", m.LeaseEnded(winner, death()))
    assert bench.heard("p-1", m.Resume) == []
    bench.demand("c-2", "d-9", 0)
    stays = next(x.id for x in bench.core.scheduler.desk.leases if x.need.priority == HIGH)
    bench.demand("c-1", "stays", 0)
    bench.say("c-1", m.ReturnLease(stays))
    assert [word.key for word in bench.heard("p-1", m.Resume)] == [low]


def _shape(priority: int) -> m.Shape:
    return m.Shape({"CPU": 1.0}, priority)


def test_a_priority_beyond_the_grant_displaces_nobody_and_is_told() -> None:
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, OTHER, PROVIDER)
    bench.keyed_provider(cpus=1.0)
    bench.grant(APP)
    bench.grant(OTHER, max_priority=HIGH - 1)
    bench.come(APP, "c-1", "s-1")
    bench.come(OTHER, "c-2", "s-2")
    bench.leases("c-1", 1)
    urgent(bench)
    assert orders(bench) == {}
    refused = bench.one("c-2", m.DemandInfeasible)
    assert refused.kind == "PermissionDenied" and "priority" in refused.reason
