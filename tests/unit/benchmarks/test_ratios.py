"""Which rows a run measures, and what its table, its verdicts and its chart say."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from benchmarks import ratios
from benchmarks.ray_side import rates
from benchmarks.ray_workloads import WORKLOADS, Work


def numbers(rows: list[ratios.Row]) -> list[str]:
    return [row.number for row in rows]


def verdict(number: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    [row] = ratios.chosen([number])
    [found] = ratios.judge([row], {row.name: ours}, {row.name: theirs})
    return found


def test_every_row_is_measured_by_something() -> None:
    measured = {row.name for row in ratios.ROWS if not row.by}
    assert measured - set(WORKLOADS) == {ratios.PUT, ratios.QUEUED}
    assert set(WORKLOADS) <= measured
    assert {row.by for row in ratios.ROWS if row.by} <= measured


def test_numbers_and_names_are_unique() -> None:
    assert len({row.number for row in ratios.ROWS}) == len(ratios.ROWS)
    assert len(ratios.BY_NAME) == len(ratios.ROWS)


def test_all_rows_are_chosen_by_default() -> None:
    assert ratios.chosen([]) == list(ratios.ROWS)


def test_a_number_chooses_one_row_and_not_those_that_contain_it() -> None:
    assert numbers(ratios.chosen(["1"])) == ["1"]
    assert numbers(ratios.chosen(["12", "b", "9"])) == ["9", "12", "b"]


def test_a_part_of_a_name_chooses_all_that_have_it() -> None:
    assert numbers(ratios.chosen(["PLASMA"])) == ["1", "2", "3"]
    assert numbers(ratios.chosen(["async-actor calls sync", "1k refs"])) == ["8", "18", "h"]


@pytest.mark.parametrize("word", ["", "no such row", "99"])
def test_a_word_that_fits_no_row_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="no row"):
        ratios.chosen(["1", word])


def test_a_row_that_another_yields_asks_for_that_one_once() -> None:
    rows = ratios.chosen(["e", "f", "g"])
    assert ratios.questions(rows, 1) == {"main": [ratios.PUT, "1:1 actor calls sync"]}


def test_families_are_asked_apart_and_the_long_row_only_in_the_first_round() -> None:
    rows = ratios.chosen(["9", "23", "l", "m"])
    first = ratios.questions(rows, 1)
    assert first == {
        "main": ["single client tasks sync"],
        "groups": ["placement group create/removal"],
        "queue": [ratios.QUEUED],
    }
    assert ratios.questions(rows, 2) == {name: first[name] for name in ("main", "groups")}


def test_a_ratio_is_that_of_the_medians() -> None:
    found = verdict("9", [900.0, 1000.0, 5000.0], [100.0, 50.0, 300.0])
    assert found["ratio"] == 10.0
    assert found["met"] is True
    assert found["guactors"] == {"median": 1000, "lowest": 900, "highest": 5000, "samples": 3}
    assert verdict("9", [999.0], [100.0])["met"] is False


def test_where_less_is_better_the_ratio_is_turned_round() -> None:
    found = verdict("m", [500.0], [2000.0])
    assert found["ratio"] == 4.0
    assert found["met"] is True
    assert verdict("m", [1501.0], [9000.0])["met"] is False


def test_a_bound_of_its_own_is_judged_without_ray() -> None:
    assert verdict("f", [0.81], [])["met"] is True
    assert verdict("f", [0.79], [0.1])["met"] is False


def test_a_row_without_target_is_not_judged() -> None:
    assert verdict("7", [1.0], [100.0])["met"] is None


def test_what_guactors_cannot_is_missed_and_what_ray_cannot_is_not_judged() -> None:
    assert verdict("9", [], [100.0])["met"] is False
    assert verdict("9", [100.0], [])["met"] is None
    assert verdict("9", [100.0], [0.0])["ratio"] is None


def test_the_table_is_aligned_and_says_what_failed() -> None:
    found = [verdict("9", [6000.0, 7000.0], [500.0]), verdict("23", [], [300.0]),
             verdict("f", [0.9], [0.2])]  # fmt: skip
    table = ratios.render(found)
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + len(found)
    assert "6,500/s" in lines[2]
    assert "6,000/s to 7,000/s" in lines[2]
    assert "13.0x" in lines[2]
    assert "failed" in lines[3]
    assert lines[3].rstrip(" |").endswith("NO")
    assert "90.0%" in lines[4]
    assert "4.50x" in lines[4]
    assert lines[4].rstrip(" |").endswith("yes")


def test_the_chart_has_a_bar_for_each_ratio_and_a_mark_for_each_target() -> None:
    found = [verdict("9", [500.0], [100.0]), verdict("7", [50.0], [100.0]), verdict("1", [], [9.0])]
    assert ratios.bars(found) == [
        {"label": "9  single client tasks sync", "ratio": 5.0, "target": 10, "met": False},
        {"label": "7  single client get object containing 10k refs", "ratio": 0.5,
         "target": None, "met": None},
    ]  # fmt: skip


def test_the_targets_are_those_of_the_plan() -> None:
    wanted = {"1": 20, "2": 10, "5": 15, "8": 20, "9": 10, "10": 15, "11": 15, "12": 5, "18": 5,
              "23": 10, "a": 3, "b": 50, "c": 8, "d": 8, "i": 1, "j": 1, "k": 1,
              **{str(number): 15 for number in (13, 14, 15, 16, 17, 19, 20, 21, 22)}}  # fmt: skip
    assert {row.number: row.ratio for row in ratios.ROWS if row.ratio is not None} == wanted
    bounds = {row.number: (row.least, row.most) for row in ratios.ROWS if row.least or row.most}
    assert bounds == {"f": (0.8, None), "g": (0.8, None), "h": (0.8, None),
                      "l": (40_000, None), "m": (None, 1500)}  # fmt: skip


def test_a_target_is_shown_in_the_units_of_its_row() -> None:
    shown = {row.number: row.target() for row in ratios.ROWS}
    assert shown["9"] == ">= 10x"
    assert shown["f"] == ">= 80.0%"
    assert shown["m"] == "<= 1,500 MB"
    assert shown["3"] == "-"
    both = dataclasses.replace(ratios.BY_NAME[ratios.QUEUED], ratio=2)
    assert both.target() == ">= 2x, >= 40,000/s"
    assert both.met(50_000, 1.5) is False
    assert both.met(50_000, 2.5) is True


def test_a_rate_counts_calls_as_much_as_they_are_worth() -> None:
    calls = 0

    def once() -> None:
        nonlocal calls
        calls += 1

    plain = rates(Work(once), 0.01)
    assert len(plain) == 2
    assert sum(plain) / 2 * 0.025 < calls * 2
    tenfold = rates(Work(once, each=1e6), 0.01)
    assert min(tenfold) > 10 * max(plain)


def test_a_call_longer_than_a_slice_is_measured_once() -> None:
    passed = iter(range(100))
    found = rates(Work(lambda: [next(passed) for _ in range(2)] and _wait(0.02), each=5), 0.005)
    assert len(found) == 1
    assert 0 < found[0] <= 5 / 0.02
    assert next(passed) == 4, "one call to warm up, one measured"


def _wait(seconds: float) -> None:
    import time

    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
