"""Who notices the end of a program in a container, and takes what is left of its output.

Owns: a thread, from the first program on, and the descriptors by which the kernel tells of ends.
Must never: touch the output of a program that lives.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Final

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

from guactors.runtimes.docker.process import DRAIN_MOST, ContainerProcess

_ASK: Final = 0.2
"""Seconds between two questions to the daemon, where the kernel does not tell us."""
_DRAIN: Final = 0.05


class _Watched:
    """``fd``: readable once it has ended, below zero for none; then ``runs`` tells."""

    def __init__(self, process: ContainerProcess, fd: int, runs: Callable[[], bool]) -> None:
        self.process = process
        self.fd = fd
        self.runs = runs
        self.ended = False


class Ends:
    """Of the programs of a runtime. Threads: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[ContainerProcess, _Watched] = {}
        self._thread: threading.Thread | None = None
        self._wake = (-1, -1)
        self._closed = False

    def watch(self, process: ContainerProcess, fd: int, runs: Callable[[], bool]) -> None:
        """Until it has ended. ``fd``: readable then, which is closed here; below zero where there
        is none, and ``runs`` asks the daemon."""
        with self._lock:
            self._watched[process] = _Watched(process, fd, runs)
            if self._thread is None:
                self._wake = os.pipe()
                self._thread = threading.Thread(
                    target=self._run, name="ends of containers' programs", daemon=True
                )
                self._thread.start()
            os.write(self._wake[1], b"x")

    def forget(self, process: ContainerProcess) -> None:
        """Nobody wants to know."""
        with self._lock:
            found = self._watched.pop(process, None)
            if found is not None and found.fd >= 0:
                os.close(found.fd)
                found.fd = -1

    def close(self) -> None:
        """The thread ends. Idempotent."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._closed = True
            if thread is not None:
                os.write(self._wake[1], b"x")
        if thread is not None:
            thread.join()
            for fd in self._wake:
                os.close(fd)

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                watched = list(self._watched.values())
                poll = select.poll()
                poll.register(self._wake[0], select.POLLIN)
                lives = {one.fd: one for one in watched if not one.ended and one.fd >= 0}
                for fd in lives:
                    poll.register(fd, select.POLLIN)
            asked = [one for one in watched if not one.ended and one.fd < 0]
            draining = [one for one in watched if one.ended]
            for one in draining:
                if one.process.held < DRAIN_MOST and (fd := one.process.line.fileno()) >= 0:
                    poll.register(fd, select.POLLIN)
            seconds = _DRAIN if draining else _ASK if asked else None
            for fd, _ in poll.poll(None if seconds is None else seconds * 1000):
                if fd == self._wake[0]:
                    os.read(fd, 4096)
                elif fd in lives and lives[fd].fd == fd:
                    self._end(lives[fd])
            for one in draining:
                self._drain(one)
            for one in asked:
                if not one.runs():
                    self._end(one)

    def _end(self, one: _Watched) -> None:
        one.ended = True
        one.process.has_ended()
        self._drain(one)

    def _drain(self, one: _Watched) -> None:
        """All that is there; it is forgotten once no more can come."""
        process = one.process
        took = 1
        while took > 0 and process.held < DRAIN_MOST:
            took = process.take()
        if took < 0 or process.overdue:
            self.forget(process)


def pidfd(pid: int) -> int:
    """A descriptor that tells when the process has ended, below zero where there is none."""
    if pid <= 0 or sys.platform != "linux":
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1
