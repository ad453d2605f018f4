"""What waits to be answered: replies, gathered into one frame per caller.

Owns: the batching. Pure; the worker's lock is held around every method.

A reply leaves at once unless more calls wait to run, and then at the latest when :data:`BATCH` have
gathered, when the first is older than :data:`PATIENCE` (the control thread looks while a call takes
its time), or with the reply of an urgent call.
"""

from __future__ import annotations

from collections.abc import Sequence

from guactors.messages import Replies, Reply
from guactors.transport.base import Frame

BATCH = 32
PATIENCE = 0.001
QUICK = 0.0005
"""A call expected to be shorter may start before the replies before it have left, seconds."""


class Outbox:
    """Finished calls by caller."""

    def __init__(self) -> None:
        self.count = 0
        self.since = 0.0
        self._replies: dict[str, list[Reply]] = {}
        self._buffers: dict[str, list[Frame]] = {}

    def add(self, link: str, reply: Reply, buffers: Sequence[Frame], now: float) -> None:
        """One more finished call."""
        if not self.count:
            self.since = now
        self.count += 1
        waiting = self._replies.get(link)
        if waiting is None:
            self._replies[link] = [reply]
            self._buffers[link] = list(buffers)
        else:
            waiting.append(reply)
            if buffers:
                self._buffers[link].extend(buffers)

    def take(self) -> list[tuple[str, Replies, list[Frame]]]:
        """Everything, one frame per caller."""
        taken = [(link, Replies(r), self._buffers[link]) for link, r in self._replies.items()]
        self._replies = {}
        self._buffers = {}
        self.count = 0
        return taken
