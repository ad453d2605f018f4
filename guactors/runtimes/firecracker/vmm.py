"""The process of Firecracker, one a machine.

Owns: the process with its group and its limits, from its start until nothing of it is left; the
last words of it and of the guest's console. Must never: keep more of those than a tail: a guest may
write to its console without end.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

assert sys.platform == "linux", "Firecracker is for Linux"

from guactors.errors import RuntimeMissing
from guactors.messages import Limits
from guactors.runtimes import process
from guactors.runtimes.base import Stats
from guactors.runtimes.firecracker.api import connect_unix
from guactors.runtimes.native.belonging import find_belonging
from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.native.images import clean_environment

SOCKET: Final = "api.sock"
OVERHEAD: Final = 64 << 20
"""Bytes of memory that the process may take beside those of its guest."""
_UP_WITHIN: Final = 5.0
_WORDS_WITHIN: Final = 0.5
_NAP: Final = 0.005
_TAIL: Final = 4096
_READ: Final = 65536
_SIGNALS: Final = {int(one): one.name for one in signal.Signals}


def command(binary: str, name: str, namespace: str = "") -> list[str]:
    """The words that start it, in the directory of the instance and in a network namespace."""
    words = [binary, "--api-sock", SOCKET, "--id", re.sub(r"[^A-Za-z0-9-]", "-", name)[:64]]
    return ["nsenter", f"--net={namespace}", "--", *words] if namespace else words


class Vmm:
    """A process that listens on its socket. Raises RuntimeMissing where it does not. Threads:
    any."""

    def __init__(
        self, words: list[str], instance: str, directory: Path, limits: Limits, guardian: Guardian
    ) -> None:
        self.instance = instance
        self._guardian = guardian
        self._lock = threading.Lock()
        self._tail = b""
        self._all_heard = threading.Event()
        self._reaped = self._closed = False
        if shutil.which(words[0]) is None:
            raise RuntimeMissing(f"{words[0]} is not installed, which {instance} needs")
        self._belonging = find_belonging(instance, limits)
        self._watched = self._belonging.watched()
        for kind, value in self._watched:
            guardian.watch(kind, value)
        try:
            self._popen = self._start(words, directory)
        except BaseException:
            self._end_rest()
            raise
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._hear, name=f"console of {instance}")
        self._thread.daemon = True
        self._thread.start()
        try:
            self._await_socket(directory)
        except BaseException:
            self.close()
            raise

    def _start(self, words: list[str], directory: Path) -> subprocess.Popen[bytes]:
        try:
            with self._belonging.birth() as before:
                popen = subprocess.Popen(
                    [*before, *words],
                    bufsize=0,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    env=clean_environment(),
                    process_group=0,
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise RuntimeMissing(f"{words[0]} does not start: {error}") from None
        self._guardian.watch("group", str(popen.pid))
        self._belonging.born(popen.pid)
        return popen

    def _await_socket(self, directory: Path) -> None:
        until = time.monotonic() + _UP_WITHIN
        while True:
            try:
                connect_unix(str(directory), SOCKET, _UP_WITHIN).close()
            except OSError as error:
                last = error
            else:
                return
            if why := self.lost():
                raise RuntimeMissing(why)
            if time.monotonic() > until:
                raise RuntimeMissing(
                    f"Firecracker of {self.instance} does not listen within {_UP_WITHIN:g} s: "
                    f"{last}{self.last_words()}"
                )
            time.sleep(_NAP)

    # --- news -----------------------------------------------------------------------------------

    def _hear(self) -> None:
        assert self._popen.stdout is not None
        out = self._popen.stdout.fileno()
        poll = select.poll()
        for fd in (out, self._stop):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop in ready:
                self._all_heard.set()
                return
            if not (data := os.read(out, _READ)):
                poll.unregister(out)
                self._all_heard.set()
            self._tail = (self._tail + data)[-_TAIL:]

    def last_words(self) -> str:
        """Of it and of the guest's console, for the end of a message."""
        said = self._tail.decode(errors="replace").strip()
        shown = "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in said)
        return f"; its last words: {shown}" if shown else ""

    def lost(self) -> str:
        """Why it is not there any more; empty while it is."""
        with self._lock:
            if not self._reaped and not process.has_ended(self._popen.pid):
                return ""
            self._reap()
            code = self._popen.returncode
            memory = self._belonging.out_of_memory() if not self._closed else ""
        # Its end may be known before what it said of that has been read.
        self._all_heard.wait(_WORDS_WITHIN)
        how = f"ended by {_SIGNALS.get(-code, -code)}" if code < 0 else f"ended with status {code}"
        return f"Firecracker of {self.instance} {how}{memory and '; '}{memory}{self.last_words()}"

    def stats(self) -> Stats:
        """Of the process, its guest's memory and time included."""
        with self._lock:
            return self._belonging.stats()

    # --- its end --------------------------------------------------------------------------------

    def kill(self) -> None:
        """It ends at once."""
        with self._lock:
            if not self._reaped:
                process.kill_group(self._popen.pid)

    def close(self) -> None:
        """Nothing is left when this returns. Idempotent; one thread at a time calls it."""
        if self._closed:
            return
        with self._lock:
            self._closed = True
            self._reap()
        os.write(self._stopper, b"x")
        self._thread.join()
        for fd in (self._stop, self._stopper):
            os.close(fd)
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        self._end_rest()

    def _reap(self) -> None:
        if self._reaped:
            return
        process.kill_group(self._popen.pid)
        with suppress(ProcessLookupError):
            os.kill(self._popen.pid, signal.SIGKILL)
        ended = process.reap(self._popen.pid, block=True)
        self._popen.returncode = os.waitstatus_to_exitcode(ended[0]) if ended else 0
        self._reaped = True
        self._guardian.forget("group", str(self._popen.pid))

    def _end_rest(self) -> None:
        with self._lock:
            self._belonging.end()
        for kind, value in self._watched:
            self._guardian.forget(kind, value)
