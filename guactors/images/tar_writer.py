"""A tree as a tar archive: the same tree, the same bytes, on every machine.

Owns: the one form in which root file systems are written here: sorted names, GNU headers, no names
of users, no root entry, an end mark of two blocks; and gzip without a time or a name. Must never:
write what ``members`` would refuse to read.

The compressed bytes depend on the release of zlib as well; the plain ones on nothing.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, cast

from guactors.errors import ImageRefused
from guactors.images.members import Kind, Member
from guactors.images.tree import Node, Path, Tree

_BLOCK: Final = 512
_GZIP_HEAD: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_GZIP_LEVEL: Final = 6
_TYPES: Final = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
}


def tar_of(tree: Tree) -> Iterator[bytes]:
    """The archive in pieces. Of a file with several names the first one is the file, the others
    are links to it."""
    first: dict[int, Path] = {}
    for path, name in tree.walk():
        node = name.itself
        known = first.setdefault(id(node), path)
        if known != path and node.kind is Kind.FILE:
            yield _header(path, node, "/".join(known))
            continue
        yield _header(path, node)
        if node.kind is Kind.FILE:
            yield from _content(path, node)
    yield bytes(2 * _BLOCK)


def file_header(name: str, size: int) -> bytes:
    """The header of a plain file of ``size`` bytes, mode 0644, owner 0, time 0."""
    return _header((name,), Node(Kind.FILE, mode=0o644, size=size))


def member_header(member: Member) -> bytes:
    """The header of a member; a file's content and its ``padding`` follow."""
    linked = member.target if member.kind is Kind.HARDLINK else ""
    node = Node(
        member.kind, member.mode, member.uid, member.gid, member.mtime, member.size, member.target
    )
    return _header(member.parts, node, linked)


def padding(size: int) -> bytes:
    """What follows a content of ``size`` bytes."""
    return bytes(-size % _BLOCK)


END: Final = bytes(2 * _BLOCK)


def gzip_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """``pieces`` compressed as one gzip file."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    checksum, size = 0, 0
    yield _GZIP_HEAD
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
        size += len(piece)
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF)


def stream_of(pieces: Iterable[bytes]) -> BinaryIO:
    """``pieces`` as a file that is read once."""
    return cast(BinaryIO, io.BufferedReader(_Pieces(iter(pieces)), 2**20))


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _header(path: Path, node: Node, linked: str = "") -> bytes:
    info = tarfile.TarInfo("/".join(path))
    info.type = tarfile.LNKTYPE if linked else _TYPES[node.kind]
    info.size = node.size if info.type == tarfile.REGTYPE else 0
    info.linkname = linked or node.target
    info.mode, info.uid, info.gid, info.mtime = node.mode, node.uid, node.gid, node.mtime
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _content(path: Path, node: Node) -> Iterator[bytes]:
    size = 0
    if node.content is not None:
        for piece in node.content.pieces():
            size += len(piece)
            yield piece
    if size != node.size:
        raise ImageRefused(f"{'/'.join(path)!r} has {size} bytes, {node.size} were there before")
    yield padding(size)
