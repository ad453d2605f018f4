"""A program of this machine as a child process, on POSIX systems.

Owns: its pipes or its terminal, its process group, the reading of both streams until they are dry.
Must never: hold output for a reader that is slow (the pipes do that, and then the program waits),
or signal a number that may be somebody else's by now.
"""

from __future__ import annotations

import math
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

assert sys.platform != "win32", "needs process groups; windows.py serves Windows"

import fcntl
import struct
import termios

from guactors.errors import ProgramNotStarted
from guactors.runtimes import process
from guactors.runtimes.base import CHUNK, LINGER, Command, Exit, Output, Size

_LOOK: Final = 0.05
"""Seconds between two looks at a process where no descriptor tells of its end."""
_SHELL: Final = 128
_TTY: Final = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvpe(sys.argv[1], sys.argv[1:], os.environ)"
)
"""What gives a program its terminal: only the process itself can take one."""


class Child:
    """:class:`~guactors.runtimes.base.Process`. ``main_ended``: called when the program has ended
    whose end is that of the rest; ``reaped``: when its number may be somebody else's; ``why``:
    asked for the reason of a violent end; ``confined``: by a sandbox."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        terminal: int = -1,
        *,
        confined: bool = False,
        main_ended: Callable[[], None] | None = None,
        reaped: Callable[[], None] = lambda: None,
        why: Callable[[], tuple[str, str]] = lambda: ("", ""),
    ) -> None:
        self._popen = popen
        self._terminal = terminal
        self._main_ended = main_ended
        self._on_reaped = reaped
        self._why = why
        self._confined = confined
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._input = threading.Lock()
        self._reaped = False
        self._exit: Exit | None = None
        self._dry_at = math.inf
        self._poll = select.poll()
        self._streams: dict[int, int] = {}
        self._end = _pidfd(popen.pid)
        if popen.stdin is not None:
            os.set_blocking(popen.stdin.fileno(), False)
        if terminal >= 0:
            self._add(terminal, 1)
        for number, pipe in ((1, popen.stdout), (2, popen.stderr)):
            if pipe is not None:
                self._add(pipe.fileno(), number)
        if self._end >= 0:
            self._poll.register(self._end, select.POLLIN)

    @property
    def pid(self) -> int:
        """Its number, and its group's."""
        return self._popen.pid

    def read(self, timeout: float | None) -> Output | Exit | None:
        """See Process."""
        with self._reading:
            return self._read(timeout)

    def _read(self, timeout: float | None) -> Output | Exit | None:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._exit is None:
            now = time.monotonic()
            if self._reaped and (not self._streams or now >= self._dry_at):
                self._exit = self._ended()
                break
            until = min(deadline, self._dry_at)
            for fd in self._wait(until - now):
                if fd == self._end:
                    self._on_end()
                elif (found := self._take(fd)) is not None:
                    return found
            if self._end < 0 and not self._reaped:
                self._look()
            if self._exit is None and time.monotonic() >= deadline and not self._reaped:
                return None
        return self._exit

    def write(self, data: bytes) -> None:
        """See Process."""
        with self._input:
            left = memoryview(data)
            while left and (fd := self._input_fd()) >= 0 and not self._reaped:
                try:
                    left = left[os.write(fd, left) :]
                except BlockingIOError:
                    select.select([], [fd], [], _LOOK)
                except OSError:
                    return  # nobody reads it any more

    def close_input(self) -> None:
        """See Process."""
        with self._input:
            if self._terminal >= 0:
                with suppress(OSError):
                    os.write(self._terminal, _end_of_file(self._terminal))
            elif self._popen.stdin is not None:
                with suppress(BrokenPipeError):
                    self._popen.stdin.close()

    def resize(self, size: Size) -> None:
        """See Process."""
        if self._terminal >= 0 and self._exit is None:
            set_size(self._terminal, size)

    def signal(self, number: int) -> None:
        """See Process."""
        with self._lock:
            if not self._reaped:
                process.kill_group(self.pid, number)

    def close(self) -> None:
        """See Process."""
        self.signal(signal.SIGKILL)
        # Who reads now comes out soon, for it ended.
        with self._reading:
            with self._lock:
                if not self._reaped:
                    self._reap()
            if self._end >= 0:
                os.close(self._end)
                self._end = -1
            self._exit = self._exit or self._ended()

    # --- reading --------------------------------------------------------------------------------

    def _add(self, fd: int, stream: int) -> None:
        self._streams[fd] = stream
        self._poll.register(fd, select.POLLIN)

    def _wait(self, seconds: float) -> list[int]:
        """Descriptors with news. Its name tells a worker that a call may be interrupted here,
        unlike elsewhere in this package (``worker/runners.py``)."""
        if self._end < 0 and not self._reaped:
            seconds = min(seconds, _LOOK)
        patience = None if seconds == math.inf else max(0.0, seconds) * 1000
        return [fd for fd, _ in self._poll.poll(patience)]

    def _take(self, fd: int) -> Output | None:
        try:
            data = os.read(fd, CHUNK)
        except OSError:  # of a terminal that nobody else holds any more
            data = b""
        if data:
            return Output(self._streams[fd], data)
        self._drop(fd)
        return None

    def _drop(self, fd: int) -> None:
        stream = self._streams.pop(fd)
        self._poll.unregister(fd)
        if fd == self._terminal:
            with self._input:
                self._terminal = -1
                os.close(fd)
            return
        pipe = self._popen.stdout if stream == 1 else self._popen.stderr
        assert pipe is not None
        pipe.close()

    # --- the end --------------------------------------------------------------------------------

    def _on_end(self) -> None:
        self._poll.unregister(self._end)
        os.close(self._end)
        self._end = -1
        self._gone()

    def _look(self) -> None:
        if process.has_ended(self.pid):
            self._gone()

    def _gone(self) -> None:
        """It has ended, and is not reaped: its group's number is nobody else's yet."""
        if self._main_ended is not None:
            process.kill_group(self.pid)
            self._main_ended()
        with self._lock:
            if not self._reaped:
                self._reap()

    def _reap(self) -> None:
        """The lock is held."""
        ended = process.reap(self.pid, block=True)
        self._popen.returncode = os.waitstatus_to_exitcode(ended[0]) if ended else 0
        self._reaped = True
        self._dry_at = time.monotonic() + LINGER
        self._on_reaped()

    def _ended(self) -> Exit:
        code = self._popen.returncode
        if self._confined and code is not None and _SHELL < code < _SHELL + signal.NSIG:
            code = _SHELL - code  # a sandbox says so of a signal, as a shell does
        for fd in list(self._streams):
            self._drop(fd)
        if self._popen.stdin is not None:
            with self._input, suppress(BrokenPipeError):
                self._popen.stdin.close()
        if code is not None and code < 0:
            reason, detail = self._why()
            return Exit(None, -code, reason, detail)
        return Exit(code)

    def _input_fd(self) -> int:
        if self._terminal >= 0:
            return self._terminal
        stdin = self._popen.stdin
        return stdin.fileno() if stdin is not None and not stdin.closed else -1


