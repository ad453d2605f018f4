"""The hours of the week at which a machine is lent."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from guactors.errors import UsageError
from guactors.provider_state.hours import Hours

ZONE = ZoneInfo("Europe/Berlin")


def at(text: str, fold: int = 0) -> float:
    """Epoch seconds of what a clock in Berlin shows."""
    return datetime.fromisoformat(text).replace(tzinfo=ZONE, fold=fold).timestamp()


def shown(epoch: float | None) -> str:
    assert epoch is not None
    return datetime.fromtimestamp(epoch, ZONE).strftime("%a %H:%M")


def hours(text: str) -> Hours:
    return Hours(text, ZONE)


MONDAY = "2026-11-23"
CASES = {
    "mon-fri 18:00-08:00; sat; sun": {
        "2026-11-23T12:00": False, "2026-11-23T17:59": False, "2026-11-23T18:00": True,
        "2026-11-24T07:59": True, "2026-11-24T08:00": False, "2026-11-28T07:00": True,
        "2026-11-28T12:00": True, "2026-11-29T23:59": True, "2026-11-30T07:59": False,
    },
    "22:00-06:00": {"2026-11-29T23:00": True, "2026-11-30T05:00": True, "2026-11-30T06:00": False},
    "sun 22:00-06:00": {"2026-11-30T05:59": True, "2026-12-01T05:59": False},
    "SAT , sun 10:00-12:00,14:00-24:00": {
        "2026-11-28T11:00": True, "2026-11-28T13:00": False, "2026-11-29T23:59": True,
        "2026-11-30T00:00": False,
    },
    "fri-mon": {"2026-11-27T00:00": True, "2026-11-30T12:00": True, "2026-12-01T00:00": False},
    "tue": {"2026-11-24T00:00": True, "2026-11-24T23:59": True, "2026-11-25T00:00": False},
    "": {"2026-11-24T00:00": True},
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "moment", "lent"),
    [(text, moment, lent) for text, moments in CASES.items() for moment, lent in moments.items()],
)
def test_what_is_written_is_what_counts(text: str, moment: str, lent: bool) -> None:
    assert hours(text).open_at(at(moment)) is lent


def test_the_next_change() -> None:
    usual = hours("mon-fri 18:00-08:00; sat; sun")
    assert shown(usual.next_change(at("2026-11-23T12:00"))) == "Mon 18:00"
    assert shown(usual.next_change(at("2026-11-23T18:00"))) == "Tue 08:00"
    assert shown(usual.next_change(at("2026-11-27T20:00"))) == "Mon 00:00", "the week-end is whole"
    assert shown(hours("tue").next_change(at("2026-11-25T00:00"))) == "Tue 00:00"


def test_what_never_changes() -> None:
    assert hours("").next_change(at("2026-11-23T12:00")) is None
    assert hours("mon-sun").next_change(at("2026-11-23T12:00")) is None
    assert hours("0:00-24:00").next_change(at("2026-11-23T12:00")) is None


def test_an_hour_that_is_left_out_in_spring_is_not_there() -> None:
    """On 29 March 2026 clocks go from 02:00 to 03:00."""
    night = hours("sun 02:00-03:00")
    before = at("2026-03-29T01:59")
    assert not any(night.open_at(before + minute * 60) for minute in range(180))
    assert shown(night.next_change(before)) == "Sun 02:00", "a week later"
    late = hours("sun 02:30-04:00")
    assert late.next_change(before) == before + 60, "03:00 comes right after 01:59"
    assert late.open_at(before + 60)


def test_an_hour_that_comes_twice_in_autumn_is_there_twice() -> None:
    """On 25 October 2026 clocks go from 03:00 back to 02:00."""
    night = hours("sun 02:00-03:00")
    begin = at("2026-10-25T02:00")
    assert night.next_change(begin - 60) == begin
    assert night.next_change(begin) == begin + timedelta(hours=2).total_seconds()
    assert night.open_at(at("2026-10-25T02:30", fold=1))
    early = hours("sun 01:00-02:30")
    assert early.next_change(begin) == begin + 1800
    assert shown(early.next_change(begin + 1800)) == "Sun 02:00", "once more"


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("mon-fry 18:00-08:00", "'fry'"), ("mon 18:00", "'18:00'"), ("sat; mon 8-18", "'8'"),
        ("mon 25:00-26:00", "'25:00'"), ("mon 18:60-19:00", "'18:60'"), (";", "';'"),
        ("mon 18:00-18:00", "'18:00-18:00'"), ("mon 24:00-06:00", "'24:00-06:00'"),
        ("mon 8:00-9:00 tue", "'tue'"), ("monday", "'monday'"), ("8:00-9:00 mon", "'mon'"),
        ("mon,,tue", "''"), ("-fri", "'-fri'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(text: str, bad: str) -> None:
    with pytest.raises(UsageError, match="available") as caught:
        hours(text)
    assert bad in str(caught.value) and "mon-fri 18:00-08:00" in str(caught.value)
