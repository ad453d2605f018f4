"""QEMU's monitor.

Owns: its socket, the greeting, questions and answers. Must never: wait without a deadline, or take
an event for an answer.
"""

from __future__ import annotations

import array
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Final

import msgspec

from guactors.errors import InstanceLost, InternalError

WITHIN: Final = 10.0
_LINE_MOST: Final = 1 << 20


class Refusal(InternalError):
    """QEMU does not do what it was asked to."""


class Qmp:
    """Of one QEMU. ``sock`` is closed with it. Threads: any."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._held = b""
        self._count = 0
        self._greeted = False
        self._closed = False

    def execute(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        within: float = WITHIN,
        fd: int = -1,
    ) -> Any:
        """The answer to a command. ``fd``: a descriptor that goes with it. Raises Refusal, and
        InstanceLost where QEMU is not there any more or does not answer."""
        with self._lock:
            until = time.monotonic() + within
            if not self._greeted:
                greeting = self._message(until)
                if "QMP" not in greeting:
                    raise InstanceLost("QEMU's monitor greets us with something else")
                self._greeted = True
                self._ask("qmp_capabilities", {}, until, -1)
            return self._ask(command, arguments or {}, until, fd)

    def _ask(self, command: str, arguments: dict[str, Any], until: float, fd: int) -> Any:
        self._count += 1
        mine = f"gu-{self._count}"
        said = msgspec.json.encode({"execute": command, "arguments": arguments, "id": mine})
        try:
            self._sock.settimeout(max(0.001, until - time.monotonic()))
            if fd < 0:
                self._sock.sendall(said + b"\n")
            else:
                _send_with(self._sock, said + b"\n", fd)
        except OSError as error:
            raise InstanceLost(f"QEMU's monitor cannot be reached: {error}") from None
        while True:
            answer = self._message(until)
            if answer.get("id") != mine:
                continue  # an event, or the answer to a question that took too long
            if "return" in answer:
                return answer["return"]
            fault = answer.get("error")
            why = fault.get("desc") if isinstance(fault, dict) else fault
            raise Refusal(f"QEMU does not do {command}: {why}")

    def _message(self, until: float) -> dict[str, Any]:
        while True:
            line, found, rest = self._held.partition(b"\n")
            if found:
                self._held = rest
                with suppress(msgspec.DecodeError):
                    message = msgspec.json.decode(line)
                    if isinstance(message, dict):
                        return message
                raise InstanceLost("QEMU's monitor says what is no message")
            if len(self._held) > _LINE_MOST:
                raise InstanceLost("QEMU's monitor says more than a line may have")
            try:
                self._sock.settimeout(max(0.001, until - time.monotonic()))
                data = self._sock.recv(65536)
            except TimeoutError:
                raise InstanceLost("QEMU's monitor does not answer: the emulator hangs") from None
            except OSError as error:
                raise InstanceLost(f"QEMU's monitor is closed: {error}") from None
            if not data:
                raise InstanceLost("QEMU has ended")
            self._held += data

    def close(self) -> None:
        """Idempotent."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def _send_with(sock: socket.socket, said: bytes, fd: int) -> None:
    if sys.platform == "win32":
        raise Refusal("QEMU cannot be given a file there")
    rights = array.array("i", [fd])
    sock.sendmsg([said], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
