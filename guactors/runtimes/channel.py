"""The line between a provider and its zygote: length-prefixed messages over a Unix socket pair.

Owns: framing, descriptors in flight, and the words said. Must never: fork, or decide anything.
A descriptor given to ``send`` belongs to the channel, which closes it once the other side has it.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from typing import Any, Generic, TypeVar

assert sys.platform != "win32", "needs fork; spawn.py serves Windows"

import msgspec

from guactors.config import WorkerConfig

_LENGTH = 4
_DESCRIPTORS_MOST = 64


class Fork(msgspec.Struct, frozen=True, tag="fork"):
    """Provider: fork a worker. Two descriptors come along: its stdout and its stderr."""

    config: WorkerConfig


class Halt(msgspec.Struct, frozen=True, tag="halt"):
    """Stop a worker and all that it started, or let them go on."""

    worker: str
    stop: bool


class Signal(msgspec.Struct, frozen=True, tag="signal"):
    """Provider: signal the process group of a worker."""

    worker: str
    number: int


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """Zygote: the worker exists."""

    worker: str
    pid: int


class ForkFailed(msgspec.Struct, frozen=True, tag="fork_failed"):
    """Zygote: the system gave no process."""

    worker: str
    reason: str


class Reaped(msgspec.Struct, frozen=True, tag="reaped"):
    """Zygote: the worker ended, so did its group. ``status`` as of wait, ``rss_bytes`` its peak."""

    worker: str
    status: int
    rss_bytes: int


ToZygote = Fork | Signal | Halt
FromZygote = Forked | ForkFailed | Reaped

T = TypeVar("T")


class Channel(Generic[T]):
    """One end. ``incoming`` is the union of what the other side says. Whether ``send`` and
    ``receive`` block is the socket's own setting."""

    def __init__(self, end: socket.socket, incoming: Any) -> None:
        self._end = end
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(incoming)
        self._out: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._in = b""
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: ToZygote | FromZygote, descriptors: tuple[int, ...] = ()) -> None:
        """Queue one message and send what can be sent; raises OSError when nobody is there."""
        body = msgspec.msgpack.encode(message)
        self._out.append((len(body).to_bytes(_LENGTH, "big") + body, descriptors))
        self.flush()

    def flush(self) -> bool:
        """Send what can be sent; True when nothing is left to send."""
        while self._out:
            data, descriptors = self._out[0]
            try:
                sent = socket.send_fds(self._end, [data], list(descriptors))
            except BlockingIOError:
                return False
            for descriptor in descriptors:
                os.close(descriptor)
            if sent < len(data):
                # The descriptors went with the first byte.
                self._out[0] = (data[sent:], ())
            else:
                self._out.popleft()
        return True

    def pending(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out)

    def receive(self) -> list[T]:
        """The messages that came, none if none would without blocking. Raises EOFError when the
        other side is gone (then everything it said has been received)."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._end, 65536, _DESCRIPTORS_MOST)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data, descriptors = b"", []
        if not data:
            raise EOFError("the other end of the zygote channel is closed")
        self._descriptors.extend(descriptors)
        self._in += data
        found: list[T] = []
        while len(self._in) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._in[:_LENGTH], "big")
            if len(self._in) < end:
                break
            found.append(self._decoder.decode(self._in[_LENGTH:end]))
            self._in = self._in[end:]
        return found

    def take_descriptor(self) -> int:
        """The next descriptor that came along, now the caller's."""
        return self._descriptors.popleft()

    def close(self) -> None:
        """Close the socket and every descriptor in flight; idempotent."""
        self._end.close()
        for _, descriptors in self._out:
            self._descriptors.extend(descriptors)
        self._out.clear()
        while self._descriptors:
            os.close(self._descriptors.popleft())
