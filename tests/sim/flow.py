"""What happened, in order: the last lines of it, formatted only when somebody wants to read them.

Owns: the ring buffer. Must never: slow a run down that goes well.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from guactors import messages
from guactors.messages import Message
from guactors.transport.base import Frame, Lane

KEPT = 6000
QUIET = frozenset((3, 4, 57))
"""Tags of Ping, Pong and Sample: not kept unless ``loud``, they say only that somebody lives."""


def _everything() -> Any:
    kinds: list[Any] = [
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    ]
    union: Any = kinds[0]
    for kind in kinds[1:]:
        union |= kind
    return msgspec.msgpack.Decoder(union)


class Flow:
    """``started`` is subtracted from all times."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._lines: deque[tuple[float, str, str, int, Any]] = deque(maxlen=KEPT)
        self.loud = False

    def message(self, now: float, source: str, target: str, lane: Lane, header: Frame) -> None:
        """A message has arrived."""
        if header[2] in QUIET and not self.loud:
            return
        self._lines.append((now, source, target, int(lane), header))

    def event(self, now: float, text: str) -> None:
        """Something else happened."""
        self._lines.append((now, "", "", -1, text))

    def lines(self, most: int = KEPT) -> list[str]:
        """The last ``most`` lines, as text."""
        decode = _everything().decode
        drawn: deque[str] = deque(maxlen=most)
        for now, source, target, lane, what in self._lines:
            time = f"{now - self._started:10.4f}"
            if lane < 0:
                drawn.append(f"{time}  ** {what}")
                continue
            text = repr(decode(memoryview(what)[1:]))
            drawn.append(f"{time}  {source:>8} {'-=-'[lane]}> {target:<8} {text[:400]}")
        return list(drawn)
