"""The file of a guest that was saved: its memory as QEMU writes it, and its disk.

Owns: the form. Must never: go on with a state that another machine wrote: ``key`` says which
command line, QEMU, kernel and image it belongs to.

::

    4096 bytes     MAGIC, a line of JSON, zeros
    stream         QEMU's, which knows its own end
    disk           u64 offset, u64 size, so many bytes; again and again; offset END and size 0
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from guactors.errors import ImageRefused, InstanceLost
from guactors.runtimes.qemu import scratch, storage
from guactors.runtimes.qemu.qmp import Qmp

MAGIC: Final = b"guactors.guest/1\n"
STREAM_AT: Final = 4096
_EXTENT: Final = struct.Struct("<QQ")
_END: Final = 2**64 - 1
_WITHIN: Final = 300.0
_NAP: Final = 0.002
_FAST: Final = 1 << 50
_DISK_MOST: Final = 1 << 44


class Head(Struct, frozen=True):
    """``disk_at``: where the disk begins in the file, 0 for none; ``disk_size``: of the whole;
    ``disk_begun``: bytes that it had in use when it was empty; ``data``: the marks of its disks
    with data, none of one that has mounted none yet."""

    key: str
    disk_at: int = 0
    disk_size: int = 0
    disk_begun: int = 0
    data: tuple[str, ...] = ()


def write(
    path: Path, key: str, qmp: Qmp, disk: int, begun: int, data: tuple[str, ...] = ()
) -> None:
    """The state of a guest that stands still. ``disk``: the descriptor of its disk, -1 for none.
    Raises InstanceLost, OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | storage.PLAIN, 0o600)
    try:
        os.lseek(fd, STREAM_AT, os.SEEK_SET)
        qmp.execute("migrate-set-parameters", {"max-bandwidth": _FAST})
        qmp.execute("getfd", {"fdname": "state"}, fd=fd)
        qmp.execute("migrate", {"uri": "fd:state"})
        _await(qmp)
        head = Head(key, data=data)
        if disk >= 0:
            at = os.fstat(fd).st_size
            head = Head(key, at, os.fstat(disk).st_size, begun, data)
            for offset, size in storage.extents(disk):
                storage.write_at(fd, _EXTENT.pack(offset, size), at)
                storage.copy(disk, offset, fd, at + _EXTENT.size, size)
                at += _EXTENT.size + size
            storage.write_at(fd, _EXTENT.pack(_END, 0), at)
        storage.write_at(fd, MAGIC + msgspec.json.encode(head) + b"\n", 0)
        os.fsync(fd)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
    finally:
        os.close(fd)


def read_head(fd: int, key: str, path: str) -> Head:
    """Raises ImageRefused for a file that is none, or of another machine."""
    data = storage.read_at(fd, STREAM_AT, 0)
    line = data[len(MAGIC) :].partition(b"\n")[0]
    try:
        head = msgspec.json.decode(line, type=Head) if data.startswith(MAGIC) else None
    except msgspec.DecodeError:
        head = None
    if head is None:
        raise ImageRefused(f"{path} is no saved guest, or was not written to its end")
    if head.key != key:
        raise ImageRefused(
            f"{path} was saved with another QEMU, kernel, image, machine or number of mounts: it "
            "goes on only where all of them are the same"
        )
    return head


def read_disk(fd: int, head: Head, directory: Path) -> int:
    """The descriptor of a disk as it was, -1 where there was none. Raises ImageRefused."""
    if not head.disk_at:
        return -1
    disk = scratch.nameless(directory)
    try:
        if not 0 < head.disk_size <= _DISK_MOST:
            raise EOFError("a disk of an impossible size")
        os.ftruncate(disk, head.disk_size)
        at = head.disk_at
        while True:
            offset, size = _EXTENT.unpack(storage.read_at(fd, _EXTENT.size, at))
            if offset == _END:
                return disk
            if offset + size > head.disk_size:
                raise EOFError("data beyond the end of the disk")
            storage.copy(fd, at + _EXTENT.size, disk, offset, size)
            at += _EXTENT.size + size
    except (EOFError, struct.error) as error:
        os.close(disk)
        raise ImageRefused(f"the saved guest is damaged: {error}") from None
    except BaseException:
        os.close(disk)
        raise


def load(qmp: Qmp, fd: int) -> None:
    """Have a QEMU that waits for it read the stream, and go on. Raises InstanceLost."""
    os.lseek(fd, STREAM_AT, os.SEEK_SET)
    qmp.execute("getfd", {"fdname": "state"}, fd=fd)
    qmp.execute("migrate-incoming", {"uri": "fd:state"})
    _await(qmp)
    qmp.execute("cont")


def _await(qmp: Qmp) -> None:
    until = time.monotonic() + _WITHIN
    while True:
        found = qmp.execute("query-migrate")
        status = found.get("status") if isinstance(found, dict) else None
        if status == "completed":
            return
        if status in {"failed", "cancelled"}:
            raise InstanceLost(f"QEMU could not move the guest's state: {found.get('error-desc')}")
        if time.monotonic() > until:
            raise InstanceLost(f"QEMU did not move the guest's state within {_WITHIN:g} s")
        time.sleep(_NAP)
