"""What waits to be answered: replies, gathered into one frame per caller.

Owns: the batching. Pure; the worker's lock is held around every method.

A reply leaves at once unless more calls wait to run, and then at the latest when :data:`BATCH` have
gathered, when the first is older than :data:`PATIENCE` (the control thread looks while a call takes
its time), or with the reply of an urgent call.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, pack

from guactors.messages import Replies, Reply
from guactors.transport.base import Frame

BATCH = 32
PATIENCE = 0.001
QUICK = 0.0005
"""A call expected to be shorter may start before the replies before it have left, seconds."""


_TIMES = Struct("<ddd").pack


class Outbox:
    """Finished calls by caller. ``clock``: what turns seconds here into those of the epoch."""

    def __init__(self, clock: float = 0.0) -> None:
        self.clock = clock
        self.count = 0
        self.since = 0.0
        self._waiting: dict[str, tuple[list[Reply], list[Frame], list[float]]] = {}

    def add(
        self, link: str, reply: Reply, buffers: Sequence[Frame], now: float, began: float = 0.0
    ) -> None:
        """One more finished call; ``began`` is 0 where it never did."""
        if not self.count:
            self.since = now
        self.count += 1
        known = self._waiting.get(link)
        if known is None:
            self._waiting[link] = [reply], list(buffers), [self.clock, began, now]
            return
        replies, frames, times = known
        replies.append(reply)
        times.append(began)
        times.append(now)
        if buffers:
            frames.extend(buffers)

    def times(self, began: float, now: float) -> bytes:
        """Of a call that ends now, as Replies tell them."""
        return _TIMES(self.clock, began, now)

    def take(self) -> list[tuple[str, Replies, list[Frame]]]:
        """Everything, one frame per caller."""
        taken = [
            (link, Replies(replies, pack(f"<{len(times)}d", *times)), buffers)
            for link, (replies, buffers, times) in self._waiting.items()
        ]
        self._waiting = {}
        self.count = 0
        return taken
