"""Hashing at the speed of the processor: chunks of a stream in a few threads, while it is read.

Owns: the cutting into chunks, the threads, the buffers. Must never: hold more than a few chunks,
or know what a file is.

Each thread hashes and writes by turns: while one waits for the disk, two others hash. One thread
that does both takes half as long again as hashing alone.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Final, TypeVar

from guactors.images.manifest import CHUNK

THREADS: Final = 3
_BUFFERS: Final = THREADS + 2
"""One being filled, one waiting, one in each thread."""

Fill = Callable[[int, memoryview], int]
"""Of the chunk of that number, as much as there is; 0 at the end of the stream."""
T = TypeVar("T")


def each_chunk(fill: Fill, work: Callable[[int, memoryview], T]) -> tuple[int, list[T]]:
    """Call ``work(number, data)`` for each chunk in one of the threads, ``fill`` in this one.

    Returns the bytes there were, and what ``work`` returned, in order. The first error of either
    ends it. ``data`` is used again for another chunk as soon as ``work`` has returned."""
    free: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
    for _ in range(_BUFFERS):
        free.put(None)
    size = 0
    pending: list[Future[T]] = []
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="gu-image")

    def run(number: int, buffer: bytearray, length: int) -> T:
        try:
            return work(number, memoryview(buffer)[:length])
        except BaseException:
            failed.append(number)
            raise
        finally:
            free.put(buffer)

    failed: list[int] = []
    try:
        while not failed:
            # Made when it is needed: most blobs have one chunk.
            buffer = free.get() or bytearray(CHUNK)
            length = fill(len(pending), memoryview(buffer))
            if not length:
                break
            size += length
            pending.append(pool.submit(run, len(pending), buffer, length))
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
    for number in failed[:1]:
        pending[number].result()
    return size, [one.result() for one in pending]


def filler(source: Iterable[bytes] | BinaryIO) -> Fill:
    """What fills chunks from a file that blocks, or from pieces of any length."""
    read = getattr(source, "read", None)
    if read is None:
        return _Pieces(iter(source))
    into = getattr(source, "readinto", None)
    if into is None:
        return _Pieces(iter(lambda: read(CHUNK), b""))

    def fill(_number: int, view: memoryview) -> int:
        done = 0
        while done < len(view) and (count := into(view[done:])):
            done += count
        return done

    return fill


class _Pieces:
    """Fills chunks from pieces of any length, empty ones included."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def __call__(self, _number: int, view: memoryview) -> int:
        done = 0
        while done < len(view):
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._rest = memoryview(piece)
                continue
            part = self._rest[: len(view) - done]
            view[done : done + len(part)] = part
            self._rest = self._rest[len(part) :]
            done += len(part)
        return done
