"""The archive that a kernel unpacks as its first file system.

Owns: the form ``newc`` of cpio. Must never: put a time or an owner of this machine into it: the
same files give the same bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

_MAGIC: Final = b"070701"
_LAST: Final = "TRAILER!!!"


class Entry(Struct, frozen=True):
    """``mode``: type and permissions; ``data``: a file's content or a link's target; ``device``:
    major and minor of a node."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """A directory."""
    return Entry(name, stat.S_IFDIR | 0o755)


def file(name: str, data: bytes, *, executable: bool = False) -> Entry:
    """A file."""
    return Entry(name, stat.S_IFREG | (0o755 if executable else 0o644), data)


def link(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int) -> Entry:
    """A node of ``/dev``."""
    return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """All of them, with the directories that lead there, in the order of their names."""
    known = {entry.name: entry for entry in entries}
    for name in list(known):
        above = name.rpartition("/")[0]
        while above:
            known.setdefault(above, directory(above))
            above = above.rpartition("/")[0]
    pieces = [_record(known[name], number) for number, name in enumerate(sorted(known), 1)]
    pieces.append(_record(Entry(_LAST, 0), 0))
    return b"".join(pieces)


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0,
    )  # fmt: skip
    head = _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
