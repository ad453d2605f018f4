"""A daemon that talks sense as long as it is told to.

Owns: a socket, before that of a daemon, and the threads that carry what is said. Must never: change
what passes while it is to talk sense.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress

_READ = 65536


class Proxy:
    """``path``: of its socket; ``daemon``: of the other one. ``nonsense``: what it answers to all
    that it is asked from now on, before it hangs up; None for what the daemon says. ``asked``: the
    first lines of what was asked since ``nonsense`` was set."""

    def __init__(self, path: str, daemon: str) -> None:
        self.path = path
        self.nonsense: bytes | None = None
        self.asked: list[bytes] = []
        self._daemon = daemon
        self._threads: list[threading.Thread] = []
        self._lines: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._start(self._accept)

    def close(self) -> None:
        """All lines end."""
        for line in (self._listener, *self._lines):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, target: object, *words: object) -> None:
        thread = threading.Thread(target=target, args=words)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self._lines.append(line)
            self._start(self._carry, line)

    def _carry(self, line: socket.socket) -> None:
        with line, socket.socket(socket.AF_UNIX) as other, suppress(OSError):
            other.connect(self._daemon)
            ways = {line: other, other: line}
            while ways:
                for source in select.select(list(ways), [], [])[0]:
                    data = source.recv(_READ)
                    if source is line and data and self.nonsense is not None:
                        self.asked.append(data.partition(b"\r\n")[0])
                        line.sendall(self.nonsense)
                        return
                    if data:
                        ways[source].sendall(data)
                        continue
                    ways.pop(source).shutdown(socket.SHUT_WR)
                    if source is other:
                        return
