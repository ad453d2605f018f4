"""The removal of arenas that dead processes left.

Owns: the names of arena files, and the two locks that say whether one is needed. Light: providers
and launchers sweep, and have no store.

Byte 0 of an arena is locked, together, by everybody who has it open; byte 1, alone, by the process
that writes. Whoever can seize byte 1 knows that the writer is dead, whoever can seize byte 0 that
nobody needs the file.

The sticky bit says that values in it were promised to processes of other machines, the latest when
the file's status was last changed. Of a dead process it stays for :data:`LINGER` seconds, in which
a depot may come for them.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from guactors.objects import locks
from guactors.objects.place import Place

OPEN: Final = 0
WRITER: Final = 1
SHORT: Final = "short"
"""The file by which a process tells the others that it found no memory."""
FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
LINGER: Final = 3.0
"""Seconds for which what was promised stays without its writer."""
_NAME: Final = re.compile(r"[md]-[0-9a-f]{32}")
"""``m`` in memory, ``d`` on disk."""


def arenas_in(directory: Path) -> Iterator[os.DirEntry[str]]:
    """The arena files in a directory; nothing where there is none."""
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                yield entry


def sweep(place: Place, *, at_once: bool = False) -> int:
    """Remove the arenas of dead processes that nobody uses, and the directories where nothing is
    left; the number of arenas. ``at_once``: promised ones, too. For processes without a store."""
    swept = 0
    for directory in (place.directory, place.disk):
        for entry in list(arenas_in(directory)):
            swept += sweep_one(Path(entry.path), at_once=at_once)
    remove_directories(place)
    return swept


def promise(fd: int) -> None:
    """Others may come for what is in this arena, though its writer ends."""
    if sys.platform != "win32":
        os.fchmod(fd, 0o600 | stat.S_ISVTX)


def is_promised(fd: int) -> bool:
    """Whether they still may."""
    status = os.fstat(fd)
    return bool(status.st_mode & stat.S_ISVTX) and time.time() - status.st_ctime < LINGER


def sweep_one(path: Path, *, at_once: bool = False) -> bool:
    """Remove the arena ``path`` if its writer is dead and nobody has it open. This process must not
    have it open."""
    try:
        fd = os.open(path, os.O_RDWR | FLAGS)
    except OSError:  # gone, or somebody else's file
        return False
    try:
        if is_promised(fd) and not at_once:
            return False
        if not (locks.seize(fd, WRITER) and locks.seize(fd, OPEN)):
            return False
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def remove_directories(place: Place) -> None:
    """Remove the directories of a place, if nobody has arenas there any more."""
    for directory in (place.directory, place.disk):
        if not directory.is_dir() or any(True for _ in arenas_in(directory)):
            continue
        with contextlib.suppress(OSError):
            (directory / SHORT).unlink()
        with contextlib.suppress(OSError):
            directory.rmdir()
