"""The line to the host: a port of the machine, or whoever connects to a socket of the guest.

Owns: how one is opened, and opened again. Must never: take a stream from anybody but the host, or
import ``socket``, which is slow.
"""

from __future__ import annotations

import _socket
import os
import sys

assert sys.platform == "linux", "runs in guests"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HOST = 2
"""The number of the host among the ends of a vsock."""
_WAITING = 8
VSOCK, LISTENING = "vsock:", "listening:"


def open_line(where: str) -> tuple[int, Callable[[], int] | None]:
    """The descriptor of the line, and what waits for the next one where this can break and another
    follow. ``where``: the path of a port, the number of a descriptor, ``vsock:`` with the number of
    a port of a vsock, or ``listening:`` with the descriptor of a socket that listens."""
    if where.startswith(VSOCK):
        made = _socket.socket(_socket.AF_VSOCK, _socket.SOCK_STREAM)
        made.bind((_socket.VMADDR_CID_ANY, int(where.removeprefix(VSOCK))))
        made.listen(_WAITING)
    elif where.startswith(LISTENING):
        made = _socket.socket(fileno=int(where.removeprefix(LISTENING)))
    elif where.isdigit():
        return int(where), None
    else:
        return os.open(where, os.O_RDWR | os.O_CLOEXEC), None

    def wait() -> int:
        while True:
            fd, peer = made._accept()  # type: ignore[attr-defined]
            if made.family != _socket.AF_VSOCK or peer[0] == _HOST:
                return int(fd)
            os.close(fd)

    return wait(), wait
