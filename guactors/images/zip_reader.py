"""A zip archive as members.

Owns: what of a zip is refused: encryption, several disks, a directory that is larger than it may
be, content that does not agree with its checksum. Must never: let the standard library's reader see
a list of members that was not counted.

A zip is listed at its end, so it must be a file that can be read at any place. Modes and symbolic
links are there only where a Unix program packed it.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, Final

from guactors.errors import ImageRefused
from guactors.images.members import Entries, Gate, Kind, refuse

MAGICS: Final = (b"PK\x03\x04", b"PK\x05\x06")
_END: Final = b"PK\x05\x06"
_END_BYTES: Final = 22
_LOCATOR: Final = b"PK\x06\x07"
"""Of another list, which would count instead of this one."""
_COMMENT_MOST: Final = 65535
_ENTRY: Final = b"PK\x01\x02"
_ENTRY_BYTES: Final = 46
_UNIX: Final = 3
_ENCRYPTED: Final = 1
_LINK_MOST: Final = 4096
_REST: Final = 65536


class ZipContent:
    """The content of a member, counted as it comes out."""

    def __init__(self, source: IO[bytes], gate: Gate, member: str, packed: int) -> None:
        self._source = source
        self._gate = gate
        self._name = member
        self._packed = packed
        self._out = 0

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end, where the checksum was right."""
        with _damage(self._gate.what, self._name):
            data = self._source.read(size)
        self._out += len(data)
        self._gate.budget.count_bytes(self._gate.what, len(data), self._out, self._packed)
        return data


def read_zip(file: BinaryIO, gate: Gate) -> Entries:
    """Every member of the archive, in the order of its list, checked."""
    size = _check_list(file, gate)
    with _damage(gate.what, "its list"):
        archive = zipfile.ZipFile(file)
    with archive:
        for info in archive.infolist():
            yield from _entry(archive, info, gate, size)


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, gate: Gate, size: int) -> Entries:
    name = info.orig_filename
    if info.flag_bits & _ENCRYPTED:
        refuse(gate.what, name, "it is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        refuse(gate.what, name, "it is neither stored nor deflated")
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    kind = _kind(info, stat.S_IFMT(mode), gate)
    permissions = stat.S_IMODE(mode) or (0o755 if kind is Kind.DIRECTORY else 0o644)
    with _damage(gate.what, name):
        source = archive.open(info)
    with source:
        content = ZipContent(source, gate, name, size)
        target = ""
        if kind is Kind.SYMLINK:
            data = content.read(_LINK_MOST + 1)
            target = data.decode("utf-8", "surrogateescape")
        member = gate.member(
            name,
            kind,
            mode=permissions,
            size=0 if kind is Kind.SYMLINK else info.file_size,
            target=target,
        )
        yield member, content
        while content.read(_REST):  # only at the end the checksum is compared
            pass


def _kind(info: zipfile.ZipInfo, form: int, gate: Gate) -> Kind:
    if info.orig_filename.endswith("/") or form == stat.S_IFDIR:
        return Kind.DIRECTORY
    if form == stat.S_IFLNK:
        return Kind.SYMLINK
    if form not in {0, stat.S_IFREG}:
        refuse(gate.what, info.orig_filename, "neither a file, a directory nor a link")
    return Kind.FILE


def _check_list(file: BinaryIO, gate: Gate) -> int:
    """Refuse a list of too many members before anything is built from it; the file's size.

    The standard library takes as many members as there are entries in the bytes that are left
    between the list's start and its end record, whatever number is stated."""
    size = file.seek(0, 2)
    tail_at = max(0, size - _END_BYTES - _COMMENT_MOST)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise ImageRefused(f"{gate.what} is cut short: the list at the end of a zip is missing")
    length, offset = struct.unpack_from("<II", tail, at + 12)
    large = 0xFFFFFFFF in {length, offset} or tail[max(at - 20, 0) : at].startswith(_LOCATOR)
    if large or tail[at + 4 : at + 8] != bytes(4):
        raise ImageRefused(
            f"{gate.what}: a zip of more than 4 GiB, more than 65,535 members or several disks is "
            "not read: use tar"
        )
    start = tail_at + at - length
    if start < 0:
        raise ImageRefused(f"{gate.what} is damaged: the list of the zip is larger than the file")
    count = 0
    while length >= _ENTRY_BYTES:
        file.seek(start)
        entry = file.read(_ENTRY_BYTES)
        if len(entry) < _ENTRY_BYTES or not entry.startswith(_ENTRY):
            raise ImageRefused(f"{gate.what} is damaged: the list of the zip is wrong")
        whole = _ENTRY_BYTES + sum(struct.unpack_from("<HHH", entry, 28))
        start, length, count = start + whole, length - whole, count + 1
        if count > gate.budget.limits.members:
            raise ImageRefused(f"{gate.what}: more than {count - 1} members")
    file.seek(0)
    return size


@contextmanager
def _damage(what: str, name: str) -> Iterator[None]:
    """Faults of the zip reader become ImageRefused."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as fault:
        refuse(what, name, f"the zip is damaged, or has what is not read here: {fault}")
    except (OSError, ValueError, struct.error) as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        refuse(what, name, "the zip is damaged")
