"""An image's files in a directory of this machine, for programs that run without a container.

Owns: writing where nothing but the new directory can be reached. Must never: follow a link on the
disk, write into a directory that was there before, or leave half of an image behind.

Every directory is opened from the one above it, part by part, with O_NOFOLLOW; where names lead is
decided in :class:`guactors.images.tree.Tree`, which knows all links that were written. The files
belong to whoever unpacks them; nobody else may write them; setuid bits are gone. Absolute links
are written relative to the new root: for a program that is not confined to it they would otherwise
lead to the files of this machine.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from guactors.errors import UsageError
from guactors.images import disk
from guactors.images.archive import content_of
from guactors.images.members import LIMITS, Budget, Entries, Gate, Kind, Limits, Member, Reader
from guactors.images.rootfs import read_rootfs
from guactors.images.store import ImageStore
from guactors.images.tree import Placed, Tree

_MASK: Final = 0o755
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NOFOLLOW
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW


def unpack_image(
    store: ImageStore, image_id: str, destination: Path, *, limits: Limits = LIMITS
) -> None:
    """Unpack the root file system of an image as the new directory ``destination``.

    It appears whole or not at all. Raises ImageRefused for an image that may not be unpacked,
    UsageError when the directory exists or this system cannot unpack."""
    gate = Gate(Budget(limits), f"the image {image_id}")
    with read_rootfs(store, image_id, gate) as entries:
        unpack(entries, gate, destination)


def unpack(entries: Entries, gate: Gate, destination: Path) -> None:
    """Write the members as the new directory ``destination``; see :func:`unpack_image`."""
    if sys.platform == "win32":
        raise UsageError("images hold Linux files, which Windows cannot unpack: run them in a VM")
    destination = Path(os.path.abspath(destination))
    if destination.exists() or destination.is_symlink():
        raise UsageError(f"{destination} exists: an image is unpacked as a new directory")
    if not destination.parent.is_dir():
        raise UsageError(f"{destination.parent} is no directory: make it first")
    with disk.refusing(gate.what):
        fresh = tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent)
        try:
            root = os.open(fresh, _DIRECTORY)
            try:
                _Writer(root, gate).write(entries)
            finally:
                os.close(root)
            os.rename(fresh, destination)
        except BaseException:
            shutil.rmtree(fresh)
            raise


def unpack_over(entries: Entries, gate: Gate, root: int) -> None:
    """Write the members below the open directory ``root``, over what is there: files and links are
    replaced, directories stay. Raises ImageRefused; what was written until then stays as well."""
    with disk.refusing(gate.what):
        _Writer(root, gate, over=True).write(entries)


class _Writer:
    """Writes below one open directory; ``over`` what is there, or where nothing is."""

    def __init__(self, root: int, gate: Gate, *, over: bool = False) -> None:
        self._root = root
        self._gate = gate
        self._over = over
        self._named: set[tuple[str, ...]] = set()
        self._tree = Tree()
        self._open: list[tuple[str, int]] = []
        """The directories from the root to where the last member was written."""

    def write(self, entries: Entries) -> None:
        """All members, and the modes and times of the directories at last."""
        try:
            for member, reader in entries:
                self._member(member, reader)
            self._tree.check(self._gate.what)
            self._finish()
        finally:
            self._leave(0)

    def _member(self, member: Member, reader: Reader) -> None:
        placed = self._tree.add(member, self._gate)
        if placed.same:
            return
        if member.kind is Kind.DIRECTORY:
            self._enter(placed.path)
            self._named.add(placed.path)
            return
        *above, name = placed.path
        directory = self._enter(tuple(above))
        if placed.replaces or self._over:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
        node = placed.node.itself
        if node.kind is Kind.SYMLINK:
            os.symlink(_inside(node.target, len(above)), name, dir_fd=directory)
        elif member.kind is Kind.HARDLINK:
            self._link(placed, name, directory)
        else:
            self._file(member, reader, name, directory)

    def _file(self, member: Member, reader: Reader, name: str, directory: int) -> None:
        fd = os.open(name, _NEW, 0o600, dir_fd=directory)
        with os.fdopen(fd, "wb", buffering=0) as file:
            for data in content_of(member, reader, self._gate.what):
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
            _set_mode(fd, member.mode & _MASK | 0o400)
            os.utime(fd, (member.mtime, member.mtime))

    def _link(self, placed: Placed, name: str, directory: int) -> None:
        opened: list[int] = []
        try:
            source = self._root
            for part in placed.linked[:-1]:
                source = os.open(part, _DIRECTORY, dir_fd=source)
                opened.append(source)
            os.link(
                placed.linked[-1], name, src_dir_fd=source, dst_dir_fd=directory,
                follow_symlinks=False,
            )  # fmt: skip
        finally:
            for fd in opened:
                os.close(fd)

    def _enter(self, path: tuple[str, ...]) -> int:
        """The descriptor of a directory, made with all above it where they are missing."""
        known = 0
        while known < min(len(path), len(self._open)) and self._open[known][0] == path[known]:
            known += 1
        self._leave(known)
        for part in path[known:]:
            above = self._open[-1][1] if self._open else self._root
            try:
                fd = os.open(part, _DIRECTORY, dir_fd=above)
            except FileNotFoundError:
                os.mkdir(part, 0o700, dir_fd=above)
                fd = os.open(part, _DIRECTORY, dir_fd=above)
            self._open.append((part, fd))
        return self._open[-1][1] if self._open else self._root

    def _leave(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])

    def _finish(self) -> None:
        """Modes and times of directories: writing into one would change the time again."""
        for path, node in self._tree.walk():
            # What no member names was there before, or is made as the default is.
            if node.kind is Kind.DIRECTORY and (path in self._named or not self._over):
                fd = self._enter(path)
                _set_mode(fd, node.mode & _MASK | 0o700)
                os.utime(fd, (node.mtime, node.mtime))
        if not self._over:
            _set_mode(self._root, 0o755)


def _set_mode(fd: int, mode: int) -> None:
    if sys.platform != "win32":
        os.fchmod(fd, mode)


def _inside(target: str, depth: int) -> str:
    """A link's text for a link that lies ``depth`` directories below the new root."""
    if not target.startswith("/"):
        return target
    return "../" * depth + target.lstrip("/") or "."
