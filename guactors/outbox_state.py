"""Messages that a link had no room for, until it has.

Owns: one queue per link and lane, and their bound. Must never: send, or reorder a lane.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from guactors.ids import LinkKey
from guactors.transport.base import Lane

MOST_MESSAGES = 10_000
MOST_BYTES = 256 << 20
"""What one link may have waiting on one lane; a single larger message is let through."""


class Outboxes:
    """Queues of encoded messages."""

    def __init__(self) -> None:
        self._queues: dict[tuple[LinkKey, Lane], deque[bytes]] = {}
        self._bytes: dict[tuple[LinkKey, Lane], int] = {}

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def __iter__(self) -> Iterator[tuple[LinkKey, Lane]]:
        return iter(list(self._queues))

    def waiting(self, link: LinkKey, lane: Lane) -> bool:
        """Whether something is in front."""
        return (link, lane) in self._queues

    def put(self, link: LinkKey, lane: Lane, frame: bytes) -> bool:
        """Keep it; False, and not kept, when the peer is too far behind."""
        key = link, lane
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            self._bytes[key] = 0
        elif len(queue) >= MOST_MESSAGES or self._bytes[key] + len(frame) > MOST_BYTES:
            return False
        queue.append(frame)
        self._bytes[key] += len(frame)
        return True

    def flush(self, link: LinkKey, lane: Lane, send: Callable[[bytes], bool]) -> None:
        """Offer what waits to ``send``, in order, until it returns False."""
        key = link, lane
        queue = self._queues.get(key)
        while queue:
            if not send(queue[0]):
                return
            self._bytes[key] -= len(queue.popleft())
        self._queues.pop(key, None)
        self._bytes.pop(key, None)

    def drop(self, link: LinkKey) -> None:
        """The link is gone."""
        for lane in Lane:
            self._queues.pop((link, lane), None)
            self._bytes.pop((link, lane), None)
