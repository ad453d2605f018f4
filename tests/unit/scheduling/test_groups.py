"""Placement groups at the hub: all of their room or none, who is told, what ends with them."""

from __future__ import annotations

import pytest

from guactors import messages as m
from tests.unit.hub.bench import SETTLED, Bench, death, spec
from tests.unit.hub.keyed_bench import APP, PROVIDER, KeyedBench

CPU = {"CPU": 1.0}


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.caller()
    made.provider(cpus=2.0)
    return made


def group(
    id: str = "g-1", *bundles: dict[str, float], strategy: str = "PACK", **more: object
) -> m.GroupSpec:
    given = {"session": "s-1", "owner": "c-1", **more}
    return m.GroupSpec(group=id, bundles=list(bundles) or [CPU], strategy=strategy, **given)  # type: ignore[arg-type]


def make(bench: Bench, *specs: m.GroupSpec, peer: str = "c-1", request: int = 0) -> None:
    bench.say(peer, m.CreateGroups(list(specs), request))


def told(bench: Bench, peer: str = "c-1") -> dict[str, m.GroupUpdate]:
    """The latest word on each group."""
    heard = bench.heard(peer, m.GroupsAre)
    return {update.group: update for message in heard for update in message.groups}


def states(bench: Bench, peer: str = "c-1") -> dict[str, str]:
    return {name: update.state for name, update in told(bench, peer).items()}


def inside(group: str = "g-1", bundle: int = -1, *, capture: bool = False) -> m.Placing:
    return m.Placing(group=group, bundle=bundle, capture=capture)


def free(bench: Bench, peer: str = "p-1", asks: str = "c-1") -> float:
    row = next(row for row in bench.grid(asks).peers if row.peer == peer)
    return row.free["CPU"]


# --- room ----------------------------------------------------------------------------------------


def test_a_group_is_made_in_one_message_and_answered_in_one(bench: Bench) -> None:
    make(bench, *(group(f"g-{number}", {"CPU": 0.01}) for number in range(100)))
    (answer,) = bench.heard("c-1", m.GroupsAre)
    assert [update.state for update in answer.groups] == ["created"] * 100
    assert free(bench) == 1.0
    bench.say("c-1", m.RemoveGroups([f"g-{number}" for number in range(100)]))
    assert set(states(bench).values()) == {"removed"}
    assert free(bench) == 2.0


def test_all_of_it_or_nothing(bench: Bench) -> None:
    bench.leases(count=1)
    make(bench, group("g-1", CPU, CPU))
    assert states(bench) == {"g-1": "pending"}
    assert free(bench) == 1.0
    bench.provider("p-2", cpus=1.0)
    assert told(bench)["g-1"] == m.GroupUpdate("g-1", "created", ["p-1", "p-2"])
    assert free(bench) == free(bench, "p-2") == 0.0


def test_what_does_not_fit_waits_until_something_comes_free(bench: Bench) -> None:
    (lease,) = bench.leases(resources={"CPU": 1.5})
    make(bench, group())
    assert states(bench) == {"g-1": "pending"}
    bench.say("c-1", m.ReturnLease(lease))
    assert states(bench) == {"g-1": "created"}


def test_two_callers_race_for_the_last_room_and_one_wins(bench: Bench) -> None:
    bench.caller("c-2", "s-2")
    make(bench, group("g-1", {"CPU": 2.0}))
    make(bench, group("g-2", {"CPU": 2.0}, session="s-2", owner="c-2"), peer="c-2")
    assert states(bench) == {"g-1": "created"}
    assert states(bench, "c-2") == {"g-2": "pending"}
    bench.say("c-1", m.RemoveGroups(["g-1"]))
    assert states(bench, "c-2") == {"g-2": "created"}


def test_a_lease_outside_takes_nothing_that_is_set_aside(bench: Bench) -> None:
    make(bench, group("g-1", {"CPU": 2.0}))
    bench.demand()
    assert not bench.heard("p-1", m.StartLease)
    bench.say("c-1", m.RemoveGroups(["g-1"]))
    assert len(bench.start_leases()) == 1


def test_leases_are_asked_back_for_a_group_that_waits_and_what_comes_free_is_kept(
    bench: Bench,
) -> None:
    bench.caller("c-2", "s-2")
    leases = bench.leases("c-2", count=2)
    bench.demand("c-2", count=4)
    make(bench, group("g-1", CPU, CPU))
    bench.pass_time(3.0)
    assert {one.lease for one in bench.heard("c-2", m.LeaseRecalled)} == set(leases)
    bench.say("c-2", m.ReturnLease(leases[0]))
    # One CPU is free and somebody wants it, but the group needs both.
    assert not bench.heard("p-1", m.StartLease)
    bench.say("c-2", m.ReturnLease(leases[1]))
    assert states(bench)["g-1"] == "created"


