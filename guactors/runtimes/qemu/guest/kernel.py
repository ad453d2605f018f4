"""A kernel as it is in memory, taken out of the file that unpacks itself.

Owns: reading a ``bzImage``. Must never: believe a length, or fail where the packed file would do:
it boots as well, only later.

An emulated machine takes a third of a second to unpack its kernel, and an emulator that is given
one packed holds a copy of it as long as it lives.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from typing import Final

_MAGIC: Final = b"HdrS"
_MAGIC_AT, _SECTORS_AT, _PAYLOAD_AT = 0x202, 0x1F1, 0x248
_SECTOR: Final = 512
_ELF64: Final = b"\x7fELF\x02\x01"
_ELF_HEADER: Final = 64
_PROGRAM: Final = struct.Struct("<IIQQQQQQ")
_NOTE: Final = 4
_PVH: Final = tuple(struct.pack("<III", 4, size, 18) + b"Xen\0" for size in (4, 8))
"""The note that says where a kernel may be entered by whoever has put it into memory; its address
has one of two sizes."""
_LZ4: Final = b"\x02\x21\x4c\x18"
_MOST: Final = 256 << 20
_SHORT: Final = 15


def unpacked(kernel: bytes) -> bytes:
    """The ELF file in a ``bzImage``; the same bytes again where there is none that QEMU can
    start, or it is packed as this Python cannot read."""
    if len(kernel) < _PAYLOAD_AT + 8 or kernel[_MAGIC_AT : _MAGIC_AT + 4] != _MAGIC:
        return kernel
    offset, size = struct.unpack_from("<II", kernel, _PAYLOAD_AT)
    begin = ((kernel[_SECTORS_AT] or 4) + 1) * _SECTOR + offset
    payload = kernel[begin : begin + size]
    try:
        found = _unpack(payload)
    except (OSError, EOFError, ValueError, IndexError, struct.error, lzma.LZMAError, zlib.error):
        return kernel
    return found if _starts(found) else kernel


def _unpack(payload: bytes) -> bytes:
    if payload.startswith(_LZ4):
        return _lz4(payload)
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload, _MOST)
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload[:-4])
    if payload.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(payload, _MOST)
    return b""


def _lz4(payload: bytes) -> bytes:
    """The old form of LZ4's frames: a magic, then blocks with their sizes; the kernel's makers put
    the whole size behind it."""
    (whole,) = struct.unpack_from("<I", payload, len(payload) - 4)
    if whole > _MOST:
        raise ValueError("a kernel of an impossible size")
    found = bytearray()
    at = len(_LZ4)
    while len(found) < whole:
        (size,) = struct.unpack_from("<I", payload, at)
        at += 4
        _lz4_block(payload[at : at + size], found)
        at += size
    if len(found) != whole:
        raise ValueError("a kernel of another size than it says")
    return bytes(found)


def _lz4_block(data: bytes, to: bytearray) -> None:
    at, end, floor = 0, len(data), len(to)
    while True:
        token = data[at]
        at += 1
        size = token >> 4
        if size == _SHORT:
            size, at = _more(data, at, size)
        to += data[at : at + size]
        at += size
        if at >= end:
            return
        back = data[at] | data[at + 1] << 8
        at += 2
        size = token & _SHORT
        if size == _SHORT:
            size, at = _more(data, at, size)
        size += 4
        begin = len(to) - back
        if not back or begin < floor or len(to) > _MOST:
            raise ValueError("a kernel that is packed wrongly")
        if back >= size:
            to += to[begin : begin + size]
        else:
            to += (to[begin:] * (size // back + 1))[:size]


def _more(data: bytes, at: int, size: int) -> tuple[int, int]:
    while True:
        byte = data[at]
        at += 1
        size += byte
        if byte != 255:
            return size, at


def _starts(elf: bytes) -> bool:
    """Whether QEMU can start it: it has the note of PVH."""
    if not elf.startswith(_ELF64) or len(elf) < _ELF_HEADER:
        return False
    (table,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    if size != _PROGRAM.size or table + size * count > len(elf):
        return False
    for number in range(count):
        kind, _, offset, _, _, length, _, _ = _PROGRAM.unpack_from(elf, table + size * number)
        if kind == _NOTE and any(note in elf[offset : offset + length] for note in _PVH):
            return True
    return False
