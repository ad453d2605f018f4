"""How long to wait before the next try.

Owns: the growth and the jitter of the delays. Must never: sleep, read a clock, or draw randomness
of its own.
"""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Exponential back-off with jitter: each delay is drawn from the upper half of its ceiling.

    ``first`` and ``most``: the first and the largest ceiling, in seconds. ``rng``: returns a float
    in [0, 1), such as ``random.random``. Half the ceiling is kept, so that a peer that is back gets
    no burst; the other half is random, so that a thousand peers do not come at once.
    """

    def __init__(self, first: float, most: float, rng: Callable[[], float]) -> None:
        if not 0 < first <= most:
            raise ValueError(f"need 0 < first <= most, got first={first}, most={most}")
        self._first = first
        self._most = most
        self._rng = rng
        self._ceiling = first

    def next(self) -> float:
        """Seconds to wait before the next try; the ceiling doubles up to ``most``."""
        ceiling = self._ceiling
        self._ceiling = min(ceiling * 2, self._most)
        return ceiling * (0.5 + 0.5 * self._rng())

    def reset(self) -> None:
        """A try succeeded: begin with ``first`` again."""
        self._ceiling = self._first
