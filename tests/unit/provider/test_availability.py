"""Whether a machine is lent: hours, use, and how both are damped."""

from __future__ import annotations

import math
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from guactors.config import Lending
from guactors.errors import UsageError
from guactors.idle.base import Reading
from guactors.provider_state.availability import MOST_GAP, PERIOD, TOUCH, AvailabilityPolicy

ZONE = ZoneInfo("Europe/Berlin")
BUSY, IDLE = Reading(busy=True, text="a game"), Reading(busy=False)


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp()


class Machine:
    """A policy with its clocks: monotonic seconds, and one on the wall that can be set."""

    def __init__(self, start: str = "2026-11-23T12:00", **lending: object) -> None:
        self.policy = AvailabilityPolicy(Lending(**lending), ZONE)  # type: ignore[arg-type]
        self.now = 1000.0
        self._wall = berlin(start) - self.now
        self.flips: list[tuple[float, bool]] = []
        self.news = 0
        self._note(self.policy.tick(self.now, self.wall))

    @property
    def wall(self) -> float:
        return self.now + self._wall

    def set_clock(self, text: str) -> None:
        self._wall = berlin(text) - self.now

    @property
    def lent(self) -> bool:
        assert self.policy.state is not None
        return self.policy.state.lent

    @property
    def reason(self) -> str:
        assert self.policy.state is not None
        return self.policy.state.reason

    @property
    def until(self) -> str:
        assert self.policy.state is not None
        return datetime.fromtimestamp(self.policy.state.until, ZONE).strftime("%a %H:%M")

    def _note(self, news: bool) -> None:
        self.news += news
        if not self.flips or self.flips[-1][1] != self.lent:
            self.flips.append((self.now, self.lent))

    def reads(self, *, seconds: float = 0.0, **readings: Reading) -> None:
        """For so long the sources say this, looked at as often as the policy wants."""
        end = self.now + seconds
        while True:
            if self.policy.wants_reading(self.now) or not seconds:
                self._note(self.policy.on_readings(readings, self.now, self.wall))
            wake = self.policy.next_wake(self.now, self.wall)
            if wake is None or wake > end:
                break
            self.now = max(wake, self.now)
            self._note(self.policy.tick(self.now, self.wall))
        self.now = end

    def sleeps(self, seconds: float) -> None:
        """Nobody runs."""
        self.now += seconds


def owned(**lending: object) -> Machine:
    """One with a source ``command``."""
    return Machine(sources=["command"], command=["x"], **lending)


# --- hours ----------------------------------------------------------------------------------------


def test_a_machine_without_a_word_is_lent_and_nothing_is_ever_looked_at() -> None:
    machine = Machine()
    assert machine.lent and not machine.news
    assert machine.policy.next_wake(machine.now, machine.wall) is None
    assert not machine.policy.wants_reading(machine.now)


def test_hours_open_and_close_to_the_second() -> None:
    machine = Machine("2026-11-23T12:00", hours="18:00-08:00")
    assert not machine.lent and machine.reason == "it is lent at 18:00-08:00"
    assert machine.until == "Mon 18:00"
    machine.reads(seconds=24 * 3600.0)
    opened, closed = [at for at, _ in machine.flips[1:3]]
    assert opened == pytest.approx(1000 + 6 * 3600) and closed == pytest.approx(opened + 14 * 3600)
    assert machine.until == "Tue 18:00"


def test_the_clock_on_the_wall_is_set() -> None:
    machine = Machine("2026-11-23T12:00", hours="18:00-08:00")
    machine.set_clock("2026-11-23T19:00")
    machine.reads(seconds=31.0)
    assert machine.lent and machine.until == "Tue 08:00"
    machine.set_clock("2026-11-22T09:00")
    machine.reads(seconds=31.0)
    assert not machine.lent and machine.until == "Sun 18:00"


def test_summer_time_begins_within_the_hours() -> None:
    machine = Machine("2026-03-29T01:00", hours="00:00-06:00")
    machine.reads(seconds=5 * 3600.0)
    assert machine.flips == [(1000.0, True), (1000.0 + 4 * 3600, False)], "an hour is not there"


def test_summer_time_ends_within_the_hours() -> None:
    machine = Machine("2026-10-25T01:00", hours="00:00-06:00")
    machine.reads(seconds=7 * 3600.0)
    assert machine.flips == [(1000.0, True), (1000.0 + 6 * 3600, False)], "an hour is there twice"


# --- use ------------------------------------------------------------------------------------------


def test_it_is_lent_after_so_long_without_use() -> None:
    machine = owned(idle_after=900.0)
    assert not machine.lent and "nobody knows yet" in machine.reason
    machine.reads(seconds=899.0, command=IDLE)
    assert not machine.lent
    machine.reads(seconds=5.0, command=IDLE)
    assert machine.lent


def test_use_in_between_begins_the_count_anew() -> None:
    machine = owned(idle_after=900.0)
    machine.reads(seconds=600.0, command=IDLE)
    machine.reads(command=BUSY)
    machine.reads(seconds=880.0, command=IDLE)
    assert not machine.lent
    machine.reads(seconds=30.0, command=IDLE)
    assert machine.lent


def lent_one(**lending: object) -> Machine:
    machine = owned(**{"idle_after": 60.0, **lending})
    machine.reads(seconds=70.0, command=IDLE)
    assert machine.lent
    return machine


def test_it_is_taken_back_after_so_long_of_use() -> None:
    machine = lent_one(busy_after=30.0)
    machine.reads(seconds=29.0, command=BUSY)
    assert machine.lent
    machine.reads(seconds=4.0, command=BUSY)
    assert not machine.lent and machine.reason == "it is used: a game"


