"""``gu session``: list, show, delete."""

from __future__ import annotations

import json

import pytest

from guactors import messages as m
from guactors.security.keys import Kind
from tests.unit.cli.stand_in_hub import StandIn, gu, refused
from tests.unit.security.samples import public

APP = public(Kind.APP)


@pytest.fixture
def rows(hub: StandIn) -> StandIn:
    """Two sessions, whose ids begin alike."""
    hub.sessions = [
        m.SessionRow("s-abc1", "local", "", 1, 5.0),
        m.SessionRow("s-abd2", APP.text, "[/night]\x1b", 3, 7200.0),
    ]
    return hub


def test_list(rows: StandIn) -> None:
    shown = json.loads(gu("session", "list", "--json").out)
    assert [row["session"] for row in shown] == ["s-abc1", "s-abd2"]
    header, first, second = gu("session", "list").out.strip().splitlines()
    assert header.split() == ["SESSION", "WHOSE", "NAME", "CALLERS", "AGE"]
    assert APP.short in first, "the oldest first"
    assert "[/night]\\x1b" in first
    assert "local" in second


def test_show(rows: StandIn) -> None:
    row = json.loads(gu("session", "show", "s-abd2", "--json").out)
    assert (row["principal"], row["callers"]) == (APP.text, 3)
    text = gu("session", "show", "s-abd").out
    assert APP.text in text
    assert "2 h 0 min" in text


def test_delete(rows: StandIn) -> None:
    assert "s-abc1" in gu("session", "delete", "s-abc").err
    assert rows.asked[-1] == m.CloseSession(0, "s-abc1")
    assert [row.session for row in rows.sessions] == ["s-abd2"]


@pytest.mark.parametrize("command", ["show", "delete"])
@pytest.mark.parametrize(
    ("given", "said"), [("s-ab", "s-abc1, s-abd2"), ("x", "no session"), ("", "no session")]
)
def test_what_means_no_session_or_two(rows: StandIn, command: str, given: str, said: str) -> None:
    assert said in refused("session", command, given)
    assert len(rows.sessions) == 2
