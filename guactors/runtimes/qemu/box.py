"""The mailbox disk: memory that this process and a guest both read and write.

Owns: its slots, and who has which. Must never: hand a slot to two, or trust what is in one.

The guest sees a disk, which it reads and writes past its page cache; here it is a file in memory,
or one without a name where the system has none of those. The line is fast out of an emulated guest
and slow into it (16 MB/s); this is neither.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from guactors.errors import InstanceLost
from guactors.runtimes.qemu import storage
from guactors.runtimes.qemu.agent.wire import SLOT

SLOTS: Final = 16
AT_ONCE: Final = 4
"""Slots of one transfer, at most."""
_WITHIN: Final = 60.0


class Box:
    """``fd``: of an empty file, which is this object's from here on; what QEMU is given. ``close``
    it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.ftruncate(fd, SLOTS * SLOT)
        self._free = list(range(SLOTS))
        self._changed = threading.Condition()
        self._closed = False

    @contextmanager
    def slots(self) -> Iterator[list[int]]:
        """One to AT_ONCE of them, which are nobody else's until the block ends."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free or self._closed, _WITHIN):
                raise InstanceLost("no slot of the mailbox disk became free: its transfers hang")
            taken = self._free[:AT_ONCE]
            del self._free[:AT_ONCE]
        try:
            yield list(taken)
        finally:
            with self._changed:
                if len(self._free) + len(taken) == SLOTS and not self._closed:
                    self._give_back()
                self._free += taken
                self._changed.notify_all()

    def write(self, slot: int, data: bytes | memoryview) -> None:
        """Put data into a slot."""
        storage.write_at(self.fd, data, slot * SLOT)

    def read(self, slot: int, size: int) -> bytes:
        """What the guest put there."""
        return storage.read_at(self.fd, min(size, SLOT), slot * SLOT)

    def _give_back(self) -> None:
        """Nobody uses it: its memory is free."""
        with suppress(OSError):
            os.ftruncate(self.fd, 0)
            os.ftruncate(self.fd, SLOTS * SLOT)

    def close(self) -> None:
        """Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        os.close(self.fd)
