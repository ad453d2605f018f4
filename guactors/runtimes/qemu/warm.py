"""Guests that were saved just after their first boot, so that the next ones start at once.

Owns: the directory with them, and how much it may hold. Must never: let half a file be taken for a
whole one, or remove one that is being read (it is open then, and a name is all that goes).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from guactors.runtimes.qemu import storage

MOST: Final = 2 << 30
"""Bytes."""
_PREFIX: Final = "warm-"


class WarmGuests:
    """``directory``: made when the first is kept; ``most``: bytes of all of them together."""

    def __init__(self, directory: Path, most: int = MOST) -> None:
        self._directory = directory
        self._most = most

    def open(self, key: str) -> int | None:
        """The descriptor of the guest for a key, None where there is none."""
        path = self.path(key)
        try:
            fd = storage.open_to_read(path)
        except FileNotFoundError:
            return None
        with suppress(OSError):
            os.utime(path)
        return fd

    def path(self, key: str) -> Path:
        """Where it is, or is to be written (``saved.write`` does so at one stroke)."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._directory / f"{_PREFIX}{key}"

    def drop(self, key: str) -> None:
        """It is of no use."""
        with suppress(FileNotFoundError):
            self.path(key).unlink()

    def trim(self, keep: str) -> None:
        """Remove those used longest ago until the rest has room; never ``keep``."""
        found = []
        for path in self._directory.glob(f"{_PREFIX}*"):
            with suppress(FileNotFoundError):
                state = path.stat()
                found.append((state.st_mtime_ns, storage.taken(state), path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._most or path.name == f"{_PREFIX}{keep}":
                continue
            with suppress(FileNotFoundError):
                path.unlink()
            total -= size
