"""``gu explain``, ``gu plan``: what they ask, how they show it, and wrong values by their names."""

from __future__ import annotations

import json
from typing import Any, Self

import pytest

from guactors import messages as m
from guactors.cli import foresight
from guactors.errors import UsageError
from guactors.scheduling.foresight import COLUMNS
from tests.unit.cli.stand_in_hub import gu, refused

IMAGE = "sha3-256:" + "a" * 64
ROW = [
    "d-1", "lease", "s-1", 3, 1, "p-1", "box", "short", "gap",
    "asked 4 GPU, free 2 of 8; nobody gives way: l-1\x1b: never", {"GPU": 4.0}, {"GPU": 2.0}, {}, 5,
]  # fmt: skip
VICTIMS = [
    m.PlannedVictim("l-1", "lease", "", "suspend", 0, {"CPU": 1.0}),
    m.PlannedVictim("", "actor", "", "requeue", -3, {"CPU": 1.0, "GPU": 2.0}),
]
ANSWER = m.PlanIs(
    1,
    [m.PlannedPlace("p-1", "box", []), m.PlannedPlace("p-2", "den", VICTIMS)],
    1,
    [m.MissRow("p-1", "box", "short", "never", "asked 1 CPU, free 0 of 2")],
)


GIVES_WAY = (
    "  an actor of others of priority -3 would be ended and begun anew, which frees 1 CPU, 2 GPU"
)


class Hub:
    """Answers, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.rows: list[list[Any]] = [ROW]
        self.plan = ANSWER

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def ask(self, question: m.Message, _timeout: float) -> m.Message:
        self.asked.append(question)
        if isinstance(question, m.AskSources):
            return m.Sources(1, [m.SourceRow("")])
        if isinstance(question, m.Inquire):
            if question.query.subject == "d-77":
                raise UsageError("no such thing of yours is known")
            return m.Page(1, m.RowPage(list(COLUMNS), self.rows, 0, len(self.rows), 0))
        return self.plan


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(foresight, "open_hub", lambda *_: hub)
    return hub


def test_explain(hub: Hub) -> None:
    head, row = gu("explain").out.splitlines()
    assert head.split() == ["DEMAND", "PRIORITY", "PROVIDER", "REASON", "PREEMPTION", "DETAIL"]
    assert row.split()[:5] == ["d-1", "3+2", "box", "short", "gap"]
    assert "free 2 of 8" in row and "\\x1b" in row, "what a terminal would obey is escaped"
    assert hub.asked[-1].query == m.Query("explanations")
    (shown,) = json.loads(gu("explain", "d-1", "--json").out)
    assert shown == dict(zip(COLUMNS, ROW, strict=True))
    assert hub.asked[-1].query.subject == "d-1"
    gu("explain", "--session", "s-1")
    assert hub.asked[-1].query.subject == "s-1"


def test_nothing_waits(hub: Hub) -> None:
    hub.rows = []
    assert gu("explain").out == "nothing waits\n"
    assert json.loads(gu("explain", "--json").out) == []


def test_what_is_not_there(hub: Hub) -> None:
    assert "no such thing" in refused("explain", "d-77")
    assert "--session" in refused("explain", "d-1", "--session", "s-1", status=2)


def test_plan(hub: Hub) -> None:
    lines = gu("plan").out.splitlines()
    assert lines == [
        "1 starts on box",
        "2 starts on den",
        "  l-1 of priority 0 would be suspended, which frees 1 CPU",
        GIVES_WAY,
        "1 would wait",
        "PROVIDER  REASON  PREEMPTION  DETAIL",
        "box       short   never       asked 1 CPU, free 0 of 2",
    ]
    assert hub.asked == [m.AskPlan(0, m.Shape({"CPU": 1.0}), 1)]
    shown = json.loads(gu("plan", "--json").out)
    assert shown["places"][1]["victims"][0]["key"] == "l-1"
    assert (shown["missing"], shown["misses"][0]["reason"]) == (1, "short")


def test_all_options_of_a_plan(hub: Hub) -> None:
    gu(
        "plan", "--cpus", "2", "--gpus", "1", "--memory", "2GiB", "--priority", "7", "--label",
        "kind=good", "--resource", "wheels=3", "--runtime", "native", "--image", IMAGE,
        "--provider", "box", "--count", "9",
    )  # fmt: skip
    amounts = {"CPU": 2.0, "GPU": 1.0, "memory": 2.0 * 2**30, "wheels": 3.0}
    shape = m.Shape(amounts, 7, {"kind": "good"}, "box", "native", IMAGE)
    assert hub.asked == [m.AskPlan(0, shape, 9)]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--cpus", "nan"), ("--cpus", "inf"), ("--cpus", "1e100"), ("--cpus", "-1"),
        ("--cpus", "much"), ("--gpus", "1.5"), ("--gpus", "nan"), ("--memory", "nan"),
        ("--memory", "-5"), ("--memory", "1e100"), ("--priority", "1.5"),
        ("--priority", "99999999999999"), ("--label", "nothing"), ("--label", "=x"),
        ("--resource", "w"), ("--resource", "w=x"), ("--resource", "w=nan"),
        ("--resource", "CPU=1"), ("--runtime", "no runtime"), ("--image", "latest"),
        ("--count", "0"), ("--count", "65"), ("--count", "x"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(hub: Hub, flag: str, value: str) -> None:
    assert flag in refused("plan", f"{flag}={value}", status=2)
    assert not hub.asked
