"""A kernel is taken out of the file that unpacks itself, or that file is taken as it is."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

import pytest

from guactors.runtimes.qemu.guest.kernel import unpacked

NOTE = struct.pack("<III", 4, 8, 18) + b"Xen\0" + struct.pack("<Q", 0x1000850)


def elf(note: bytes = NOTE, body: bytes = b"") -> bytes:
    """A kernel with one note, as far as anybody looks."""
    head = b"\x7fELF\x02\x01" + bytes(26) + struct.pack("<Q", 64) + bytes(14)
    head += struct.pack("<HH", 56, 1)
    head = head.ljust(64, b"\0")
    program = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(note), len(note), 0)
    return head + program + note + body


def lz4(data: bytes, token: bytes = b"") -> bytes:
    """One block, all of it literal; or the block that is given."""
    size = len(data)
    block = token
    if not token:
        block = b"\xf0" + b"\xff" * ((size - 15) // 255) + bytes([(size - 15) % 255]) + data
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block + struct.pack("<I", size)


def bz_image(payload: bytes, size: int | None = None) -> bytes:
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 0, len(payload) if size is None else size)
    return bytes(head) + payload


def sized(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: pack(data) + struct.pack("<I", len(data))


@pytest.mark.parametrize(
    "pack", [lz4, sized(gzip.compress), sized(lzma.compress), sized(bz2.compress)]
)
def test_every_packing_that_is_known(pack: Callable[[bytes], bytes]) -> None:
    kernel = elf(body=bytes(range(256)) * 9)
    assert unpacked(bz_image(pack(kernel))) == kernel


def test_what_is_copied_from_before_and_over_itself() -> None:
    kernel = elf(body=b"ab" * 30 + b"c")
    literal = len(kernel) - 61 + 2
    block = b"\xff" + b"\xff" * ((literal - 15) // 255) + bytes([(literal - 15) % 255])
    block += kernel[:literal] + b"\x02\x00" + bytes([58 - 4 - 15]) + b"\x10c"
    assert unpacked(bz_image(lz4(kernel, block))) == kernel


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\x28\xb5\x2f\xfd" + bytes(99),
        lz4(elf(note=b"none")), lz4(b"no kernel at all, but long enough"),
        lz4(elf())[:-9], lz4(elf())[:30],
        lz4(elf(), b"\x10a\x05\x00"), lz4(elf(), b"\x10a\x00\x00"),
        b"\x02\x21\x4c\x18" + struct.pack("<I", 1 << 31) + bytes(9),
        b"\x02\x21\x4c\x18" + bytes(8) + b"\xff\xff\xff\xff",
        b"\xfd7zXZ\0 not really", b"\x1f\x8b nor this", b"BZh9 nor this",
    ],
)  # fmt: skip
def test_what_cannot_be_unpacked_stays_as_it_is(payload: bytes) -> None:
    packed = bz_image(payload)
    assert unpacked(packed) == packed
    assert unpacked(payload) == payload


def test_lengths_that_lie() -> None:
    packed = bz_image(lz4(elf()), size=1 << 31)
    assert unpacked(packed) in {packed, elf()}
