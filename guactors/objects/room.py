"""Where this user's shared memory is on this machine, and how much there may be of it.

Owns: the bounds of the two directories (memory and disk), and the note by which one process asks
the others to make way. Must never: look into an arena.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from msgspec import Struct

from guactors.errors import UsageError
from guactors.home import private_directory
from guactors.machine import memory_limit, total_memory
from guactors.objects.arena import OwnArena
from guactors.objects.place import MEMORY_BOUND, Place, own_place
from guactors.objects.sweeping import SHORT, arenas_in, remove_directories

MEMORY_SHARE: Final = 0.3
"""Of the machine's memory, as Ray; at most 0.8 of the file system that it is in."""
DISK_SHARE: Final = 0.5
"""Of what is free on the disk when it is first asked for."""


class Bounds(Struct, frozen=True):
    """Bytes of all arenas of a store; 0 for the machine's default. Processes that share a store
    should agree: ``GU_OBJECT_MEMORY`` and ``GU_OBJECT_DISK`` set them."""

    memory: int = 0
    disk: int = 0


class Room:
    """The directories of one place. Neither is made before it is needed."""

    def __init__(self, place: Place, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - frozen
        self.place = place
        self.id, self.directory, self.disk = place
        self.bounds = bounds
        self._heard = 0.0

    # --- places -----------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """The file of the arena ``name``."""
        return (self.disk if name.startswith("d") else self.directory) / name

    def _home_of(self, *, disk: bool) -> Path:
        return self.disk if disk else self.directory

    def new_arena(self, size: int, first: int, *, disk: bool) -> OwnArena | None:
        """An arena of ``size`` bytes of which the ``first`` are there; None where they are not to
        be had."""
        place = private_directory(self._home_of(disk=disk))
        if self.used(disk=disk) + first > self.most(disk=disk):
            return None
        try:
            arena = OwnArena(place, size, disk=disk)
        except FileNotFoundError:  # swept, with the directory, in the moment it was made
            arena = OwnArena(private_directory(place), size, disk=disk)
        if not self.reserve(arena, 0, first):
            arena.end()
            return None
        return arena

    def reserve(self, arena: OwnArena, offset: int, size: int) -> bool:
        """Have these bytes of an arena; False where they are not to be had."""
        more = arena.missing(offset, size)
        if not more:
            return True
        if self.used(disk=arena.disk) + more > self.most(disk=arena.disk):
            return False
        try:
            arena.reserve(offset, size)
        except OSError:
            # The device is full, whatever the bound says.
            return False
        return True

    # --- bounds -----------------------------------------------------------------------------------

    def most(self, *, disk: bool) -> int:
        """Bytes that all arenas there may have together."""
        given = self.bounds.disk if disk else self.bounds.memory
        if given:
            return given
        place = private_directory(self._home_of(disk=disk))
        if disk:
            return self.used(disk=True) + int(DISK_SHARE * shutil.disk_usage(place).free)
        memory = min(total_memory(), memory_limit() or float("inf"))
        return int(min(MEMORY_SHARE * memory, 0.8 * shutil.disk_usage(place).total))

    def used(self, *, disk: bool) -> int:
        """Bytes that all arenas there have now."""
        total = 0
        for entry in arenas_in(self._home_of(disk=disk)):
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                total += getattr(status, "st_blocks", status.st_size // 512) * 512
        return total

    def complaint(self, length: int) -> str:
        """Why there is no room for ``length`` bytes."""
        return (
            f"no room for a value of {length:,} bytes: shared memory has {self._told(disk=False)}, "
            f"the disk in {self.disk} {self._told(disk=True)}. Drop references that are no longer "
            "needed, or set GU_OBJECT_MEMORY or GU_OBJECT_DISK to more"
        )

    def _told(self, *, disk: bool) -> str:
        return f"{self.used(disk=disk):,} bytes in use of {self.most(disk=disk):,}"

    # --- the others -------------------------------------------------------------------------------

    def ask_for_memory(self) -> None:
        """Leave a note that somebody found no memory."""
        self._heard = self._write_note()

    def _write_note(self) -> float:
        path = self.directory / SHORT
        path.touch(mode=0o600)
        os.utime(path)
        return path.stat().st_mtime

    def others_need_memory(self) -> int:
        """Bytes to give back since another process asked, 0 when none did."""
        try:
            asked = (self.directory / SHORT).stat().st_mtime
        except FileNotFoundError:
            return 0
        if asked <= self._heard:
            return 0
        self._heard = asked
        return max(0, self.used(disk=False) - self.most(disk=False) // 2)

    def close(self) -> None:
        """Remove the directories, if nobody has arenas there any more."""
        remove_directories(self.place)


def own_room() -> Room:
    """The room of this user and this home."""
    return Room(own_place(), Bounds(_bytes(MEMORY_BOUND), _bytes("GU_OBJECT_DISK")))


def _bytes(variable: str) -> int:
    text = os.environ.get(variable, "0")
    if not text.isdigit():
        raise UsageError(f"{variable}={text!r} is not a number of bytes")
    return int(text)
