"""The search for room: whatever it finds is right, and small cases are compared with all there
are."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from guactors.scheduling.bundles import (
    PACK,
    SPREAD,
    STRATEGIES,
    STRICT_PACK,
    STRICT_SPREAD,
    Want,
    arrange,
)
from guactors.scheduling.placement import Slot
from guactors.scheduling.resources import Pool, to_units


def slots_of(*cpus: float) -> list[Slot]:
    made = []
    for number, amount in enumerate(cpus):
        slot = Slot(f"p-{number}", "", "3.11", number, offered=True)
        slot.pool = Pool({"CPU": amount})
        made.append(slot)
    return made


def wants_of(slots: list[Slot], *cpus: float) -> list[Want]:
    return [Want(to_units({"CPU": amount}), slots) for amount in cpus]


def names(found: list[Slot] | None) -> list[str] | None:
    return None if found is None else [slot.peer for slot in found]


def right(strategy: str, slots: list[Slot], cpus: list[int], places: tuple[int, ...]) -> bool:
    """Whether these places hold these bundles as the strategy demands."""
    for number, slot in enumerate(slots):
        taken = sum(c for c, place in zip(cpus, places, strict=True) if place == number)
        if taken > slot.pool.free().get("CPU", 0.0):
            return False
    if strategy == STRICT_PACK:
        return len(set(places)) == 1
    return strategy != STRICT_SPREAD or len(set(places)) == len(places)


@settings(max_examples=300)
@given(
    strategy=st.sampled_from(STRATEGIES),
    there=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    cpus=st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
def test_it_finds_room_just_where_there_is_some(
    strategy: str, there: list[int], cpus: list[int]
) -> None:
    slots = slots_of(*map(float, there))
    found = arrange(wants_of(slots, *map(float, cpus)), strategy)
    every = product(range(len(slots)), repeat=len(cpus))
    possible = any(right(strategy, slots, cpus, places) for places in every)
    assert (found is not None) == possible
    if found is not None:
        assert right(strategy, slots, cpus, tuple(slots.index(slot) for slot in found))


def test_pack_uses_the_fullest_and_few_spread_uses_many() -> None:
    slots = slots_of(4.0, 4.0, 4.0)
    slots[1].pool.take(to_units({"CPU": 2.0}))
    assert names(arrange(wants_of(slots, 1.0, 1.0), PACK)) == ["p-1", "p-1"]
    spread = names(arrange(wants_of(slots, 1.0, 1.0), SPREAD))
    assert spread is not None
    assert sorted(spread) == ["p-0", "p-2"]


def test_those_that_stay_count() -> None:
    slots = slots_of(4.0, 4.0)
    beside = [slots[0]]
    assert names(arrange(wants_of(slots, 1.0), STRICT_SPREAD, beside)) == ["p-1"]
    assert names(arrange(wants_of(slots, 1.0), STRICT_PACK, beside)) == ["p-0"]
    assert names(arrange(wants_of(slots, 1.0), SPREAD, beside)) == ["p-1"]
    assert names(arrange(wants_of(slots, 1.0), PACK, beside)) == ["p-0"]


def test_a_thousand_bundles_are_found_room_quickly_or_given_up() -> None:
    slots = slots_of(*[25.0] * 40)
    assert arrange(wants_of(slots, *[1.0] * 1000), SPREAD) is not None
    assert arrange(wants_of(slots, *[1.0] * 1001), PACK) is None
