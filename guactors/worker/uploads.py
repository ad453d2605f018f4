"""Files on their way into an instance, piece by piece.

Owns: the uploads that are open, and a thread for each, for a driver takes all pieces in one call.
Must never: hold more than a few pieces of any, or write a file whose sender went away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Empty, Full, Queue
from typing import Any, Final

from guactors.errors import UsageError

AHEAD: Final = 4
"""Pieces that wait to be written."""
MOST: Final = 64
"""Uploads that are open at a time."""
ABANDONED: Final = 600.0
"""Seconds after which one that nobody goes on with is given up."""
_LOOK: Final = 0.2

Put = Callable[[str, Iterator[bytes], bool], None]


class _GivenUp(Exception):
    """Its sender went away."""


class _Upload:
    def __init__(self, put: Put, path: str, *, tar: bool) -> None:
        self._pieces: Queue[bytes | None] = Queue(AHEAD)
        self._stopped = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._write, args=(put, path, tar), name="upload", daemon=True
        )
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether nothing more is written."""
        return not self._thread.is_alive()

    def _write(self, put: Put, path: str, tar: bool) -> None:
        try:
            put(path, self._content(), tar)
        except BaseException as error:
            self.error = error

    def _content(self) -> Iterator[bytes]:
        waited = 0.0
        while True:
            if self._stopped.is_set() or waited > ABANDONED:
                raise _GivenUp
            try:
                piece = self._pieces.get(timeout=_LOOK)
            except Empty:
                waited += _LOOK
                continue
            if piece is None:
                return
            waited = 0.0
            yield piece

    def more(self, piece: bytes | None) -> None:
        """Raises what the writing raised."""
        while self._thread.is_alive():
            try:
                self._pieces.put(piece, timeout=_LOOK)
            except Full:
                continue
            return
        self._raise()

    def end(self) -> None:
        """All was sent: wait until it is written."""
        self.more(None)
        self._thread.join()
        self._raise()

    def stop(self) -> None:
        """No more comes."""
        self._stopped.set()

    def join(self) -> None:
        """Until nothing more is written."""
        self._thread.join()

    def _raise(self) -> None:
        if isinstance(self.error, _GivenUp):
            raise UsageError(
                f"the upload was given up, for nothing came in {ABANDONED:.0f} s: begin it anew"
            ) from None
        if self.error is not None:
            raise self.error


class Uploads:
    """``put(path, pieces, tar)`` writes one. Threads: any."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._lock = threading.Lock()
        self._open: dict[int, _Upload] = {}
        self._last = 0

    def begin(self, path: str, *, tar: bool) -> int:
        """Its number."""
        with self._lock:
            if len(self._open) >= MOST:
                # Nobody is going to end those that were given up.
                self._open = {n: one for n, one in self._open.items() if not one.over}
            if len(self._open) >= MOST:
                raise UsageError(f"{MOST} uploads are open already: end some of them first")
            self._last += 1
            self._open[self._last] = _Upload(self._put, path, tar=tar)
            return self._last

    def more(self, number: Any, piece: bytes) -> None:
        """The next piece; waits while many are to be written. Raises what the writing raised."""
        if piece:
            self._find(number).more(piece)

    def end(self, number: Any, *, complete: bool) -> None:
        """It is over. Raises what the writing raised."""
        upload = self._find(number)
        with self._lock:
            self._open.pop(number, None)
        if complete:
            upload.end()
        else:
            upload.stop()
            upload.join()

    def close(self) -> None:
        """Give all of them up."""
        with self._lock:
            uploads = list(self._open.values())
            self._open.clear()
        # All are told before any is waited for: each looks only now and then.
        for upload in uploads:
            upload.stop()
        for upload in uploads:
            upload.join()

    def _find(self, number: Any) -> _Upload:
        with self._lock:
            found = self._open.get(number) if type(number) is int else None
        if found is None:
            raise UsageError(f"no upload {number!r} is open here: begin one first")
        return found
