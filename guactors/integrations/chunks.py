"""How many items travel together.

Owns: one number. Pure: times come in as arguments. Must never: see an item.
"""

from __future__ import annotations

from typing import Final

SHORT: Final = 0.005
"""Seconds: a chunk that took less was too small to hide what it costs to send."""
AIM: Final = 0.010
LONG: Final = 0.020
"""Seconds: a chunk that took more keeps others waiting at the end."""
MOST: Final = 65_536
GROWTH: Final = 8
"""One quick chunk says little about the next: at most so many times as large."""


class ChunkSize:
    """``size`` items make a chunk of some 5 to 20 ms, as far as the last ones tell."""

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed is not None
        self.size: int = fixed or 1

    def on_chunk(self, items: int, seconds: float) -> None:
        """A chunk of ``items`` took ``seconds``: to run, or to be sent and taken in if that was
        longer."""
        if self._fixed or SHORT <= seconds <= LONG:
            return
        if seconds < SHORT and items < self.size:
            return  # of an older, smaller size; the present one has not been seen yet
        ideal = int(items * AIM / seconds) if seconds > 0.0 else MOST
        self.size = max(1, min(ideal, items * GROWTH, MOST))
