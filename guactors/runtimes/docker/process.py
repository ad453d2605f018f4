"""A program in a container.

Owns: its line from the daemon, both streams until they are dry, its input, its end. Must never:
read ahead of a slow reader while the program lives: then the line fills, and the program waits.

Once a program has ended the daemon waits two seconds for its output to be taken, and drops the
rest. So at that moment (``ends.py``) all that is still under way is taken here: at most what pipes
and the daemon itself hold, some megabytes.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

from guactors.errors import InstanceLost, ProtocolError, UsageError
from guactors.runtimes.base import CHUNK, LINGER, Exit, Output, Size
from guactors.runtimes.docker.frames import Frames

DRAIN_MOST: Final = 16 * 2**20
"""Bytes that are taken of one that has ended and whose reader is slow."""
_LOOK: Final = 0.05
_DOUBT: Final = 1.0
"""Seconds between two questions whether one still runs whose streams have ended."""
_MOMENT: Final = 0.005
"""Between two questions for the status of one that has ended."""
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
_END_OF_FILE: Final = b"\x04"


class Ways(Protocol):
    """What a program asks of its container."""

    def outcome(self, program: str) -> Exit | None:
        """How the program ended, None while it runs. A container that is not there any more is an
        Exit as well."""

    def send(self, pid: int, number: int, user: str) -> None:
        """A signal to a program and what it started."""

    def resize(self, program: str, size: Size) -> None:
        """Of its terminal."""

    def ended(self, process: ContainerProcess) -> None:
        """It has, or is forgotten: called once."""


class ContainerProcess:
    """:class:`~guactors.runtimes.base.Process`. ``program``: its id at the daemon; ``line``: what
    comes and goes, ``rest``: what came already; ``main_ended``: called when the program has ended
    whose end is that of the others."""

    def __init__(
        self,
        ways: Ways,
        program: str,
        line: socket.socket,
        rest: bytes,
        *,
        terminal: bool,
        takes_input: bool,
        user: str = "",
        main_ended: Callable[[], None] | None = None,
    ) -> None:
        self._ways = ways
        self._program = program
        self.line = line
        self._frames = Frames(plain=terminal)
        self._terminal = terminal
        self._takes_input = takes_input or terminal
        self._user = user
        self._main_ended = main_ended
        self.pid = 0
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._reading = threading.Lock()
        self._input = threading.Lock()
        self._ready: deque[Output] = deque()
        self._held = 0
        self._dry = False
        self._ended_at = math.inf
        self._exit: Exit | None = None
        self._fault: Exit | None = None
        """What came of the daemon is nothing that can be read."""
        self._awake, self._waker = os.pipe()
        self._closed = False
        line.setblocking(False)
        if rest:
            self._add(rest)

    def read(self, timeout: float | None) -> Output | Exit | None:
        """See Process; so all that follow."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._reading:
            while True:
                with self._lock:
                    if self._ready:
                        found = self._ready.popleft()
                        self._held -= len(found.data)
                        return found
                    if self._exit is not None:
                        return self._exit
                    now = time.monotonic()
                    over = self._dry or now >= self._ended_at + LINGER
                if over and self._finish():
                    continue
                now = time.monotonic()
                if now >= deadline:
                    return None
                self._wait(min(deadline, self._ended_at + LINGER) - now)

    def write(self, data: bytes) -> None:
        """To its standard input."""
        with self._input:
            left = memoryview(data)
            while left and self._takes_input and self._exit is None:
                try:
                    left = left[self.line.send(left) :]
                except BlockingIOError:
                    if self._ended_at < math.inf:
                        return
                    _await(self.line, select.POLLOUT, _LOOK)
                except OSError:
                    return  # nobody reads it any more

    def close_input(self) -> None:
        """That ends."""
        if self._terminal:
            self.write(_END_OF_FILE)
            return
        with self._input, suppress(OSError):
            if self._takes_input:
                self._takes_input = False
                self.line.shutdown(socket.SHUT_WR)

    def resize(self, size: Size) -> None:
        """Of its terminal."""
        if self._terminal and self._exit is None:
            self._ways.resize(self._program, size)

    def signal(self, number: int) -> None:
        """To it and all that it started."""
        if self.pid and self._ended_at == math.inf and self._exit is None:
            self._ways.send(self.pid, number, self._user)

    def close(self) -> None:
        """End it."""
        if self._exit is None:
            self._end()
        with suppress(OSError):
            self.line.shutdown(socket.SHUT_RDWR)
        with self._news:
            self._exit = self._exit or Exit(None, _KILL)
            self._news.notify_all()
        self._wake()
        # Who reads now comes out at once.
        with self._reading:
            self._release()

    # --- reading --------------------------------------------------------------------------------

    def take(self) -> int:
        """Whatever has come: how many bytes, below zero once no more can. Not to be called while
        the reader is to be waited for: see the top."""
        with self._news:
            if self._dry or self._exit is not None:
                return -1
            try:
                data = self.line.recv(CHUNK)
            except BlockingIOError:
                return 0
            except OSError:
                data = b""
            if data:
                self._add(data)
            else:
                self._dry = True
            self._news.notify_all()
            return len(data) or -1

    @property
    def dry(self) -> bool:
        """Whether both streams have ended."""
        return self._dry

    @property
    def held(self) -> int:
        """Bytes that nobody has read yet."""
        return self._held

    def peek(self) -> list[Output]:
        """What it said and nobody has read."""
        with self._lock:
            return list(self._ready)

    def _add(self, data: bytes) -> None:
        try:
            found = self._frames.feed(data)
        except ProtocolError as error:
            self._dry = True
            self._fault = Exit(None, None, "lost", str(error))
            return
        for piece in found:
            self._ready.append(piece)
            self._held += len(piece.data)

    def _wait(self, seconds: float) -> None:
        """For news. Its name tells a worker that a call may be interrupted here."""
        if self._ended_at < math.inf:
            # What is left is taken by another thread, which tells.
            with self._news:
                if not self._ready and self._exit is None:
                    self._news.wait(_MOMENT if self._dry else max(_MOMENT, seconds))
            return
        watched = select.poll()
        watched.register(self._awake, select.POLLIN)
        if self._dry:
            seconds = min(seconds, _DOUBT)
        else:
            watched.register(self.line, select.POLLIN)
        patience = None if seconds == math.inf else max(0.0, seconds) * 1000
        for fd, _ in watched.poll(patience):
            if fd != self._awake and self._ended_at == math.inf:
                self.take()

    # --- the end --------------------------------------------------------------------------------

    def has_ended(self) -> None:
        """The program has, whatever is still on the line. Idempotent."""
        with self._news:
            news = self._ended_at == math.inf
            if news:
                self._ended_at = time.monotonic()
            self._news.notify_all()
        if news:
            self._wake()
            if self._main_ended is not None:
                self._main_ended()

    @property
    def overdue(self) -> bool:
        """Whether its streams are waited for no longer."""
        return time.monotonic() >= self._ended_at + LINGER

    def _finish(self) -> bool:
        """Learn how it ended; whether it has."""
        found = self._fault or self._ways.outcome(self._program)
        if found is None:
            return False
        if found is self._fault:
            self._end()
        self.has_ended()
        with self._news:
            self._exit = self._exit or found
        self._release()
        return True

    def _end(self) -> None:
        """Where it cannot be signalled it ends with its container."""
        with suppress(UsageError, InstanceLost):
            self.signal(_KILL)

    def _wake(self) -> None:
        with self._lock:
            if self._waker >= 0:
                os.close(self._waker)
                self._waker = -1

    def _release(self) -> None:
        """``_reading`` is held: nobody polls what is closed here."""
        self._wake()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self._awake)
        with self._input:
            self.line.close()
        self._ways.ended(self)


def _await(line: socket.socket, event: int, seconds: float) -> None:
    watched = select.poll()
    with suppress(ValueError):  # it was closed meanwhile
        watched.register(line, event)
        watched.poll(seconds * 1000)
