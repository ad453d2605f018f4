"""One file of shared memory: made and written by one process, read by any.

Owns: the file, its mapping, the headers of its blocks, and the locks that say who uses it. Must
never: decide when something is recycled (``store`` does), or believe what a header says without
comparing it.

Which bytes of the file are locked says who uses it: ``sweeping`` has the two of the whole, and
every process that uses a block has a byte of the block, together with others.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import secrets
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from guactors.errors import ObjectLost
from guactors.objects import locks
from guactors.objects.layout import ALIGNMENT, HEADER, aligned
from guactors.objects.space import Backing, Space, rounded
from guactors.objects.sweeping import FLAGS, OPEN, WRITER, is_promised, promise, sweep_one

_HEADER: Final = struct.Struct("<8sQQ40x")
_MAGIC: Final = b"gu-block"
assert _HEADER.size == HEADER


def _byte(offset: int) -> int:
    """The byte whose lock stands for the block at ``offset``."""
    return offset + 2


class Mapping:
    """A file mapped into this process."""

    def __init__(self, fd: int, size: int, *, write: bool) -> None:
        self.fd = fd
        self.size = size
        self.map = mmap.mmap(fd, size, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
        self._address = _address(self.map)
        self._whole = ctypes.c_char * size

    def exporter(self) -> ctypes.Array[ctypes.c_char]:
        """A fresh object whose memory is the whole mapping; every view of it keeps it alive, so
        that its own end tells when the last view is gone."""
        return self._whole.from_address(self._address)

    def header(self, offset: int) -> tuple[bytes, int, int]:
        """Magic, serial and size as they stand at ``offset``."""
        return _HEADER.unpack_from(self.map, offset)

    def close(self) -> None:
        """Unmap. The caller knows that no exporter is alive."""
        self.map.close()
        os.close(self.fd)


class OwnArena(Mapping):
    """An arena of this process, in ``directory``; ``disk`` where that is no memory."""

    def __init__(self, directory: Path, size: int, *, disk: bool = False) -> None:
        self.name = f"{'d' if disk else 'm'}-{secrets.token_hex(16)}"
        self.path = directory / self.name
        self.disk = disk
        self.space = Space(size)
        self.quiet_since: float | None = None
        """When it was first seen after bytes of it were last taken or freed."""
        self._backing = Backing(size)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
        try:
            locks.seize(fd, WRITER)
            locks.share(fd, OPEN)
            if os.fstat(fd).st_nlink == 0:
                # Somebody swept it between its making and its locks.
                raise FileNotFoundError(self.path)
            os.ftruncate(fd, size)
            super().__init__(fd, size, write=True)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise

    def missing(self, offset: int, size: int) -> int:
        """Bytes there that the system has not promised yet."""
        return self._backing.missing(offset, size)

    def reserve(self, offset: int, size: int) -> None:
        """Have the system's word that these bytes exist. Without it a full device would end the
        process at some write. Raises OSError."""
        if sys.platform == "linux":
            os.posix_fallocate(self.fd, offset, rounded(size))
        self._backing.promised(offset, size)

    def give_back(self) -> None:
        """Return the memory of what is free to the system, where that can be done."""
        if sys.platform != "linux":
            return
        for offset, size in self.space.spans():
            if self.missing(offset, size) < size:
                with contextlib.suppress(OSError):  # not every file system can
                    self.map.madvise(mmap.MADV_REMOVE, offset, size)
                    self._backing.promised(offset, size, is_so=False)

    def write(self, offset: int, serial: int, parts: Sequence[memoryview | bytes]) -> None:
        """Copy ``parts`` into the block at ``offset``; the header comes last, so that a block that
        has one is whole."""
        target = memoryview(self.map)
        at = offset + HEADER
        for part in parts:
            raw = memoryview(part).cast("B")
            target[at : at + raw.nbytes] = raw
            at += aligned(raw.nbytes)
        self.complete(offset, serial, at - offset)

    def write_at(self, at: int, data: memoryview | bytes) -> None:
        """Bytes of a block that has no header yet."""
        memoryview(self.map)[at : at + len(data)] = data

    def complete(self, offset: int, serial: int, length: int) -> None:
        """The block at ``offset`` is whole: give it its header."""
        _HEADER.pack_into(self.map, offset, _MAGIC, serial, length)

    def erase(self, offset: int) -> bool:
        """Make the block at ``offset`` nobody's; False while another process uses it."""
        if not locks.seize(self.fd, _byte(offset)):
            return False
        _HEADER.pack_into(self.map, offset, bytes(8), 0, 0)
        locks.release(self.fd, _byte(offset))
        return True

    def promise(self) -> None:
        """A process of another machine is to have something of it."""
        promise(self.fd)

    def leave(self) -> None:
        """Remove the file unless somebody else has it open: the last of them will. Nor if somebody
        may come for what is in it: then it is swept in a while. The mapping stays."""
        locks.release(self.fd, OPEN)
        if self.space.used and is_promised(self.fd):
            return
        if locks.seize(self.fd, OPEN):
            with contextlib.suppress(OSError):
                self.path.unlink()

    def end(self) -> None:
        """``leave``, and unmap it."""
        self.leave()
        self.close()


class SeenArena(Mapping):
    """Another process's arena, read-only. ``users``: holds of this process on its blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.users = 0
        self.quiet_since: float | None = None
        """When it was first seen after a block of it was last let go."""
        try:
            fd = os.open(path, os.O_RDONLY | FLAGS)
        except OSError as error:
            raise ObjectLost(
                f"the memory that held the value is gone ({error.strerror})"
            ) from error
        try:
            locks.share(fd, OPEN)
            status = os.fstat(fd)
            if status.st_nlink == 0 or status.st_size == 0:
                raise ObjectLost("the memory that held the value was given back")
            super().__init__(fd, status.st_size, write=False)
        except BaseException:
            os.close(fd)
            raise

    def hold(self, offset: int, serial: int, length: int) -> None:
        """Use the block at ``offset``, if it still is what it was. Raises ObjectLost."""
        if offset % ALIGNMENT or not 0 <= offset <= self.size - length:
            raise ObjectLost("the value is said to lie where nothing can")
        if not locks.share(self.fd, _byte(offset)):
            raise ObjectLost("the memory that held the value is being recycled")
        magic, found, size = self.header(offset)
        if magic != _MAGIC or found != serial or size != length:
            locks.release(self.fd, _byte(offset))
            raise ObjectLost("the memory that held the value was recycled")

    def let_go(self, offset: int) -> None:
        """Use the block no longer."""
        locks.release(self.fd, _byte(offset))

    def end(self) -> None:
        """Unmap it; the last one out of a dead process's arena removes the file."""
        locks.release(self.fd, OPEN)
        self.close()
        sweep_one(self.path)


class _Buffer(ctypes.Structure):
    """``Py_buffer`` of the C API."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def _address(mapping: mmap.mmap) -> int:
    """Where a mapping begins. ``ctypes`` itself tells it of writable ones only."""
    view = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(mapping), ctypes.byref(view), 0)
    try:
        return int(view.buf or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