def test_of_groups_that_wait_the_higher_priority_goes_first(bench: Bench) -> None:
    make(bench, group("g-1", {"CPU": 2.0}))
    make(bench, group("g-2", {"CPU": 2.0}), group("g-3", {"CPU": 2.0}, priority=5))
    make(bench, group("g-4", {"CPU": 2.0}, priority=5))
    told(bench)
    turns = []
    for gone in ("g-1", "g-3", "g-4"):
        bench.say("c-1", m.RemoveGroups([gone]))
        turns += [name for name, state in states(bench).items() if state == "created"]
    assert turns == ["g-3", "g-4", "g-2"]


def test_room_is_claimed_from_work_of_no_higher_priority_than_the_group_s(bench: Bench) -> None:
    bench.caller("c-2", "s-2")
    (low,) = bench.leases("c-2", 1, priority=5)
    (high,) = bench.leases("c-2", 1, key="d-2", priority=6)
    make(bench, group("g-1", CPU, CPU, priority=5))
    bench.pass_time(3.0)
    assert not bench.heard("c-2", m.LeaseRecalled), "it would not be enough"
    bench.demand("c-2", "d-2", 0)
    bench.say("c-2", m.ReturnLease(high))
    bench.pass_time(3.0)
    assert {one.lease for one in bench.heard("c-2", m.LeaseRecalled)} == {low}


def test_what_is_kept_for_a_group_is_not_kept_from_a_higher_priority(bench: Bench) -> None:
    bench.caller("c-2", "s-2")
    leases = bench.leases("c-2", count=2)
    make(bench, group("g-1", CPU, CPU, priority=5))
    bench.pass_time(3.0)
    bench.say("c-2", m.ReturnLease(leases[0]))
    bench.demand("c-2", "d-2", 1, priority=5)
    assert not bench.heard("p-1", m.StartLease)
    bench.demand("c-2", "d-3", 1, priority=6)
    assert len(bench.heard("p-1", m.StartLease)) == 1


def test_a_priority_beyond_the_grant_is_refused() -> None:
    keyed = KeyedBench()
    keyed.owner()
    keyed.approve(APP, PROVIDER)
    keyed.keyed_provider(cpus=2.0)
    keyed.grant(APP, max_priority=3)
    keyed.come(APP, "c-1", "s-1")
    make(keyed, group("g-1", priority=5), group("g-2", priority=3))
    found = told(keyed)
    assert (found["g-1"].state, found["g-1"].kind) == ("removed", "PermissionDenied")
    assert found["g-2"].state == "created"


def test_what_was_kept_for_a_group_that_is_removed_goes_to_who_waits(bench: Bench) -> None:
    bench.caller("c-2", "s-2")
    leases = bench.leases("c-2", count=2)
    bench.demand("c-2", count=3)
    make(bench, group("g-1", CPU, CPU))
    bench.pass_time(3.0)
    bench.say("c-2", m.ReturnLease(leases[0]))
    assert not bench.heard("p-1", m.StartLease)
    bench.say("c-1", m.RemoveGroups(["g-1"]))
    bench.pass_time(3.0)
    assert len(bench.heard("p-1", m.StartLease)) == 1


def test_a_group_that_can_never_be_does_not_stand_in_the_way_of_others(bench: Bench) -> None:
    bench.caller("c-2", "s-2")
    leases = bench.leases("c-2", count=2)
    make(bench, group("g-1", {"CPU": 9.0}), group("g-2", CPU, CPU))
    bench.pass_time(3.0)
    assert {one.lease for one in bench.heard("c-2", m.LeaseRecalled)} == set(leases)


# --- strategies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "homes"),
    [
        ("PACK", {("p-1", "p-1"), ("p-2", "p-2")}),
        ("STRICT_PACK", {("p-1", "p-1"), ("p-2", "p-2")}),
        ("SPREAD", {("p-1", "p-2"), ("p-2", "p-1")}),
        ("STRICT_SPREAD", {("p-1", "p-2"), ("p-2", "p-1")}),
    ],
)
def test_where_two_bundles_go(bench: Bench, strategy: str, homes: set[tuple[str, str]]) -> None:
    bench.provider("p-2", cpus=2.0)
    make(bench, group("g-1", CPU, CPU, strategy=strategy))
    assert tuple(told(bench)["g-1"].providers) in homes


