"""How often somebody may try.

Owns: token buckets by name (an address, a key), and one for all. Must never: grow with the number
of names that somebody can make up.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

MOST: Final = 4096
"""Names remembered."""
_BURST: Final = 2.0
"""Seconds' worth of tries that one may save up."""


class _Bucket(Struct):
    level: float
    at: float


class Rates:
    """``each`` and ``together``: tries a second, of one name and of all. Times are monotonic
    seconds."""

    def __init__(self, each: float, together: float) -> None:
        self._each = each
        self._together = together
        self._all = _Bucket(together * _BURST, 0.0)
        self._buckets: dict[str, _Bucket] = {}

    def __repr__(self) -> str:
        return f"<Rates {len(self._buckets)} names>"

    def wait(self, name: str, now: float) -> float:
        """Count a try: 0 if it may be, else the seconds after which one may."""
        bucket = self._buckets.pop(name, None) or _Bucket(self._each * _BURST, now)
        _fill(bucket, self._each, now)
        _fill(self._all, self._together, now)
        self._buckets[name] = bucket  # those that tried lately are the last to be forgotten
        while len(self._buckets) > MOST:
            del self._buckets[next(iter(self._buckets))]
        wait = max((1 - bucket.level) / self._each, (1 - self._all.level) / self._together)
        if wait > 0:
            return wait
        bucket.level -= 1
        self._all.level -= 1
        return 0.0


def _fill(bucket: _Bucket, rate: float, now: float) -> None:
    bucket.level = min(rate * _BURST, bucket.level + max(0.0, now - bucket.at) * rate)
    bucket.at = now
