"""The hours of the week at which a machine is lent.

Owns: how an owner writes them, and what that means at a moment. Must never: read a clock.

``mon-fri 18:00-08:00; sat; sun``: parts between semicolons, of which one must hold. A part has
days, or times, or both: days alone are whole days, times alone are of every day. Times that end
before they begin go on over midnight, and belong to the day on which they begin. What counts is
what a clock on the wall shows: an hour that is left out in spring is not there, one that comes
twice in autumn is there twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Final

from guactors.errors import UsageError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY: Final = 24 * 60
"""Minutes."""
WEEK: Final = 7 * DAY
LOOK_AHEAD: Final = WEEK + DAY
"""Minutes within which the next change is looked for: a week, and a shift of the clocks."""
_TIME: Final = re.compile(r"(\d{1,2}):(\d{2})")
_HOW: Final = "write hours like 'mon-fri 18:00-08:00; sat; sun'"

Span = tuple[int, int]
"""Minutes of the week, from and to; the end may lie in the week after."""


class Hours:
    """``text``: as above; empty: always. ``zone``: where the clock hangs, None for the machine's
    own place. Raises UsageError that names the bad part."""

    def __init__(self, text: str, zone: tzinfo | None = None) -> None:
        self.text = text.strip()
        self._zone = zone
        parts = [part for part in self.text.split(";") if part.strip()]
        if self.text and not parts:
            raise UsageError(f"available: {text!r} has no part: {_HOW}")
        self._spans = [span for part in parts for span in _spans(part)]

    def open_at(self, epoch: float) -> bool:
        """Whether it is lent then (epoch seconds)."""
        if not self._spans:
            return True
        local = datetime.fromtimestamp(epoch, UTC).astimezone(self._zone)
        minute = local.weekday() * DAY + local.hour * 60 + local.minute
        return any(
            begin <= minute < end or begin <= minute + WEEK < end for begin, end in self._spans
        )

    def next_change(self, epoch: float) -> float | None:
        """When that changes next; None where it does not. Takes some 20 ms."""
        if not self._spans:
            return None
        now, first = self.open_at(epoch), int(epoch // 60) + 1
        for minute in range(first, first + LOOK_AHEAD):
            if self.open_at(minute * 60.0) != now:
                return minute * 60.0
        return None


def _spans(part: str) -> Iterator[Span]:
    words = re.sub(r"\s*([,-])\s*", r"\1", part.strip().lower()).split()
    days = _days(words.pop(0), part) if words[0][0].isalpha() else range(7)
    times = _times(words.pop(0), part) if words else [(0, DAY)]
    if words:
        raise UsageError(f"available: {words[0]!r} in {part.strip()!r} is too much: {_HOW}")
    for day in days:
        for begin, end in times:
            yield day * DAY + begin, day * DAY + end


def _days(word: str, part: str) -> Iterator[int]:
    for one in word.split(","):
        first, _, last = one.partition("-")
        begin, end = _day(first, part), _day(last or first, part)
        yield from (day % 7 for day in range(begin, end + (8 if end < begin else 1)))


def _day(name: str, part: str) -> int:
    if name not in DAYS:
        raise UsageError(
            f"available: {name!r} in {part.strip()!r} is no day of {', '.join(DAYS)}: {_HOW}"
        )
    return DAYS.index(name)


def _times(word: str, part: str) -> list[Span]:
    found = []
    for one in word.split(","):
        first, dash, last = one.partition("-")
        begin, end = _minute(first, part), _minute(last, part) if dash else -1
        if end < 0 or begin in {end, DAY}:
            raise UsageError(
                f"available: {one!r} in {part.strip()!r} is no time from and to: {_HOW}"
            )
        found.append((begin, end if end > begin else end + DAY))
    return found


def _minute(text: str, part: str) -> int:
    match = _TIME.fullmatch(text)
    hour, minute = (int(match[1]), int(match[2])) if match else (-1, 0)
    if not (0 <= hour < 24 and minute < 60) and (hour, minute) != (24, 0):
        raise UsageError(
            f"available: {text!r} in {part.strip()!r} is no time from 00:00 to 24:00: {_HOW}"
        )
    return hour * 60 + minute