@pytest.mark.parametrize(
    ("strategy", "state"),
    [
        ("PACK", "created"),
        ("SPREAD", "created"),
        ("STRICT_PACK", "pending"),
        ("STRICT_SPREAD", "pending"),
    ],
)
def test_strict_means_that_nothing_else_will_do(bench: Bench, strategy: str, state: str) -> None:
    bench.provider("p-2", cpus=2.0)
    make(bench, group("g-1", CPU, CPU, CPU, strategy=strategy))
    assert states(bench) == {"g-1": state}


def test_bundles_go_where_their_labels_say(bench: Bench) -> None:
    bench.provider("p-2", labels={"zone": "b"})
    bench.provider("p-3", labels={"zone": "c"})
    labels = [{"zone": "in(b,d)"}, {"zone": "!in(a,b)"}]
    make(bench, group("g-1", CPU, CPU, labels=labels, strategy="SPREAD"))
    homes = told(bench)["g-1"].providers
    assert homes[0] == "p-2"
    assert homes[1] in ("p-1", "p-3")


# --- inside --------------------------------------------------------------------------------------


def test_a_lease_inside_takes_the_bundle_s_room(bench: Bench) -> None:
    make(bench, group("g-1", {"CPU": 2.0}))
    first, second = bench.leases(count=2, place=inside())
    bench.demand("c-1", "d-1", 3, place=inside())
    assert not bench.heard("p-1", m.StartLease)
    bench.say("c-1", m.ReturnLease(first))
    assert len(bench.start_leases()) == 1
    assert second


def test_the_index_says_which_bundle(bench: Bench) -> None:
    bench.provider("p-2", cpus=2.0)
    make(bench, group("g-1", CPU, CPU, strategy="STRICT_SPREAD"))
    homes = told(bench)["g-1"].providers
    for index in (1, 0):
        bench.demand("c-1", f"d-{index}", place=inside(bundle=index))
        assert len(bench.heard(homes[index], m.StartLease)) == 1


def test_what_fits_in_no_bundle_is_refused_by_name(bench: Bench) -> None:
    make(bench, group("g-1", CPU, CPU))
    bench.demand(resources={"CPU": 2.0}, place=inside())
    refused = bench.one("c-1", m.DemandInfeasible)
    assert "no bundle of g-1" in refused.reason


def test_who_asks_for_a_bundle_before_the_group_has_room_waits(bench: Bench) -> None:
    (lease,) = bench.leases(resources={"CPU": 2.0})
    make(bench, group())
    bench.demand(key="d-2", place=inside())
    assert not bench.heard("p-1", m.StartLease)
    bench.say("c-1", m.ReturnLease(lease))
    assert len(bench.start_leases()) == 1


def test_a_group_that_nobody_knows_is_refused_after_a_while(bench: Bench) -> None:
    bench.demand(place=inside("g-9"))
    assert not bench.heard("c-1", m.DemandInfeasible)
    bench.pass_time(3.0)
    refused = bench.one("c-1", m.DemandInfeasible)
    assert (refused.kind, "g-9" in refused.reason) == ("PlacementGroupRemoved", True)


def test_a_task_that_waits_gives_its_place_in_the_bundle_to_others(bench: Bench) -> None:
    make(bench, group())
    (lease,) = bench.leases(place=inside())
    bench.demand(key="d-2", place=inside())
    assert not bench.heard("p-1", m.StartLease)
    bench.say("p-1", m.WorkerBlocked(lease))
    assert len(bench.start_leases()) == 1


# --- ends ----------------------------------------------------------------------------------------


def test_removal_ends_what_runs_inside_and_what_waits_for_it(bench: Bench) -> None:
    make(bench, group("g-1", CPU, CPU))
    bench.leases(place=inside())
    bench.create(spec(shape=m.Shape(CPU, place=inside())))
    bench.start_actors()
    bench.demand(key="d-2", place=inside())
    bench.say("c-1", m.RemoveGroups(["g-1"], 7))
    assert bench.one("c-1", m.Done) == m.Done(7)
    assert bench.one("c-1", m.LeaseLost).death.cause == "group_removed"
    assert bench.one("p-1", m.StopLease).kill
    assert bench.one("p-1", m.StopActor).actor == "a-1"
    assert bench.heard("c-1", m.ActorUpdate)[-1].state == "dead"
    refused = bench.heard("c-1", m.DemandInfeasible)
    assert {(one.key, one.kind) for one in refused} == {
        ("d-1", "PlacementGroupRemoved"), ("d-2", "PlacementGroupRemoved"),
    }  # fmt: skip
    assert free(bench) == 2.0


