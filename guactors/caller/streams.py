"""Streaming calls: the items that came, in order, once each.

Owns: per stream the ids of items nobody took yet. Must never: block (the generator in ``refs``
does).
"""

from __future__ import annotations

from collections import deque

TELLINGS = 8
"""Messages to a producer while its reader takes as many items as may be unread."""


class Stream:
    """``items``: object ids, each held once for whoever takes it. ``received`` counts over retries,
    so that a retried producer's repeated items are dropped. ``finished``: the end is known;
    ``told``: its error was handed out. ``window``: items that may be unread before the producer
    pauses, 0 for any number; of the ``taken`` ones it knows of ``announced``.
    ``gather``: nobody reads it, its items become one value. ``goes_on``: a producer that begins
    again does not repeat itself, so its items come after those that were ``before``."""

    __slots__ = (
        "announced", "before", "finished", "gather", "goes_on", "items", "received", "taken",
        "told", "window",
    )  # fmt: skip

    def __init__(self, window: int = 0, *, gather: bool = False, goes_on: bool = False) -> None:
        self.gather = gather
        self.goes_on = goes_on
        self.before = 0
        self.items: deque[int] = deque()
        self.window = window
        self.taken = 0
        self.announced = 0
        self.received = 0
        self.finished = False
        self.told = False

    def take(self) -> tuple[int | None, bool]:
        """The next item, if there is one, and whether the producer should hear of it. Told late, it
        never waits for good: what is left unread then is more than what it was not told of."""
        if not self.items:
            return None, False
        self.taken += 1
        late = self.taken - self.announced
        due = bool(self.window) and not self.finished and late >= max(1, self.window // TELLINGS)
        return self.items.popleft(), due

    def announce(self) -> int:
        """How many of the producer's were taken; it is told now."""
        self.announced = self.taken
        return max(0, self.taken - self.before)

    def begin_again(self) -> None:
        """Another producer is going to be asked."""
        if self.goes_on:
            self.before = self.received
