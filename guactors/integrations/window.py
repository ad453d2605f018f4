"""How many calls may be on the grid at a time.

Owns: one number. Pure: times come in as arguments. Must never: start anything.
"""

from __future__ import annotations

SHORT = 0.005
"""Seconds between a call's start and its answer up to which more calls are sent ahead."""
LONG = 0.02
"""Seconds above which fewer are."""
MOST_AHEAD = 256
"""Calls sent ahead for each place where one can run."""


class Window:
    """``places``: how many can run at a time. ``strict``: never more than that many are out,
    because the user said so; otherwise calls that answer quickly are sent ahead, so that the way
    there and back does not count."""

    def __init__(self, places: int, *, strict: bool) -> None:
        self.places = places
        self.strict = strict
        self.ahead = 0 if strict else 1

    @property
    def limit(self) -> int:
        """The most that may be out, at least 1."""
        return max(1, self.places + self.ahead)

    def on_answer(self, took: float, *, starved: bool) -> None:
        """A call took ``took`` seconds from being sent to its answer. ``starved``: others wait for
        the window."""
        if self.strict:
            return
        if took > LONG:
            self.ahead = max(1, self.ahead // 2)
        elif took < SHORT and starved:
            self.ahead = min(self.ahead + 1 + self.ahead // 8, MOST_AHEAD * max(1, self.places))
