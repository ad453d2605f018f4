"""The floor: what the socket library alone does between two processes, one message at a time.

Owns: a plain blocking ROUTER/DEALER echo over ipc. It is the one place outside the package's
transport that imports zmq. Must never: import guactors.

    python -m benchmarks.floor            the client; answers "echo" with round trips a second
    python -m benchmarks.floor ADDRESS    the server; ends on an empty message
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable

import zmq

from benchmarks.children import Child, answer, rate, serve

SETTLE = 0.5
SLICE = 1.0
"""Seconds. Right after a pause the kernel runs both processes of a pair on one core, where an echo
takes half as long as between two; after some tenths of a second it spreads them, and there they
stay. Each slice therefore settles first, the raw one and ours alike."""
MESSAGE = bytes(64)
"""About as long as the header of a call without arguments."""


def settled(once: Callable[[], object]) -> float:
    """The steady rate."""
    rate(once, SETTLE)
    return rate(once, SLICE)


def server(address: str) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        socket.bind(address)
        answer(address)
        while True:
            sender, message = socket.recv_multipart()
            if not message:
                return
            socket.send_multipart((sender, message))


def client() -> None:
    with tempfile.TemporaryDirectory(prefix="gu-floor-") as directory:
        address = f"ipc://{directory}/echo"
        with (
            Child("benchmarks.floor", address) as echo,
            zmq.Context() as context,
            context.socket(zmq.DEALER) as socket,
        ):
            socket.linger = 100
            echo.ask()
            socket.connect(address)

            def once() -> None:
                socket.send(MESSAGE)
                socket.recv()

            try:
                serve({"echo": lambda: settled(once)})
            finally:
                socket.send(b"")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server(sys.argv[1])
    else:
        client()
