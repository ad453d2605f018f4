"""One peer: a process that measures it.

    python -m benchmarks.peer_side PEER SECONDS

Owns: how each measure of a peer is timed. It says what the peer cannot once it has had its first
result, then answers the key of a measure with its figures. Runs in the peer's own environment.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.children import answer, rate, serve
from benchmarks.peer_kinds import KINDS, Peer

IN_FLIGHT = 1000
TASKS = 10_000
SLICES = 2


class WrongAnswer(Exception):
    """A peer returned something else than it should."""


def echoes(peer: Peer, size: int, seconds: float) -> list[float]:
    """Echoes a second of so many bytes; one call at a time."""
    data = os.urandom(size)
    if bytes(peer.echo(data)) != data:
        raise WrongAnswer(f"echo of {size} bytes: others came back")
    return slices(lambda: peer.echo(data), seconds)


def floods(peer: Peer, seconds: float) -> list[float]:
    if peer.flood(IN_FLIGHT) != [1] * IN_FLIGHT:
        raise WrongAnswer("flood: other answers came back")
    return slices(lambda: peer.flood(IN_FLIGHT), seconds, IN_FLIGHT)


def tasks(peer: Peer) -> list[float]:
    """Seconds."""
    began = time.perf_counter()
    if peer.tasks(TASKS) != TASKS:
        raise WrongAnswer("tasks: not all came back")
    return [time.perf_counter() - began]


def slices(once: Callable[[], object], seconds: float, each: int = 1) -> list[float]:
    """Rates after a warm-up."""
    steps(once, seconds / 2, each)
    return [steps(once, seconds, each) for _ in range(SLICES)]


def steps(once: Callable[[], object], seconds: float, each: int) -> float:
    """As ``children.rate``, for calls of which one may take longer than all of ``seconds``."""
    began = time.perf_counter()
    once()
    took = time.perf_counter() - began
    if took > seconds / 20:
        count = 1
        while (passed := time.perf_counter() - began) < seconds:
            once()
            count += 1
        return each * count / passed
    return rate(once, seconds, each)


def main(name: str, seconds: float) -> None:
    # Whatever a library prints must not come between the answers.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # As in an activated environment: some start their own programs by name, and import what is
    # sent to them by name, too.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["PYTHONPATH"] = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="gu-peer-", ignore_cleanup_errors=True) as directory:
        os.environ.setdefault("GU_HOME", os.path.join(directory, "home"))
        peer = KINDS[name](Path(directory))
        peer.start()
        try:
            if peer.echo(1) != 1:
                raise WrongAnswer("the first result is wrong")
            answer(peer.cannot)
            serve({
                "call": lambda: slices(lambda: peer.echo(1), seconds),
                "flood": lambda: floods(peer, seconds),
                "echo_1k": lambda: echoes(peer, 1_000, seconds),
                "echo_1m": lambda: echoes(peer, 1_000_000, seconds),
                "echo_64m": lambda: echoes(peer, 64_000_000, seconds),
                "actor": lambda: slices(peer.actor, seconds),
                "tasks": lambda: tasks(peer),
            })  # fmt: skip
        finally:
            peer.close()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
