"""A directory of this machine as a tree.

Owns: reading names, modes and links of a directory, and its contents when they are asked for. Must
never: follow a link, or take a file that is another one by the time it is read.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from guactors.errors import ImageRefused, UsageError
from guactors.images.members import COPY, Budget, Gate, Kind, encoded
from guactors.images.tree import Tree

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
"""A pipe put in the place of the file must not stop us."""


Skip = Callable[[str, bool], bool]
"""Whether to leave out what has this path below the source, and is a directory or is not."""


def scan_directory(source: Path, *, owners: bool = False, skip: Skip | None = None) -> Tree:
    """What is in ``source``, checked by the rules of archives, its contents left where they are.

    All times are 0, all owners 0 unless ``owners``. ``skip``: what is left out, with all below it.
    Raises UsageError for what cannot be in an image: unreadable files, sockets, pipes, devices,
    links that lead out of the directory."""
    if not source.is_dir():
        raise UsageError(f"{source} is no directory")
    gate = Gate(Budget(), str(source))
    tree = Tree()
    scan = _Scan(gate, owners)
    try:
        for found, name in scan.entries(source, skip):
            scan.add(tree, found, name)
        tree.check(str(source))
    except ImageRefused as fault:
        raise UsageError(f"no image can be made of {fault}") from None
    return tree


class FileContent(Struct, frozen=True):
    """A file where it lies, as it was when it was found."""

    path: str
    device: int
    inode: int
    size: int
    changed: int

    def pieces(self) -> Iterator[bytes]:
        """All of it. Raises UsageError when it is not that file any more."""
        try:
            fd = os.open(self.path, _FLAGS | _NONBLOCK)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}") from None
        with os.fdopen(fd, "rb", buffering=0) as file:
            found = os.fstat(fd)
            if _identity(found) != (self.device, self.inode, self.size, self.changed):
                raise UsageError(f"{self.path} changed while the image was made: try again")
            left = self.size
            while left and (data := file.read(min(left, COPY))):
                left -= len(data)
                yield data
            if left or _identity(os.fstat(fd)) != _identity(found):
                raise UsageError(f"{self.path} changed while the image was made: try again")


class _Scan:
    def __init__(self, gate: Gate, owners: bool) -> None:
        self._gate = gate
        self._owners = owners
        self._names: dict[tuple[int, int], str] = {}
        """The first name of each file that has several."""

    def entries(
        self, source: Path, skip: Skip | None = None
    ) -> Iterator[tuple[os.DirEntry[str], str]]:
        """Everything below, sorted, directories before what is in them; with its path in there."""
        waiting: list[tuple[os.DirEntry[str], str]] = self._listed(str(source), "")
        while waiting:
            entry, name = waiting.pop()
            directory = entry.is_dir(follow_symlinks=False)
            if skip is not None and skip(name, directory):
                continue
            yield entry, name
            if directory:
                waiting += self._listed(entry.path, f"{name}/")

    def _listed(self, directory: str, prefix: str) -> list[tuple[os.DirEntry[str], str]]:
        try:
            with os.scandir(directory) as found:
                entries = sorted(found, key=lambda entry: encoded(entry.name), reverse=True)
        except OSError as error:
            raise UsageError(f"{directory} cannot be read: {error.strerror}") from None
        return [(entry, prefix + entry.name) for entry in entries]

    def add(self, tree: Tree, entry: os.DirEntry[str], name: str) -> None:
        try:
            found = os.lstat(entry.path)
            target = os.readlink(entry.path) if stat.S_ISLNK(found.st_mode) else ""
        except OSError as error:
            raise UsageError(f"{entry.path} cannot be read: {error.strerror}") from None
        kind = _kind(found.st_mode, entry.path)
        content = None
        if kind is Kind.FILE:
            first = name
            if found.st_nlink > 1 and found.st_ino:
                first = self._names.setdefault((found.st_dev, found.st_ino), name)
            if first != name:
                kind, target = Kind.HARDLINK, first
            else:
                _check_readable(entry.path)
                content = FileContent(entry.path, *_identity(found))
        member = self._gate.member(
            name,
            kind,
            mode=_mode(found, kind),
            uid=found.st_uid if self._owners else 0,
            gid=found.st_gid if self._owners else 0,
            size=found.st_size if kind is Kind.FILE else 0,
            target=target,
        )
        tree.add(member, self._gate, content)


def _kind(mode: int, path: str) -> Kind:
    for test, kind in (
        (stat.S_ISREG, Kind.FILE),
        (stat.S_ISDIR, Kind.DIRECTORY),
        (stat.S_ISLNK, Kind.SYMLINK),
    ):
        if test(mode):
            return kind
    names = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a named pipe"}
    found = names.get(stat.S_IFMT(mode), "a device")
    raise UsageError(f"{path} is {found}, which cannot be in an image: remove it or move it away")


def _mode(found: os.stat_result, kind: Kind) -> int:
    """Links have no modes of their own; on some systems they show the umask. Windows knows none."""
    if kind is Kind.SYMLINK:
        return 0o777
    if sys.platform == "win32":
        return 0o755 if kind is Kind.DIRECTORY else 0o644
    return stat.S_IMODE(found.st_mode)


def _check_readable(path: str) -> None:
    """Before anything is written: what cannot be read should be told at once."""
    if not os.access(path, os.R_OK):
        raise UsageError(f"{path} cannot be read: an image needs every file of its directory")


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