def test_it_ends_with_its_session_unless_it_is_detached(bench: Bench) -> None:
    make(bench, group("g-1"), group("g-2", detached=True))
    bench.caller("c-2", "s-2")
    bench.say("c-1", m.Goodbye())
    assert free(bench, asks="c-2") == 1.0
    bench.say("c-2", m.AskGroups(1))
    found = {row.spec.group: row.update.state for row in bench.one("c-2", m.GroupList).groups}
    assert found == {
        "g-1": "removed",
        "g-2": "created",
    }


def test_what_an_actor_made_lives_as_long_as_its_session(bench: Bench) -> None:
    bench.actor(spec("a-1", detached=True, name="keeper", namespace="space"))
    bench.caller("c-2", "s-1", root=False)
    bench.caller("c-3", "s-3")
    make(bench, group("g-1", owner="c-2", actor="a-1"), peer="c-2")
    bench.say("c-1", m.Goodbye())
    assert free(bench, asks="c-2") == 1.0
    bench.say("p-1", m.ActorEnded("a-1", 0, death()))
    assert free(bench, asks="c-3") == 2.0


def test_a_lost_provider_s_bundles_are_put_elsewhere(bench: Bench) -> None:
    bench.provider("p-2", cpus=2.0)
    make(bench, group("g-1", CPU, CPU, strategy="STRICT_SPREAD"))
    homes = told(bench)["g-1"].providers
    bench.leases(key="d-1", place=inside(bundle=0))
    bench.say(homes[0], m.Goodbye())
    assert bench.one("c-1", m.LeaseLost).death.cause == "provider_lost"
    update = told(bench)["g-1"]
    assert (update.state, update.providers[1]) == ("rescheduling", homes[1])
    bench.provider("p-3", cpus=1.0)
    update = told(bench)["g-1"]
    assert (update.state, update.providers) == ("created", ["p-3", homes[1]])


# --- who may, and who is told --------------------------------------------------------------------


def test_one_name_one_group(bench: Bench) -> None:
    make(bench, group("g-1", name="mine", namespace="space"), request=1)
    assert bench.one("c-1", m.Done).request == 1
    bench.caller("c-2", "s-2")
    again = group("g-2", name="mine", namespace="space", session="s-2", owner="c-2")
    make(bench, again, peer="c-2", request=2)
    fault = bench.one("c-2", m.Fault)
    assert (fault.kind, fault.request) == ("NameTaken", 2)
    bench.say("c-2", m.FindGroup(3, "mine", "space"))
    assert bench.one("c-2", m.GroupList).groups[0].spec.group == "g-1"
    bench.say("c-1", m.RemoveGroups(["g-1"]))
    bench.say("c-2", m.FindGroup(4, "mine", "space"))
    assert bench.one("c-2", m.Fault).kind == "UsageError"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (group("g-1", session="s-2"), "not its own"),
        (group("g-1", owner="c-2"), "not its own"),
        (group("g-1", {}), "asks for nothing"),
        (m.GroupSpec("g-1", "s-1", "c-1", [], "PACK"), "no bundle"),
        (group("g-1", strategy="RANDOM"), "RANDOM"),
        (group("g-1", labels=[{"x" * 250: "y" * 250 + str(i)} for i in range(300)]), "larger"),
    ],
)
def test_what_a_hub_refuses(bench: Bench, made: m.GroupSpec, words: str) -> None:
    make(bench, made)
    update = told(bench)["g-1"]
    assert (update.state, update.kind) == ("removed", "UsageError")
    assert words in update.reason
    assert free(bench) == 2.0


def test_an_impossible_group_is_told_why_and_gets_hope_again(bench: Bench) -> None:
    make(bench, group("g-1", {"GPU": 1.0}))
    update = told(bench)["g-1"]
    assert (update.state, update.kind) == ("pending", "Unschedulable")
    assert "GPU" in update.reason
    bench.provider("p-2", GPU=1.0)
    assert told(bench)["g-1"].state == "created"


