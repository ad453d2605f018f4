"""Whether a client takes too long over what it sends or should take.

Owns: the measure of one connection. Must never: blame a client for the time in which we did not
read, or for that in which an answer is being made.
"""

from __future__ import annotations

import enum

from guactors.web.settings import Limits


class Phase(enum.Enum):
    """What a connection waits for."""

    HEAD = "head"
    """The head of a request, of which something may be there."""
    BODY = "body"
    """The rest of a body."""
    WORK = "work"
    """Us."""
    REST = "rest"
    """The next request."""


class Pace:
    """Times are monotonic seconds."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self.phase = Phase.HEAD
        self._since = now
        self._bytes = 0
        self._stalled: float | None = None

    def enter(self, phase: Phase, now: float) -> None:
        """What is waited for; no news if it is the same as before."""
        if phase is not self.phase:
            self.phase = phase
            self._begin(now)

    def got(self, count: int) -> None:
        """So many bytes came."""
        self._bytes += count

    def not_reading(self, now: float) -> None:
        """Nothing can come: we do not read at the moment."""
        if self.phase is Phase.BODY:
            self._begin(now)

    def stalled(self, now: float) -> None:
        """The client does not take what is written for it."""
        if self._stalled is None:
            self._stalled = now

    def moving(self) -> None:
        """It has taken most of it."""
        self._stalled = None

    def _begin(self, now: float) -> None:
        self._since, self._bytes = now, 0

    def late(self, now: float) -> str:
        """What it was too slow at, empty while it is not."""
        limits = self._limits
        if self._stalled is not None and now - self._stalled > limits.stall:
            return f"the answer was not taken within {limits.stall:g} s"
        if self.phase is Phase.HEAD and now - self._since > limits.head:
            return f"the head of the request did not come within {limits.head:g} s"
        if self.phase is Phase.REST and now - self._since > limits.rest:
            return f"there was no further request within {limits.rest:g} s"
        if self.phase is Phase.BODY and now - self._since > limits.window:
            if self._bytes < limits.pace * limits.window:
                return f"the body came at less than {limits.pace:g} bytes a second"
            self._begin(now)
        return ""
