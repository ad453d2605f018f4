"""A program in a guest, as its instance's users see it.

Owns: nothing but its place on the line. Must never: hold output: what was not read stays under the
stream's window.
"""

from __future__ import annotations

import time
from typing import Final

from guactors.runtimes.base import Exit, Output, Size
from guactors.runtimes.qemu.agent import wire
from guactors.runtimes.qemu.line import CLOSED, SAVED, Line, Remote

KILLED: Final = 9
_REASONS: Final = {CLOSED: "", SAVED: "closed"}
"""What an end of the line means that was ours; who closes an instance says why himself."""
CREDIT_FROM: Final = wire.WINDOW // 4


class GuestProcess:
    """:class:`~guactors.runtimes.base.Process`. ``memory``: what an end for want of memory says."""

    def __init__(self, line: Line, channel: int, remote: Remote, memory: str) -> None:
        self._line = line
        self._channel = channel
        self._remote = remote
        self._memory = memory
        self._closed = False
        self._owed = {1: 0, 2: 0}

    def read(self, timeout: float | None) -> Output | Exit | None:
        """See Process."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                found = self._remote.said.popleft()
            except IndexError:
                pass
            else:
                self._took(found)
                return found
            if (end := self._ended()) is not None:
                return end
            left = None if until is None else until - time.monotonic()
            if (left is not None and left <= 0) or not self._wait(left):
                return self._ended()

    def _took(self, found: Output) -> None:
        """Credit in large pieces: each wakes the guest."""
        owed = self._owed[found.stream] + len(found.data)
        if owed >= CREDIT_FROM:
            self._line.took(self._channel, found.stream, owed)
            owed = 0
        self._owed[found.stream] = owed

    def write(self, data: bytes) -> None:
        """See Process."""
        left = memoryview(data)
        while left and (sent := self._line.give(self._channel, self._remote, left)):
            left = left[sent:]

    def close_input(self) -> None:
        """See Process."""
        self._line.tell(self._channel, wire.INPUT_END)

    def resize(self, size: Size) -> None:
        """See Process."""
        self._line.tell(self._channel, wire.RESIZE, rows=size.rows, columns=size.columns)

    def signal(self, number: int) -> None:
        """See Process."""
        self._line.tell(self._channel, wire.SIGNAL, number=int(number))

    def close(self) -> None:
        """See Process."""
        if not self._closed:
            self._closed = True
            self._line.forget(self._channel)

    def _wait(self, seconds: float | None) -> bool:
        """Its name tells a worker that a call may be interrupted here (``worker/runners.py``)."""
        remote = self._remote
        return self._line.wait(lambda: bool(remote.said) or remote.end is not None, seconds)

    def _ended(self) -> Exit | None:
        """Its end, once all that it said was read."""
        end = self._remote.end
        if self._remote.said:
            return None
        if end is not None:
            if end.out_of_memory and end.signal == KILLED:
                return Exit(None, KILLED, "memory_limit", self._memory)
            return Exit(None, end.signal) if end.signal else Exit(end.code)
        over = self._line.over
        if over:
            return Exit(None, KILLED, _REASONS.get(over, "lost"), over)
        return Exit(None, KILLED) if self._closed else None
