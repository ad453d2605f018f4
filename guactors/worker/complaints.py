"""Refusals on their way to the provider's log, a few of them.

Owns: how many are told. Must never: hold one back for later; who floods a worker with refused calls
shall not flood the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from guactors.messages import Refusal

MOST: Final = 5
PERIOD: Final = 1.0
"""At most so many in so many seconds; the next one says how many were not told."""


class Complaints:
    """``tell`` sends one."""

    def __init__(self, tell: Callable[[Refusal], None]) -> None:
        self._tell = tell
        self._began = -PERIOD
        self._told = 0
        self._untold = 0

    def add(self, refusal: Refusal, now: float) -> None:
        """Tell it, unless enough were told in this period."""
        if now - self._began >= PERIOD:
            self._began = now
            self._told = 0
        if self._told >= MOST:
            self._untold += 1
            return
        self._told += 1
        if self._untold:
            more = f"{refusal.detail} (and {self._untold} more were not told)"
            refusal = msgspec.structs.replace(refusal, detail=more)
            self._untold = 0
        self._tell(refusal)
