"""Which images are in use, by whichever process.

Owns: ``pins/``: a locked file for each use. Must never: count a use whose process has ended,
however it did. The caller holds the store's lock.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Self

from guactors.images import disk


class Pin:
    """An image in use until the block (or ``close``, or this process) ends. Not inherited by
    programs that are started; a forked child holds it, too."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd: int | None = fd
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """The use ends. Idempotent."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        if sys.platform == "win32":  # where an open file cannot be removed
            os.close(fd)
            disk.remove(self._path)
        else:
            disk.remove(self._path)
            os.close(fd)


class Pins:
    """All uses; images are named by the hex digits of their ids."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def take(self, name: str) -> Pin:
        """One more use."""
        fd, path = disk.new_file(self._directory, f"{name}.")
        if not disk.try_lock(fd):
            raise AssertionError(f"somebody locked the new file {path}")
        return Pin(fd, path)

    def names(self) -> set[str]:
        """The images in use; pins of processes that ended are removed."""
        return {
            name.partition(".")[0]
            for name in os.listdir(self._directory)
            if not disk.remove_unlocked(self._directory / name)
        }
