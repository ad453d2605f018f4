"""Writing the audit log: files to which lines are only ever added.

Owns: the files' modes, the lock that keeps a second writer out, the sound end after a crash, and
the change to a further file. Must never: change or remove a line that was written, or report one
as written that is not safe on the disk.

Beside the files of the log NAME (see ``audit_reader``) stand NAME.lock, which the writer holds, and
NAME.torn: what a crash left of lines that were never reported as written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from guactors import home
from guactors.errors import UsageError
from guactors.security.audit import GENESIS, AuditBroken, Chain, Draft, Entry, Filter, Head
from guactors.security.audit_reader import (
    FLAGS,
    beside,
    end_of_lines,
    explained,
    file_of,
    last_head,
    log_files,
    numbers_of,
    read_log,
    reading,
)

FILE_MOST: Final = 64 * 2**20
"""Bytes after which a further file begins."""

OPENED: Final = "audit_opened"
ROTATED: Final = "audit_rotated"
TORN: Final = "audit_torn"
"""Reasons of the log's own entries: at each start; first in each further file; after a crash."""


class AuditFile:
    """The writer of the log ``path``; there is one at a time, in one thread.

    ``who``: the principal of the log's own entries; ``clock``: wall seconds; ``file_most``: bytes.
    Raises UsageError when the log is in use, open to other users or cannot be written, and
    AuditBroken when its last line is damaged by more than a crash can do."""

    def __init__(
        self,
        path: Path,
        *,
        who: str = "hub",
        clock: Callable[[], float] = time.time,
        file_most: int = FILE_MOST,
    ) -> None:
        self._path = path
        self._who = who
        self._clock = clock
        self._most = file_most
        self._head = GENESIS
        self._number = self._size = 0
        self._fd = self._lock = -1
        self._fault = "it is closed"
        try:
            with explained(path, "opened"):
                home.private_directory(path.parent)
                self._lock = _locked(beside(path, "lock"))
                self._go_on()
        except BaseException:
            self.close()
            raise

    @property
    def head(self) -> Head:
        """The end of the chain: all up to it is safe on the disk."""
        return self._head

    def append(self, drafts: Sequence[Draft]) -> None:
        """Write these decisions, all or none, and return once they are safe on the disk.

        Raises UsageError when that fails: what was decided must then not be done."""
        if not drafts:
            return
        if self._fd < 0:
            raise UsageError(f"the audit log {self._path} takes no more entries: {self._fault}")
        with explained(self._path, "written"):
            head, data = _chained(self._head, drafts)
            if self._size and self._size + len(data) > self._most:
                self._open(self._number + 1)
            if self._number and not self._size:
                before = file_of(self._path, self._number - 1)
                begun = self._own(ROTATED, f"goes on from {before.name}")
                head, data = _chained(self._head, [begun, *drafts])
            self._write(data, head)

    def read(
        self, wanted: Filter, *, after: int = 0, limit: int = 100, newest: bool = False
    ) -> list[Entry]:
        """See :func:`guactors.security.audit_reader.read_log`."""
        return read_log(self._path, wanted, after=after, limit=limit, newest=newest)

    def close(self) -> None:
        """Let go of the log; more calls of ``close`` do nothing."""
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def _go_on(self) -> None:
        """Go on where the last writer ended, by whatever means."""
        numbers = numbers_of(self._path)
        self._open(numbers[-1] if numbers else 0)
        file = file_of(self._path, self._number)
        with reading(file) as source:
            end = end_of_lines(source)
        if end < self._size:
            self._set_aside(file, end)
        self._head = self._last_head()
        self._begin()

    def _begin(self) -> None:
        """The log's own first entries: what the crash before left, and the start."""
        opened = self._own(OPENED, f"process {os.getpid()}")
        moved = beside(self._path, "torn-new")
        if not moved.exists():
            self.append([opened])
            return
        torn = moved.read_bytes()
        self.append([self._own(TORN, _told(torn, beside(self._path, "torn").name)), opened])
        # Last, so that a crash on the way here records it twice rather than never.
        _add(beside(self._path, "torn"), torn)
        moved.unlink()
        _sync_directory(self._path.parent)

    def _last_head(self) -> Head:
        try:
            return last_head(log_files(self._path))
        except AuditBroken as broken:
            why = f"{broken.detail}; keep all files of this log, but elsewhere, to begin a new one"
            raise AuditBroken(broken.name, broken.line, broken.fault, why) from None

    def _own(self, reason: str, detail: str) -> Draft:
        return Draft(self._clock(), self._who, "audit", "allowed", reason, detail=detail)

    def _open(self, number: int) -> None:
        """Write to file ``number`` from here on; made if it is missing."""
        file = file_of(self._path, number)
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | FLAGS, 0o600)
        try:
            size = _size_of_private(fd, file)
            _sync_directory(self._path.parent)
        except BaseException:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._number, self._size = fd, number, size

    def _set_aside(self, file: Path, end: int) -> None:
        """Move the unfinished line that begins at byte ``end``."""
        with reading(file) as source:
            source.seek(end)
            _add(beside(self._path, "torn-new"), source.read() + b"\n")
        os.ftruncate(self._fd, end)
        _sync(self._fd)
        self._size = end

    def _write(self, data: bytes, head: Head) -> None:
        """Write lines that end in ``head``, all or none."""
        try:
            if os.write(self._fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _sync(self._fd)
        except BaseException:
            self._take_back()
            raise
        self._size, self._head = self._size + len(data), head

    def _take_back(self) -> None:
        """Remove what a failed write left. When that fails, too, nothing may follow it: the log
        closes, and the next start sets the rest aside."""
        try:
            os.ftruncate(self._fd, self._size)
            _sync(self._fd)
        except OSError as error:
            self._fault = f"a failed write could not be taken back ({error.strerror})"
            self.close()


def _chained(head: Head, drafts: Sequence[Draft]) -> tuple[Head, bytes]:
    chain = Chain(head)
    data = b"".join(map(chain.append, drafts))
    return chain.head, data


def _told(torn: bytes, name: str) -> str:
    return (
        f"{len(torn)} bytes of unfinished lines, sha3-256:{hashlib.sha3_256(torn).hexdigest()}, "
        f"were moved to {name}; they were never reported as written"
    )


def _locked(path: Path) -> int:
    """The descriptor of the lock file; the lock lasts until it is closed."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | FLAGS, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno not in {errno.EACCES, errno.EAGAIN, errno.EDEADLK}:
            raise
        raise UsageError(
            f"the audit log {path.with_suffix('')} is in use: one hub at a time may write it, end "
            "the other one (gu down) or give this one a home of its own (GU_HOME)"
        ) from None
    return fd


def _size_of_private(fd: int, file: Path) -> int:
    """Bytes in an open file that must be ours alone."""
    found = os.fstat(fd)
    mode = stat.S_IMODE(found.st_mode)
    if sys.platform != "win32" and mode & 0o077:
        raise UsageError(
            f"the audit log {file} is open to other users (mode {mode:o}), who may have changed "
            f"it: check it (gu audit verify), then run chmod 600 {file}"
        )
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"the audit log {file} is no plain file: move it away")
    return found.st_size


def _add(file: Path, data: bytes) -> None:
    """Add to a file beside the log, safely on the disk."""
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | FLAGS, 0o600)
    with os.fdopen(fd, "ab") as sink:
        sink.write(data)
        sink.flush()
        _sync(sink.fileno())
    _sync_directory(file.parent)


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # its fsync stops at the drive's cache
    else:
        os.fsync(fd)


def _sync_directory(path: Path) -> None:
    """So that a file made in it is there after a power cut; Windows sees to it by itself."""
    if sys.platform != "win32":
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
