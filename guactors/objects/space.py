"""Which bytes of an arena are free.

Owns: the list of free spans. Pure. Must never: know what is in them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

PAGE: Final = 4096


def rounded(size: int) -> int:
    """``size`` in whole pages."""
    return -(-size // PAGE) * PAGE


class Space:
    """``size`` bytes from 0, in whole pages. The lowest span that fits is taken: pages that were
    touched before are much faster to write than fresh ones, and these lie at the end."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._starts = [0] if size else []
        self._lengths = [size] if size else []

    def take(self, size: int) -> int | None:
        """The offset of ``size`` bytes in whole pages, None where no span is large enough."""
        size = rounded(size)
        for i, length in enumerate(self._lengths):
            if length < size:
                continue
            start = self._starts[i]
            if length == size:
                del self._starts[i], self._lengths[i]
            else:
                self._starts[i] = start + size
                self._lengths[i] = length - size
            self.used += size
            return start
        return None

    def give(self, start: int, size: int) -> None:
        """What ``take`` gave comes back, and joins its free neighbours."""
        size = rounded(size)
        starts, lengths = self._starts, self._lengths
        i = bisect_left(starts, start)
        after = starts[i] if i < len(starts) else self.size
        before = starts[i - 1] + lengths[i - 1] if i else 0
        if not (before <= start and start + size <= after):
            raise ValueError(f"{size} bytes at {start} are free already, or not in here")
        self.used -= size
        if i and before == start:
            i -= 1
            lengths[i] += size
        else:
            starts.insert(i, start)
            lengths.insert(i, size)
        if i + 1 < len(starts) and starts[i] + lengths[i] == starts[i + 1]:
            lengths[i] += lengths[i + 1]
            del starts[i + 1], lengths[i + 1]

    def spans(self) -> list[tuple[int, int]]:
        """What is free: offset and length of each span."""
        return list(zip(self._starts, self._lengths, strict=True))

    def check(self) -> None:
        """Invariants, for tests."""
        end = -1
        for start, length in zip(self._starts, self._lengths, strict=True):
            assert start > end, (start, end)
            assert length > 0
            end = start + length
        assert end <= self.size
        assert self.used == self.size - sum(self._lengths)


class Backing:
    """Which pages the system has promised to have."""

    def __init__(self, size: int) -> None:
        self._pages = bytearray(size // PAGE)

    def missing(self, start: int, size: int) -> int:
        """Bytes of the span, in whole pages, that are not promised."""
        return self._pages.count(0, start // PAGE, (start + rounded(size)) // PAGE) * PAGE

    def promised(self, start: int, size: int, *, is_so: bool = True) -> None:
        """The span was promised, or given back."""
        pages = rounded(size) // PAGE
        self._pages[start // PAGE : start // PAGE + pages] = bytes([is_so]) * pages
