"""Sleeping until one of many descriptors has news, or another thread calls.

Owns: the operating system's readiness call and one wake-up pipe. Must never: read the descriptors
it watches. Any thread may call ``wake``; several may be in ``wait`` at a time (each then sees the
same news, who drains first wins).
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import sys


class Poller:
    """A set of readable descriptors."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wake_fd = self._reader.fileno()
        self._woken = False
        if sys.platform == "linux":
            self._epoll = select.epoll()
        else:
            self._selector = selectors.DefaultSelector()
        self.add(self._wake_fd)

    def add(self, fd: int) -> None:
        """Watch ``fd`` for readability."""
        if sys.platform == "linux":
            self._epoll.register(fd, select.EPOLLIN)
        else:
            self._selector.register(fd, selectors.EVENT_READ)

    def remove(self, fd: int) -> None:
        """Watch it no longer; one that was never added, or is closed already, is ignored."""
        try:
            if sys.platform == "linux":
                self._epoll.unregister(fd)
            else:
                self._selector.unregister(fd)
        except (KeyError, OSError, ValueError):
            return

    def wait(self, timeout: float | None) -> list[int]:
        """Descriptors with news, empty after ``timeout`` seconds (None: no limit) or a wake."""
        if timeout is not None and timeout < 0:
            timeout = 0.0
        if sys.platform == "linux":
            ready = [fd for fd, _ in self._epoll.poll(timeout)]
        else:
            ready = [key.fd for key, _ in self._selector.select(timeout)]
        if self._wake_fd in ready:
            ready.remove(self._wake_fd)
            self._answer()
        return ready

    def look(self) -> list[int] | None:
        """As ``wait(0)``, at a fraction of the cost when there is nothing: then None."""
        if sys.platform == "linux":
            return self.wait(0) if self._epoll.poll(0) else None
        return self.wait(0) if self._selector.select(0) else None

    def _answer(self) -> None:
        with contextlib.suppress(BlockingIOError):  # another waiting thread was faster
            self._reader.recv(4096)
        # In this order: a wake that finds the mark still set has told its news before we look for
        # them; the other way round, one byte could be swallowed and the mark stay for ever.
        self._woken = False

    def wake(self) -> None:
        """Make a ``wait`` in progress, or the next one, return."""
        if not self._woken:
            self._woken = True
            try:
                self._writer.send(b"w")
            except (BlockingIOError, OSError):
                return  # full means that it wakes anyway, closed that nobody waits

    def close(self) -> None:
        """Release its descriptors."""
        if sys.platform == "linux":
            self._epoll.close()
        else:
            self._selector.close()
        self._reader.close()
        self._writer.close()
