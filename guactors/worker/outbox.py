"""What waits to be answered: replies, gathered into one frame per caller.

Owns: the batching. Pure; the worker's lock is held around every method.

A reply leaves at once unless more calls wait to run, and then at the latest when :data:`BATCH` have
gathered, when the first is older than :data:`PATIENCE` (the control thread looks while a call takes
its time), or with the reply of an urgent call.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from struct import Struct

from guactors.messages import Replies, Reply
from guactors.transport.base import Frame

BATCH = 32
PATIENCE = 0.001
QUICK = 0.0005
"""A call expected to be shorter may start before the replies before it have left, seconds."""


_SPAN = Struct("<dd").pack
_SWAP = sys.byteorder == "big"


class Outbox:
    """Finished calls by caller. ``clock``: what turns seconds here into those of the epoch."""

    def __init__(self, clock: float = 0.0) -> None:
        self.clock = clock
        self.count = 0
        self.since = 0.0
        self._replies: dict[str, list[Reply]] = {}
        self._buffers: dict[str, list[Frame]] = {}
        self._times: dict[str, array[float]] = {}

    def add(
        self, link: str, reply: Reply, buffers: Sequence[Frame], now: float, began: float = 0.0
    ) -> None:
        """One more finished call; ``began`` is 0 where it never did."""
        if not self.count:
            self.since = now
        self.count += 1
        waiting = self._replies.get(link)
        if waiting is None:
            self._replies[link] = [reply]
            self._buffers[link] = list(buffers)
            self._times[link] = array("d", self._span(began, now))
        else:
            waiting.append(reply)
            if buffers:
                self._buffers[link].extend(buffers)
            self._times[link].extend(self._span(began, now))

    def times(self, began: float, now: float) -> bytes:
        """Of a call that ends now, as Replies tell them."""
        return _SPAN(began + self.clock, now - began)

    def _span(self, began: float, now: float) -> tuple[float, float]:
        return (began + self.clock, now - began) if began else (0.0, 0.0)

    def take(self) -> list[tuple[str, Replies, list[Frame]]]:
        """Everything, one frame per caller."""
        for times in self._times.values() if _SWAP else ():
            times.byteswap()
        taken = [
            (link, Replies(replies, self._times[link].tobytes()), self._buffers[link])
            for link, replies in self._replies.items()
        ]
        self._replies = {}
        self._buffers = {}
        self._times = {}
        self.count = 0
        return taken
