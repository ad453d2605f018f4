"""The files of an archive or a directory by their names, for formats that point at each other.

Owns: finding a file of an OCI layout or a ``docker save`` archive, and its links. Must never: open
anything outside of the directory, or keep contents in memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast

from guactors.errors import ImageRefused
from guactors.images.archive import content_of, is_zip
from guactors.images.compression import PlainStream
from guactors.images.members import Budget, Gate, Kind, Reader, refuse
from guactors.images.spool import Section, SectionReader, Spool
from guactors.images.tar_reader import TarContent, read_tar

_HOPS: Final = 8


class Shelf(Protocol):
    """Files by name. ``what`` names all of it in errors."""

    what: str

    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    def open(self, name: str) -> tuple[Reader, int]:
        """The file from its beginning, and its size. Raises ImageRefused when it is missing."""


def read_small(shelf: Shelf, name: str, most: int) -> bytes:
    """All of a file, which must have at most ``most`` bytes."""
    reader, size = shelf.open(name)
    if size > most:
        refuse(shelf.what, name, f"{size} bytes, at most {most} are read")
    data = b""
    while more := reader.read(size + 1 - len(data)):
        data += more
    if len(data) != size:
        refuse(shelf.what, name, "it changed while it was read")
    return data


class ArchiveShelf:
    """The files of a tar archive, found by reading it once. Contents of a plain one stay where
    they are, those of a compressed one go to ``spool``."""

    def __init__(self, file: BinaryIO, what: str, spool: Spool) -> None:
        self.what = what
        self._sections: dict[str, Section] = {}
        self._links: dict[str, str] = {}
        head = file.read(4)
        file.seek(0)
        if is_zip(head):
            raise ImageRefused(f"{what} is a zip: images of Docker and OCI come as tar")
        gate = Gate(Budget(), what)
        stream = PlainStream(file, gate.budget, what)
        for member, content in read_tar(stream, gate):
            if member.kind is Kind.FILE:
                offset = cast(TarContent, content).offset
                if stream.compression:
                    section = spool.keep(content_of(member, content, what))
                else:
                    section = Section(file, offset, member.size)
                self._place(member.name, section)
            elif member.kind is Kind.SYMLINK:
                self._place(member.name, None)
                self._links[member.name] = _beside(member.name, member.target)
            elif member.kind is Kind.HARDLINK:
                self._place(member.name, self._sections.get(member.target))

    def _place(self, name: str, section: Section | None) -> None:
        if name in self._sections or name in self._links:
            refuse(self.what, name, "it is there twice")
        if section is not None:
            self._sections[name] = section

    def has(self, name: str) -> bool:
        """Whether there is such a file, or a link to one."""
        return self._find(name) is not None

    def open(self, name: str) -> tuple[Reader, int]:
        """The file from its beginning, and its size."""
        section = self._find(name)
        if section is None:
            refuse(self.what, name, "it is missing")
        return SectionReader(section), section.size

    def _find(self, name: str) -> Section | None:
        # Older releases of docker save have links in the place of layers that are there already.
        for _ in range(_HOPS):
            if name not in self._links:
                break
            name = self._links[name]
        return self._sections.get(name)


class DirectoryShelf:
    """The files below a directory; links are not followed."""

    def __init__(self, root: Path) -> None:
        self.what = str(root)
        self._root = root
        self._opened: list[BinaryIO] = []

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._path(name).is_file()

    def open(self, name: str) -> tuple[Reader, int]:
        """The file from its beginning, and its size."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            fd = os.open(self._path(name), flags | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            refuse(self.what, name, f"it cannot be opened: {error.strerror}")
        file = os.fdopen(fd, "rb", buffering=0)
        self._opened.append(cast(BinaryIO, file))
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            refuse(self.what, name, "it is no plain file")
        return cast(BinaryIO, file), found.st_size

    def close(self) -> None:
        """Close what was opened."""
        while self._opened:
            self._opened.pop().close()

    def _path(self, name: str) -> Path:
        parts = Gate(Budget(), self.what).path(name, name)
        path = self._root
        for part in parts:
            path /= part
            if path.is_symlink():
                refuse(self.what, name, "a link, which may lead anywhere")
        return path


@contextmanager
def open_shelf(path: Path, spool: Spool) -> Iterator[ArchiveShelf | DirectoryShelf]:
    """The files in a directory or a tar archive."""
    if path.is_dir():
        shelf = DirectoryShelf(path)
        try:
            yield shelf
        finally:
            shelf.close()
    else:
        with path.open("rb") as file:
            yield ArchiveShelf(file, str(path), spool)


def _beside(name: str, target: str) -> str:
    """Where a link leads, as a name of the archive; a name that is not there if it leads out."""
    parts = name.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "" if target.startswith("/") else "/".join(parts)
