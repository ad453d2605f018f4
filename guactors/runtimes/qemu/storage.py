"""Files of this machine, as each system has them.

Owns: reading and writing at a place, what a file takes on its disk, and who has it open. Must
never: choose a file, or keep one open.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

PLAIN: Final[int] = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags of every file here: nobody inherits it, and no byte of it is another one."""
_COPY: Final = 4 << 20
_ZEROS: Final = bytes(1 << 16)
_seeking = threading.Lock()


def open_to_read(path: str | Path) -> int:
    """Its descriptor."""
    return os.open(path, os.O_RDONLY | PLAIN)


def read_at(fd: int, size: int, at: int) -> bytes:
    """What is there, shorter at the end of the file."""
    if sys.platform != "win32":
        return os.pread(fd, size, at)
    with _seeking:
        os.lseek(fd, at, os.SEEK_SET)
        return os.read(fd, size)


def write_at(fd: int, data: bytes | memoryview, at: int) -> None:
    """All of it."""
    left = memoryview(data)
    while left:
        if sys.platform != "win32":
            sent = os.pwrite(fd, left, at)
        else:
            with _seeking:
                os.lseek(fd, at, os.SEEK_SET)
                sent = os.write(fd, left)
        left, at = left[sent:], at + sent


def flush(fd: int) -> None:
    """Its content is on the disk when this returns."""
    if sys.platform == "linux":
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def taken(state: os.stat_result) -> int:
    """Bytes that a file takes on its disk; where the system does not say, those that it has."""
    if sys.platform == "win32":
        return state.st_size
    return state.st_blocks * 512


def extents(fd: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data: offsets and lengths."""
    seek_data, seek_hole = getattr(os, "SEEK_DATA", None), getattr(os, "SEEK_HOLE", None)
    if seek_data is None or seek_hole is None:
        yield from _not_zero(fd)
        return
    at, size = 0, os.fstat(fd).st_size
    while at < size:
        try:
            begin = os.lseek(fd, at, seek_data)
        except OSError:  # none from here on
            return
        at = os.lseek(fd, begin, seek_hole)
        yield begin, at - begin


def _not_zero(fd: int) -> Iterator[tuple[int, int]]:
    """The same where the system does not say: all of it is read."""
    at = 0
    while data := read_at(fd, len(_ZEROS), at):
        if data != _ZEROS[: len(data)]:
            yield at, len(data)
        at += len(data)


def copy(source: int, source_at: int, to: int, to_at: int, size: int) -> None:
    """Bytes of one file to another. Raises EOFError where there are not so many."""
    done = 0
    while done < size:
        data = read_at(source, min(_COPY, size - done), source_at + done)
        if not data:
            raise EOFError("a file became shorter while it was read")
        write_at(to, data, to_at + done)
        done += len(data)


def share(fd: int) -> None:
    """Nobody else has the file alone as long as this is open. Windows needs no lock: there a file
    that is open cannot be removed."""
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_SH)


def alone(fd: int) -> bool:
    """Whether nobody shares it; on Windows removing it tells."""
    if sys.platform != "win32":
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