def test_watchers_of_another_session_are_told_too(bench: Bench) -> None:
    make(bench, group())
    bench.caller("c-2", "s-2")
    bench.say("c-2", m.WatchGroups(["g-1", "g-9"]))
    assert states(bench, "c-2") == {"g-1": "created", "g-9": "unknown"}
    bench.say("c-1", m.RemoveGroups(["g-1"]))
    assert states(bench, "c-2") == {"g-1": "removed"}


def test_news_of_very_many_groups_come_in_parts(bench: Bench) -> None:
    names = [f"g-{number}" for number in range(1100)]
    for first in range(0, 1100, 500):
        make(bench, *(group(name, {"x": 1.0}) for name in names[first : first + 500]))
    assert len(told(bench)) == 1100
    bench.provider("p-2", x=2000.0)
    heard = bench.heard("c-1", m.GroupsAre)
    assert [len(one.groups) for one in heard] == [500, 500, 100]
    assert all(update.state == "created" for one in heard for update in one.groups)


def test_who_waits_inside_is_served_when_the_provider_is_back(bench: Bench) -> None:
    make(bench, group())
    bench.break_link("p-1")
    bench.demand(place=inside())
    assert not bench.heard("p-1", m.StartLease)
    bench.provider(cpus=2.0)
    assert len(bench.start_leases()) == 1


# --- after a new hub -----------------------------------------------------------------------------


def test_a_new_hub_learns_of_groups_from_who_made_them() -> None:
    bench = Bench(young=True)
    bench.caller()
    make(bench, group("g-1", CPU, homes=["p-1"]))
    bench.provider("p-2", cpus=2.0)
    # It has a home whose provider may still come back.
    assert set(states(bench).values()) <= {"rescheduling"}
    bench.provider("p-1", cpus=2.0)
    assert told(bench)["g-1"].providers == ["p-1"]


def test_a_home_that_does_not_come_back_is_given_up() -> None:
    bench = Bench(young=True)
    bench.caller()
    make(bench, group("g-1", CPU, homes=["p-9"]))
    bench.provider("p-2", cpus=2.0)
    bench.pass_time(SETTLED)
    assert told(bench)["g-1"].providers == ["p-2"]


def test_detached_groups_are_kept_in_mind_by_providers() -> None:
    bench = Bench()
    bench.caller()
    bench.provider(cpus=2.0)
    make(bench, group("g-1", detached=True, name="mine", namespace="space"))
    (kept,) = bench.one("p-1", m.KeepGroups).groups
    assert kept.homes == ["p-1"]

    new = Bench(young=True)
    versions = m.Versions("0", "3.11.7")
    new.hello(m.Hello("p-1", "provider", versions, 1, "here", name="box1"))
    new.say("p-1", m.KeepGroups([kept]), m.Offer({"CPU": 2.0}, {}, [], [], m.MachineInfo()))
    new.caller("c-2", "s-2")
    new.say("c-2", m.FindGroup(1, "mine", "space"))
    (row,) = new.one("c-2", m.GroupList).groups
    assert (row.update.state, row.update.providers) == ("created", ["p-1"])
    new.say("c-2", m.RemoveGroups(["g-1"]))
    assert new.one("p-1", m.DropGroups).groups == ["g-1"]


def test_what_was_removed_before_a_new_hub_knew_it_ends_when_it_does() -> None:
    bench = Bench(young=True)
    bench.caller()
    bench.say("c-1", m.RemoveGroups(["g-1"]))
    assert states(bench) == {"g-1": "unknown"}
    versions = m.Versions("0", "3.11.7")
    bench.hello(m.Hello("p-1", "provider", versions, 1, "here", name="box1"))
    kept = group("g-1", detached=True, homes=["p-1"], principal="local")
    bench.say("p-1", m.KeepGroups([kept]), m.Offer({"CPU": 2.0}, {}, [], [], m.MachineInfo()))
    assert free(bench) == 2.0


def test_who_removes_is_told_so_though_it_never_watched(bench: Bench) -> None:
    make(bench, group())
    bench.caller("c-2", "s-2")
    bench.say("c-2", m.RemoveGroups(["g-1", "g-9"]))
    assert states(bench, "c-2") == {"g-1": "removed", "g-9": "unknown"}


def test_a_refusal_that_was_lost_is_told_again(bench: Bench) -> None:
    bench.create(spec(shape=m.Shape({}, place=inside("g-9"))))
    bench.pass_time(3.0)
    assert bench.one("c-1", m.DemandInfeasible).kind == "PlacementGroupRemoved"
    bench.say("c-1", m.WatchActor("a-1"))
    assert bench.one("c-1", m.DemandInfeasible).kind == "PlacementGroupRemoved"
