"""Whether whoever waits for an answer should look again and again before it sleeps.

Owns: how long waits of either kind took lately. Pure. Must never: wait, or read a clock.

To sleep and be woken costs more than a small call: the processor goes idle, and comes back cold.
But to look keeps a processor busy, which on a machine without an idle one is the very processor
that the answer needs. Which of the two it is changes from moment to moment, so it is measured.
"""

from __future__ import annotations

LEARN = 0.2
"""Weight of the latest wait in a running mean."""
LONG = 4.0
"""A wait of more than so many times the longest look says nothing about which way is quicker."""
EXPLORE = 32
"""Every so many waits the other way is tried."""


class Spinning:
    """``most``: seconds to look at the most, 0 for never."""

    def __init__(self, most: float) -> None:
        self.most = most
        self._count = 0
        self._usual = self._slept = self._spun = 0.0

    def choose(self) -> bool:
        """True to look first: while answers mostly come meanwhile, and sleeping is not quicker."""
        if self._usual >= self.most:
            return False
        self._count += 1
        return (self._spun < self._slept) != (self._count % EXPLORE == 0)

    def learn(self, took: float, *, spun: bool) -> None:
        """The wait ended after so many seconds."""
        # Bounded, so that a few quick answers after a slow one count again.
        self._usual += LEARN * (min(took, 10 * self.most) - self._usual)
        if took > LONG * self.most:
            return
        if spun:
            self._spun += LEARN * (took - self._spun)
        else:
            self._slept += LEARN * (took - self._slept)
