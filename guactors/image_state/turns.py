"""In which order the questions of many peers are worked on, and how many wait.

Owns: the queue of each peer, and the limits. Must never: look into a question.

Peers take turns. The questions of one peer begin in their order; several may run at a time, except
those that must be alone: they wait for all before them, and all after them wait for them. So a peer
that seals an upload need not know which of its chunks are written.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MOST_RUNNING: Final = 8
MOST_OF_PEER: Final = 4
"""Of one peer's questions that run at a time."""
MOST_WAITING: Final = 64
"""Of one peer's questions, besides those that run."""
MOST_BYTES_OF_PEER: Final = 64 << 20
MOST_BYTES: Final = 256 << 20
"""That are held for the questions of one peer, and of all; a single larger one is let through."""


@dataclass(slots=True)
class _Line(Generic[T]):
    """``waiting``: question, whether it must be alone, bytes."""

    waiting: deque[tuple[T, bool, int]] = field(default_factory=deque)
    bytes: int = 0
    running: int = 0
    alone: bool = False


class Turns(Generic[T]):
    """``start`` after each ``put`` and ``done``."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line[T]] = {}
        self._running = 0
        self._bytes = 0

    def __len__(self) -> int:
        """Questions that wait or run."""
        return self._running + sum(len(line.waiting) for line in self._lines.values())

    def put(self, peer: str, question: T, *, alone: bool, size: int = 0) -> bool:
        """Have a question wait its turn; ``size``: the bytes that are held for it until ``done``.
        False where too much waits already: it is not taken."""
        line = self._lines.get(peer) or _Line()
        if (
            len(line.waiting) >= MOST_WAITING
            or (line.bytes and line.bytes + size > MOST_BYTES_OF_PEER)
            or (self._bytes and self._bytes + size > MOST_BYTES)
        ):
            return False
        self._lines[peer] = line
        line.waiting.append((question, alone, size))
        line.bytes += size
        self._bytes += size
        return True

    def start(self) -> tuple[str, T, int] | None:
        """The next question that may run, with its peer and its size for ``done``; None while there
        is none. It counts as running from here on."""
        if self._running >= MOST_RUNNING:
            return None
        for peer, line in self._lines.items():
            if not line.waiting or line.alone or line.running >= MOST_OF_PEER:
                continue
            question, alone, size = line.waiting[0]
            if alone and line.running:
                continue
            line.waiting.popleft()
            line.running += 1
            line.alone = alone
            self._running += 1
            # Whoever had a turn is asked last next time.
            self._lines[peer] = self._lines.pop(peer)
            return peer, question, size
        return None

    def done(self, peer: str, size: int) -> None:
        """A question of the peer is answered."""
        line = self._lines[peer]
        line.running -= 1
        line.alone = False
        line.bytes -= size
        self._running -= 1
        self._bytes -= size
        if not line.running and not line.waiting:
            del self._lines[peer]

    def check(self) -> None:
        """Every invariant holds."""
        assert 0 <= self._running <= MOST_RUNNING
        assert self._running == sum(line.running for line in self._lines.values())
        assert self._bytes == sum(line.bytes for line in self._lines.values())
        for line in self._lines.values():
            assert line.running or line.waiting
            assert line.running <= (1 if line.alone else MOST_OF_PEER)
            assert len(line.waiting) <= MOST_WAITING
            assert line.bytes >= 0
