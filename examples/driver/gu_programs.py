"""Programs as children of the driver: streams, credit, terminals, ends."""

from __future__ import annotations

import base64
import errno
import os
import selectors
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

assert sys.platform != "win32", "needs POSIX"

import fcntl
import termios

if TYPE_CHECKING:
    from gu_driver import Driver

PIECE = 65536
LINGER = 1.0
"""Seconds that output is waited for once a program has ended: what it left behind may hold it."""


class Refused(Exception):
    """The answer ``error``; ``code``: of ``not_started``, what a shell would exit with."""

    def __init__(self, kind: str, message: str, code: int = 127) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code


class Program:
    """Started by its maker; Refused where that cannot be."""

    ROOM = 262144
    """Bytes of input that are held."""

    def __init__(
        self,
        driver: Driver,
        message: dict[str, Any],
        words: list[str],
        cwd: str,
        env: dict[str, str],
    ) -> None:
        self._driver = driver
        self.number: int = message["program"]
        self._credit: int = message["credit"]
        self._main: bool = message["main"]
        self._waiting = bytearray()
        self._given = 0
        self._input_ends = False
        self._forgotten = False
        self._code: int | None = None
        self._left: dict[int, int] | None = None
        """Once it is not waited for output any more: bytes that are still read, by descriptor."""
        self._streams: dict[int, int] = {}
        self._input = self._terminal = -1
        self._popen = self._start(message, words, cwd, env)
        self.pid = self._popen.pid
        self._watch_all()

    @property
    def lives(self) -> bool:
        return self._code is None

    # --- orders ---------------------------------------------------------------------------------

    def order_input(self, message: dict[str, Any]) -> None:
        self._waiting += base64.b64decode(message["data"])
        self._write()

    def order_close_input(self, _: dict[str, Any]) -> None:
        if self._terminal >= 0:
            found = termios.tcgetattr(self._terminal)[6][termios.VEOF]
            self._waiting += found if isinstance(found, bytes) else bytes([found])
        else:
            self._input_ends = True
        self._write()

    def order_resize(self, message: dict[str, Any]) -> None:
        if self._terminal >= 0:
            set_size(self._terminal, message)

    def order_signal(self, message: dict[str, Any]) -> None:
        if self.lives:
            self._signal(message["number"])

    def order_credit(self, message: dict[str, Any]) -> None:
        self._credit += message["bytes"]
        self._watch_all()
        self._read_left()

    def order_forget(self, _: dict[str, Any]) -> None:
        self._forgotten = True
        if self.lives:
            self._signal(signal.SIGKILL)
        else:
            self._end()

    # --- news -----------------------------------------------------------------------------------

    def reaped(self, code: int) -> None:
        """It has ended, and its number is nobody's any more."""
        self._code = self._popen.returncode = code
        if self._main:
            self._driver.end_all()
        if self._forgotten or not self._streams:
            self._end()
        else:
            self._driver.loop.at(LINGER, self._stop_waiting)

    def _ready(self, fd: int, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._write()
        if mask & selectors.EVENT_READ and fd in self._streams and self._credit > 0:
            self._read(fd, PIECE)

    def _read(self, fd: int, most: int) -> None:
        try:
            data = os.read(fd, min(most, self._credit, PIECE))
        except BlockingIOError:
            return
        except OSError:  # of a terminal that nobody else holds any more
            data = b""
        if not data:
            self._drop(fd)
            return
        if self._left is not None:
            self._left[fd] -= len(data)
        if self._forgotten:
            return
        self._credit -= len(data)
        text = base64.b64encode(data).decode()
        self._driver.tell(type="output", program=self.number, stream=self._streams[fd], data=text)
        if self._credit <= 0:
            self._watch_all()

    def _stop_waiting(self) -> None:
        """What is there already is told, what comes later is not."""
        self._left = {fd: available(fd) for fd in self._streams}
        self._read_left()

    def _read_left(self) -> None:
        if self._left is None:
            return
        for fd in list(self._streams):
            while self._credit > 0 and fd in self._streams:
                if self._left[fd] <= 0:
                    self._drop(fd)
                else:
                    self._read(fd, self._left[fd])

    def _drop(self, fd: int) -> None:
        self._driver.loop.watch(fd, 0, lambda _: None)
        del self._streams[fd]
        if fd == self._terminal:
            self._terminal = self._input = -1
        os.close(fd)
        if not self._streams and self._code is not None:
            self._end()

    def _end(self) -> None:
        if self._driver.programs.pop(self.number, None) is None:
            return
        self._close_input()
        for fd in list(self._streams):
            self._drop(fd)
        assert self._code is not None
        how = {"code": self._code} if self._code >= 0 else {"signal": -self._code}
        self._driver.tell(type="exit", program=self.number, **how)

    # --- input ----------------------------------------------------------------------------------

    def _write(self) -> None:
        """As much as it takes; what nobody reads any more is dropped."""
        before = len(self._waiting)
        try:
            while self._waiting and self._input >= 0:
                del self._waiting[: os.write(self._input, self._waiting[:PIECE])]
        except BlockingIOError:
            pass
        except OSError:
            self._waiting.clear()
        if self._input < 0:
            self._waiting.clear()
        self._given += before - len(self._waiting)
        if self._given >= self.ROOM // 4 or (self._given and not self._waiting):
            self._driver.tell(type="credit", program=self.number, bytes=self._given)
            self._given = 0
        if self._input_ends and not self._waiting:
            self._close_input()
        else:
            self._watch(self._input)

    def _close_input(self) -> None:
        if self._input >= 0 and self._input != self._terminal:
            self._driver.loop.watch(self._input, 0, lambda _: None)
            os.close(self._input)
            self._input = -1

    # --- helpers --------------------------------------------------------------------------------

    def _watch_all(self) -> None:
        for fd in self._streams:
            self._watch(fd)

    def _watch(self, fd: int) -> None:
        if fd < 0:
            return
        mask = selectors.EVENT_READ if fd in self._streams and self._credit > 0 else 0
        if fd == self._input and self._waiting:
            mask |= selectors.EVENT_WRITE
        self._driver.loop.watch(fd, mask, lambda ready: self._ready(fd, ready))

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    def _start(
        self, message: dict[str, Any], words: list[str], cwd: str, env: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        who = find_user(message["user"])
        try:
            if message["tty"] is not None:
                return self._start_with_terminal(message["tty"], words, cwd, env, who)
            popen = subprocess.Popen(
                words,
                bufsize=0,
                stdin=subprocess.PIPE if message["stdin"] else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=env,
                process_group=0,
                **who,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise not_started(words[0], cwd, error) from None
        for pipe, stream in ((popen.stdin, 0), (popen.stdout, 1), (popen.stderr, 2)):
            if pipe is not None:
                self._take(os.dup(pipe.fileno()), stream)
                pipe.close()
        return popen

    def _take(self, fd: int, stream: int) -> None:
        os.set_blocking(fd, False)
        if stream:
            self._streams[fd] = stream
        else:
            self._input = fd

    def _start_with_terminal(
        self,
        size: dict[str, Any],
        words: list[str],
        cwd: str,
        env: dict[str, str],
        who: dict[str, Any],
    ) -> subprocess.Popen[bytes]:
        master, slave = os.openpty()
        try:
            set_size(master, size)
            popen = subprocess.Popen(
                words,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=cwd,
                env={"TERM": "xterm", **env},
                start_new_session=True,
                # Only the process itself can take a terminal; and there are no threads here.
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
                **who,
            )
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        self._terminal = self._input = master
        self._take(master, 1)
        return popen


def not_started(program: str, cwd: str, error: Exception) -> Refused:
    if not os.path.isdir(cwd):
        return Refused("not_started", f"{program}: no directory {cwd}", 127)
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    missing = isinstance(error, OSError) and error.errno == errno.ENOENT
    return Refused("not_started", f"{program}: {said}", 127 if missing else 126)


def find_user(text: str) -> dict[str, Any]:
    """What Popen wants for ``USER`` or ``USER:GROUP``, names or numbers."""
    if not text:
        return {}
    import grp
    import pwd

    name, _, group = text.partition(":")
    try:
        known = None if name.isdigit() else pwd.getpwnam(name)
        user = int(name) if known is None else known.pw_uid
        own = user if known is None else known.pw_gid
        found = own if not group else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise Refused("usage", f"there is no user {text!r}") from None
    return {"user": user, "group": found, "extra_groups": []}


def descendants(pid: int) -> dict[int, str]:
    """All below a process, with their states as in proc(5)."""
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                words = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        children.setdefault(int(words[1]), []).append((int(entry), words[0].decode()))
    found: dict[int, str] = {}
    above = [pid]
    while above:
        for child, letter in children.get(above.pop(), []):
            found[child] = letter
            above.append(child)
    return found


def available(fd: int) -> int:
    """Bytes that can be read at once."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])


def set_size(terminal: int, size: dict[str, Any]) -> None:
    packed = struct.pack("HHHH", size["rows"], size["columns"], 0, 0)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, packed)
