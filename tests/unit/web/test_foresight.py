"""Explanations and plans over HTTP: in whose session, what is asked, the form of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.scheduling.foresight import COLUMNS
from tests.unit.cli.test_foresight import ANSWER, ROW
from tests.unit.web.bench import KEY, Door


class FakeDeputy:
    def __init__(self) -> None:
        self.asked: list[m.Message] = []

    def ask(self, question: m.Message) -> m.Message:
        self.asked.append(question)
        if isinstance(question, m.AskSources):
            return m.Sources(1, [m.SourceRow("")])
        if isinstance(question, m.Inquire):
            return m.Page(1, m.RowPage(list(COLUMNS), [ROW], 0, 1, 0))
        return ANSWER


@pytest.fixture
def deputy() -> FakeDeputy:
    return FakeDeputy()


@pytest.fixture
def door(deputy: FakeDeputy) -> Door:
    door = Door()
    door.deputies.deputies["s-1"] = deputy
    door.hub.says(m.AskSessions, m.SessionList(1, [m.SessionRow("s-1", KEY, "mine", 2, 0.0)]))
    return door


def test_explanations(door: Door, deputy: FakeDeputy) -> None:
    reply = door("GET", "/sessions/s-1/explanations")
    assert reply.status == 200
    assert reply.json() == [dict(zip(COLUMNS, ROW, strict=True))]
    assert isinstance(deputy.asked[-1], m.Inquire)
    assert deputy.asked[-1].query.subject == "s-1"
    assert door("GET", "/sessions/s-1/explanations?subject=d-1").status == 200
    assert isinstance(deputy.asked[-1], m.Inquire)
    assert deputy.asked[-1].query.subject == "d-1"


def test_a_plan(door: Door, deputy: FakeDeputy) -> None:
    form = {"cpus": 2, "priority": 10, "labels": {"kind": "good"}, "count": 3}
    reply = door("POST", "/sessions/s-1/plan", form)
    assert reply.status == 200, reply.body
    body = reply.json()
    assert body["missing"] == 1 and body["misses"][0]["reason"] == "short"
    assert [place["name"] for place in body["places"]] == ["box", "den"]
    assert body["places"][1]["victims"][1]["key"] == "", "of others"
    assert deputy.asked == [m.AskPlan(0, m.Shape({"CPU": 2.0}, 10, {"kind": "good"}), 3)]


def test_a_plan_of_alternatives(door: Door, deputy: FakeDeputy) -> None:
    form = {"gpus": 1, "alternatives": [{"cpus": 8}, {"memory": 5}]}
    assert door("POST", "/sessions/s-1/plan", form).status == 200
    others = [{"CPU": 8.0}, {"CPU": 1.0, "memory": 5.0}]
    asked = m.Shape({"CPU": 1.0, "GPU": 1.0}, alternatives=others)
    assert deputy.asked == [m.AskPlan(0, asked, 1)]


@pytest.mark.parametrize("path", ["explanations", "plan"])
def test_of_no_other_session(door: Door, deputy: FakeDeputy, path: str) -> None:
    method = "GET" if path == "explanations" else "POST"
    reply = door(method, f"/sessions/s-2/{path}", None if method == "GET" else {})
    assert (reply.status, deputy.asked) == (404, [])


@pytest.mark.parametrize(
    "form",
    [
        {"cpus": -1}, {"cpus": 1e100}, {"cpus": "2"}, {"gpus": 1.5}, {"count": 0}, {"count": 65},
        {"priority": 2**40}, {"priority": 1.5}, {"runtime": "no such"},
        {"image": "latest"}, {"resources": {"CPU": 1}}, {"more": 1}, [],
        {"alternatives": {}}, {"alternatives": [{"gpu": 1}]}, {"alternatives": [{"cpus": -1}]},
        {"alternatives": [{}] * 9}, b'{"alternatives": [{"cpus": NaN}]}', b'{"cpus": NaN}',
    ],
)  # fmt: skip
def test_a_bad_form_is_never_asked(door: Door, deputy: FakeDeputy, form: Any) -> None:
    reply = door("POST", "/sessions/s-1/plan", form)
    assert reply.status == 400
    assert deputy.asked == []
