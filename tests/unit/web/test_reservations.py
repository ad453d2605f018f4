"""Reservations over HTTP: in whose session, what is asked, the form of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import errors
from guactors import messages as m
from guactors.scheduling.listings import RESERVATION_COLUMNS
from tests.unit.cli.test_reservations import ROW
from tests.unit.web.bench import KEY, Door

PATH = "/sessions/s-1/reservations"


class FakeDeputy:
    def __init__(self) -> None:
        self.asked: list[m.Message] = []
        self.error: Exception | None = None

    def ask(self, question: m.Message) -> m.Message:
        self.asked.append(question)
        if self.error is not None:
            raise self.error
        if isinstance(question, m.AskSources):
            return m.Sources(1, [m.SourceRow("")])
        if isinstance(question, m.Inquire):
            return m.Page(1, m.RowPage(list(RESERVATION_COLUMNS), [ROW], 0, 1, 0))
        return m.Done(1)


@pytest.fixture
def deputy() -> FakeDeputy:
    return FakeDeputy()


@pytest.fixture
def door(deputy: FakeDeputy) -> Door:
    door = Door()
    door.deputies.deputies["s-1"] = deputy
    door.hub.says(m.AskSessions, m.SessionList(1, [m.SessionRow("s-1", KEY, "mine", 2, 0.0)]))
    return door


def test_all(door: Door) -> None:
    reply = door("GET", PATH)
    assert reply.status == 200
    assert reply.json() == [dict(zip(RESERVATION_COLUMNS, ROW, strict=True))]


def test_one_is_made_and_removed(door: Door, deputy: FakeDeputy) -> None:
    form = {"name": "nightly", "start": 1_900_000_000, "seconds": 60, "cpus": 2, "allow": ["*"]}
    reply = door("POST", PATH, form)
    assert reply.status == 201 and reply.json()["name"] == "nightly", reply.body
    assert door("DELETE", f"{PATH}/nightly").status == 204
    spec = m.ReservationSpec("nightly", {"CPU": 2.0}, 1_900_000_000.0, 1_900_000_060.0, allow=["*"])
    assert deputy.asked == [m.Reserve(0, spec), m.Unreserve(0, "nightly")]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NoSuchReservation("no"), 400),
        (errors.PermissionDenied("no"), 403),
        (errors.NameTaken("taken"), 409),
    ],
)
def test_the_hub_says_no(door: Door, deputy: FakeDeputy, error: Exception, status: int) -> None:
    deputy.error = error
    assert door("DELETE", f"{PATH}/nightly").status == status


def test_of_no_other_session(door: Door, deputy: FakeDeputy) -> None:
    assert door("GET", "/sessions/s-2/reservations").status == 404
    assert deputy.asked == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": "n" * 49}, {"seconds": 0}, {"seconds": -1}, {"seconds": 1e100},
        {"start": -1}, {"start": "now"}, {"cpus": -1}, {"cpus": 0}, {"gpus": 1.5},
        {"priority": 2**40}, {"more": 1},
    ],
)  # fmt: skip
def test_wrong_forms(door: Door, deputy: FakeDeputy, wrong: dict[str, Any]) -> None:
    reply = door("POST", PATH, {"name": "nightly", "seconds": 60, **wrong})
    assert reply.status in (400, 422), reply.body
    assert deputy.asked == []


def test_no_number(door: Door, deputy: FakeDeputy) -> None:
    body = b'{"name": "nightly", "seconds": NaN}'
    assert door("POST", PATH, body).status in (400, 422)
    assert deputy.asked == []