def test_a_short_use_does_not_count() -> None:
    machine = lent_one(busy_after=30.0)
    for _ in range(10):
        machine.reads(seconds=20.0, command=BUSY)
        machine.reads(seconds=4.0, command=IDLE)
    assert machine.lent


def test_it_is_taken_back_at_once_where_that_is_wanted() -> None:
    machine = lent_one(busy_after=0.0)
    machine.reads(command=BUSY)
    assert not machine.lent


def test_it_stays_taken_back_for_the_dwell() -> None:
    machine = lent_one(idle_after=4.0, busy_after=0.0, dwell=300.0)
    machine.reads(command=BUSY)
    taken = machine.now
    machine.reads(seconds=600.0, command=IDLE)
    assert machine.lent
    assert machine.flips[-1][0] - taken == pytest.approx(300.0, abs=PERIOD)


def test_it_does_not_flap() -> None:
    """Our own work makes a noise that the source takes for use (BOINC's loop)."""
    machine = lent_one(idle_after=30.0, busy_after=5.0, dwell=120.0)
    before = len(machine.flips)
    for _ in range(600):
        machine.reads(seconds=6.0, command=BUSY if machine.lent else IDLE)
    assert len(machine.flips) - before <= 2 * 3600 / 120


def test_taking_back_knows_no_dwell() -> None:
    machine = lent_one(busy_after=0.0, dwell=1e6)
    machine.reads(command=BUSY)
    assert not machine.lent


def test_outside_its_hours_it_is_not_lent_however_idle() -> None:
    machine = owned(hours="18:00-08:00", idle_after=60.0)
    machine.reads(seconds=600.0, command=IDLE)
    assert not machine.lent and machine.until == "Mon 18:00"
    machine.reads(seconds=6 * 3600.0, command=IDLE)
    assert machine.lent
    machine.reads(seconds=60.0, command=BUSY)
    assert not machine.lent and "a game" in machine.reason


def test_a_source_that_does_not_tell_counts_as_use() -> None:
    machine = lent_one(busy_after=10.0)
    machine.reads(seconds=30.0, command=Reading(fault="it is gone"))
    assert not machine.lent
    assert machine.reason == "its source command does not tell: it is gone"
    machine = lent_one(busy_after=10.0)
    machine.reads(seconds=30.0)
    assert "did not answer" in machine.reason


def test_sources_that_tell_no_more_count_as_use() -> None:
    machine = lent_one()
    machine.sleeps(MOST_GAP + 1.0)
    machine._note(machine.policy.tick(machine.now, machine.wall))
    assert not machine.lent and "have not told" in machine.reason
    machine.reads(seconds=130.0, command=IDLE)
    assert machine.lent


def test_a_machine_that_slept_is_not_known_to_have_been_idle() -> None:
    machine = owned(idle_after=900.0)
    machine.reads(seconds=10.0, command=IDLE)
    machine.sleeps(MOST_GAP + 8 * 3600)
    machine.reads(command=IDLE)
    assert not machine.lent
    machine.reads(seconds=910.0, command=IDLE)
    assert machine.lent


def test_the_last_touch_counts_from_before_anybody_looked() -> None:
    machine = Machine(sources=["input"], idle_after=900.0)
    machine.reads(input=Reading(quiet=800.0))
    assert not machine.lent
    machine.reads(input=Reading(quiet=901.0))
    assert machine.lent
    machine.sleeps(8 * 3600)
    machine.reads(input=Reading(quiet=20 * 3600.0))
    assert machine.lent, "it knows what was while all slept"


def test_a_touch_is_use_for_a_minute() -> None:
    machine = Machine(sources=["input"], idle_after=900.0, busy_after=30.0)
    machine.reads(input=Reading(quiet=1000.0))
    assert machine.lent
    for quiet in range(0, 32, 2):
        machine.reads(input=Reading(quiet=float(quiet), text="keyboard or mouse"))
        machine.now += 2.0
    assert quiet < TOUCH and not machine.lent
    assert machine.reason == "it is used: keyboard or mouse"


def test_load_has_two_thresholds() -> None:
    machine = Machine(sources=["load"], idle_after=60.0, busy_after=10.0, busy_load=0.5)
    machine.reads(seconds=90.0, load=Reading(load=0.4))
    assert not machine.lent, "not calm enough to begin"
    machine.reads(seconds=70.0, load=Reading(load=0.2))
    assert machine.lent
    machine.reads(seconds=90.0, load=Reading(load=0.4))
    assert machine.lent, "not enough to end"
    machine.reads(seconds=20.0, load=Reading(load=0.6, text="others keep 0.6 processors busy"))
    assert not machine.lent and "0.6 processors" in machine.reason


def test_all_sources_must_be_idle() -> None:
    machine = Machine(sources=["input", "power"], idle_after=60.0, busy_after=0.0)
    machine.reads(seconds=90.0, input=Reading(quiet=1e4), power=BUSY)
    assert not machine.lent
    machine.reads(seconds=70.0, input=Reading(quiet=1e4), power=IDLE)
    assert machine.lent
    machine.reads(input=Reading(quiet=1e4), power=BUSY)
    assert not machine.lent


@pytest.mark.parametrize("field", ["idle_after", "busy_after", "dwell", "busy_load", "leave_after"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 1e100])
def test_absurd_numbers_are_refused(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        AvailabilityPolicy(Lending(**{field: value}))  # type: ignore[arg-type]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="busy_load"):
        AvailabilityPolicy(Lending(busy_load=0.0))
    with pytest.raises(UsageError, match="command"):
        AvailabilityPolicy(Lending(sources=["command"]))
    with pytest.raises(UsageError, match="command"):
        AvailabilityPolicy(Lending(command=["x"]))