def start(
    command: Command,
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    user: tuple[int, int] | None = None,
) -> tuple[subprocess.Popen[bytes], int]:
    """Start ``argv``: the process and, if it has one, the master of its terminal. Raises
    ProgramNotStarted."""
    who: dict[str, Any] = {}
    if user is not None:
        who = {"user": user[0], "group": user[1], "extra_groups": []}
    try:
        if command.tty is not None:
            return _start_with_terminal(argv, env, cwd, command.tty, who)
        popen = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE if command.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            process_group=0,
            **who,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise not_started(argv[0], cwd, error) from None
    return popen, -1


def _start_with_terminal(
    argv: list[str], env: dict[str, str], cwd: str, size: Size, who: dict[str, Any]
) -> tuple[subprocess.Popen[bytes], int]:
    path = os.path.join(cwd, argv[0]) if "/" in argv[0] else argv[0]
    if shutil.which(path, path=env.get("PATH")) is None:
        raise FileNotFoundError(2, "No such file or directory", argv[0])
    master, slave = os.openpty()
    try:
        set_size(master, size)
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TTY, *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={"TERM": "xterm", **env},
            **who,
        )
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return popen, master


def not_started(program: str, cwd: str, error: Exception) -> ProgramNotStarted:
    """What a shell would say, with its status."""
    if not os.path.isdir(cwd):
        return ProgramNotStarted(f"{program}: no directory {cwd}", 127)
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ProgramNotStarted(
        f"{program}: {words}", 127 if isinstance(error, FileNotFoundError) else 126
    )


def set_size(terminal: int, size: Size) -> None:
    """Of a terminal."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))


def _end_of_file(terminal: int) -> bytes:
    """What a person would type."""
    found = termios.tcgetattr(terminal)[6][termios.VEOF]
    return found if isinstance(found, bytes) else bytes([found])


def _pidfd(pid: int) -> int:
    return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
