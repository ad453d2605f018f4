"""What the door turned away by itself, told to the hub for its audit log.

Owns: how often. Must never: tell each of a flood; the hub is told of the first, and how many came
since.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from guactors.messages import Report
from guactors.web.guard import Refusal

EVERY: Final = 1.0
"""Seconds between two that are told for the same reason."""
MOST_TEXT: Final = 200


class Complaints:
    """``tell`` passes a Report on."""

    def __init__(self, tell: Callable[[Report], None]) -> None:
        self._tell = tell
        self._told: dict[str, float] = {}
        self._more: dict[str, int] = {}

    def note(self, refusal: Refusal, who: str, what: str, now: float) -> None:
        """``who``: the address it came from; ``what``: method and path."""
        reason = refusal.reason
        if now - self._told.get(reason, -EVERY) < EVERY:
            self._more[reason] = self._more.get(reason, 0) + 1
            return
        self._told[reason] = now
        more = self._more.pop(reason, 0)
        detail = f"{refusal.detail} (and {more} before it)" if more else refusal.detail
        self._tell(Report(who[:MOST_TEXT], "http", what[:MOST_TEXT], reason, detail))
