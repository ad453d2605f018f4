"""Golem's VM images, ``.gvmi``: a squashfs with Docker's configuration behind it.

Owns: the trailer. Must never: take it for a proof of anything: its checksum covers the
configuration only, and nothing is signed.

::

    [squashfs][u32 LE: CRC-32 of the JSON][JSON: Docker's ContainerConfig][8 digits: its length]

Files of the first releases have no checksum: there the JSON begins where the squashfs, with or
without its padding, ends.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, Final

from guactors.errors import ImageRefused
from guactors.images.docker_config import DOCUMENT_MOST, ContainerConfig, decode
from guactors.images.squashfs import PADDED, Superblock

_DIGITS: Final = 8
_CHECKSUM: Final = 4


def has_trailer(file: BinaryIO, size: int, used: int) -> bool:
    """Whether what follows the ``used`` bytes of a squashfs ends as a trailer does."""
    if size < used + _DIGITS:
        return False
    file.seek(size - _DIGITS)
    return file.read(_DIGITS).isdigit()


def read_trailer(file: BinaryIO, size: int, superblock: Superblock, what: str) -> ContainerConfig:
    """The configuration at the end of a file of ``size`` bytes. Raises ImageRefused unless its
    length, its place and its checksum are right."""
    file.seek(max(0, size - _DIGITS))
    digits = file.read(_DIGITS)
    if len(digits) != _DIGITS or not digits.isdigit():
        raise ImageRefused(f"{what} is no .gvmi: it does not end with the length of its JSON")
    length = int(digits)
    start = size - _DIGITS - length
    if length > DOCUMENT_MOST or start < superblock.used:
        raise ImageRefused(
            f"{what} is damaged: {length} bytes of JSON are stated, but its squashfs ends "
            f"{size - _DIGITS - superblock.used} bytes before its end"
        )
    file.seek(max(superblock.used, start - _CHECKSUM))
    before = file.read(start - file.tell())
    data = file.read(length)
    if before != struct.pack("<I", zlib.crc32(data)) and start not in _ends(superblock.used):
        raise ImageRefused(f"{what} is damaged: the checksum of its JSON is wrong")
    return decode(data, ContainerConfig, f"the configuration of {what}")


def _ends(used: int) -> tuple[int, int]:
    """Where a squashfs of so many bytes may end."""
    return used, used + -used % PADDED
