"""The blobs of the store: sealed files named by their hash, and the way in and out.

Owns: ``blobs/``, ``partial/`` and ``quarantine/``; the sealing; the check of whatever is opened.
Must never: hand out a path, hand out a descriptor whose content was not verified, or change a
sealed file.

A blob is written into ``partial/``, checked on the way, synced, made read-only, and renamed. Beside
it a record keeps the marks of the file as it was verified (``disk.Marks``); while they are those of
the file, it is not hashed again. Whoever opens a blob gets the descriptor that was checked, so a
file that is put in its place afterwards is never read. Who has the rights of this user can still
write into an open file: the store guards against damage and mistakes, not against its owner.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from guactors.errors import ImageRefused
from guactors.home import private_directory
from guactors.images import disk
from guactors.images.hashing import each_chunk, filler
from guactors.images.manifest import (
    CHUNK,
    MOST_CHUNKS,
    Blob,
    Media,
    Role,
    blob_hash,
    check_blob,
    check_first_chunk,
    chunk_hash,
    new_blob,
)
from guactors.images.partial import Partial

SPOOL: Final = "new-"
"""What the files of blobs begin with whose name is not known before their end."""
RECORD: Final = ".seal"
_STEP: Final = 8
"""Chunks for which room is made, and that are synced, at a time while the size is not known."""
_SEALED: Final = -1
_PAUSE: Final = 0.05
"""Seconds between two looks at a blob that somebody else writes."""

log = logging.getLogger("guactors.images")


class Blobs:
    """``lock``: the lock of the store. ``make_room(need, wish)``: called with it held; returns how
    many more bytes may be written, ``need`` to ``wish`` of them, or raises ImageRefused."""

    def __init__(
        self,
        root: Path,
        lock: Callable[[], AbstractContextManager[None]],
        make_room: Callable[[int, int], int],
    ) -> None:
        self.sealed = private_directory(private_directory(root / "blobs") / "sha3-256")
        self.partial = private_directory(root / "partial")
        self.quarantine = private_directory(root / "quarantine")
        self._lock = lock
        self._make_room = make_room

    def path(self, name: str) -> Path:
        """Where the blob of that hash is, if it is there."""
        return self.sealed / name[:2] / name

    def there(self, blob: Blob) -> bool:
        """Whether a file of that name and size is there, unchanged since it was verified or not."""
        try:
            found = self.path(blob.sha3_256).lstat()
        except FileNotFoundError:
            return False
        return disk.is_plain(found) and found.st_size == blob.size

    def has(self, blob: Blob) -> bool:
        """Whether the blob is there and what it should be; what is not is put in quarantine."""
        try:
            self.open(blob).close()
        except ImageRefused:
            return False
        return True

    def sizes(self) -> dict[str, int]:
        """All sealed blobs, with their bytes."""
        return {
            path.name: found.st_size
            for path, found in disk.sizes(self.sealed)
            if path.suffix != RECORD and not path.name.startswith(".")
        }

    def wanted_at(self, name: str) -> float:
        """When a blob was last sealed, or found to be there already by somebody who wants it, in
        epoch seconds."""
        path = self.path(name)
        try:
            return path.with_suffix(RECORD).stat().st_mtime
        except FileNotFoundError:  # it was never opened since a crash
            return path.lstat().st_mtime

    def sweep(self, before: float) -> None:
        """Remove what nobody will go on with: unfinished blobs not touched since ``before`` (epoch
        seconds) or that have no name yet, unless they are being written; what has been in
        quarantine since then; records without a blob. The lock is held."""
        for path, found in disk.sizes(self.partial):
            if path.name.startswith(SPOOL) or found.st_mtime < before:
                disk.remove_unlocked(path)
        self.empty_quarantine(before)
        for path, _ in disk.sizes(self.sealed):
            if path.name.startswith(".") or (
                path.suffix == RECORD and not path.with_suffix("").exists()
            ):
                disk.remove(path)

    def empty_quarantine(self, before: float = math.inf) -> None:
        """Remove what was found damaged before then, epoch seconds. The lock is held."""
        for path in list(self.quarantine.iterdir()):
            if path.lstat().st_ctime < before:
                shutil.rmtree(path) if path.is_dir() else disk.remove(path)

    def remove(self, name: str) -> None:
        """Remove a blob; whoever has it open can go on reading. The lock is held."""
        disk.remove(self.path(name))
        disk.remove(self.path(name).with_suffix(RECORD))

    def used(self) -> int:
        """Bytes of all files here, with what unfinished ones will need."""
        places = (self.sealed, self.partial, self.quarantine)
        return sum(found.st_size for place in places for _, found in disk.sizes(place))

    # Out.

    def open(self, blob: Blob, *, paranoid: bool = False) -> BinaryIO:
        """The content, from its beginning, verified; ``paranoid``: by hashing it, whatever the
        record says. Raises ImageRefused when it is not there or not what it should be."""
        path = self.path(blob.sha3_256)
        try:
            fd = disk.open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            raise ImageRefused(
                f"the blob {blob.sha3_256} is not in this store: fetch or import its image again"
            ) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._damaged(path, None, "it is a symbolic link") from None
            raise ImageRefused(f"the blob {path.name} cannot be opened: {error}") from error
        try:
            self._verify(path, blob, fd, paranoid=paranoid)
        except OSError as error:
            os.close(fd)
            raise ImageRefused(f"the blob {path.name} cannot be read: {error}") from error
        except BaseException:
            os.close(fd)
            raise
        return disk.reader(fd)

    def _verify(self, path: Path, blob: Blob, fd: int, *, paranoid: bool) -> None:
        found = os.fstat(fd)
        if not disk.is_plain(found) or found.st_size != blob.size:
            raise self._damaged(path, found, f"it has {found.st_size} bytes, not {blob.size}")
        marks = disk.marks_of(found)
        if not paranoid and self._recorded(path) == marks:
            return
        _, hashes = each_chunk(
            lambda number, view: disk.read_at(fd, view, number * CHUNK),
            lambda _number, view: chunk_hash(view),
        )
        name = blob_hash(found.st_size, hashes)
        if name != blob.sha3_256:
            raise self._damaged(path, found, f"its content has the hash {name}")
        if disk.marks_of(os.fstat(fd)) != marks:
            raise ImageRefused(f"the blob {path.name} was changed while it was read: try again")
        with self._lock():
            self._record(path, marks)

    def _damaged(self, path: Path, found: os.stat_result | None, why: str) -> ImageRefused:
        """The error; the file is moved out of the way, unless another is there by now."""
        with self._lock(), suppress(FileNotFoundError):
            there = path.lstat()
            if found is None or (there.st_ino, there.st_dev) == (found.st_ino, found.st_dev):
                fd, aside = disk.new_file(self.quarantine, f"{path.name}-")
                os.close(fd)
                os.replace(path, aside)
                disk.remove(path.with_suffix(RECORD))
        message = (
            f"the blob {path.name} is damaged: {why}. It was put in quarantine: fetch or import "
            "the image again"
        )
        log.warning("%s", message)
        return ImageRefused(message)

    def _recorded(self, path: Path) -> disk.Marks | None:
        """None for a record that is missing or torn: then the blob is hashed."""
        try:
            return msgspec.json.decode(path.with_suffix(RECORD).read_bytes(), type=disk.Marks)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeError):
            return None

    def _record(self, path: Path, marks: disk.Marks) -> None:
        fd, temporary = disk.new_file(path.parent, ".new-")
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(marks))
        os.replace(temporary, path.with_suffix(RECORD))

    # In.

    def open_partial(self, blob: Blob, *, wait: float = 0.0) -> Partial:
        """Begin or resume writing a blob; one that is there already misses nothing.

        Raises ImageRefused when the blob does not agree with itself, when there is no room for it,
        or when another writer has it for longer than ``wait`` seconds."""
        check_blob(blob)
        until = time.monotonic() + wait
        while True:
            if self.there(blob):
                self.has(blob)  # has it verified, or moved out of the way
            fd = self._claim(blob)
            if fd is not None:
                break
            if time.monotonic() >= until:
                raise ImageRefused(
                    f"the blob {blob.sha3_256} is being written by another task or process: wait "
                    "until that has ended"
                )
            time.sleep(_PAUSE)
        if fd == _SEALED:
            return Partial(blob, None, os.close)
        path = self.partial / blob.sha3_256
        partial = Partial(blob, fd, lambda fd: self._publish(fd, path, blob.sha3_256))
        try:
            with disk.refusing(f"the blob {blob.sha3_256}"):
                partial.check()
        except BaseException:
            partial.close()
            raise
        return partial

    def _claim(self, blob: Blob) -> int | None:
        """The locked file, of its full length; None when somebody else has it, _SEALED when nothing
        is missing."""
        path = self.partial / blob.sha3_256
        with self._lock(), disk.refusing(f"the blob {blob.sha3_256}"):
            if self._refresh(self.path(blob.sha3_256)):
                return _SEALED
            fd = disk.open_file(path, os.O_RDWR | os.O_CREAT)
            try:
                if not disk.try_lock(fd):
                    os.close(fd)
                    return None
                # The length is the claim to the room: everybody counts it.
                more = max(0, blob.size - os.fstat(fd).st_size)
                self._make_room(more, more)
                os.ftruncate(fd, blob.size)
            except BaseException:
                empty = not os.fstat(fd).st_size
                os.close(fd)
                if empty:
                    disk.remove(path)
                raise
            return fd

    def ingest(
        self,
        source: Iterable[bytes] | BinaryIO,
        role: Role = "data",
        media: Media = "raw",
        expect: Blob | None = None,
    ) -> Blob:
        """Read a stream to its end and make a blob of it; see :meth:`ImageStore.ingest`."""
        if expect is not None:
            return self._ingest_known(source, expect)
        with self._lock():
            fd, path = disk.new_file(self.partial, SPOOL)
            disk.try_lock(fd)
        try:
            blob = self._spool(source, fd, role, media)
        except BaseException:
            os.close(fd)
            disk.remove(path)
            raise
        try:
            self._publish(fd, path, blob.sha3_256)
        except BaseException:
            disk.remove(path)
            raise
        return blob

    def _spool(self, source: Iterable[bytes] | BinaryIO, fd: int, role: Role, media: Media) -> Blob:
        fill = filler(source)
        claimed = 0

        def claim(number: int, view: memoryview) -> int:
            nonlocal claimed
            length = fill(number, view)
            end = number * CHUNK + length
            if length and number == MOST_CHUNKS:
                raise ImageRefused(f"the blob has more than {MOST_CHUNKS * CHUNK} bytes, the most")
            if length and end > claimed:
                claimed = self._extend(fd, claimed, end)
            return length

        def keep(number: int, view: memoryview) -> str:
            if not number:
                check_first_chunk(len(view), view)
            with disk.refusing("the blob"):
                disk.write_at(fd, view, number * CHUNK)
                if number % _STEP == _STEP - 1:
                    disk.sync_data(fd)
            return chunk_hash(view)

        size, hashes = each_chunk(claim, keep)
        blob = new_blob(role, media, size, hashes)
        os.ftruncate(fd, size)
        return blob

    def _extend(self, fd: int, claimed: int, end: int) -> int:
        """Claim room up to ``end``, and some beyond where there is. Returns up to where."""
        with self._lock(), disk.refusing("the blob"):
            claimed += self._make_room(end - claimed, max(_STEP * CHUNK, end - claimed))
            os.ftruncate(fd, claimed)
            return claimed

    def _ingest_known(self, source: Iterable[bytes] | BinaryIO, blob: Blob) -> Blob:
        with self.open_partial(blob) as partial:
            if not partial.sealed:
                size, _ = each_chunk(filler(source), partial.write)
                if size != blob.size:
                    raise ImageRefused(
                        f"the blob {blob.sha3_256} ends after {size} bytes, not {blob.size}"
                    )
            return partial.seal()

    def _publish(self, fd: int, path: Path, name: str) -> None:
        """Seal the file, whose content has the hash ``name``, and close it. Whoever was faster has
        sealed the same content."""
        try:
            with disk.refusing(f"the blob {name}"):
                try:
                    os.fsync(fd)
                except OSError:
                    # The kernel may call lost pages clean from here on: it would pass every check.
                    disk.remove(path)
                    raise
                if sys.platform == "win32":  # where an open file cannot be renamed
                    os.close(fd)
                    fd = -1
                with self._lock():
                    if self._refresh(self.path(name)):
                        disk.remove(path)
                    else:
                        self._seal(fd, path, self.path(name))
        finally:
            if fd >= 0:
                os.close(fd)

    def _refresh(self, final: Path) -> bool:
        """Whether a blob is there, unchanged since it was verified; it counts as new then, so that
        it is not collected before its image is complete. The lock is held."""
        try:
            if self._recorded(final) != disk.marks_of(final.lstat()):
                return False
            os.utime(final.with_suffix(RECORD))
        except FileNotFoundError:
            return False
        return True

    def _seal(self, fd: int, path: Path, final: Path) -> None:
        private_directory(final.parent)
        if sys.platform == "win32":
            disk.remove(final)
            os.replace(path, final)
            os.chmod(final, 0o444)
            marks = disk.marks_of(final.stat())
        else:
            os.fchmod(fd, 0o444)
            os.replace(path, final)
            disk.sync_directory(final.parent)
            disk.sync_directory(self.sealed)
            marks = disk.marks_of(os.fstat(fd))
        self._record(final, marks)
