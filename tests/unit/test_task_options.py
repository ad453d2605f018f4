"""What options of tasks and streams mean, and what of them is impossible."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

import guactors as gu
from guactors.errors import UnknownOption
from guactors.options import (
    ACTOR,
    METHOD,
    TASK,
    TERMS,
    check_options,
    check_terms,
    inherited,
    max_calls_of,
    shape_in,
    shape_of,
    tighter,
    window_of,
)
from guactors.remote_function import function_id

WINDOW = "_generator_backpressure_num_objects"


@pytest.mark.parametrize(
    ("who", "name"),
    [(TASK, WINDOW), (METHOD, WINDOW), (ACTOR, "_actor_generator_backpressure_num_objects")],
)
def test_a_window_of_no_items_is_impossible(who: str, name: str) -> None:
    for good in (-1, 1, 100):
        check_options({name: good}, who)
    for bad in (0, -2, 1.5, True, "1", None):
        with pytest.raises(UnknownOption, match="1 or more, or -1"):
            check_options({name: bad}, who)


def test_a_window_is_for_streams() -> None:
    assert window_of({WINDOW: 3}, streams=True, whose="f") == 3
    assert window_of({WINDOW: -1}, streams=True, whose="f") == 0
    assert window_of({WINDOW: -1}, streams=False, whose="f") == 0
    assert window_of({}, streams=True, whose="f") == 0
    with pytest.raises(UnknownOption, match="it streams nothing"):
        window_of({WINDOW: 3}, streams=False, whose="f")

    def plain() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    def declare(target: Any, **options: Any) -> None:
        gu.remote(**options)(target)

    declare(generator, **{WINDOW: 3})
    declare(plain, **{WINDOW: 3, "num_returns": "streaming"})
    with pytest.raises(UnknownOption, match="plain"):
        declare(plain, **{WINDOW: 3})

    class Actor:
        plain = gu.method(**{WINDOW: 3})(lambda self: None)

    with pytest.raises(UnknownOption, match=r"Actor\.plain"):
        declare(Actor)


def test_the_tighter_window_wins() -> None:
    assert tighter(3, 5) == tighter(5, 3) == 3
    assert tighter(0, 5) == tighter(5, 0) == 5
    assert tighter(0, 0) == 0


def test_what_uses_a_gpu_runs_once_in_a_process_unless_it_says_otherwise() -> None:
    assert max_calls_of({}) == 0
    assert max_calls_of({"max_calls": 4}) == 4
    assert max_calls_of({"num_gpus": 0.5}) == 1
    assert max_calls_of({"num_gpus": 1, "max_calls": 0}) == 0
    assert max_calls_of({"num_gpus": 0}) == 0


def test_max_calls_is_for_tasks() -> None:
    check_options({"max_calls": 1}, TASK)
    for who in (ACTOR, METHOD):
        with pytest.raises(UnknownOption, match="max_calls"):
            check_options({"max_calls": 1}, who)
    for bad in (-1, 1.5, None, True):
        with pytest.raises(UnknownOption):
            check_options({"max_calls": bad}, TASK)


def test_runs_are_counted_apart_for_each_limit() -> None:
    assert function_id(b"code", 2) != function_id(b"code", 3)
    assert function_id(b"code", 0) == function_id(b"code")


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("preemption", bad) for bad in (
            "suspend", ["never", "suspend"], ["suspend", "suspend"], ["kill"], ["checkpoint"], [1],
            [["suspend"]], None,
        )),
        *(("min_runtime", bad) for bad in (-1, math.nan, math.inf, 1e100, "1", True)),
        *(("max_suspended", bad) for bad in (-0.1, math.nan, 1e100)),
        *(("priority", bad) for bad in (2**31, -(2**40), 1.5, math.nan, "high", True)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("who", [TASK, ACTOR])
def test_how_it_gives_way_is_checked_and_named(who: str, name: str, bad: object) -> None:
    with pytest.raises(UnknownOption, match=f"^{name}="):
        check_options({name: bad}, who)


@pytest.mark.parametrize("good", [[], ["suspend"], ("requeue", "stop"), ["never"]])
def test_ways_to_give_way(good: list[str]) -> None:
    check_options({"preemption": good, "min_runtime": 0, "max_suspended": 600.0}, TASK)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", 1.5), ("priority", 10**100), ("priority", math.nan), ("priority", True),
        ("preemption", "suspend"), ("preemption", ["pause"]), ("preemption", ["never", "stop"]),
        ("preemption", ["stop", "stop"]), ("preemption", [1]),
        ("min_runtime", -1), ("min_runtime", math.nan), ("min_runtime", 1e100),
        ("max_suspended", -0.1), ("max_suspended", math.inf), ("max_suspended", "1"),
        ("grace", -1), ("grace", math.nan), ("grace", 10**100),
    ],
)  # fmt: skip
def test_what_a_session_may_not_say(name: str, value: Any) -> None:
    with pytest.raises(UnknownOption, match=f"^{name}="):
        check_terms(*(value if name == one else None for one in TERMS))


def test_what_a_session_says_counts_where_a_call_says_nothing() -> None:
    terms = check_terms(-20, ("requeue",), None, None, 2.5)
    shape = shape_in(terms, {"num_cpus": 2, "min_runtime": 5}, 1.0)
    assert (shape.resources, shape.priority, shape.preemption) == ({"CPU": 2.0}, -20, ["requeue"])
    assert shape.min_runtime == 5.0
    assert inherited(shape.terms) == terms
    other = shape_in(terms, {"priority": 0, "preemption": ["never"]}, 1.0)
    assert (other.priority, other.preemption, other.terms) == (0, ["never"], shape.terms)
    assert shape_in({}, {}, 1.0) == shape_of({}, 1.0) and inherited(None) == {}
