"""A program that a driver runs.

Owns: what it said and nobody has read yet, which is never more than its credit. Must never: give
credit for what was not read.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

assert sys.platform != "win32", "needs poll"

from guactors.errors import InstanceLost
from guactors.runtimes.base import Exit, Output, Size
from guactors.runtimes.external.words import PIECE, Ended, Room, Said

if TYPE_CHECKING:
    from guactors.runtimes.external.channel import Channel

_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)


class Program:
    """:class:`~guactors.runtimes.base.Process`. ``stdin``: its input is written to; ``tty``:
    it has a terminal."""

    def __init__(self, channel: Channel, number: int, *, stdin: bool, tty: bool) -> None:
        self._channel = channel
        self.number = number
        self._news = threading.Condition(channel.lock)
        self._writing = threading.Lock()
        self._said: deque[Output] = deque()
        self._exit: Exit | None = None
        self._closed = False
        self._has_input = stdin or tty
        self._has_terminal = tty

    # --- of the channel's thread, its lock is held ----------------------------------------------

    def on_news(self, news: Said | Room) -> None:
        """It said something, or has room for input."""
        if isinstance(news, Said) and not self._closed:
            self._said.append(Output(news.stream, news.data))
        self._news.notify_all()

    def on_end(self, end: Ended) -> None:
        """It ended."""
        reason, detail = str(end.reason), end.detail
        if end.signal is not None and not reason:
            reason, detail = self._channel.why()
        self._exit = Exit(end.code, end.signal, reason, detail)
        self._news.notify_all()

    def on_loss(self, reason: str, detail: str) -> None:
        """Its instance ended."""
        self._exit = Exit(None, _KILL, reason, detail)
        self._news.notify_all()

    # --- the port -------------------------------------------------------------------------------

    def read(self, timeout: float | None) -> Output | Exit | None:
        """See Process; so all that follow."""
        with self._news:
            self._wait(lambda: bool(self._said) or self._exit is not None, timeout)
            if not self._said:
                return self._exit
            found = self._said.popleft()
            line = self._channel.talk.took(self.number, len(found.data))
        with suppress(InstanceLost):  # what was read is told first; the loss comes as the exit
            self._channel.send(line)
        return found

    def write(self, data: bytes) -> None:
        """As much at a time as the driver has room for."""
        left = memoryview(data)
        with self._writing:
            while left and self._has_input:
                with self._news:
                    self._wait(lambda: self._room() > 0 or self._exit is not None, None)
                    if self._exit is not None:
                        return
                    size = min(len(left), self._room(), PIECE)
                    line = self._channel.talk.input(self.number, bytes(left[:size]))
                    left = left[size:]
                with suppress(InstanceLost):
                    self._channel.send(line)

    def close_input(self) -> None:
        """After all that was written."""
        with self._writing:
            if self._has_input:
                self._order("close_input")
                self._has_input = False

    def resize(self, size: Size) -> None:
        """Of its terminal."""
        if self._has_terminal:
            self._order("resize", rows=size.rows, columns=size.columns)

    def signal(self, number: int) -> None:
        """By the driver."""
        self._order("signal", number=int(number))

    def close(self) -> None:
        """It is gone when this returns."""
        with self._news:
            self._closed = True
            self._said.clear()
            line = self._channel.talk.forget(self.number) if self._exit is None else b""
            self._news.notify_all()
        seconds = self._channel.driver.deadline("forget")
        with suppress(InstanceLost):
            self._channel.send(line)
        with self._news:
            ended = self._news.wait_for(lambda: self._exit is not None, seconds)
        if not ended:
            self._channel.lose(f"did not end a program within {seconds:g} s")

    # --- helpers --------------------------------------------------------------------------------

    def _order(self, verb: str, **body: int) -> None:
        with self._news:
            if self._exit is not None:
                return
            line = self._channel.talk.order(verb, self.number, **body)
        with suppress(InstanceLost):
            self._channel.send(line)

    def _room(self) -> int:
        return self._channel.talk.room(self.number)

    def _wait(self, ready: object, timeout: float | None) -> None:
        """Its name tells a worker that a call may be interrupted here."""
        assert callable(ready)
        self._news.wait_for(ready, timeout)
