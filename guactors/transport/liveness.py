"""Is the other side still there? Heartbeats of one link, without a clock or a socket.

Owns: when to ping, and when a peer counts as silent or lost. Must never: read a clock, send, or
decide what a loss means.
"""

from __future__ import annotations

from msgspec import Struct

from guactors.config import Timing


class SendPing(Struct, frozen=True):
    """Send ``Ping(number)`` on the control lane."""

    number: int


class Silent(Struct, frozen=True):
    """Nothing heard for ``timing.silent_after``."""


class Recovered(Struct, frozen=True):
    """A silent peer was heard again."""


class Lost(Struct, frozen=True):
    """Nothing heard for ``timing.lost_after``. Final: no effect follows."""


Effect = SendPing | Silent | Recovered | Lost


class Liveness:
    """Watches one peer. Call :meth:`on_heard` for every message of it, :meth:`tick` at the latest
    at :meth:`next_wake`; the watch begins with the first call of either.

    Only silence that we could have heard counts. Where we slept ourselves (two ticks more than two
    heartbeats apart: SIGSTOP, a closed lid), that gap counts as a single heartbeat, and no verdict
    falls before one more heartbeat has passed, in which what arrived meanwhile can be read.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._heard = 0.0
        self._ticked: float | None = None
        self._pinged = 0.0
        self._number = 0
        self._slept = False
        self._verdict_from = 0.0
        self._began = False
        self.silent = False
        self.lost = False

    def on_heard(self, now: float) -> None:
        """A message of the peer arrived, whatever it was."""
        self._heard = now
        self._began = True

    def tick(self, now: float) -> list[Effect]:
        """What to do and to know now."""
        if self.lost:
            return []
        if not self._began:
            self.on_heard(now)
        if self._ticked is None:
            self._pinged = now
        else:
            self._forgive_sleep(now, now - self._ticked)
        self._ticked = now

        effects: list[Effect] = []
        # Compared as next_wake computes it: rounding must not wake us for nothing, again and again.
        silent_at = self._heard + self._timing.silent_after
        if self.silent and now < silent_at:
            self.silent = False
            effects.append(Recovered())
        if now >= self._verdict_from:
            if now >= self._heard + self._timing.lost_after:
                self.lost = True
                return [*effects, Lost()]
            if not self.silent and now >= silent_at:
                self.silent = True
                effects.append(Silent())
        if now >= self._ping_due():
            self._number += 1
            self._pinged = now
            effects.append(SendPing(self._number))
        return effects

    def next_wake(self, now: float) -> float:
        """The time of the next :meth:`tick` that may have an effect; infinity when lost."""
        if self.lost:
            return float("inf")
        if self._ticked is None:
            return now
        timing = self._timing
        patience = timing.lost_after
        if not self.silent:
            patience = min(patience, timing.silent_after)
        verdict = max(self._heard + patience, self._verdict_from)
        return max(now, min(self._ping_due(), verdict))

    def _ping_due(self) -> float:
        return max(self._heard, self._pinged) + self._timing.heartbeat

    def _forgive_sleep(self, now: float, gap: float) -> None:
        heartbeat = self._timing.heartbeat
        slept = gap > 2 * heartbeat
        if slept:
            self._heard = min(now, self._heard + gap - heartbeat)
            # Only after the first of several such gaps: a process too busy to tick in time must
            # still come to a verdict one day.
            if not self._slept:
                self._verdict_from = now + heartbeat
        self._slept = slept
