"""``gu reserve``, ``gu reservations``, ``gu unreserve``: what they ask, what they show, and wrong
values by their names."""

from __future__ import annotations

import json
import time
from typing import Any, Self

import pytest

from guactors import messages as m
from guactors.cli import reservations
from guactors.scheduling.listings import RESERVATION_COLUMNS
from tests.unit.cli.stand_in_hub import gu, refused

ROW = [
    "nightly", "standing", 1_900_000_000.0, 1_900_028_800.0, {"CPU": 8.0}, 50, "p-1", None, {}, 2,
    0, "local", None,
]  # fmt: skip


class Hub:
    """Answers, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.rows: list[list[Any]] = [ROW]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def ask(self, question: m.Message, _timeout: float) -> m.Message:
        self.asked.append(question)
        if isinstance(question, m.AskSources):
            return m.Sources(1, [m.SourceRow("")])
        if isinstance(question, m.Inquire):
            rows = m.RowPage(list(RESERVATION_COLUMNS), self.rows, 0, len(self.rows), 0)
            return m.Page(1, rows)
        return m.Done(1)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(reservations, "open_hub", lambda *_: hub)
    return hub


def test_reserve(hub: Hub) -> None:
    out = gu(
        "reserve", "--cpus", "8", "--gpus", "1", "--memory", "4GiB", "--on", "box", "--label",
        "kind=good", "--from", "2030-12-01T22:00+00:00", "--for", "8h", "--name", "nightly",
        "--priority", "50", "--allow", "*",
    ).out  # fmt: skip
    assert out == "nightly\n"
    (asked,) = hub.asked
    assert asked.reservation == m.ReservationSpec(
        "nightly", {"CPU": 8.0, "GPU": 1.0, "memory": 4.0 * 2**30}, 1_922_392_800.0,
        1_922_421_600.0, 50, {"kind": "good"}, "box", ["*"],
    )  # fmt: skip


def test_a_name_is_made_up_and_it_begins_now(hub: Hub) -> None:
    name = gu("reserve", "--for", "90s").out.strip()
    (asked,) = hub.asked
    spec = asked.reservation
    assert spec.name == name and abs(spec.start - time.time()) < 60
    assert spec.end - spec.start == pytest.approx(90.0)


def test_list_and_remove(hub: Hub) -> None:
    head, row = gu("reservations").out.splitlines()
    assert head.split()[:4] == ["NAME", "STATE", "START", "END"]
    assert row.split()[:2] == ["nightly", "standing"] and "2030-03-17" in row
    (shown,) = json.loads(gu("reservations", "--json").out)
    assert shown == dict(zip(RESERVATION_COLUMNS, ROW, strict=True))
    hub.rows = []
    assert gu("reservations").out == ""
    gu("unreserve", "nightly")
    assert hub.asked[-1] == m.Unreserve(0, "nightly")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--for", "long"], "--for"),
        (["--for", "0s"], "seconds"),
        (["--for", "8h", "--from", "yesterday"], "--from"),
        (["--for", "8h", "--memory", "much"], "--memory"),
        (["--for", "8h", "--cpus", "nan"], "num_cpus"),
        (["--for", "8h", "--cpus", "-1"], "num_cpus"),
        (["--for", "8h", "--cpus", "1e100"], "num_cpus"),
        (["--for", "8h", "--cpus", "0"], "asks for nothing"),
        (["--for", "8h", "--gpus", "1.5"], "num_gpus"),
        (["--for", "8h", "--label", "kind"], "--label"),
        (["--for", "8h", "--name", "n" * 49], "name"),
    ],
)
def test_wrong_values_by_their_names(hub: Hub, args: list[str], named: str) -> None:
    assert named in refused("reserve", *args, status=2)
    assert hub.asked == []
