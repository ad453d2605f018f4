"""What the door refuses is told to the hub: the first of a kind, and how many came since."""

from __future__ import annotations

from guactors.messages import Report
from guactors.web.complaints import Complaints
from guactors.web.guard import Refusal

FOREIGN = Refusal(403, "PermissionDenied", "origin", "from another page")
REBOUND = Refusal(421, "PermissionDenied", "host", "another name")


def test_the_first_is_told_and_the_flood_is_counted() -> None:
    told: list[Report] = []
    complaints = Complaints(told.append)
    for number in range(10):
        complaints.note(FOREIGN, "10.0.0.1", "GET /sessions", 100.0 + number / 20)
    assert told == [Report("10.0.0.1", "http", "GET /sessions", "origin", "from another page")]
    complaints.note(FOREIGN, "10.0.0.2", "GET /images", 101.5)
    assert told[1].detail == "from another page (and 9 before it)"
    assert told[1].who == "10.0.0.2"


def test_reasons_are_told_apart() -> None:
    told: list[Report] = []
    complaints = Complaints(told.append)
    complaints.note(FOREIGN, "a", "GET /", 1.0)
    complaints.note(REBOUND, "a", "GET /", 1.0)
    assert [one.reason for one in told] == ["origin", "host"]


def test_what_a_stranger_sends_is_cut() -> None:
    told: list[Report] = []
    Complaints(told.append).note(FOREIGN, "a" * 9000, "GET /" + "x" * 9000, 1.0)
    assert len(told[0].who) == len(told[0].object) == 200
