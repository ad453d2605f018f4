"""What workers print, as it appears at the caller.

Owns: the prefix, the colours' absence, and the folding of equal lines from several workers. Pure:
the session writes the returned lines. Must never: lose a line of a single worker.
"""

from __future__ import annotations

from msgspec import Struct

from guactors.messages import Output

WINDOW = 5.0
"""Seconds in which equal lines of different workers are folded into one."""
MOST_REMEMBERED = 1000


class _Seen(Struct):
    first: float
    pid: int
    stream: int
    prefix: str
    extra: int = 0


class LineFolder:
    """First occurrence at once, repetitions by other workers counted and told when the window
    closes. ``fold=False`` passes everything."""

    def __init__(self, *, fold: bool = True) -> None:
        self.fold = fold
        self._seen: dict[str, _Seen] = {}

    def on_output(self, message: Output, now: float) -> list[tuple[int, str]]:
        """Lines to write now, as (stream, text)."""
        out = self.due(now)
        prefix = f"({message.name or 'worker'} pid={message.pid}, {message.provider})"
        if message.dropped:
            out.append((2, f"{prefix} … {message.dropped} lines were too many and are lost"))
        for line in message.lines:
            seen = self._seen.get(line) if self.fold else None
            if seen is not None and seen.pid != message.pid:
                seen.extra += 1
                continue
            if self.fold and line.strip() and len(self._seen) < MOST_REMEMBERED:
                self._seen.setdefault(line, _Seen(now, message.pid, message.stream, prefix))
            out.append((message.stream, f"{prefix} {line}"))
        return out

    def due(self, now: float, *, everything: bool = False) -> list[tuple[int, str]]:
        """Folded lines whose window has closed."""
        out: list[tuple[int, str]] = []
        for line, seen in list(self._seen.items()):
            if everything or now - seen.first >= WINDOW:
                del self._seen[line]
                if seen.extra:
                    times = f"{seen.extra}x by other workers"
                    out.append((seen.stream, f"{seen.prefix} {line} [repeated {times}]"))
        return out

    def next_wake(self) -> float | None:
        """When ``due`` has something to tell."""
        return min((s.first + WINDOW for s in self._seen.values() if s.extra), default=None)
