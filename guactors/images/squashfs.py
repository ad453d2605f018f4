"""Squashfs files: whether one is sane, where it ends, and what is in it.

Owns: the superblock, and the reading of unsquashfs's pseudo file. Must never: decompress anything
itself, or believe what the superblock or the list says before the contents bear it out.

The pseudo file is a list, one line for each name, a mark, and the contents of all files in the
order of the list::

    usr/bin D 1700000000 755 0 0
    usr/bin/env R 1700000000 755 0 0 SIZE OFFSET SPARSE
    usr/bin/python S 1700000000 777 0 0 python3
    usr/bin/printenv L usr/bin/env

Blanks, quotes and backslashes in names have a backslash before them. Line feeds in names and links
are refused: not every release writes them so that they can be told from the end of a line.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from msgspec import Struct

from guactors.errors import ImageRefused
from guactors.images.members import COPY, Budget, Entries, Gate, Kind, Member, decoded, refuse
from guactors.runtimes.tools import unsquashed

MAGIC: Final = b"hsqs"
SUPERBLOCK: Final = 96
"""Bytes."""
PADDED: Final = 4096
"""To whole so many bytes mksquashfs fills its files."""
_CODECS: Final = {1: "gzip", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_NOWHERE: Final = 2**64 - 1
_LINE_MOST: Final = 16_384
_LINE: Final = re.compile(rb"((?:\\.|[^\\ \n])+) ([A-Za-z]) ([^\n]*)\n", re.DOTALL)
_END_OF_LIST: Final = (b"#\n", b"# START OF DATA - DO NOT MODIFY\n", b"#\n")
_OCTAL: Final = frozenset(b"01234567")
_NODES: Final = {
    b"B": "a block device",
    b"C": "a character device",
    b"I": "a named pipe or a socket",
}


class Superblock(Struct, frozen=True):
    """``used``: bytes of the file system, without what follows it; ``codec``: its name."""

    used: int
    block: int
    codec: str
    inodes: int


def parse_superblock(head: bytes, size: int, what: str) -> Superblock:
    """The superblock at the beginning of a file of ``size`` bytes. Raises ImageRefused when it
    cannot be one of a squashfs 4.0 that is all there."""
    if len(head) < SUPERBLOCK or not head.startswith(MAGIC):
        raise ImageRefused(f"{what} is no squashfs: it does not begin as one")
    inodes, _, block, _, codec, log = struct.unpack_from("<IIIIHH", head, 4)
    version = struct.unpack_from("<HH", head, 28)
    used, *tables = struct.unpack_from("<7Q", head, 40)
    if version != (4, 0):
        raise ImageRefused(f"{what} is a squashfs {version[0]}.{version[1]}, only 4.0 is read")
    if codec not in _CODECS:
        known = ", ".join(_CODECS.values())
        raise ImageRefused(f"{what} has the compression {codec}, known are {known}")
    if not 4096 <= block <= 2**20 or block != 1 << log:
        raise ImageRefused(f"{what} is damaged: blocks of {block} bytes are not possible")
    if not SUPERBLOCK <= used <= size:
        raise ImageRefused(f"{what} is cut short: {used} bytes are stated, {size} are there")
    if not inodes or any(table > used for table in tables if table != _NOWHERE):
        raise ImageRefused(f"{what} is damaged: its tables lie outside of it")
    return Superblock(used, block, _CODECS[codec], inodes)


def read_superblock(file: BinaryIO, size: int, what: str) -> Superblock:
    """As :func:`parse_superblock`, from the beginning of an open file."""
    file.seek(0)
    return parse_superblock(file.read(SUPERBLOCK), size, what)


def squashfs_pieces(file: BinaryIO, superblock: Superblock, what: str) -> Iterator[bytes]:
    """The file system without its trailer, padded with zeros to whole 4 KiB as mksquashfs does it:
    disks of virtual machines consist of whole sectors."""
    file.seek(0)
    left = superblock.used
    while left:
        data = file.read(min(left, COPY))
        if not data:
            raise ImageRefused(f"{what} became shorter while it was read")
        left -= len(data)
        yield data
    yield bytes(-superblock.used % PADDED)


@contextmanager
def read_squashfs(file: BinaryIO, gate: Gate) -> Iterator[Entries]:
    """The members of the squashfs in an open file, checked, as :func:`read_archive` gives them.

    Raises ImageRefused, also while they are read; UsageError where unsquashfs is missing."""
    size = file.seek(0, 2)
    superblock = read_superblock(file, size, gate.what)
    file.seek(0)
    with unsquashed(file, gate.what) as stream:
        yield read_pseudo_file(stream, gate, superblock)


def read_pseudo_file(stream: BinaryIO, gate: Gate, superblock: Superblock) -> Entries:
    """The members in a pseudo file: directories and symbolic links, then files, then hard links."""
    files: list[Member] = []
    links: list[Member] = []
    contents = _Contents(stream, gate.budget, gate.what, superblock.used)
    offset = inodes = 0
    for name, kind, rest in _lines(stream, gate):
        member, start = _member(name, kind, rest, gate)
        if member.kind is Kind.HARDLINK:
            links.append(member)
            continue
        inodes += 1
        if member.kind is Kind.FILE:
            if start != offset:
                refuse(gate.what, member.name, "its content is not where it is stated to be")
            offset += member.size
            if gate.budget.total + offset > gate.budget.limits.total:
                refuse(gate.what, member.name, f"more than {gate.budget.limits.total} bytes in all")
            files.append(member)
        else:
            yield member, contents
    if inodes != superblock.inodes:
        raise ImageRefused(
            f"{gate.what}: unsquashfs lists {inodes} files, its superblock states "
            f"{superblock.inodes}: it is damaged, or has names that cannot be read"
        )
    for member in files:
        contents.left = member.size
        yield member, contents
        while contents.read(COPY):
            pass
    for member in links:
        yield member, contents
    if stream.read(1):
        raise ImageRefused(f"{gate.what}: unsquashfs wrote more than it listed")


class _Contents:
    """Reads the content of one member; ``left``: its bytes that are still to come."""

    def __init__(self, stream: BinaryIO, budget: Budget, what: str, packed: int) -> None:
        self._stream = stream
        self._budget = budget
        self._what = what
        self._packed = packed
        self._out = 0
        self.left = 0

    def read(self, size: int) -> bytes:
        if not self.left:
            return b""
        data = self._stream.read(min(size, self.left))
        if not data:
            raise ImageRefused(f"{self._what} is cut short: unsquashfs wrote less than it listed")
        self.left -= len(data)
        self._out += len(data)
        self._budget.count_bytes(self._what, len(data), self._out, self._packed)
        return data


def _lines(stream: BinaryIO, gate: Gate) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, type and the rest of each line of the list, until its end mark."""
    while True:
        line = stream.readline(_LINE_MOST)
        if line == _END_OF_LIST[0]:
            if (stream.readline(_LINE_MOST), stream.readline(_LINE_MOST)) != _END_OF_LIST[1:]:
                raise ImageRefused(f"{gate.what}: the list that unsquashfs wrote has no end mark")
            return
        if not line:
            raise ImageRefused(f"{gate.what}: the list that unsquashfs wrote is cut short")
        found = _LINE.fullmatch(line)
        if found is None:
            refuse(gate.what, decoded(line), "a line feed in a name or link, or one too long")
        name, kind, rest = found.groups()
        if kind != b"x":  # extended attributes give rights that nobody is given here
            yield re.sub(rb"\\(.)", rb"\1", name), kind, rest


