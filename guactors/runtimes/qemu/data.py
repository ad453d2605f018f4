"""Directories of this machine as disks that guests read.

Owns: how one is made, found again and counted. Must never: change or remove one that somebody has
open, follow a link of a directory, or hand out what the directory does not hold any more.

A directory is packed once, into a file that is named by a hash of all that the kernel says of what
is in there (names, kinds, sizes, times, numbers): none of it is read again for the next guest. All
guests have the same file, so this machine has its pages once. A source that is a squashfs itself is
taken as it is.

Who has such a file open holds a shared ``flock`` on it, which QEMU inherits with the descriptor. So
it is known, for all processes of this machine, which of them nobody uses.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from guactors.errors import ImageRefused, RuntimeMissing, UsageError
from guactors.images.squashfs import SUPERBLOCK, parse_superblock
from guactors.runtimes.base import Mount
from guactors.runtimes.mounts import check_mounts
from guactors.runtimes.qemu import storage
from guactors.runtimes.tools import INSTALL, WRITING, find_tool, squash_directory

MOST: Final = 16 << 30
"""Bytes of all that are kept, and of one."""
COUNT: Final = 32
AT_ONCE: Final = 8
"""Of one guest: each costs it memory and time to boot."""
_DISK, _PART = "disk-", "part-"
_FORM: Final = b"1"
"""Of what is made: another one makes all of them anew."""


class DataDisk(Struct, frozen=True):
    """``fd``: of the file, whoever holds this closes it; ``mark``: the same as long as the same is
    to be read at the same place."""

    source: str
    target: str
    fd: int
    mark: str


def check_marks(saved: tuple[str, ...], given: tuple[DataDisk, ...], path: str) -> None:
    """Raise ImageRefused where a guest, saved in the file ``path``, had mounted something else than
    it is given now. One that had mounted nothing takes what comes."""
    if not saved:
        return
    for mark, one in zip(saved, given, strict=False):
        if mark != one.mark:
            raise ImageRefused(
                f"{path} was saved with something else at {one.target} than {one.source} holds "
                "now: give it the mounts that it had, unchanged, or start a new instance"
            )
    if len(saved) != len(given):
        raise ImageRefused(f"{path} was saved with {len(saved)} mounts, and {len(given)} are given")


class DataDisks:
    """``directory``: made when the first is kept; ``most``: bytes, of all that nobody uses and of
    one; ``count``: of all that nobody uses. Threads: any."""

    def __init__(self, directory: Path, most: int = MOST, count: int = COUNT) -> None:
        self._directory = directory
        self._most = most
        self._count = count
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}

    def open(self, mounts: Iterable[Mount]) -> tuple[DataDisk, ...]:
        """A disk of each, in the order in which they have to be mounted. Takes as long as it takes
        to copy those that are not there yet. Raises UsageError, RuntimeMissing."""
        wanted = sorted(mounts, key=lambda one: posixpath.normpath(one.target))
        if len(wanted) > AT_ONCE:
            raise UsageError(f"a guest mounts {AT_ONCE} directories at most, not {len(wanted)}")
        check_mounts(wanted)
        found = []
        with ExitStack() as ours:
            for mount in wanted:
                source = os.path.realpath(mount.source)
                kind = os.stat(source).st_mode
                if stat.S_ISDIR(kind):
                    fd, key = self._of_directory(source)
                elif stat.S_ISREG(kind):
                    fd, key = _as_it_is(source)
                else:
                    raise UsageError(f"{source} cannot be mounted: it is no directory")
                ours.callback(os.close, fd)
                mark = hashlib.sha3_256(f"{key} {mount.target}".encode()).hexdigest()[:32]
                found.append(DataDisk(mount.source, mount.target, fd, mark))
            ours.pop_all()
        return tuple(found)

    def _of_directory(self, source: str) -> tuple[int, str]:
        tool = find_tool("mksquashfs")
        if tool is None:
            raise RuntimeMissing(
                f"{source} cannot be mounted in a guest: mksquashfs, which makes a disk of it, is "
                f"not here: {INSTALL}; or mount a squashfs file that was made elsewhere"
            )
        key, size = _look(source, tool)
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            try:
                found = self._kept(key)
                return (self._make(source, tool, key, size) if found is None else found), key
            finally:
                with self._lock:
                    self._making.pop(key, None)

    def _kept(self, key: str) -> int | None:
        try:
            fd = storage.open_to_read(self._directory / f"{_DISK}{key}")
        except FileNotFoundError:
            return None
        storage.share(fd)
        if os.fstat(fd).st_nlink:
            with suppress(OSError):  # when it was used last is only of use to the next one
                os.utime(fd)
            return fd
        os.close(fd)  # it was removed between the two
        return None

    def _make(self, source: str, tool: str, key: str, size: int) -> int:
        if size > self._most:
            raise UsageError(
                f"{source} cannot be mounted: it has {size >> 20} MiB, and disks are made of "
                f"{self._most >> 20} at most: make a squashfs of it yourself, and mount that file"
            )
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._directory / f"{_PART}{key}.{os.getpid()}"
        try:
            squash_directory(Path(source), part, source)
            if _look(source, tool)[0] != key:
                raise UsageError(
                    f"{source} cannot be mounted: it changed while a disk was made of it; try "
                    "again once nobody writes there"
                )
            fd = storage.open_to_read(part)
            try:
                storage.share(fd)
                storage.flush(fd)  # its name promises its content, also when the power fails
                os.replace(part, self._directory / f"{_DISK}{key}")
            except BaseException:
                os.close(fd)
                raise
        except ImageRefused as error:
            raise UsageError(f"{source} cannot be mounted: {error}") from None
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
        self._trim()
        return fd

    def _trim(self) -> None:
        """Remove what nobody uses, what was used longest ago first, until the rest has room; and
        what is left of makers that died."""
        found = []
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):
                state = path.stat()
                if path.name.startswith(_DISK):
                    found.append((state.st_mtime_ns, storage.taken(state), path))
                elif state.st_mtime < time.time() - WRITING.seconds:
                    path.unlink()
        count, total = len(found), sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if count <= self._count and total <= self._most:
                return
            if _removed(path):
                count, total = count - 1, total - size


def _removed(path: Path) -> bool:
    """Whether it could be: nobody has it open."""
    try:
        fd = storage.open_to_read(path)
    except FileNotFoundError:
        return True
    try:
        if not storage.alone(fd):
            return False
        path.unlink(missing_ok=True)
    finally:
        os.close(fd)
    return True


def _as_it_is(source: str) -> tuple[int, str]:
    try:
        fd = storage.open_to_read(source)
    except OSError as error:
        raise UsageError(f"{source} cannot be mounted: {error.strerror}") from None
    try:
        state = os.fstat(fd)
        parse_superblock(storage.read_at(fd, SUPERBLOCK, 0), state.st_size, source)
    except ImageRefused as error:
        os.close(fd)
        raise UsageError(f"a guest mounts directories and squashfs files, and {error}") from None
    except BaseException:
        os.close(fd)
        raise
    return fd, hashlib.sha3_256(f"{source} {_facts(state)}".encode()).hexdigest()[:32]


def _look(source: str, tool: str) -> tuple[str, int]:
    """The hash of all that is known of a directory without reading its files, and of what packs
    it; and the bytes of all files. The time of a change of the inode is nobody's to set: a file
    that is replaced by one of the same size and time is another one."""
    program = os.stat(tool)
    digest = hashlib.sha3_256(_FORM)
    digest.update(f"{program.st_size} {program.st_mtime_ns} ".encode())
    size, waiting = 0, [source]
    try:
        digest.update(f"{_facts(os.stat(source))} ".encode())
        while waiting:
            directory = waiting.pop()
            digest.update(os.fsencode(directory) + b"\0")
            with os.scandir(directory) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
            for entry in listed:
                state = entry.stat(follow_symlinks=False)
                digest.update(os.fsencode(entry.name) + f"\0{_facts(state)} ".encode())
                if stat.S_ISDIR(state.st_mode):
                    waiting.append(entry.path)
                elif stat.S_ISREG(state.st_mode):
                    size += state.st_size
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be mounted: {error.strerror}") from None
    return digest.hexdigest()[:32], size


def _facts(state: os.stat_result) -> tuple[int, ...]:
    return state.st_mode, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
