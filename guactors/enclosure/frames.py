"""Frames between a worker and the Python in an instance.

Owns: their form. Must never: open what they carry, import what a bare Python does not have (this
file is sent into instances), or let one grow without end.

A frame is the length of its header (4 bytes, big-endian), the header (JSON, an object), and its
parts, whose lengths are in the header under ``parts``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

HEADER_MOST = 1 << 20
"""Bytes."""
PARTS_MOST = 4 << 30
"""Bytes of all parts together."""
_LENGTH = 4


class FrameError(Exception):
    """What came is no frame."""


def encode(header: dict[str, Any], parts: Sequence[Any] = ()) -> list[Any]:
    """A frame in pieces; ``parts``: bytes or contiguous memoryviews. Raises FrameError for one
    that the other side would refuse."""
    sizes = [memoryview(part).nbytes for part in parts]
    text = json.dumps({**header, "parts": sizes}, separators=(",", ":")).encode()
    if len(text) > HEADER_MOST or sum(sizes) > PARTS_MOST:
        raise FrameError(f"{sum(sizes)} bytes are more than can cross at a time ({PARTS_MOST})")
    return [len(text).to_bytes(_LENGTH, "big") + text, *parts]


class Splitter:
    """Finds the frames in a stream of bytes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._wanted = _LENGTH
        self._header: dict[str, Any] | None = None
        self._in_header = False

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], list[memoryview]]]:
        """The frames that are whole with these bytes: header and parts. Raises FrameError."""
        self._pieces.append(data)
        self._held += len(data)
        while self._held >= self._wanted:
            found = self._take(self._wanted)
            if self._header is not None:
                header, self._header = self._header, None
                self._wanted = _LENGTH
                yield header, _cut(found, header["parts"])
            elif self._in_header:
                self._in_header = False
                self._header = header = _read(bytes(found))
                self._wanted = sum(header["parts"])
            else:
                self._in_header = True
                self._wanted = int.from_bytes(found, "big")
                if self._wanted > HEADER_MOST:
                    raise FrameError(f"a header of {self._wanted} bytes")

    def _take(self, count: int) -> memoryview:
        whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        view = memoryview(whole)
        rest = view[count:]
        self._pieces = [bytes(rest)] if rest else []
        self._held -= count
        return view[:count]


def _read(text: bytes) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise FrameError(f"a header that is no JSON: {error}") from None
    sizes = header.get("parts") if isinstance(header, dict) else None
    if not isinstance(sizes, list) or not all(type(n) is int and n >= 0 for n in sizes):
        raise FrameError("a header without the sizes of its parts")
    if sum(sizes) > PARTS_MOST:
        raise FrameError(f"parts of {sum(sizes)} bytes")
    return header


def _cut(data: memoryview, sizes: list[int]) -> list[memoryview]:
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return parts
