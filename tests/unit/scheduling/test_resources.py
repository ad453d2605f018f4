"""Amounts and pools."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guactors.scheduling.resources import LIGHT, STEP, Pool, overlap, to_units

AMOUNTS = st.dictionaries(st.sampled_from(["CPU", "GPU", "x"]), st.floats(0, 1e12), max_size=3)


def test_units_are_exact_sorted_and_without_zeros() -> None:
    assert to_units({"GPU": 0.1, "CPU": 2, "x": 0.0}) == (("CPU", 20_000), ("GPU", 1_000))
    assert to_units({"GPU": 1}, cpu=1.0) == (("CPU", STEP), ("GPU", STEP))
    assert to_units({"CPU": 0}, cpu=1.0) == ()


def test_ten_tenths_are_one() -> None:
    pool = Pool({"CPU": 1.0})
    tenth = to_units({"CPU": 0.1})
    for _ in range(10):
        assert pool.fits(tenth)
        pool.take(tenth)
    assert not pool.fits(tenth)
    assert pool.free() == {"CPU": 0.0}
    for _ in range(10):
        pool.give(tenth)
    assert pool.free() == {"CPU": 1.0}


def test_what_is_not_there_fits_not() -> None:
    pool = Pool({"CPU": 1.0})
    assert not pool.holds(to_units({"GPU": 0.1}))
    assert not pool.fits(to_units({"GPU": 0.1}))
    assert pool.holds(())


def test_overbooking_and_shrinking_show_no_negative_room() -> None:
    pool = Pool({"CPU": 1.0})
    pool.take(to_units({"CPU": 3.0}))
    assert pool.overbooked()
    assert pool.free() == {"CPU": 0.0}
    pool.resize({"CPU": 4.0})
    assert not pool.overbooked()
    assert pool.free() == {"CPU": 1.0}


def test_places_for_what_holds_nothing_are_bounded_and_hidden() -> None:
    pool = Pool({"CPU": 2.0})
    light = ((LIGHT, STEP),)
    places = 0
    while pool.fits(light):
        pool.take(light)
        places += 1
    assert places == 64 + 2 * 16
    assert pool.free() == pool.amounts() == {"CPU": 2.0}


def test_load_is_that_of_the_fullest_wanted_resource() -> None:
    pool = Pool({"CPU": 4.0, "GPU": 2.0})
    pool.take(to_units({"CPU": 3.0}))
    assert pool.load_with(to_units({"GPU": 1.0})) == 0.5
    assert pool.load_with(to_units({"CPU": 1.0, "GPU": 1.0})) == 1.0


@given(AMOUNTS, AMOUNTS)
def test_taking_and_giving_leaves_nothing_behind(
    total: dict[str, float], some: dict[str, float]
) -> None:
    pool = Pool(total)
    units = to_units(some)
    pool.take(units)
    assert pool.overbooked() is not pool.holds(units)
    pool.give(units)
    assert not any(pool.used.values())


@given(AMOUNTS, AMOUNTS)
def test_overlap_is_mutual(one: dict[str, float], other: dict[str, float]) -> None:
    assert overlap(to_units(one), to_units(other)) == overlap(to_units(other), to_units(one))


def test_nothing_drifts_in_a_million_grants_and_returns() -> None:
    pool = Pool({"CPU": 4.0, "x": 1.0})
    shares = [to_units({"CPU": cpu, "x": x}) for cpu, x in ((0.1, 0.0001), (0.7, 0.3), (1.3, 0.1))]
    for _ in range(50_000):
        for _ in range(3):
            for units in shares:
                pool.take(units)
        for _ in range(3):
            for units in reversed(shares):
                pool.give(units)
        for units in shares[:2]:
            pool.take(units)
            pool.give(units)
    assert pool.free() == {"CPU": 4.0, "x": 1.0}
    assert pool.fits(to_units({"CPU": 4.0, "x": 1.0}))


def test_the_smallest_share_is_a_ten_thousandth() -> None:
    pool = Pool({"x": 0.001})
    least = to_units({"x": 0.0001})
    for _ in range(10):
        assert pool.fits(least)
        pool.take(least)
    assert not pool.fits(least)
    assert to_units({"x": 0.00001}) == ()
