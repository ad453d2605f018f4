"""A blob on its way in: chunks in any order, each checked before it is written.

Owns: the file of an unfinished blob, its lock, and which of its chunks are there. Must never: keep
a chunk with a wrong hash, or believe what an earlier process left without hashing it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Self

from guactors.errors import ImageRefused, UsageError
from guactors.images import disk
from guactors.images.hashing import each_chunk
from guactors.images.manifest import Blob, check_first_chunk, chunk_hash

Publish = Callable[[int], None]
"""Make a blob of the file with this descriptor, which the callee closes."""


class WrongChunk(ImageRefused):
    """The data is not the chunk that the manifest names: whoever sent it is to blame."""


class Partial:
    """A blob that is being written. ``write`` may be called by several threads at a time.

    Leaving the block (or ``close``) keeps what is there: whoever opens the blob again resumes. The
    file stays locked until then, so that a blob has one writer, in one process."""

    def __init__(self, blob: Blob, fd: int | None, publish: Publish) -> None:
        """``fd``: the locked file, None for a blob that is sealed already."""
        self.blob = blob
        self._publish = publish
        self._fd = fd
        self._sealed = fd is None
        self._guard = threading.Condition()
        self._writing = 0
        self._missing = set() if fd is None else set(range(len(blob.chunks)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def sealed(self) -> bool:
        """Whether the blob is in the store."""
        return self._sealed

    def missing(self) -> list[int]:
        """The chunks that are still needed, ascending."""
        with self._guard:
            return sorted(self._missing)

    def check(self) -> None:
        """Hash what an earlier process left; what is right is not needed again."""
        fd = self._file()
        blob = self.blob
        left = [
            index
            for index in range(len(blob.chunks))
            if not disk.is_hole(fd, index * blob.chunk, blob.length(index))
        ]

        def fill(number: int, view: memoryview) -> int:
            if number == len(left):
                return 0
            index = left[number]
            return disk.read_at(fd, view[: blob.length(index)], index * blob.chunk)

        def right(number: int, view: memoryview) -> bool:
            return chunk_hash(view) == blob.chunks[left[number]]

        found = each_chunk(fill, right)[1]
        self._missing.difference_update(index for index, ok in zip(left, found, strict=True) if ok)

    def write(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """Add the chunk ``index``; one that is there is left alone. Changes nothing and raises
        WrongChunk when the data is not what the manifest says, ImageRefused when there is no such
        chunk, or when the disk is to blame."""
        blob, view = self.blob, memoryview(data)
        if not 0 <= index < len(blob.chunks):
            raise ImageRefused(
                f"the blob {blob.sha3_256} has {len(blob.chunks)} chunks, there is no {index}"
            )
        found = chunk_hash(view)
        if found != blob.chunks[index] or len(view) != blob.length(index):
            raise WrongChunk(
                f"chunk {index} of the blob {blob.sha3_256} is wrong: expected "
                f"{blob.length(index)} bytes with the hash {blob.chunks[index]}, found {len(view)} "
                f"with {found}"
            )
        check_first_chunk(blob.size, view)
        with self._guard:
            fd = self._file()
            if index not in self._missing:
                return
            self._writing += 1
        try:
            with disk.refusing(f"chunk {index} of the blob {blob.sha3_256}"):
                disk.write_at(fd, view, index * blob.chunk)
            with self._guard:
                self._missing.discard(index)
        finally:
            with self._guard:
                self._writing -= 1
                self._guard.notify_all()

    def seal(self) -> Blob:
        """Make it a blob of the store, on the disk when this returns. Raises ImageRefused while
        chunks are missing."""
        if self._sealed:
            return self.blob
        missing = self.missing()
        if missing:
            raise ImageRefused(
                f"the blob {self.blob.sha3_256} is incomplete: {len(missing)} of "
                f"{len(self.blob.chunks)} chunks are missing, the first is {missing[0]}"
            )
        fd = self._take()
        self._publish(fd)
        self._sealed = True
        return self.blob

    def close(self) -> None:
        """Leave the rest for later. Idempotent."""
        if self._fd is not None:
            os.close(self._take())

    def _file(self) -> int:
        if self._fd is None:
            raise UsageError(f"the blob {self.blob.sha3_256} was sealed or closed before")
        return self._fd

    def _take(self) -> int:
        """The descriptor, once nobody writes through it any more."""
        with self._guard:
            fd = self._file()
            self._fd = None
            self._guard.wait_for(lambda: not self._writing)
            return fd
