"""Whether the machine's owner lends it now: by the hours he wrote, and by what he does with it.

Owns: the two states, what leads from one to the other, and when to look. Must never: measure
anything, read a clock, or know what runs here.

Hours count by the clock on the wall, and at once. Use is damped: it takes ``idle_after`` seconds
without any to be lent, and ``busy_after`` seconds of it to be taken back; and once taken back it is
not lent again for ``dwell`` seconds. Taking back is never put off by a dwell: it is the owner's
machine. A source that does not tell counts as use; so does a machine about which nothing is known
yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Final

from msgspec import Struct

from guactors.config import Lending
from guactors.errors import UsageError
from guactors.idle.base import Reading
from guactors.provider_state.hours import Hours

PERIOD: Final = 2.0
"""Seconds between two looks at the sources, at the most."""
SHORTEST: Final = 0.05
CLOCK: Final = 30.0
"""Seconds between two looks at the clock on the wall, which somebody may set."""
MOST_GAP: Final = 30.0
"""Nobody knows whether the machine was used in so many seconds without a reading: it slept."""
TOUCH: Final = 60.0
"""A key that was pressed is use for so many seconds: people read, too."""
CALM: Final = 0.6
"""Others have ceased to use the processors below this share of ``busy_load``."""


class State(Struct, frozen=True):
    """``reason``: why it is not lent. ``until``: when that, or that it is lent, will change by the
    hours; epoch seconds, 0 where nobody knows. ``since``: monotonic seconds."""

    lent: bool
    reason: str = ""
    until: float = 0.0
    since: float = 0.0


class AvailabilityPolicy:
    """``zone`` as in Hours. Raises UsageError for what makes no sense."""

    def __init__(self, lending: Lending, zone: tzinfo | None = None) -> None:
        _check(lending)
        self._lending = lending
        self._hours = Hours(lending.hours, zone)
        self._period = min(PERIOD, max(SHORTEST, lending.idle_after / 4))
        self._used = bool(lending.sources)
        """As damped."""
        self._use = "nobody knows yet whether it is used"
        self._used_since = -lending.dwell
        self._busy_since: float | None = None
        self._quiet_since: dict[str, float] = {}
        """By source that found no use at its last reading."""
        self._read_at = 0.0
        self._look_at = 0.0
        self._change: tuple[float, float | None] = (0.0, 0.0)
        """When the next change of the hours was looked for, and when it is; epoch seconds, None
        for never."""
        self.state: State | None = None

    # --- events ---------------------------------------------------------------------------------

    def tick(self, now: float, wall: float) -> bool:
        """Time has passed; ``wall`` is epoch seconds. Whether the state is another."""
        if self._lending.sources and not self._used and now > self._read_at + MOST_GAP:
            self._used, self._used_since = True, now
            self._use = f"its sources have not told for {MOST_GAP:g} s whether it is used"
        return self._decide(now, wall)

    def on_readings(self, readings: Mapping[str, Reading], now: float, wall: float) -> bool:
        """What the sources found. Whether the state is another."""
        if now > self._read_at + MOST_GAP:
            self._quiet_since.clear()
        self._read_at = now
        busy = ""
        for name in self._lending.sources:
            reading = readings.get(name, Reading(fault="it did not answer"))
            text = self._use_of(name, reading)
            if text:
                self._quiet_since.pop(name, None)
                busy = busy or text
            elif reading.quiet is not None:
                self._quiet_since[name] = now - reading.quiet
            else:
                self._quiet_since.setdefault(name, now)
        if not busy:
            self._busy_since = None
        elif self._busy_since is None:
            self._busy_since = now
        self._damp(busy, now)
        return self._decide(now, wall)

    def _use_of(self, name: str, reading: Reading) -> str:
        """The use that it found, in words; nothing where there is none."""
        if reading.fault:
            return f"its source {name} does not tell: {reading.fault}"
        used = reading.busy
        if reading.quiet is not None:
            used = reading.quiet < min(TOUCH, self._lending.idle_after)
        elif reading.load is not None:
            limit = self._lending.busy_load
            was_quiet = name in self._quiet_since
            used = reading.load >= limit or (reading.load > CALM * limit and not was_quiet)
        return f"it is used: {reading.text or name}" if used else ""

    def _damp(self, busy: str, now: float) -> None:
        lending = self._lending
        if self._used:
            quiet = len(self._quiet_since) == len(lending.sources)
            since = max(self._quiet_since.values(), default=now)
            rested = now >= self._used_since + lending.dwell
            self._used = not (quiet and rested and now - since >= lending.idle_after)
        elif self._busy_since is not None and now - self._busy_since >= lending.busy_after:
            self._used, self._used_since, self._use = True, now, busy

    def _decide(self, now: float, wall: float) -> bool:
        before = self.state
        within = self._hours.open_at(wall)
        reason = "" if within else f"it is lent at {self._hours.text}"
        until = self._next_change(wall) or 0.0
        if within and self._used:
            reason, until = self._use, 0.0
        lent = not reason
        if before is not None and (before.lent, before.reason) == (lent, reason):
            self.state = State(lent, reason, until, before.since)
            return False
        since = before.since if before is not None and before.lent == lent else now
        self.state = State(lent, reason, until, since)
        return before is not None or not lent

    def _next_change(self, wall: float) -> float | None:
        asked, change = self._change
        if change is not None and not asked <= wall < change:
            self._change = wall, self._hours.next_change(wall)
        return self._change[1]

    # --- time -----------------------------------------------------------------------------------

    def wants_reading(self, now: float) -> bool:
        """Whether the sources are to be read now."""
        if not self._lending.sources or now < self._look_at:
            return False
        self._look_at = now + self._period
        return True

    def next_wake(self, now: float, wall: float) -> float | None:
        """When tick has something to do."""
        times = [self._look_at] if self._lending.sources else []
        if self._hours.text:
            change = self._next_change(wall)
            times.append(now + (CLOCK if change is None else min(CLOCK, change - wall)))
        return min(times, default=None)


def _check(lending: Lending) -> None:
    for name in ("idle_after", "busy_after", "dwell", "busy_load", "leave_after"):
        value = getattr(lending, name)
        if not 0 <= value <= 1e9:
            raise UsageError(f"{name}={value!r} of a provider's lending is no number from 0 on")
    if not lending.busy_load:
        raise UsageError("busy_load=0 of a provider's lending: nothing would ever be no use")
    if bool(lending.command) != ("command" in lending.sources):
        raise UsageError("the source command of a provider's lending needs a command, and it alone")
