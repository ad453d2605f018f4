"""Firecracker's API: HTTP on a Unix socket, asked and answered.

Owns: the connection, its deadline, the size of what is read. Must never: send what the state does
not allow, or believe the length or the form of an answer.
"""

from __future__ import annotations

import http.client
import os
import socket
import sys
from contextlib import suppress
from typing import Any, Final

assert sys.platform == "linux", "Firecracker is for Linux"

import msgspec

from guactors.errors import ProtocolError
from guactors.runtimes.firecracker import requests
from guactors.runtimes.firecracker.requests import Request
from guactors.runtimes.firecracker.sequence import Sequence

MOST_ANSWER: Final = 1 << 20
"""Bytes of an answer that are read."""
WITHIN: Final = 10.0
"""Seconds that an answer may take; those of snapshots take their size."""
WITHIN_SNAPSHOT: Final = 600.0
_GOOD: Final = {200, 204}
_MOST_SHOWN: Final = 1000


class Fault(Exception):
    """It said no, and why."""


class Silence(Exception):
    """It is not there, or does not answer."""


class Api:
    """At the socket ``name`` in the directory ``directory``. Threads: one at a time uses it."""

    def __init__(self, directory: str, name: str) -> None:
        self._directory = directory
        self._name = name
        self.sequence = Sequence()

    def ask(self, request: Request, within: float | None = None) -> dict[str, Any]:
        """What it answers. Raises Fault, Silence, and ProtocolError for what is no answer."""
        self.sequence.check(request)
        slow = request.path.startswith("/snapshot/")
        within = within or (WITHIN_SNAPSHOT if slow else WITHIN)
        connection = _Connection(self._directory, self._name, within)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            body = request.data if request.body is not None else None
            with suppress(BrokenPipeError):  # it may have answered already, and says why
                connection.request(request.method, request.path, body, headers)
            answer = connection.getresponse()
            data = answer.read(MOST_ANSWER + 1)
            status = answer.status
        except (OSError, http.client.HTTPException) as error:
            raise Silence(f"{request}: {error or type(error).__name__}") from None
        finally:
            connection.close()
        found = read_answer(request, status, data)
        self.sequence.done(request)
        return found

    def confirm(self) -> None:
        """Raise ProtocolError if it is not in the state that it should be in."""
        self.sequence.agrees(self.ask(requests.describe()).get("state"))


def read_answer(request: Request, status: int, data: bytes) -> dict[str, Any]:
    """What an answer says. Raises Fault and ProtocolError."""
    if len(data) > MOST_ANSWER:
        raise ProtocolError("too_large", f"{request}: an answer of more than {MOST_ANSWER} bytes")
    if status in _GOOD:
        return _object(request, data) if data else {}
    try:
        fault = _object(request, data)["fault_message"]
    except (ProtocolError, KeyError):
        fault = data[:_MOST_SHOWN].decode(errors="replace")
    raise Fault(f"{request}: status {status}: {str(fault)[:_MOST_SHOWN]}")


def _object(request: Request, data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ProtocolError("malformed", f"{request}: {error}") from None


def connect_unix(directory: str, name: str, within: float) -> socket.socket:
    """A connection to a socket of any path: those of the kernel's have 107 bytes at most."""
    above = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(within)
        made.connect(f"/proc/self/fd/{above}/{name}")
    except BaseException:
        made.close()
        raise
    finally:
        os.close(above)
    return made


class _Connection(http.client.HTTPConnection):
    def __init__(self, directory: str, name: str, within: float) -> None:
        super().__init__("localhost", timeout=within)
        self._place = directory, name, within

    def connect(self) -> None:
        self.sock = connect_unix(*self._place)