def _member(name: bytes, kind: bytes, rest: bytes, gate: Gate) -> tuple[Member, int]:
    """The member of a line, and the offset of its content."""
    shown = decoded(name).lstrip("/") or "."
    if kind == b"L":
        target = decoded(re.sub(rb"\\(.)", rb"\1", rest)).lstrip("/")
        return gate.member(shown, Kind.HARDLINK, target=target), 0
    if kind in _NODES:
        refuse(gate.what, shown, _NODES[kind])
    words = rest.split(b" ", 4)
    known = kind in {b"D", b"S", b"R"} and len(words) >= 4 and all(map(_is_number, words[:4]))
    if not known or not set(words[1]) <= _OCTAL:
        refuse(gate.what, shown, "the list that unsquashfs wrote is not understood")
    mtime, mode, uid, gid = int(words[0]), int(words[1], 8), int(words[2]), int(words[3])
    more = words[4] if len(words) == 5 else b""

    def member(what: Kind, *, size: int = 0, target: str = "") -> Member:
        return gate.member(
            shown, what, mode=mode, uid=uid, gid=gid, mtime=mtime, size=size, target=target
        )

    if kind == b"D":
        return member(Kind.DIRECTORY), 0
    if kind == b"S":
        return member(Kind.SYMLINK, target=decoded(more)), 0
    numbers = more.split(b" ")
    if len(numbers) < 2 or not all(map(_is_number, numbers)):
        refuse(gate.what, shown, "the list that unsquashfs wrote is not understood")
    return member(Kind.FILE, size=int(numbers[0])), int(numbers[1])


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) < 20
