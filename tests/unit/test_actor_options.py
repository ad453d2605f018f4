"""What the options of an actor mean together, and what of them is impossible."""

from __future__ import annotations

from typing import Any

import pytest

from guactors.errors import UnknownOption
from guactors.options import ACTOR, METHOD, TASK, check_group, check_options, concurrency_of


def test_plain_actors_are_ordered_and_concurrent_ones_are_not() -> None:
    plain = concurrency_of({}, is_async=False, used={})
    assert plain == (1, {}, False)
    assert concurrency_of({"max_concurrency": 4}, is_async=False, used={}) == (4, {}, True)
    assert concurrency_of({}, is_async=True, used={}) == (1000, {}, True)
    assert concurrency_of({"max_concurrency": 1}, is_async=True, used={}).unordered


def test_a_plain_actor_may_be_told_to_be_unordered() -> None:
    options = {"allow_out_of_order_execution": True}
    assert concurrency_of(options, is_async=False, used={}).unordered
    assert not concurrency_of(
        {"allow_out_of_order_execution": None}, is_async=False, used={}
    ).unordered


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}])
def test_a_concurrent_actor_cannot_be_told_to_be_ordered(options: dict[str, Any]) -> None:
    asked = {**options, "allow_out_of_order_execution": False}
    with pytest.raises(ValueError, match="allow_out_of_order_execution"):
        concurrency_of(asked, is_async=not options, used={})


def test_groups_come_beside_the_default_one() -> None:
    options = {"concurrency_groups": {"io": 2, "compute": 4}, "max_concurrency": 3}
    found = concurrency_of(options, is_async=False, used={"read": "io", "plain": ""})
    assert (found.most, found.groups) == (3, {"io": 2, "compute": 4})


def test_a_method_s_group_must_be_one_of_the_actor_s() -> None:
    options = {"concurrency_groups": {"compute": 4}}
    with pytest.raises(UnknownOption, match=r"method read.*did you mean compute"):
        concurrency_of(options, is_async=False, used={"read": "compte"})
    with pytest.raises(UnknownOption, match="there are none"):
        check_group("io", {}, "A.read")


@pytest.mark.parametrize(
    ("who", "name", "value"),
    [
        (ACTOR, "concurrency_groups", {"io": 0}),
        (ACTOR, "concurrency_groups", ["io"]),
        (ACTOR, "max_pending_calls", 0),
        (ACTOR, "max_pending_calls", -2),
        (ACTOR, "allow_out_of_order_execution", 1),
        (METHOD, "concurrency_group", ""),
        (TASK, "enable_task_events", "yes"),
        (TASK, "concurrency_groups", {"io": 1}),
        (METHOD, "max_pending_calls", 1),
    ],
)
def test_impossible_values_are_refused(who: str, name: str, value: Any) -> None:
    with pytest.raises(UnknownOption, match=name):
        check_options({name: value}, who)
