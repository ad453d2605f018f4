"""A small memory of what was said lately, for messages that overtake each other.

Owns: how much is remembered, and for how long it counts. Must never: read a clock.
"""

from __future__ import annotations

MOST_REMEMBERED = 1000


class Latest:
    """A bounded memory: key -> (time, word), oldest forgotten first."""

    def __init__(self) -> None:
        self._items: dict[str, tuple[float, str]] = {}

    def add(self, key: str, word: str, now: float) -> None:
        """Remember ``word`` for ``key``."""
        self._items.pop(key, None)
        self._items[key] = now, word
        if len(self._items) > MOST_REMEMBERED:
            del self._items[next(iter(self._items))]

    def discard(self, key: str) -> None:
        """Forget it."""
        self._items.pop(key, None)

    def within(self, key: str, seconds: float, now: float) -> str | None:
        """The word, if it is not older than ``seconds``."""
        time, word = self._items.get(key, (now - seconds - 1, ""))
        return word if now - time <= seconds else None
