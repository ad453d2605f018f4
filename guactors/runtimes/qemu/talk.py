"""What the host knows of its talk with a guest's agent, and what it believes.

Owns: the channels, their states and windows. Must never: touch a socket or a clock, hold output
beyond a window, or believe the guest: whatever arrives there may have been written by a program
that took the agent's place. A guest that breaks the rules raises ProtocolError, and is over.

::

    question   ASKED ──answer, fault──> gone
    program    ASKED ──started──> RUNS ──exit──> gone
               ASKED ──fault──> gone
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from msgspec import Struct

from guactors.errors import ProtocolError
from guactors.runtimes.qemu.agent import wire
from guactors.runtimes.qemu.agent.wire import Decoder, Window, WireError, frame, pack

_CODE_MOST: Final = 255
_SIGNAL_MOST: Final = 64
_TEXT_MOST: Final = 4096
_STREAMS: Final = {wire.OUTPUT: 1, wire.ERRORS: 2}


class Answered(Struct, frozen=True):
    """To a question, also HELLO."""

    channel: int
    fields: dict[str, object]


class Started(Struct, frozen=True):
    """A program runs."""

    channel: int


class Faulted(Struct, frozen=True):
    """A question or program that is impossible. ``code``: as of a shell, 0 for what was asked
    wrongly."""

    channel: int
    text: str
    code: int


class Said(Struct, frozen=True):
    """Output of a program."""

    channel: int
    stream: int
    data: bytes


class Credited(Struct, frozen=True):
    """There is room for more input."""

    channel: int


class Ended(Struct, frozen=True):
    """A program has; ``signal`` is 0 where it did so itself."""

    channel: int
    code: int
    signal: int
    out_of_memory: bool


Event: TypeAlias = Answered | Started | Faulted | Said | Credited | Ended


class _Channel:
    def __init__(self, *, program: bool) -> None:
        self.program = program
        self.runs = False
        self.windows = {0: Window(), 1: Window(), 2: Window()}


class Talk:
    """With one agent, from HELLO on. One thread at a time."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._channels: dict[int, _Channel] = {}
        self._last = 0
        self.heard = 0
        """Frames that arrived."""

    def ask(self, kind: int, **fields: Any) -> tuple[int, bytes]:
        """A question: its channel, and what to send."""
        return self._open(kind, fields, program=False)

    def begin(self, kind: int, **fields: Any) -> tuple[int, bytes]:
        """A program, or a transfer of files."""
        return self._open(kind, fields, program=True)

    def _open(self, kind: int, fields: dict[str, Any], *, program: bool) -> tuple[int, bytes]:
        self._last = self._last % 0x7FFFFFFF + 1
        sent = frame(self._last, kind, pack(fields))
        self._channels[self._last] = _Channel(program=program)
        return self._last, sent

    def room(self, channel: int) -> int:
        """Bytes of input that may be sent now; 0 for a program that has ended."""
        found = self._channels.get(channel)
        return found.windows[0].left if found else 0

    def give(self, channel: int, data: bytes | memoryview) -> bytes:
        """Input for a program, no more than there is room for: what to send."""
        self._channels[channel].windows[0].take(len(data))
        return frame(channel, wire.INPUT, data)

    def took(self, channel: int, stream: int, size: int) -> bytes:
        """So much output was read by whom it is for: what to send."""
        found = self._channels.get(channel)
        if found is None:
            return b""
        found.windows[stream].give(size)
        return frame(channel, wire.CREDIT, pack({"stream": stream, "size": size}))

    def tell(self, channel: int, kind: int, **fields: Any) -> bytes:
        """Something about a program: what to send, nothing once it has ended."""
        return frame(channel, kind, pack(fields)) if channel in self._channels else b""

    def forget(self, channel: int) -> bytes:
        """Nobody wants to hear of it any more: what to send."""
        found = self._channels.pop(channel, None)
        return frame(channel, wire.CLOSE) if found is not None and found.program else b""

    def feed(self, data: bytes) -> list[Event]:
        """What arrived. Raises ProtocolError for what no agent says."""
        try:
            found = []
            for channel, kind, content in self._decoder.feed(data):
                self.heard += 1
                event = self._on_frame(channel, kind, content)
                if event is not None:
                    found.append(event)
            return found
        except WireError as error:
            raise ProtocolError(f"its agent sent {error}") from None

    def _on_frame(self, number: int, kind: int, content: bytes) -> Event | None:
        channel = self._channels.get(number)
        if kind == wire.PONG or channel is None:
            return None  # of one that was forgotten
        if kind == wire.FAULT:
            return self._on_fault(number, channel, content)
        if not channel.program:
            if kind not in {wire.ANSWER, wire.WELCOME}:
                raise WireError(f"a frame of the kind {kind} in answer to a question")
            del self._channels[number]
            return Answered(number, wire.unpack_dict(content))
        if kind == wire.STARTED and not channel.runs:
            channel.runs = True
            return Started(number)
        if not channel.runs:
            raise WireError(f"a frame of the kind {kind} of a program that does not run")
        if kind in _STREAMS:
            stream = _STREAMS[kind]
            channel.windows[stream].take(len(content))
            return Said(number, stream, content)
        fields = wire.unpack_dict(content)
        if kind == wire.CREDIT:
            channel.windows[0].give(wire.number(fields, "size"))
            return Credited(number)
        if kind == wire.EXIT:
            del self._channels[number]
            return _ended(number, fields)
        raise WireError(f"a frame of the unknown kind {kind}")

    def _on_fault(self, number: int, channel: _Channel, content: bytes) -> Faulted | None:
        fields = wire.unpack_dict(content)
        if channel.runs:  # of something that was sent to it
            return None
        del self._channels[number]
        code = wire.number(fields, "code")
        if not 0 <= code <= _CODE_MOST:
            raise WireError(f"the code {code}")
        return Faulted(number, wire.text(fields, "text")[:_TEXT_MOST], code)


def _ended(number: int, fields: dict[str, object]) -> Ended:
    code, signal = wire.number(fields, "code"), wire.number(fields, "signal")
    if not (0 <= code <= _CODE_MOST and 0 <= signal <= _SIGNAL_MOST):
        raise WireError(f"the code {code} and the signal {signal} of a program")
    return Ended(number, code, signal, fields.get("out_of_memory") is True)
