"""A compressed stream read as a plain one, its bytes counted as they come out.

Owns: telling gzip, bzip2 and xz apart by their first bytes, and ending a stream that is cut short,
damaged or a bomb. Must never: hold more than a few MiB of it, or give a byte that was not counted.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Final, Protocol

from guactors.errors import ImageRefused
from guactors.images.members import MIB, Budget, Reader

_TAKE: Final = 64 * 1024
_GIVE: Final = MIB
_XZ_MEMORY: Final = 128 * MIB
"""``xz -9`` asks for 65 MiB; what asks for more would rather have our memory."""
_GZIP: Final = b"\x1f\x8b"
_BZIP2: Final = b"BZh"
_XZ: Final = b"\xfd7zXZ\0"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
HEAD: Final = 6
"""Bytes from which the compression is told."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gunzip:
    """zlib's decoder with the manners of the others: it keeps what it did not get to."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)


def compression_of(head: bytes) -> str:
    """``gzip``, ``bzip2``, ``xz``, ``zstd``, or empty: from the first HEAD bytes."""
    for name, magic in (("gzip", _GZIP), ("bzip2", _BZIP2), ("xz", _XZ), ("zstd", _ZSTD)):
        if head.startswith(magic):
            return name
    return ""


def _new_decoder(name: str) -> _Decoder:
    if name == "gzip":
        return _Gunzip()
    if name == "bzip2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


class PlainStream:
    """``source`` without its compression. ``position``: bytes given so far."""

    def __init__(self, source: Reader, budget: Budget, what: str) -> None:
        self._source = source
        self._budget = budget
        self.what = what
        self.position = 0
        self._taken = 0
        self._came_out = 0
        self._waiting = b""
        self._used = 0  # of _waiting
        head = b""
        while len(head) < HEAD and (more := source.read(HEAD - len(head))):
            head += more
        self._taken += len(head)
        self.compression = compression_of(head)
        if self.compression == "zstd":
            raise ImageRefused(
                f"{what} is compressed with zstd, which is not read here: pack it again with gzip "
                "or xz"
            )
        self._decoder = _new_decoder(self.compression) if self.compression else None
        self._head = head

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none only at the end."""
        if self._used == len(self._waiting):
            self._waiting, self._used = self._more(size), 0
            self._came_out += len(self._waiting)
            self._budget.count_bytes(
                self.what, len(self._waiting), self._came_out, max(self._taken, 1)
            )
        if self._used == 0 and len(self._waiting) <= size:
            data, self._waiting = self._waiting, b""
        else:
            data = self._waiting[self._used : self._used + size]
            self._used += len(data)
        self.position += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """``size`` bytes, fewer only where the stream ends."""
        data = self.read(size)
        if len(data) == size or not data:
            return data
        pieces = [data]
        left = size - len(data)
        while left and (data := self.read(left)):
            pieces.append(data)
            left -= len(data)
        return b"".join(pieces)

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes; how many there were."""
        left = size
        while left and (data := self.read(min(left, _GIVE))):
            left -= len(data)
        return size - left

    def _more(self, size: int) -> bytes:
        if self._decoder is None:
            if self._head:
                data, self._head = self._head, b""
                return data
            return self._take(max(size, _TAKE))
        while True:
            data = self._decode()
            if data or (self._decoder.eof and not self._next_part()):
                return data

    def _decode(self) -> bytes:
        assert self._decoder is not None
        if self._decoder.eof:
            return b""
        try:
            given, self._head = self._head, b""
            data = self._decoder.decompress(given, _GIVE)
            while not data and not self._decoder.eof:
                given = self._take(_TAKE)
                if not given:
                    raise ImageRefused(
                        f"{self.what} is cut short: its {self.compression} data ends"
                    )
                data = self._decoder.decompress(given, _GIVE)
        except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as fault:
            if isinstance(fault, OSError) and fault.errno is not None:
                raise
            raise ImageRefused(
                f"{self.what}: its {self.compression} data is damaged or wants too much memory"
            ) from None
        return data

    def _next_part(self) -> bool:
        """After the end of a part: whether another one follows. Zeros may pad."""
        assert self._decoder is not None
        rest = self._decoder.unused_data.lstrip(b"\0")
        while len(rest) < HEAD and (more := self._take(_TAKE)):
            rest = (rest + more).lstrip(b"\0")
        if not rest:
            return False
        if compression_of(rest) != self.compression:
            raise ImageRefused(
                f"{self.what}: something follows the end of its {self.compression} data"
            )
        self._decoder, self._head = _new_decoder(self.compression), rest
        return True

    def _take(self, size: int) -> bytes:
        data = self._source.read(size)
        self._taken += len(data)
        return data
