"""The frames in which a daemon sends two streams over one line.

Owns: the form: one byte with the stream, three zeros, the length (32 bits, big endian), the bytes.
Must never: hold a frame until it is whole: a length is what the other side says it is, up to 4 GiB.
"""

from __future__ import annotations

from typing import Final

from guactors.errors import ProtocolError
from guactors.runtimes.base import Output

HEADER: Final = 8
_STREAMS: Final = {0: 1, 1: 1, 2: 2}
"""Zero is standard input, which is sent back on stream 1."""


class Frames:
    """Of one line. ``plain``: a terminal's, which has one stream and no frames."""

    def __init__(self, *, plain: bool = False) -> None:
        self._plain = plain
        self._header = b""
        self._stream = 0
        self._left = 0

    @property
    def broken(self) -> bool:
        """Whether an end here would be one in the middle of a frame."""
        return bool(self._left or self._header)

    def feed(self, data: bytes) -> list[Output]:
        """What ``data``, the next that came, brings: neighbours of one stream are one piece, and
        none is longer than ``data``. Raises ProtocolError for what is no frame."""
        if self._plain:
            return [Output(1, data)] if data else []
        found: list[tuple[int, list[memoryview]]] = []
        rest = memoryview(data)
        while rest:
            if self._left:
                piece, rest = rest[: self._left], rest[self._left :]
                self._left -= len(piece)
                if not found or found[-1][0] != self._stream:
                    found.append((self._stream, []))
                found[-1][1].append(piece)
                continue
            missing = HEADER - len(self._header)
            self._header += bytes(rest[:missing])
            rest = rest[missing:]
            if len(self._header) == HEADER:
                self._open(self._header)
                self._header = b""
        return [Output(stream, b"".join(pieces)) for stream, pieces in found]

    def _open(self, header: bytes) -> None:
        stream = _STREAMS.get(header[0])
        if stream is None or header[1:4] != bytes(3):
            raise ProtocolError(f"the daemon sent {header.hex()} where a frame should begin")
        self._stream = stream
        self._left = int.from_bytes(header[4:])
