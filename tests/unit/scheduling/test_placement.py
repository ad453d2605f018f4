"""Where things fit, the choice, and the words of a refusal."""

from __future__ import annotations

import pytest

from guactors.messages import Shape
from guactors.scheduling.placement import (
    Need,
    Slot,
    actor_need,
    choose,
    explain,
    feasible,
    lease_need,
)
from guactors.scheduling.resources import Pool, to_units


def slot(
    peer: str, order: int = 0, *, python: str = "3.11", used: float = 0.0, **total: float
) -> Slot:
    made = Slot(peer, f"{peer}-name", python, order, offered=True)
    made.pool = Pool(total or {"CPU": 4.0})
    made.pool.take(to_units({"CPU": used}))
    return made


def need(python: str = "3.11", **given: object) -> Need:
    given.setdefault("resources", {"CPU": 1.0})
    return lease_need(Shape(**given), python)  # type: ignore[arg-type]


def test_a_demand_without_a_word_about_cpu_is_one_cpu_an_actor_none() -> None:
    assert lease_need(Shape({"GPU": 1}), "").hold == to_units({"CPU": 1, "GPU": 1})
    assert actor_need(Shape({"GPU": 1}), {}, "").hold == to_units({"GPU": 1})
    assert actor_need(Shape({}), {"CPU": 1}, "").total == to_units({"CPU": 1})


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (need(), True),
        (need(resources={"CPU": 4.0}), True),
        (need(resources={"CPU": 4.5}), False),
        (need(resources={"GPU": 1.0}), False),
        (need(labels={"room": "lab"}), True),
        (need(labels={"room": "den"}), False),
        (need(labels={"room": "lab", "os": "x"}), False),
        (need(provider="p-1"), True),
        (need(provider="p-1-name"), True),
        (need(provider="p-2"), False),
        (need("3.12"), False),
        (need(""), True),
    ],
)
def test_feasible(wanted: Need, fits: bool) -> None:
    there = slot("p-1", used=3.0)
    there.labels = {"room": "lab"}
    assert feasible(there, wanted) is fits


def test_the_emptiest_is_chosen_relative_to_its_size() -> None:
    slots = [slot("p-1", 1, used=2.0), slot("p-2", 2, used=4.0, CPU=16.0), slot("p-3", 3, used=3.0)]
    assert choose(slots, need()) is slots[1]


def test_equals_are_taken_by_crowd_then_by_age() -> None:
    first, second = slot("p-1", 1), slot("p-2", 2)
    nothing = actor_need(Shape({}), {}, "")
    assert choose([second, first], nothing) is first
    first.actors.add("a-1")
    assert choose([first, second], nothing) is second


def test_small_work_keeps_together_until_half_is_taken() -> None:
    first, second = slot("p-1", 1), slot("p-2", 2)
    taken = []
    for _ in range(6):
        found = choose([second, first], need())
        assert found is not None
        found.pool.take(need().hold)
        taken.append(found.peer)
    assert taken == ["p-1", "p-1", "p-2", "p-2", "p-1", "p-2"]


def test_full_away_unoffered_and_closed_providers_are_passed_over() -> None:
    slots = [slot(f"p-{x}", x) for x in range(5)]
    slots[0].pool.take(to_units({"CPU": 3.5}))
    slots[1].up = False
    slots[2].offered = False
    assert choose(slots, need(), closed={"p-3"}) is slots[4]
    assert choose(slots[:4], need(), closed={"p-3"}) is None


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (need(resources={"CPU": 9.0}), "asked 9 CPU, the most there is is 8 on p-2-name"),
        (need(resources={"TPU": 1.0}), "asked 1 TPU, the most there is is 0"),
        (need(resources={"CPU": 8.0, "GPU": 2.0}), "no single provider has all of 8 CPU, 2 GPU"),
        (need(provider="moon"), "no provider is called 'moon'; there are: p-1-name, p-2-name"),
        (need(labels={"room": "den"}), "no provider has the labels room=den"),
        (need(runtime="qemu"), "no provider has the runtime 'qemu', they have native, python"),
        (need("3.12"), "the caller runs Python 3.12 and the providers run Python 3.11"),
    ],
)
def test_a_refusal_names_the_numbers(wanted: Need, words: str) -> None:
    slots = [slot("p-1", CPU=4.0, GPU=2.0), slot("p-2", CPU=8.0)]
    assert not any(feasible(one, wanted) for one in slots)
    assert words in explain(slots, wanted)


def test_a_runtime_is_where_it_was_offered() -> None:
    plain, able = slot("p-1", CPU=4.0), slot("p-2", CPU=4.0)
    able.runtimes |= {"docker"}
    for runtime in ("", "python", "native"):
        assert feasible(plain, need(runtime=runtime))
    assert [feasible(one, need(runtime="docker")) for one in (plain, able)] == [False, True]


def test_a_refusal_without_providers() -> None:
    assert "no provider" in explain([], need())
    assert "no provider" in explain([Slot("p-1", "x", "3.11", 1)], need())
