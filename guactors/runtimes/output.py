"""What a worker prints, from bytes to named lines.

Owns: splitting, the name markers, the last words, the limit on chatter. Must never: read a pipe or
a clock. Pure: ``now`` (seconds, monotonic) is an argument.

Marker: before the first print after the running function changed, the worker writes ``\\x1e``, the
name, ``\\x1f`` into the stream. It is taken out here, and names what follows.
"""

from __future__ import annotations

import codecs

from msgspec import Struct

MARK_BEGIN = "\x1e"
MARK_END = "\x1f"
PARTIAL_AFTER = 0.2
"""Seconds after which an unfinished line is told as it is."""
TAIL_BYTES = 4096
"""So much of the end of a stream is kept for the death report."""

_MARK_MOST = 512
_LINE_MOST = 16_384
_BURST = 4 * 2**20
_REFILL = 1 * 2**20


class Lines(Struct, frozen=True):
    """Lines printed under one name; ``dropped`` ones around them were too many and are lost."""

    name: str
    lines: tuple[str, ...]
    dropped: int = 0


class StreamSplitter:
    """One output stream of one worker.

    More than 4 MiB at once or 1 MiB a second in the long run is dropped, whole lines at a time, and
    counted; a line of more than 16 Ki characters is told in pieces."""

    def __init__(self, now: float) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self._name = ""
        self._rest = ""
        self._rest_since = now
        self._tail = ""
        self._allowance = float(_BURST)
        self._filled_at = now
        self._dropped = 0

    def feed(self, data: bytes, now: float) -> list[Lines]:
        """The next bytes of the stream; returns the lines they complete."""
        self._allowance = min(_BURST, self._allowance + (now - self._filled_at) * _REFILL)
        self._filled_at = now
        waited = bool(self._rest)
        told, text = self._markers(self._rest + self._decode.decode(data))
        complete, newline, self._rest = text.rpartition("\n")
        if newline:
            told += self._tell(complete.split("\n"))
        if len(self._rest) > _LINE_MOST:
            told += self._tell([self._rest])
            self._rest = ""
        if told or not waited:
            self._rest_since = now
        return told

    def _markers(self, text: str) -> tuple[list[Lines], str]:
        """Tell what stands before the markers in ``text``; returns that, and the text behind."""
        told: list[Lines] = []
        while True:
            before, mark, after = text.partition(MARK_BEGIN)
            name, end, behind = after.partition(MARK_END)
            if not mark or (not end and len(after) <= _MARK_MOST):
                return told, text
            if len(name) > _MARK_MOST:
                # No marker, only a control character that somebody printed.
                text = before + after
                continue
            if before:
                told += self._tell(before.removesuffix("\n").split("\n"))
            self._name, text = name, behind

    def _tell(self, lines: list[str]) -> list[Lines]:
        told = "\n".join(lines)[-TAIL_BYTES:]
        self._tail = f"{self._tail}{told}\n"[-TAIL_BYTES:]
        kept = []
        for line in lines:
            if self._allowance < len(line):
                self._dropped += 1
                continue
            self._allowance -= len(line) + 1
            kept += [line[at : at + _LINE_MOST] for at in range(0, len(line), _LINE_MOST)] or [""]
        if not kept:
            return []
        dropped, self._dropped = self._dropped, 0
        return [Lines(self._name, tuple(kept), dropped)]

    def wake_after(self, now: float) -> float | None:
        """Seconds until ``flush`` would tell an unfinished line; None when there is none."""
        if not self._rest or self._rest.startswith(MARK_BEGIN):
            return None
        return max(0.0, self._rest_since + PARTIAL_AFTER - now)

    def flush(self, now: float) -> list[Lines]:
        """Tell the unfinished line if it is old enough."""
        wait = self.wake_after(now)
        if wait is None or wait > 0.0:
            return []
        line, mark, name = self._rest.partition(MARK_BEGIN)
        self._rest = mark + name
        return self._tell([line])

    def finish(self) -> list[Lines]:
        """The stream is at its end: tell whatever is left, and how much was dropped."""
        rest, self._rest = self._rest + self._decode.decode(b"", True), ""
        told = self._tell([rest]) if rest else []
        if self._dropped:
            told.append(Lines(self._name, (), self._dropped))
            self._dropped = 0
        return told

    def tail(self) -> str:
        """The last words, at most 4096 bytes as UTF-8, told or not."""
        raw = (self._tail + self._rest).encode("utf-8", "replace")[-TAIL_BYTES:]
        return raw.decode("utf-8", "ignore").strip("\n")
