"""Where a task or actor goes: labels, affinity, spreading, preferences."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.messages import Placing, Shape
from guactors.scheduling.placement import Slot, choose, feasible, lease_need
from guactors.scheduling.resources import Pool
from guactors.scheduling.selectors import in_order, met
from tests.unit.hub.bench import Bench, spec

HERE = {"zone": "a", "tier": "gold"}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a", True), ("b", False), ("!a", False), ("!b", True),
        ("in(a,b)", True), ("in( b , a )", True), ("in(b,c)", False),
        ("!in(a,b)", False), ("!in(b,c)", True), ("*", True), ("!*", False),
    ],
)  # fmt: skip
def test_conditions_on_a_label_that_is_there(text: str, holds: bool) -> None:
    assert met((("zone", text),), HERE) is holds


@pytest.mark.parametrize(
    ("text", "holds"),
    [("a", False), ("!a", True), ("in(a)", False), ("!in(a)", True), ("*", False), ("!*", True)],
)
def test_conditions_on_a_label_that_is_not_there(text: str, holds: bool) -> None:
    assert met((("room", text),), HERE) is holds


def test_every_condition_must_hold() -> None:
    assert met(in_order({"zone": "a", "tier": "!silver"}), HERE)
    assert not met(in_order({"zone": "a", "tier": "!gold"}), HERE)


# --- at the hub -------------------------------------------------------------------------------


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.caller()
    made.provider("p-1", 4.0, labels={"zone": "a"})
    made.provider("p-2", 4.0, labels={"zone": "b", "fast": "yes"})
    made.provider("p-3", 4.0, labels={"zone": "c", "fast": "yes"})
    return made


def homes(bench: Bench, count: int = 1, key: str = "d-1", **shape: object) -> list[str]:
    """Providers that were told to start a lease, one after the other."""
    bench.demand(key=key, count=count, **shape)
    found = [p for p in ("p-1", "p-2", "p-3") for _ in bench.heard(p, m.StartLease)]
    assert not bench.heard("c-1", m.DemandInfeasible)
    return found


def test_default_keeps_small_work_together_and_spread_spreads_it(bench: Bench) -> None:
    assert homes(bench, 2) == ["p-1", "p-1"]
    assert homes(bench, 2, "d-2", place=Placing(spread=True)) == ["p-2", "p-3"]


def test_fallbacks_are_tried_in_order(bench: Bench) -> None:
    place = Placing(fallback=[{"zone": "b"}, {"zone": "c"}])
    assert homes(bench, 6, labels={"zone": "x"}, place=place) == ["p-2"] * 4 + ["p-3"] * 2


def test_a_fallback_is_no_better_than_the_first_choice(bench: Bench) -> None:
    place = Placing(fallback=[{"zone": "b"}])
    assert homes(bench, 5, labels={"zone": "c"}, place=place) == ["p-2"] + ["p-3"] * 4


def test_soft_conditions_are_wishes(bench: Bench) -> None:
    place = Placing(soft={"fast": "yes", "zone": "!b"})
    assert homes(bench, 5, place=place) == ["p-1", "p-3", "p-3", "p-3", "p-3"]


def test_soft_affinity_stays_at_home_while_that_is_there(bench: Bench) -> None:
    place = Placing(prefer="p-3")
    assert homes(bench, 5, place=place) == ["p-3"] * 4
    bench.say("p-3", m.Goodbye())
    bench.heard("c-1", m.LeaseLost)
    assert len([x for p in ("p-1", "p-2") for x in bench.heard(p, m.StartLease)]) == 5


def test_hard_affinity_waits_and_says_why_when_its_provider_goes(bench: Bench) -> None:
    assert homes(bench, 5, provider="p-3") == ["p-3"] * 4
    bench.say("p-3", m.Goodbye())
    refused = bench.heard("c-1", m.DemandInfeasible)[-1]
    assert "'p-3'" in refused.reason
    assert not bench.heard("p-1", m.StartLease)


def test_a_selector_that_nobody_meets_is_named(bench: Bench) -> None:
    bench.demand(labels={"zone": "!in(a,b,c)", "fast": "*"})
    refused = bench.one("c-1", m.DemandInfeasible)
    assert "zone=!in(a,b,c)" in refused.reason
    bench.provider("p-4", 1.0, labels={"zone": "d", "fast": "no"})
    assert len(bench.heard("p-4", m.StartLease)) == 1


def test_actors_are_placed_by_the_same_conditions(bench: Bench) -> None:
    place = Placing(fallback=[{"zone": "c"}])
    bench.create(spec(shape=Shape({}, labels={"zone": "x"}, place=place)))
    assert len(bench.heard("p-3", m.StartActor)) == 1


# --- preferences, for who knows where the data is ------------------------------------------------


def test_weights_decide_among_those_that_meet_the_same_labels() -> None:
    slots = []
    for number, zone in enumerate("aab"):
        slot = Slot(f"p-{number}", "", "3.11", number, offered=True)
        slot.pool, slot.labels = Pool({"CPU": 2.0}), {"zone": zone}
        slots.append(slot)
    need = lease_need(Shape({"CPU": 1.0}, place=Placing(soft={"zone": "a"})), "3.11")
    assert choose(slots, need) is slots[0]
    assert choose(slots, need, prefer={"p-1": 1e6}) is slots[1]
    # It counts less than the labels, and is no condition.
    assert choose(slots, need, prefer={"p-2": 1e9}) is slots[0]
    assert choose(slots, need, {"p-1"}, {"p-1": 1e6}) is slots[0]
    assert all(feasible(slot, need) for slot in slots)


def test_a_lease_goes_where_its_caller_has_what_it_needs(bench: Bench) -> None:
    for number in (1, 2, 3):
        bench.provider(f"p-{number}", cpus=1.0)
    bench.caller("c-1")
    shape = Shape({"CPU": 1.0})
    bench.say("c-1", m.SetDemand("k", shape, 1, ["p-9", "p-3", "p-2"]))
    assert bench.heard("p-3", m.StartLease)
    bench.say("c-1", m.SetDemand("k", shape, 2, ["p-3", "p-2"]))
    assert bench.heard("p-2", m.StartLease), "the second choice has room"
    bench.say("c-1", m.SetDemand("k", shape, 3, ["p-3"]))
    assert bench.heard("p-1", m.StartLease), "and in the end any"
