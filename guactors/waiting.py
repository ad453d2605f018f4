"""When enough of many values are ready, and how much of a time-out is left.

Owns: how far all are ready, so that each look goes on where the last one ended; and the seconds
that count. Must never: wait, or read a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Enough:
    """Whether ``count`` of ``ids`` are ready; what was ``ready`` once stays so."""

    def __init__(self, ids: Sequence[int], count: int, ready: Callable[[int], bool]) -> None:
        self._ids = ids
        self._count = count
        self._ready = ready
        self._all_to = 0
        """So many from the front are all ready."""

    def __call__(self) -> bool:
        ids, ready, most = self._ids, self._ready, len(self._ids)
        at = self._all_to
        while at < most and ready(ids[at]):
            at += 1
        self._all_to = at
        found, missing = at, 0
        while found < self._count and missing <= most - self._count:
            if at == most:
                return False
            if ready(ids[at]):
                found += 1
            else:
                missing += 1
            at += 1
        return found >= self._count


class Stopwatch:
    """A time-out of ``seconds`` of which only those count in which what is waited for runs."""

    def __init__(self, seconds: float) -> None:
        self.still = False
        self._left = seconds
        self._since: float | None = None

    def look(self, still: bool, now: float) -> float | None:
        """From now on it stands ``still``, or runs. The seconds left, None while it stands."""
        if self._since is not None:
            self._left -= now - self._since
        self.still, self._since = still, None if still else now
        return None if still else max(0.0, self._left)
