"""The way to the agent: a Unix socket that Firecracker connects with a port of the guest.

Owns: the handshake (``CONNECT <port>``, ``OK <number>``), and the wait for an agent that is not up
yet. Must never: read a byte that is the agent's.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

assert sys.platform == "linux", "Firecracker is for Linux"

from guactors.errors import InstanceLost, ProtocolError
from guactors.runtimes.firecracker.api import connect_unix

_OK: Final = re.compile(rb"OK ([0-9]{1,10})\n")
_MOST: Final = 32
"""Bytes of the answer."""
_NAP: Final = 0.02
_ONE: Final = 2.0
"""Seconds for one try: a guest that is not up may leave it unanswered."""


def hello(port: int) -> bytes:
    """What is said first."""
    return f"CONNECT {port}\n".encode()


def read_ok(said: bytes) -> int:
    """The number of our end, that Firecracker chose. Raises ProtocolError."""
    found = _OK.fullmatch(said)
    if found is None or int(found[1]) >= 2**32:
        raise ProtocolError("malformed", f"{said[:_MOST]!r} instead of OK and a number")
    return int(found[1])


def connect(
    directory: str, name: str, port: int, within: float, lost: Callable[[], str]
) -> socket.socket:
    """A stream to ``port`` of the guest, which must listen there within so many seconds. ``lost``:
    why the machine is not there any more. Raises InstanceLost and ProtocolError."""
    until = time.monotonic() + within
    last = "nobody listens"
    while (left := until - time.monotonic()) > 0:
        if why := lost():
            raise InstanceLost(why)
        try:
            return _try(directory, name, port, min(left, _ONE))
        except OSError as error:
            last = str(error) or type(error).__name__
        time.sleep(min(_NAP, max(0.0, until - time.monotonic())))
    raise InstanceLost(f"the agent does not listen on port {port} within {within:g} s: {last}")


def _try(directory: str, name: str, port: int, within: float) -> socket.socket:
    made = connect_unix(directory, name, within)
    try:
        made.sendall(hello(port))
        said = b""
        while not said.endswith(b"\n") and len(said) < _MOST:
            # One at a time: what follows the line is the agent's.
            byte = made.recv(1)
            if not byte:
                raise ConnectionRefusedError("the guest refuses the connection")
            said += byte
        read_ok(said)
        made.settimeout(None)
    except BaseException:
        made.close()
        raise
    return made
