"""Placement groups in the process that makes them: batches, waiting, new hubs."""

from __future__ import annotations

import pickle

import pytest

from guactors import errors
from guactors import messages as m
from guactors.caller.groups import RemoteGroup
from tests.unit.caller.bench import Bench, endpoints

CPU = {"CPU": 1.0}
INSIDE = m.Shape(CPU, place=m.Placing(group="g-1"))


def spec(id: str = "g-1", **more: object) -> m.GroupSpec:
    return m.GroupSpec(id, "s-1", "c-1", [CPU], "PACK", **more)  # type: ignore[arg-type]


def created(*ids: str) -> m.GroupsAre:
    return m.GroupsAre([m.GroupUpdate(id, "created", ["p-1"]) for id in ids])


def removed(id: str = "g-1", reason: str = "why", kind: str = "PlacementGroupRemoved") -> m.Message:
    return m.GroupsAre([m.GroupUpdate(id, "removed", [], reason, kind)])


def said(bench: Bench) -> list[m.Message]:
    bench._settle()
    found, bench.to_hub = bench.to_hub, []
    return found


def failure(bench: Bench, id: int) -> Exception:
    entry = bench.core.objects.entries[id]
    assert entry.error
    assert entry.data is not None
    found: Exception = pickle.loads(entry.data)
    return found


def data(bench: Bench, id: int) -> bytes | None:
    return bench.core.objects.entries[id].data


def make(bench: Bench, id: str = "g-1") -> RemoteGroup:
    return bench.core.groups.create(spec(id))


def test_many_are_made_in_one_message_and_removed_in_one() -> None:
    bench = Bench()
    for number in range(100):
        make(bench, f"g-{number}")
    (one,) = said(bench)
    assert isinstance(one, m.CreateGroups)
    assert len(one.groups) == 100
    for number in range(100):
        bench.core.groups.remove(f"g-{number}")
    assert said(bench) == [m.RemoveGroups([f"g-{number}" for number in range(100)])]


def test_very_many_are_made_in_parts_that_a_link_carries() -> None:
    bench = Bench()
    for number in range(600):
        make(bench, f"g-{number}")
    assert [len(one.groups) for one in said(bench) if isinstance(one, m.CreateGroups)] == [500, 100]
    for number in range(10):
        wide = [dict.fromkeys((f"{'x' * 200}{i}" for i in range(400)), 1.0)]
        bench.core.groups.create(m.GroupSpec(f"w-{number}", "s-1", "c-1", wide, "PACK"))
    assert len(said(bench)) == 2


def test_ready_is_there_when_the_room_is() -> None:
    bench = Bench()
    group = make(bench)
    id = bench.core.groups.when_ready(group, b"the group")
    bench._settle()
    assert data(bench, id) is None
    bench.hub(created("g-1"))
    assert data(bench, id) == b"the group"
    later = bench.core.groups.when_ready(group, b"again")
    assert data(bench, later) == b"again"


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        ("PlacementGroupRemoved", errors.PlacementGroupRemoved),
        ("PermissionDenied", errors.PermissionDenied),
        ("UsageError", errors.UsageError),
        ("os", errors.PlacementGroupRemoved),
    ],
)
def test_ready_fails_with_the_hub_s_reason(kind: str, type_: type[Exception]) -> None:
    bench = Bench()
    id = bench.core.groups.when_ready(make(bench), b"")
    bench.hub(removed(reason="not for you", kind=kind))
    error = failure(bench, id)
    assert type(error) is type_
    assert "not for you" in str(error)


def test_what_is_removed_here_is_over_at_once() -> None:
    bench = Bench()
    group = make(bench)
    id = bench.core.groups.when_ready(group, b"")
    bench.core.groups.remove("g-1")
    assert isinstance(failure(bench, id), errors.PlacementGroupRemoved)
    late = bench.core.groups.when_ready(group, b"")
    assert isinstance(failure(bench, late), errors.PlacementGroupRemoved)


def test_who_waits_for_what_nobody_could_hold_is_told_after_a_while_and_the_group_goes_on() -> None:
    bench = Bench(patience=5.0)
    group = make(bench)
    id = bench.core.groups.when_ready(group, b"yes")
    bench.hub(m.GroupsAre([m.GroupUpdate("g-1", "pending", [], "no GPU", "Unschedulable")]))
    bench.pass_time(4.9)
    assert data(bench, id) is None
    bench.pass_time(0.2)
    error = failure(bench, id)
    assert isinstance(error, errors.Unschedulable)
    assert "no GPU" in str(error)
    bench.hub(created("g-1"))
    assert group.state == "created"


def test_hope_in_time_keeps_the_wait_alive() -> None:
    bench = Bench(patience=5.0)
    id = bench.core.groups.when_ready(make(bench), b"yes")
    bench.hub(m.GroupsAre([m.GroupUpdate("g-1", "pending", [], "no GPU", "Unschedulable")]))
    bench.pass_time(4.0)
    bench.hub(m.GroupsAre([m.GroupUpdate("g-1", "pending")]))
    bench.pass_time(10.0)
    assert data(bench, id) is None


def test_a_demand_inside_a_group_follows_its_creation() -> None:
    bench = Bench()
    make(bench)
    bench.call(bench.core.demand(INSIDE))
    assert [type(x) for x in said(bench)] == [m.CreateGroups, m.SetDemand]


@pytest.mark.parametrize("retries", [0, 3])
def test_a_task_whose_group_was_removed_fails_and_says_so(retries: int) -> None:
    bench = Bench()
    id = bench.call(bench.core.demand(INSIDE), retries=retries)
    (demand,) = [x for x in said(bench) if isinstance(x, m.SetDemand)]
    bench.hub(m.LeaseGranted(demand.key, "l-1", "w-1", "p-1", endpoints("w-1")))
    bench.hub(m.LeaseLost("l-1", m.DeathReport("group_removed", "it was removed by c-1")))
    if retries:
        assert data(bench, id) is None
        why = "g-1 is gone: it was removed by c-1"
        bench.hub(m.DemandInfeasible(demand.key, why, "PlacementGroupRemoved"))
    error = failure(bench, id)
    assert isinstance(error, errors.PlacementGroupRemoved)
    assert "removed by c-1" in str(error)


def test_a_new_hub_is_told_where_groups_are_and_which_are_over() -> None:
    bench = Bench()
    make(bench, "g-1")
    make(bench, "g-2")
    make(bench, "g-3")
    bench.core.groups.watch("g-9")
    said(bench)
    bench.hub(created("g-1", "g-2"))
    bench.core.groups.remove("g-2")
    told = [x for x in bench.relink() if isinstance(x, m.GroupQuestion)]
    assert [type(x) for x in told] == [m.CreateGroups, m.WatchGroups, m.RemoveGroups]
    assert [(x.group, x.homes) for x in told[0].groups] == [("g-3", [])]
    assert told[1:] == [m.WatchGroups(["g-1", "g-9"]), m.RemoveGroups(["g-2"])]
    bench.hub(m.GroupsAre([m.GroupUpdate("g-1", "unknown"), m.GroupUpdate("g-9", "unknown")]))
    (again,) = said(bench)
    assert isinstance(again, m.CreateGroups)
    assert [(x.group, x.homes) for x in again.groups] == [("g-1", ["p-1"])]
    assert bench.core.groups.groups.keys() == {"g-1", "g-3"}
    bench.hub(m.GroupsAre([m.GroupUpdate("g-2", "unknown")]))
    assert m.RemoveGroups(["g-2"]) not in bench.relink()
