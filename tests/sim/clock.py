"""Virtual time: a heap of things to do, run in order.

Owns: what time it is. Must never: read a real clock, or let two runs of one seed differ: actions of
the same moment run in the order in which they were put.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]
MOST_EVENTS = 60_000
"""More than any seed needs: beyond it somebody talks to himself."""


TICK = 2e-5
"""Seconds a process needs at least to come back to the same thing."""


class Livelock(AssertionError):
    """The parties keep each other busy for ever."""


class Clock:
    """``now`` in seconds, from an arbitrary start: cores must not assume zero."""

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start
        self.events = 0
        self._heap: list[tuple[float, int, Action]] = []
        self._count = 0

    def at(self, time: float, action: Action) -> None:
        """Run ``action`` at ``time``, or now if that has passed."""
        self._count += 1
        heapq.heappush(self._heap, (max(time, self.now), self._count, action))

    def after(self, delay: float, action: Action) -> None:
        """Run ``action`` in ``delay`` seconds."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay, self._count, action))

    def run(self, until: float) -> None:
        """Do all that is due up to ``until``, and let it be that time."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action = heapq.heappop(heap)
            self.events += 1
            if self.events > MOST_EVENTS:
                raise Livelock(f"{self.events} events by {self.now - 1000:.3f} s")
            action()
        self.now = until


class ProcessClock:
    """The same time for one process, which may be stopped: what is due meanwhile is done when it
    goes on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._missed: list[Action] = []
        self.stopped = False

    @property
    def now(self) -> float:
        return self._clock.now

    def at(self, time: float, action: Action) -> None:
        """As ``Clock.at``."""
        self._clock.at(time, lambda: self._run(action))

    def after(self, delay: float, action: Action) -> None:
        """As ``Clock.after``."""
        self._clock.after(delay, lambda: self._run(action))

    def _run(self, action: Action) -> None:
        if self.stopped:
            self._missed.append(action)
        else:
            action()

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True

    def go_on(self) -> None:
        """SIGCONT."""
        self.stopped = False
        missed, self._missed = self._missed, []
        for action in missed:
            self.after(0.0, action)


class Alarm:
    """One party's timer: rings at the earliest time it was set to, and may ring too early."""

    __slots__ = ("_action", "_at", "_clock")

    def __init__(self, clock: Clock | ProcessClock, action: Action) -> None:
        self._clock = clock
        self._action = action
        self._at = float("inf")

    def set(self, time: float | None) -> None:
        """Ring at ``time`` at the latest, but not in the same moment again: clocks move."""
        if time is None or time == float("inf"):
            return
        time = max(time, self._clock.now + TICK)
        if time < self._at:
            self._at = time
            self._clock.at(time, lambda: self._ring(time))

    def _ring(self, time: float) -> None:
        # An earlier ring was put in front of this one: it has set the alarm anew where needed.
        if time == self._at:
            self._at = float("inf")
            self._action()
