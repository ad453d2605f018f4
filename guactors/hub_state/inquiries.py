"""Questions on their way through the hub, to whoever knows, and back.

Owns: who asked whom what number, until the answer, the end of either, or :data:`PATIENCE`. Must
never: keep an answer, or let one through that nobody asked for.
"""

from __future__ import annotations

from typing import Final, NamedTuple

PATIENCE: Final = 20.0
"""Seconds for an answer."""
MOST_OPEN: Final = 64
"""Questions one peer may have under way."""


class Inquirer(NamedTuple):
    """Who waits: the peer, and the number of its request. ``target``: for whom."""

    asker: str
    request: int
    target: str
    until: float


class Inquiries:
    """All questions under way, by number."""

    def __init__(self) -> None:
        self._open: dict[int, Inquirer] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, asker: str, request: int, target: str, now: float) -> int:
        """The number of a new question; 0 when the asker has too many under way."""
        if sum(one.asker == asker for one in self._open.values()) >= MOST_OPEN:
            return 0
        self._last += 1
        self._open[self._last] = Inquirer(asker, request, target, now + PATIENCE)
        return self._last

    def answered(self, target: str, number: int) -> Inquirer | None:
        """Who waits for this answer of ``target``; None when nobody does."""
        one = self._open.get(number)
        if one is None or one.target != target:
            return None
        return self._open.pop(number)

    def left(self, peer: str) -> list[Inquirer]:
        """The peer is gone: who waited for it in vain."""
        lost = [(n, one) for n, one in self._open.items() if peer in (one.asker, one.target)]
        for number, _ in lost:
            del self._open[number]
        return [one for _, one in lost if one.asker != peer]

    def expire(self, now: float) -> list[Inquirer]:
        """Who has waited for too long."""
        late = [number for number, one in self._open.items() if now >= one.until]
        return [self._open.pop(number) for number in late]

    def next_wake(self) -> float | None:
        """When the oldest expires; they have all the same patience."""
        return next((one.until for one in self._open.values()), None)
