"""The arenas that this process writes.

Owns: finding and making room in them, and giving it back when it was free for a while. Must never:
take a lock, or know what lies in a block: ``store`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from guactors.objects.arena import OwnArena
from guactors.objects.room import Room
from guactors.objects.space import rounded

ARENA: Final = 64 << 20
"""Bytes of address space of an arena; memory is taken as it is used."""
KEEP: Final = 5.0
"""Seconds for which free memory waits for its next use."""


class Arenas:
    """Of one store."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._arenas: list[OwnArena] = []

    def __iter__(self) -> Iterator[OwnArena]:
        return iter(self._arenas)

    def __len__(self) -> int:
        return len(self._arenas)

    def find(self, length: int, *, disk: bool) -> tuple[OwnArena, int] | None:
        """Free bytes in an arena, or in a new one."""
        return self.fit(length, disk=disk) or self.grow(length, disk=disk)

    def fit(self, length: int, *, disk: bool) -> tuple[OwnArena, int] | None:
        """Free bytes in an arena that is there."""
        for arena in self._arenas:
            if arena.disk is not disk:
                continue
            offset = arena.space.take(length)
            if offset is None:
                continue
            if self._room.reserve(arena, offset, length):
                arena.quiet_since = None
                return arena, offset
            arena.space.give(offset, length)
        return None

    def grow(self, length: int, *, disk: bool) -> tuple[OwnArena, int] | None:
        """The first bytes of a new arena."""
        arena = self._room.new_arena(max(ARENA, rounded(length)), rounded(length), disk=disk)
        if arena is None:
            return None
        self._arenas.append(arena)
        offset = arena.space.take(length)
        assert offset is not None
        return arena, offset

    def drop_empty(self) -> None:
        """End those in which nothing is."""
        for arena in list(self._arenas):
            if not arena.space.used:
                self._end(arena)

    def quiet(self, now: float) -> list[OwnArena]:
        """Those of which nothing was taken or freed for a while."""
        quiet = []
        for arena in self._arenas:
            if arena.quiet_since is None:
                arena.quiet_since = now
            elif now - arena.quiet_since >= KEEP:
                quiet.append(arena)
        return quiet

    def give_back(self, arenas: Iterable[OwnArena]) -> None:
        """Return what is free in these to the system."""
        for arena in arenas:
            if arena.space.used:
                arena.give_back()
            else:
                self._end(arena)

    def _end(self, arena: OwnArena) -> None:
        self._arenas.remove(arena)
        arena.end()
