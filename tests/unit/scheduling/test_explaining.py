"""Why something waits: each reason once, with its numbers, and nobody's names but one's own."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.ids import demand_id
from guactors.scheduling.explaining import NoVictim, Why, running
from guactors.scheduling.preemption import GAP, Spared
from guactors.security.grants import Quotas
from tests.unit.hub.bench import Bench, death, spec
from tests.unit.hub.keyed_bench import APP, OTHER, PROVIDER, KeyedBench

LOW, HIGH = 0, GAP
seen: set[str] = set()
"""Reasons that some test has met."""


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    return bench


def rows(bench: Any, peer: str = "c-2", subject: str = "") -> list[dict[str, Any]]:
    bench.say(peer, m.Inquire(5, "", m.Query("explanations", subject=subject)))
    page = bench.one(peer, m.Page).page
    found = [dict(zip(page.columns, row, strict=True)) for row in page.rows]
    seen.update(word for row in found for word in (row["reason"], row["preemption"]) if word)
    return found


def why(bench: Bench, **shape: Any) -> dict[str, Any]:
    """Why a demand of the second caller waits, of the one provider there is."""
    bench.demand("c-2", "d-9", 1, **shape)
    (row,) = rows(bench, subject=demand_id("c-2", "d-9"))
    return row


@pytest.mark.parametrize(
    ("shape", "reason", "said"),
    [
        ({"provider": "elsewhere"}, Why.OTHER_PROVIDER, "elsewhere"),
        ({"runtime": "vm"}, Why.RUNTIME, "runtime vm, this one has native, python"),
        ({"labels": {"kind": "good"}}, Why.LABELS, "kind=good"),
        ({"resources": {"GPU": 4.0}}, Why.TOO_SMALL, "asked 4 GPU, all there is is 0"),
    ],
)
def test_what_could_never_be(bench: Bench, shape: Any, reason: Why, said: str) -> None:
    bench.provider("p-1", 2.0)
    row = why(bench, **shape)
    assert row["reason"] == reason and said in row["detail"], row
    assert (row["node_id"], row["node_name"], row["job_id"]) == ("p-1", "box1", "s-2")


def test_another_python_and_no_provider(bench: Bench) -> None:
    assert why(bench)["reason"] == Why.NO_PROVIDER
    bench.provider("p-1", 2.0, python="3.12.1")
    row = why(bench)
    assert row["reason"] == Why.PYTHON and "3.11" in row["detail"] and "3.12" in row["detail"]


def test_a_silent_provider_and_one_that_joins(bench: Bench) -> None:
    bench.provider("p-1", 2.0)
    slot = bench.core.scheduler.desk.slots["p-1"]
    bench.leases("c-1", 2)
    bench.demand("c-2", "d-9", 1)
    slot.up = False
    (row,) = rows(bench)
    assert row["reason"] == Why.SILENT
    slot.up, slot.offered = True, False
    (row,) = rows_unchecked(bench)
    assert row["reason"] == Why.JOINING
    slot.offered = True


def rows_unchecked(bench: Bench) -> list[dict[str, Any]]:
    """Of a desk that was tampered with."""
    scheduler = bench.core.scheduler
    from guactors.scheduling.foresight import COLUMNS, Foresight

    listing = Foresight(scheduler.desk, scheduler._claims).listing(
        scheduler.desk.callers["c-2"], ""
    )
    found = [dict(zip(COLUMNS, row, strict=True)) for row in listing.rows]
    seen.update(word for row in found for word in (row["reason"], row["preemption"]) if word)
    return found


def test_the_numbers_of_what_is_short(bench: Bench) -> None:
    """Asked 4, free 1, and 1 of those that are taken stands still."""
    bench.provider("p-1", 8.0, GPU=4.0)
    bench.leases("c-2", 1, key="d-1", resources={"CPU": 6.0, "GPU": 1.0})
    (holder,) = bench.leases("c-1", 1, key="d-2", resources={"CPU": 2.0, "GPU": 2.0}, priority=9)
    bench.demand("c-1", "d-3", 1, priority=HIGH, resources={"CPU": 1.0})
    (order,) = bench.heard("p-1", m.StartLease)
    (victim,) = [word.key for word in order.displaces]
    assert victim != holder
    row = why(bench, resources={"CPU": 1.0, "GPU": 4.0})
    assert row["reason"] == Why.SHORT
    assert (row["asked"], row["free"], row["still"]) == ({"GPU": 4.0}, {"GPU": 1.0}, {"GPU": 1.0})
    assert f"asked 4 GPU, free 1 of 4, 1 held by {victim}, suspended" in row["detail"]
    assert row["preemption"] in {Spared.GAP, Spared.STANDS}


def test_a_machine_that_its_owner_uses_himself(bench: Bench) -> None:
    bench.provider("p-1", 1.0)
    (mine,) = bench.leases("c-1", 1)
    bench.say("p-1", m.AvailabilityIs(m.Availability(False, "it is used: a game")))
    row = why(bench, priority=HIGH)
    assert row["reason"] == Why.CLOSED and "it is used: a game" in row["detail"]
    desk = bench.core.scheduler.desk
    word, text = running(desk, desk.callers["c-1"], desk.leases.by_id[mine], bench.now)
    assert word == "suspended"
    assert text.endswith("its provider is not available: it is used: a game")


@pytest.mark.parametrize(
    ("shape", "priority", "spared", "said"),
    [
        ({}, HIGH - 1, Spared.GAP, "priority not lower by 10 than 9"),
        ({"preemption": ["never"]}, HIGH, Spared.NEVER, "never to give way"),
        ({"min_runtime": 60.0}, HIGH, Spared.MIN_RUNTIME, "to run longer first, by 60.0 s"),
    ],
)
def test_why_nobody_gives_way(
    bench: Bench, shape: Any, priority: int, spared: Spared, said: str
) -> None:
    bench.provider("p-1", 1.0)
    (low,) = bench.leases("c-1", 1, **shape)
    row = why(bench, priority=priority)
    assert (row["reason"], row["preemption"]) == (Why.SHORT, spared)
    assert f"nobody gives way: {low}: {said}" in row["detail"], row["detail"]


def test_what_is_in_the_way_and_what_is_sought(bench: Bench) -> None:
    bench.provider("p-1", 2.0)
    (first,) = bench.leases("c-1", 1, company=m.Company({"app": "db"}))
    row = why(bench, priority=HIGH, company=m.Company(apart={"app": "db"}))
    assert (row["reason"], row["preemption"]) == (Why.APART, None)
    assert f"{first} is there" in row["detail"]
    near = m.Company(near={"app": "db"})
    row = why(bench, priority=HIGH, resources={"CPU": 2.0}, company=near)
    assert (row["reason"], row["preemption"]) == (Why.SHORT, Spared.NEAR)
    row = why(bench, company=m.Company(near={"app": "web"}))
    assert row["reason"] == Why.APART and "no work of labels app=web" in row["detail"]


def test_what_starts_and_what_others_work_for(bench: Bench) -> None:
    bench.provider("p-1", 1.0)
    bench.demand("c-1", "d-1", 1)
    assert why(bench, priority=HIGH)["preemption"] == Spared.IDLE
    bench.demand("c-2", "d-9", 0)
    bench.start_leases()
    bench.granted("c-1")
    worker = next(iter(bench.core.scheduler.desk.leases)).worker
    versions = m.Versions("0", "3.11.7")
    bench.hello(m.Hello("c-3", "caller", versions, 1, "here", "s-1", False, worker))
    bench.demand("c-3", "d-9", 1, priority=HIGH)
    (row,) = rows(bench, "c-3")
    assert row["preemption"] == Spared.SERVES


def test_what_would_not_help_and_what_is_not_enough(bench: Bench) -> None:
    bench.provider("p-1", 4.0, GPU=1.0)
    bench.leases("c-1", 1, resources={"CPU": 1.0, "GPU": 1.0})
    row = why(bench, priority=HIGH, resources={"CPU": 1.0, "GPU": 1.0})
    assert row["preemption"] == Spared.NO_HELP, "a device is not freed by standing still"
    bench.demand("c-2", "d-9", 0)
    bench.leases("c-1", 1, key="d-2", priority=HIGH, resources={"CPU": 3.0})
    row = why(bench, priority=HIGH, resources={"CPU": 3.0})
    assert row["preemption"] == NoVictim.NOT_ENOUGH
    assert "it would not be enough if" in row["detail"]


def test_one_that_has_given_way_lately(bench: Bench) -> None:
    bench.provider("p-1", 1.0)
    bench.leases("c-1", 1, preemption=["requeue"])
    bench.demand("c-2", "d-9", 1, priority=HIGH)
    order = bench.one("p-1", m.StartLease)
    bench.demand("c-2", "d-9", 0)
    bench.say("p-1", m.LeaseEnded(order.lease, death("not_displaced")))
    bench.start_leases()
    bench.demand("c-2", "d-9", 1, priority=HIGH)
    (row,) = rows(bench)
    assert (row["reason"], row["preemption"]) == (Why.SHORT, Spared.LATELY)
    assert "by 1.00 s, for it has given way lately" in row["detail"]


def test_one_that_could_not_stand_still(bench: Bench) -> None:
    bench.provider("p-1", 1.0)
    bench.leases("c-1", 1)
    bench.demand("c-2", "d-9", 1, priority=HIGH)
    order = bench.one("p-1", m.StartLease)
    word = order.displaces[0]
    bench.say("p-1", m.Suspended(word.key, word.number, "the daemon does not answer"))
    bench.say("p-1", m.LeaseEnded(order.lease, death("not_displaced")))
    (row,) = rows(bench)
    assert (row["reason"], row["preemption"]) == (Why.SHORT, Spared.STEADY)


def test_room_that_is_kept_for_a_higher_priority(bench: Bench) -> None:
    bench.provider("p-1", 4.0)
    bench.leases("c-1", 1, resources={"CPU": 2.0}, priority=5)
    bench.demand("c-1", "d-2", 1, resources={"CPU": 4.0}, priority=5)
    row = why(bench)
    assert row["reason"] == Why.BEHIND
    assert "priority 5" in row["detail"] and "behind 1 of higher priority" in row["detail"]


def test_room_that_is_kept_for_what_stands_still(bench: Bench) -> None:
    bench.provider("p-1", 2.0)
    bench.leases("c-1", 1, resources={"CPU": 2.0})
    bench.demand("c-1", "d-2", 1, priority=HIGH)
    row = why(bench)
    assert row["reason"] == Why.KEPT


def test_pauses_of_the_demand_itself(bench: Bench) -> None:
    bench.provider("p-1", 1.0)
    bench.demand("c-2", "d-9", 1)
    order = bench.one("p-1", m.StartLease)
    bench.say("p-1", m.LeaseEnded(order.lease, death("start_failed")))
    (row,) = rows(bench)
    assert row["reason"] == Why.RETRY_LATER and "1 starts have failed" in row["detail"]
    demand = next(iter(bench.core.scheduler.desk.demands))
    for field, reason in (
        ("given_up", Why.GIVEN_UP), ("preparing", Why.PREPARING), ("paused", Why.CALLER_STANDS),
    ):  # fmt: skip
        setattr(demand, field, {"l-x"} if field == "preparing" else True)
        (row,) = rows_unchecked(bench)
        assert row["reason"] == reason
    demand.given_up = demand.paused = False
    demand.preparing = set()


def test_groups(bench: Bench) -> None:
    bench.provider("p-1", 3.0)
    group = m.GroupSpec("g-1", "s-2", "c-2", [{"CPU": 1.0}], "PACK")
    bench.say("c-2", m.CreateGroups([group]))
    place = m.Placing(group="g-1")
    bench.leases("c-2", 1, place=place)
    row = why(bench, place=place)
    assert row["reason"] == Why.SHORT and row["detail"].startswith("bundle 0: asked 1 CPU, free 0")
    bench.leases("c-1", 2)
    bench.demand("c-2", "d-8", 1, priority=HIGH, resources={"CPU": 3.0})
    (row,) = rows(bench, subject=demand_id("c-2", "d-8"))
    assert "in a placement group" in row["detail"]
    bench.say("c-2", m.RemoveGroups(["g-1"]))


def test_a_group_that_waits_itself(bench: Bench) -> None:
    bench.provider("p-1", 1.0)
    group = m.GroupSpec("g-1", "s-2", "c-2", [{"CPU": 2.0}], "PACK")
    bench.say("c-2", m.CreateGroups([group]))
    row = why(bench, place=m.Placing(group="g-1"))
    assert row["reason"] == Why.GROUP and row["node_id"] is None


def test_one_that_rather_waits(bench: Bench) -> None:
    bench.provider("p-1", 1.0)
    bench.provider("p-2", 1.0)
    bench.leases("c-1", 2)
    bench.demand("c-2", "d-9", 1, place=m.Placing(prefer="p-2"))
    reasons = {row["node_id"]: row["reason"] for row in rows(bench)}
    assert reasons == {"p-1": Why.PREFERRED, "p-2": Why.SHORT}


def test_where_it_runs(bench: Bench) -> None:
    bench.provider("p-1", 1.0)
    (low,) = bench.leases("c-1", 1)
    (row,) = rows(bench, subject=low)
    assert (row["reason"], row["node_id"]) == ("running", "p-1") and low in row["detail"]
    bench.demand("c-2", "d-9", 1, priority=HIGH)
    (order,) = bench.heard("p-1", m.StartLease)
    (row,) = rows(bench, subject=low)
    assert row["reason"] == "suspended" and order.lease in row["detail"]
    (row,) = rows(bench, subject=demand_id("c-2", "d-9"))
    assert row["reason"] == "starting"
    assert rows(bench) == []
    bench.create(spec("a-1", "c-2", "s-2", shape=m.Shape({"CPU": 1.0})))
    (row,) = rows(bench, subject="a-1")
    assert (row["kind"], row["reason"], row["demand_id"]) == ("actor", Why.SHORT, "a-1")
    bench.say("c-2", m.Inquire(5, "", m.Query("explanations", subject="a-77")))
    assert bench.one("c-2", m.Fault).kind == "UsageError"


def test_a_session_of_which_nothing_waits(bench: Bench) -> None:
    assert rows(bench, subject="s-2") == []


# --- of others ------------------------------------------------------------------------------------


@pytest.fixture
def keyed() -> KeyedBench:
    """Two apps; the first has all of the only provider."""
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, OTHER, PROVIDER)
    bench.keyed_provider(cpus=2.0)
    bench.grant(APP)
    bench.grant(OTHER)
    bench.come(APP, "c-1", "s-1")
    bench.come(OTHER, "c-2", "s-2")
    return bench


def test_nobody_is_named_but_ones_own(keyed: KeyedBench) -> None:
    low = keyed.leases("c-1", 2, priority=3)
    keyed.demand("c-2", "d-9", 1)
    (row,) = rows(keyed)
    assert "work of priority 3 of somebody else" in row["detail"]
    assert not any(one in str(row) for one in [*low, "c-1", "s-1"])
    assert rows(keyed, "c-1") == [], "nor what others wait for"
    for subject in (*low, "s-1", demand_id("c-1", "d-1")):
        keyed.say("c-2", m.Inquire(5, "", m.Query("explanations", subject=subject)))
        assert keyed.one("c-2", m.Fault).kind == "UsageError"


def test_victims_of_others_have_no_names(keyed: KeyedBench) -> None:
    low = keyed.leases("c-1", 2)
    keyed.say("c-2", m.AskPlan(4, m.Shape({"CPU": 1.0}, HIGH)))
    answer = keyed.one("c-2", m.PlanIs)
    (place,) = answer.places
    (victim,) = place.victims
    assert (victim.key, victim.name, victim.kind, victim.mode) == ("", "", "lease", "suspend")
    assert not any(one in str(answer) for one in low)
    keyed.say("c-1", m.AskPlan(4, m.Shape({"CPU": 2.0}, HIGH)))
    answer = keyed.one("c-1", m.PlanIs)
    assert {one.key for one in answer.places[0].victims} == set(low), "one's own have"


def test_what_the_provider_has_refused(keyed: KeyedBench) -> None:
    keyed.leases("c-1", 2)
    keyed.demand("c-2", "d-9", 1)
    desk = keyed.core.scheduler.desk
    demand = desk.demands.find("c-2", "d-9")
    assert demand is not None
    desk.permission.refuse(demand.need, desk.slots["p-1"], "no images of strangers here")
    (row,) = rows(keyed)
    assert (row["reason"], row["detail"]) == (Why.REFUSED, "no images of strangers here")


@pytest.mark.parametrize(
    ("limits", "priority", "reason", "preemption"),
    [
        ({"quotas": Quotas(1000, "*", "*", "*", "*")}, HIGH, Why.QUOTA, None),
        ({"preemption": []}, HIGH, Why.SHORT, Spared.NOT_ALLOWED),
        ({"providers": ["label:kind=good"]}, LOW, Why.NOT_ALLOWED, None),
    ],
)
def test_bounds_of_a_grant(limits: Any, priority: int, reason: Why, preemption: Any) -> None:
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, OTHER, PROVIDER)
    bench.keyed_provider(cpus=2.0)
    bench.grant(APP)
    bench.grant(OTHER, **limits)
    bench.come(APP, "c-1", "s-1")
    bench.come(OTHER, "c-2", "s-2")
    if reason is Why.QUOTA:
        bench.leases("c-2", 1)
    else:
        bench.leases("c-1", 2)
    bench.demand("c-2", "d-9", 1, priority=priority)
    (row,) = rows(bench)
    assert (row["reason"], row["preemption"]) == (reason, preemption), row


def test_nobody_is_there_who_could_give_way(bench: Bench) -> None:
    bench.provider("p-1", 1.0)
    group = m.GroupSpec("g-1", "s-2", "c-2", [{"CPU": 1.0}], "PACK")
    bench.say("c-2", m.CreateGroups([group]))
    assert why(bench, priority=HIGH)["preemption"] == NoVictim.NOBODY


def test_every_reason_was_met() -> None:
    """By the tests above; alone it says nothing."""
    passing = {Why.NOTHING, NoVictim.POSSIBLE}  # between two rounds only
    missed = {*Why, *NoVictim, *Spared} - seen - passing
    if Why.NO_PROVIDER in seen and NoVictim.NOBODY in seen:
        elsewhere = {Spared.STANDS, Spared.GROUP, Spared.DEADLINE, Why.RESERVED}
        assert missed <= elsewhere, missed
