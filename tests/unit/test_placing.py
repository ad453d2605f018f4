"""Options of placement: what they ask of the hub, and what is refused at once."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest

from guactors import assigned
from guactors.errors import UnknownOption
from guactors.messages import Bind, Company, Placing, Shape
from guactors.options import ACTOR, TASK, check_options, max_calls_of, shape_of
from guactors.util.placement_group import PlacementGroup, placement_group
from guactors.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

GROUP = PlacementGroup("g-1", [{"CPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}])


def shape(**options: Any) -> Shape:
    for kind in (TASK, ACTOR):
        check_options(options, kind)
    return shape_of(options, 1.0)


def test_alternatives_are_amounts_in_their_order() -> None:
    asked = shape(num_gpus=1, alternatives=[{"num_cpus": 8}, {"resources": {"TPU": 2}}])
    assert asked.resources == {"CPU": 1.0, "GPU": 1.0}
    assert asked.alternatives == [{"CPU": 8.0}, {"CPU": 1.0, "TPU": 2.0}]
    assert shape(alternatives=None).alternatives == []
    assert max_calls_of({"alternatives": [{"num_gpus": 1}]}) == 1
    assert max_calls_of({"alternatives": [{"num_cpus": 1}]}) == 0


@pytest.mark.parametrize(
    ("alternatives", "said"),
    [
        ([], "a list of 1 to 8"),
        ([{}], "a list of 1 to 8"),
        ({"num_cpus": 8}, "a list of 1 to 8"),
        ([{"num_cpus": 1}] * 9, "a list of 1 to 8"),
        ([{"num_cpu": 8}], r"alternatives\[0\]: 'num_cpu' is no amount; did you mean num_cpus"),
        ([{"num_cpus": 1}, {"priority": 8}], r"alternatives\[1\]: 'priority' is no amount"),
        ([{"num_cpus": math.nan}], r"alternatives\[0\]: num_cpus=nan is impossible"),
        ([{"num_cpus": -1}], "num_cpus=-1 is impossible"),
        ([{"memory": 1e100}], r"memory=1e\+100 is impossible"),
        ([{"num_gpus": 1.5}], "num_gpus=1.5 is impossible"),
        ([{"resources": {"CPU": 1}}], "resources=.*is impossible"),
    ],
)
def test_impossible_alternatives(alternatives: Any, said: str) -> None:
    for kind in (TASK, ACTOR):
        with pytest.raises(UnknownOption, match=said):
            check_options({"alternatives": alternatives}, kind)


def test_labels_and_affinities() -> None:
    asked = shape(
        labels={"app": "db"}, affinity={"app": "in(web,cache)"}, anti_affinity={"app": "db"},
        preferred_affinity={"zone": "*"}, preferred_anti_affinity={"app": "!db"},
    )  # fmt: skip
    assert asked.company == Company(
        {"app": "db"}, {"app": "in(web,cache)"}, {"app": "db"}, {"zone": "*"}, {"app": "!db"}
    )
    assert shape(labels={}).company is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": {"app": "!db"}}, "labels=.*without conditions"),
        ({"labels": {"app": "in(a,b)"}}, "labels=.*without conditions"),
        ({"labels": {"app": "*"}}, "labels=.*without conditions"),
        ({"labels": ["app"]}, "labels="),
        ({"labels": {"app": ""}}, "labels="),
        ({"affinity": {"app": 1}}, "affinity="),
        ({"anti_affinity": "db"}, "anti_affinity="),
        ({"preferred_affinity": {1: "db"}}, "preferred_affinity="),
        ({"anti_afinity": {"app": "db"}}, "did you mean anti_affinity"),
        ({"labels": {"app": "db"}, "affinity": {"app": "*"}}, "the first would wait for itself"),
        ({"affinity": {"app": "a"}, "anti_affinity": {"app": "a"}}, "never met"),
    ],
)
def test_impossible_labels_and_affinities(options: Any, said: str) -> None:
    with pytest.raises(UnknownOption, match=said):
        shape(**options)


def test_inside_a_group_one_of_the_alternatives_must_fit_a_bundle() -> None:
    inside = PlacementGroupSchedulingStrategy(GROUP)
    assert shape(num_cpus=9, alternatives=[{"num_cpus": 2}], scheduling_strategy=inside)
    with pytest.raises(UnknownOption, match=r"'CPU': 9.0} or {'CPU': 3.0} fits in no bundle"):
        shape(num_cpus=9, alternatives=[{"num_cpus": 3}], scheduling_strategy=inside)


@pytest.mark.parametrize(
    ("options", "labels", "provider", "place"),
    [
        ({"scheduling_strategy": "DEFAULT"}, {}, "", None),
        ({"scheduling_strategy": None}, {}, "", None),
        ({"scheduling_strategy": "SPREAD"}, {}, "", Placing(spread=True)),
        ({"label_selector": {"a": "!in(x,y)"}}, {"a": "!in(x,y)"}, "", None),
        ({"accelerator_type": "A100"}, {"accelerator_type": "A100"}, "", None),
        (
            {"fallback_strategy": [{"label_selector": {"a": "1"}}, {"label_selector": {}}]},
            {}, "", Placing(fallback=[{"a": "1"}, {}]),
        ),
        (
            {"scheduling_strategy": NodeAffinitySchedulingStrategy("p-1", soft=False)},
            {}, "p-1", None,
        ),
        (
            {"scheduling_strategy": NodeAffinitySchedulingStrategy("p-1", soft=True)},
            {}, "", Placing(prefer="p-1"),
        ),
        (
            {
                "scheduling_strategy": NodeLabelSchedulingStrategy(
                    {"a": In("1", "2"), "b": Exists()},
                    soft={"c": NotIn("3"), "d": DoesNotExist()},
                )
            },
            {"a": "in(1,2)", "b": "*"}, "", Placing(soft={"c": "!in(3)", "d": "!*"}),
        ),
        (
            {
                "scheduling_strategy": PlacementGroupSchedulingStrategy(GROUP, 1, True),
                "num_gpus": 1,
            },
            {}, "", Placing(group="g-1", bundle=1, capture=True),
        ),
    ],
)  # fmt: skip
def test_what_an_option_asks_for(
    options: dict[str, Any], labels: dict[str, str], provider: str, place: Placing | None
) -> None:
    asked = shape(**options)
    assert (asked.labels, asked.provider, asked.place) == (labels, provider, place)


@pytest.mark.parametrize(
    "options",
    [
        {"scheduling_strategy": "PACK"},
        {"scheduling_strategy": GROUP},
        {"scheduling_strategy": PlacementGroupSchedulingStrategy(GROUP, 2)},
        {"scheduling_strategy": PlacementGroupSchedulingStrategy(GROUP, 0), "num_cpus": 2},
        {"scheduling_strategy": PlacementGroupSchedulingStrategy(GROUP), "num_gpus": 2},
        {"scheduling_strategy": NodeAffinitySchedulingStrategy("p-1", False), "provider": "p-2"},
        {
            "scheduling_strategy": NodeLabelSchedulingStrategy({"a": In("1")}),
            "label_selector": {"a": "2"},
        },
        {"label_selector": {"a": 1}},
        {"label_selector": {"a": ""}},
        {"fallback_strategy": [{"a": "1"}]},
        {"fallback_strategy": {"label_selector": {}}},
        {"num_gpus": 1.5},
        {"accelerator_type": 4},
    ],
)
def test_what_can_never_be_met_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(UnknownOption):
        shape(**options)


@pytest.mark.parametrize(
    "make",
    [
        In,
        lambda: NotIn("a,b"),
        lambda: NodeAffinitySchedulingStrategy("", soft=False),
        lambda: NodeLabelSchedulingStrategy({}),
        lambda: NodeLabelSchedulingStrategy({"a": "1"}),  # type: ignore[dict-item]
        lambda: PlacementGroupSchedulingStrategy("g-1"),
        lambda: PlacementGroupSchedulingStrategy(GROUP, -2),
        lambda: PlacementGroupSchedulingStrategy(GROUP, True),
        lambda: placement_group([]),
        lambda: placement_group([{}]),
        lambda: placement_group([{"CPU": 0}]),
        lambda: placement_group([{"CPU": -1.0}]),
        lambda: placement_group([{"GPU": 1.5}]),
        lambda: placement_group({"CPU": 1}),  # type: ignore[arg-type]
        lambda: placement_group([{"CPU": 1}], strategy="NEAR"),
        lambda: placement_group([{"CPU": 1}], lifetime="long"),
        lambda: placement_group([{"CPU": 1}], priority=1.5),  # type: ignore[arg-type]
        lambda: placement_group([{"CPU": 1}], priority=2**31),
        lambda: placement_group([{"CPU": 1}] * 1001),
        lambda: placement_group([{"CPU": 1}], bundle_label_selector=[{}, {}]),
    ],
)
def test_bad_arguments_are_value_errors(make: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


# --- capturing ------------------------------------------------------------------------------------


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process works in the group g-1, which captures."""
    monkeypatch.setattr(assigned, "_assigned", assigned.Assigned({}, "g-1", True))


@pytest.mark.usefixtures("inside")
def test_what_is_made_in_a_group_that_captures_goes_in_there() -> None:
    plain = shape(label_selector={"a": "1"})
    assert assigned.placed(plain, {}).place == Placing(group="g-1", capture=True)
    spread = {"scheduling_strategy": "DEFAULT"}
    assert assigned.placed(plain, spread) is plain


def test_elsewhere_nothing_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = shape()
    assert assigned.placed(plain, {}) is plain
    monkeypatch.setattr(assigned, "_assigned", assigned.Assigned({}, "g-1", False))
    assert assigned.placed(plain, {}) is plain


def test_the_environment_says_which_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assigned, "_assigned", assigned.Assigned())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "all of them")
    assigned.take_assignment(Bind("s-1", "n", devices={"GPU": [], "big fish": ["7"]}, group="g-2"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert os.environ["GU_VISIBLE_BIG_FISH"] == "7"
    assert assigned.assigned().group == "g-2"
    monkeypatch.delenv("GU_VISIBLE_BIG_FISH")
