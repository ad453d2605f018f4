"""A program as a child process where there are no descriptors to poll and no process groups.

Owns: its pipes, the two threads that read them, its descendants at its end. Must never: hold more
than a few pieces of output for a reader that is slow.
"""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Final

import psutil

from guactors.errors import ProgramNotStarted
from guactors.runtimes.base import CHUNK, LINGER, Command, Exit, Output, Size

AHEAD: Final = 16
"""Pieces of output held."""
_LOOK: Final = 0.05
_OWN_GROUP: Final = 0x200  # subprocess.CREATE_NEW_PROCESS_GROUP, which exists only there


class PipedChild:
    """:class:`~guactors.runtimes.base.Process`."""

    def __init__(
        self, popen: subprocess.Popen[bytes], main_ended: Callable[[], None] | None = None
    ) -> None:
        self._popen = popen
        self._main_ended = main_ended
        self._news: queue.Queue[Output | int] = queue.Queue(AHEAD)
        self._open = {1, 2}
        self._dry_at = 0.0
        self._exit: Exit | None = None
        self._closed = False
        for stream, pipe in ((1, popen.stdout), (2, popen.stderr)):
            assert pipe is not None
            # Daemons: a reader may wait for a descendant that kept the stream.
            threading.Thread(target=self._read, args=(stream, pipe), daemon=True).start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._popen.pid

    def read(self, timeout: float | None) -> Output | Exit | None:
        """See Process; so all that follow."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._exit is None:
            code = self._popen.poll()
            if code is not None and not self._dry_at:
                self._dry_at = time.monotonic() + LINGER
                if self._main_ended is not None:
                    self._main_ended()
            if code is not None and (not self._open or time.monotonic() >= self._dry_at):
                self._exit = Exit(code)
                break
            found = self._wait()
            if isinstance(found, Output):
                return found
            if found is not None:
                self._open.discard(found)
            elif until is not None and time.monotonic() >= until:
                return None
        return self._exit

    def write(self, data: bytes) -> None:
        """To its standard input."""
        stdin = self._popen.stdin
        if stdin is not None and not stdin.closed:
            with suppress(OSError):
                stdin.write(data)

    def close_input(self) -> None:
        """That ends."""
        if self._popen.stdin is not None:
            with suppress(OSError):
                self._popen.stdin.close()

    def resize(self, size: Size) -> None:
        """It has no terminal."""

    def signal(self, number: int) -> None:
        """Every signal is a hard end there."""
        del number
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self._popen.pid).children(recursive=True)
            self._popen.terminate()
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def close(self) -> None:
        """End it."""
        self._closed = True
        if self._popen.poll() is None:
            self.signal(0)
        self._popen.wait()
        self.close_input()
        self._exit = self._exit or Exit(self._popen.returncode)

    def _wait(self) -> Output | int | None:
        """The next piece, or the number of a stream that ended. Its name tells a worker that a call
        may be interrupted here."""
        try:
            return self._news.get(timeout=_LOOK)
        except queue.Empty:
            return None

    def _read(self, stream: int, pipe: IO[bytes]) -> None:
        with pipe:
            while data := pipe.read(CHUNK):
                if self._closed:
                    return
                self._news.put(Output(stream, data))
        self._news.put(stream)


def start(
    command: Command,
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    main_ended: Callable[[], None] | None = None,
) -> PipedChild:
    """Start ``argv``. Raises ProgramNotStarted."""
    try:
        popen = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE if command.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            creationflags=_OWN_GROUP,
        )
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        raise ProgramNotStarted(f"{argv[0]}: {error.strerror or error}", code) from None
    return PipedChild(popen, main_ended)
