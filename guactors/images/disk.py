"""Files as the image store needs them: locked, private, durable, and known again.

Owns: what differs between platforms; locks that end with their process; the marks by which a file
is known to be unchanged; which failures of a disk are told how. Must never: know what an image is,
or follow a symbolic link.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from msgspec import Struct

from guactors.errors import ImageRefused

_FLAGS: Final = (
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOCKED_AT: Final = 2**62
"""The byte that is locked on Windows, where a locked byte cannot be read by others."""
_seek = threading.Lock()


class Marks(Struct, frozen=True):
    """By what a file is known to be unchanged since it was verified. The time of the last change of
    status cannot be set, so neither another file nor a change in place has the same marks; only who
    may also write where the marks are recorded can forge them."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def marks_of(found: os.stat_result) -> Marks:
    """The marks in what ``fstat`` says."""
    return Marks(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def is_plain(found: os.stat_result) -> bool:
    """Whether it is a regular file of our own."""
    ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return stat.S_ISREG(found.st_mode) and ours


def open_file(path: Path, flags: int) -> int:
    """A descriptor that children do not inherit; what is made has mode 0600. A symbolic link is an
    OSError."""
    return os.open(path, flags | _FLAGS, 0o600)


def new_file(directory: Path, prefix: str) -> tuple[int, Path]:
    """A new file to read and write, mode 0600, and its path."""
    import tempfile

    fd, name = tempfile.mkstemp(prefix=prefix, dir=directory)
    return fd, Path(name)


def try_lock(fd: int) -> bool:
    """Lock the file for this descriptor alone, unless another one has it locked. The lock ends with
    the descriptor, however its process ends."""
    if sys.platform == "win32":
        import msvcrt

        try:
            with _seek:
                os.lseek(fd, _LOCKED_AT, os.SEEK_SET)
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file; waits for whoever has it, in this process or another."""
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        if sys.platform == "win32":
            import time

            while not try_lock(fd):
                time.sleep(0.01)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def read_at(fd: int, into: memoryview, offset: int) -> int:
    """Fill ``into`` from there; returns how many bytes there were before the end."""
    done = 0
    while done < len(into):
        if sys.platform == "win32":
            with _seek:
                os.lseek(fd, offset + done, os.SEEK_SET)
                data = os.read(fd, len(into) - done)
            count = len(data)
            into[done : done + count] = data
        else:
            count = os.preadv(fd, [into[done:]], offset + done)
        if not count:
            break
        done += count
    return done


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """Write all of ``data`` there."""
    done = 0
    while done < len(data):
        if sys.platform == "win32":
            with _seek:
                os.lseek(fd, offset + done, os.SEEK_SET)
                done += os.write(fd, data[done:])
        else:
            done += os.pwrite(fd, data[done:], offset + done)


def sync_data(fd: int) -> None:
    """Wait until what was written so far is on the disk, where that can be asked for. It makes the
    sync at the end short; it does not stand in for it. An error here is not reported again there:
    the file is lost."""
    if sys.platform == "linux":
        os.fdatasync(fd)


def is_hole(fd: int, offset: int, length: int) -> bool:
    """Whether nothing was ever written there, as far as the file system can tell."""
    if not hasattr(os, "SEEK_DATA"):
        return False
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        if error.errno == errno.ENXIO:  # no data until the end
            return True
        raise


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a loss of power."""
    if sys.platform != "win32":
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_durable(path: Path, data: bytes) -> None:
    """Write a file, mode 0600, whole or not at all, and on the disk when this returns."""
    fd, temporary = new_file(path.parent, ".new-")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file if it is there."""
    try:
        if sys.platform == "win32":  # where the mode of the file itself forbids it
            os.chmod(path, 0o600)
        os.unlink(path)
    except FileNotFoundError:
        return


def remove_unlocked(path: Path) -> bool:
    """Remove a file unless somebody has it locked; False if somebody has."""
    try:
        fd = open_file(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        free = try_lock(fd)
    finally:
        os.close(fd)
    if free:
        remove(path)
    return free


def sizes(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All files below, with their status; those that vanish meanwhile are left out."""
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from sizes(Path(entry.path))
            continue
        try:
            yield Path(entry.path), entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue


def reader(fd: int) -> BinaryIO:
    """The descriptor as a file, from its beginning, which closes it."""
    os.lseek(fd, 0, os.SEEK_SET)
    return os.fdopen(fd, "rb", buffering=0)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """A disk that is full or fails refuses ``what`` with ImageRefused."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            remedy = "free space on that disk, remove images, or move the image store"
            raise ImageRefused(f"{what} does not fit on the disk: {remedy}") from error
        raise ImageRefused(f"{what} cannot be stored: {error}") from error
