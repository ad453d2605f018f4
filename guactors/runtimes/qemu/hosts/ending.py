"""QEMU as it was started: its process, its channels, its end.

Owns: how an end is noticed, for one thread waits for it and for the channels: by a descriptor of
the process, or by another thread. Must never: signal a number that is not QEMU's any more.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Protocol

_READ = 65536


class End(Protocol):
    """Of a process. ``alive``: a descriptor that becomes readable then."""

    alive: int

    def kill(self) -> None:
        """Bring it about. Nothing where it has come."""

    def wait(self, within: float) -> None:
        """Until then. Raises subprocess.TimeoutExpired."""

    def close(self) -> None:
        """Nobody waits for it any more. It has come."""


class Launched:
    """``agent``, ``monitor``: our ends of its channels; ``others``: those that have its last words.
    Whoever takes the channels closes them."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        end: End,
        agent: socket.socket,
        monitor: socket.socket,
        others: tuple[socket.socket, ...],
    ) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.end = end
        self.agent = agent
        self.monitor = monitor
        self.others = others

    def how(self) -> str:
        """It has ended: in words."""
        return how_ended(self._popen.wait())

    def runs(self) -> bool:
        """Whether it has not."""
        return self._popen.poll() is None


def how_ended(code: int) -> str:
    """Of a process with that return code."""
    return f"by signal {-code}" if code < 0 else f"with status {code}"


if sys.platform == "linux":

    class PidfdEnd:
        """By a descriptor of the process."""

        def __init__(self, popen: subprocess.Popen[bytes]) -> None:
            self._popen = popen
            self.alive = os.pidfd_open(popen.pid)

        def kill(self) -> None:
            """See the port; so all that follow."""
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.alive, signal.SIGKILL)

        def wait(self, within: float) -> None:
            """Until then."""
            self._popen.wait(within)

        def close(self) -> None:
            """The descriptor goes."""
            os.close(self.alive)


class WaitedEnd:
    """By a thread that waits for it, where processes have no descriptors. ``words``: a socket that
    gets what the process says on its stream of errors before its end is told, and is closed by the
    thread; what nobody takes away there is lost."""

    def __init__(self, popen: subprocess.Popen[bytes], words: socket.socket | None = None) -> None:
        self._popen = popen
        self._words = words
        if words is not None:
            words.setblocking(False)
        self._told, self._telling = socket.socketpair()
        self.alive = self._told.fileno()
        self._thread = threading.Thread(target=self._wait, name="end of QEMU", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        if self._words is not None:
            with self._words:
                self._forward(self._words)
        self._popen.wait()
        self._telling.close()

    def _forward(self, words: socket.socket) -> None:
        assert self._popen.stderr is not None
        with self._popen.stderr as errors:
            while data := errors.read(_READ):
                with suppress(OSError):  # nobody listens any more, or not now: it may talk on
                    words.sendall(data)

    def kill(self) -> None:
        """See the port; so all that follow."""
        self._popen.kill()

    def wait(self, within: float) -> None:
        """Until then."""
        self._thread.join(within)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired(self._popen.args, within)

    def close(self) -> None:
        """The sockets go."""
        self._thread.join()
        self._told.close()
