"""Which shared memory this process can look into.

Owns: the two directories of a store and its name. Light: every process says the name in its Hello,
few ever need the store.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from guactors.home import home, host_id

MEMORY_BOUND: Final = "GU_OBJECT_MEMORY"
"""The variable with the most bytes of a store."""
_SHARED_MEMORY: Final = Path("/dev/shm")


class Place(NamedTuple):
    """``directory`` is for arenas in memory, ``disk`` for those on disk; ``id`` is equal for two
    processes exactly when they can share values."""

    id: str
    directory: Path
    disk: Path


def place_at(directory: Path, disk: Path) -> Place:
    """The place with these directories on this machine."""
    name = f"{host_id()} {_user()} {os.fspath(directory)}"
    return Place(hashlib.blake2b(name.encode(), digest_size=16).hexdigest(), directory, disk)


_pinned: list[Place] = []


def own_place() -> Place:
    """That of this user and this home, or the one that was decided."""
    return _pinned[0] if _pinned else _place_of(home())


def pin() -> Place:
    """Decide it for as long as others are told of it, though the environment may change."""
    place = own_place()
    _pinned[:] = [place]
    return place


def unpin() -> None:
    """Nobody relies on it any more."""
    _pinned.clear()


@cache
def _place_of(base: Path) -> Place:
    digest = hashlib.blake2b(os.fspath(base).encode(), digest_size=4).hexdigest()
    memory = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    return place_at(memory / f"guactors-{_user()}-{digest}", base / "spilled")


def _user() -> int:
    if sys.platform == "win32":
        return 0
    return os.getuid()
