"""How fast new actors use up fresh workers, and how many to keep ready for that.

Owns: the times at which actors lately took one. Pure. Must never: start, pick or end a worker
(``pool`` does).

An actor needs a process that nobody had before, and takes it with it when it ends. Where one actor
follows the other, a single warm worker is never ready again in time: then as many are kept as were
taken within :data:`WINDOW`, up to a bound, and are replaced at once.
"""

from __future__ import annotations

from collections import deque

WINDOW = 0.1
"""Seconds that a taken worker is counted."""


class Churn:
    """``warm``: workers kept in any case, where 0 means that none ever is; ``most``: bound of what
    is kept while actors follow each other fast."""

    def __init__(self, warm: int, most: int) -> None:
        self._warm = warm
        self._taken: deque[float] = deque(maxlen=max(warm, most))

    def took(self, now: float) -> None:
        """A new actor was given a worker."""
        self._taken.append(now)

    def brisk(self, now: float) -> bool:
        """Whether the next one is likely to come before a worker can start."""
        return self._warm > 0 and self._lately(now) > 1

    def keep(self, now: float) -> int:
        """How many workers should be ready."""
        return max(self._warm, self._lately(now)) if self._warm else 0

    def _lately(self, now: float) -> int:
        return sum(now - at <= WINDOW for at in self._taken)
