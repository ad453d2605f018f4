"""Contents kept until the tree they belong to is written.

Owns: one nameless temporary file for all contents of an import, and the pieces of files that stay
where they are. Must never: keep a content in memory, or leave a file behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import IO, Final, Self

from msgspec import Struct

from guactors.errors import ImageRefused
from guactors.images import disk
from guactors.images.members import COPY, MIB

_IN_MEMORY: Final = 8 * MIB
"""Of a whole import: the small ones of tests and functions never reach the disk."""


class Section(Struct, frozen=True):
    """``size`` bytes of ``file`` from ``start``. Several may be read in turns, in one thread."""

    file: IO[bytes]
    start: int
    size: int

    def pieces(self) -> Iterator[bytes]:
        """All of it."""
        at, end = self.start, self.start + self.size
        while at < end:
            data = self.read_at(at - self.start, min(end - at, COPY))
            if not data:
                raise ImageRefused("an archive became shorter while it was read")
            at += len(data)
            yield data

    def read_at(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset``."""
        self.file.seek(self.start + offset)
        return self.file.read(max(0, min(size, self.size - offset)))


class SectionReader:
    """A section as a file that is read from its beginning."""

    def __init__(self, section: Section) -> None:
        self._section = section
        self._at = 0

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        data = self._section.read_at(self._at, size)
        self._at += len(data)
        return data


class Spool:
    """A temporary file that only grows; gone with its ``with`` block."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (__exit__)
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def keep(self, pieces: Iterable[bytes]) -> Section:
        """Store a content. Raises ImageRefused when the disk is full; errors of ``pieces`` pass
        through."""
        start = self._end
        for data in pieces:
            with disk.refusing("the temporary copy of an image"):
                self._file.seek(self._end)
                self._file.write(data)
            self._end += len(data)
        return Section(self._file, start, self._end - start)
