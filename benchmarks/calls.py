"""How fast calls are: one at a time beside the raw floor, and 1,000 in flight by ipc and by TCP.

Owns: the rows ``actor_sync``, ``task_sync``, ``actor_flood``, ``tcp_flood``. What is compared takes
turns in short slices: floor, actor, floor, task, floor; ipc, tcp, ipc. A call has no argument and
returns b"ok".

    python -m benchmarks.calls ipc|tcp    a caller with a grid of its own
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import guactors as gu
from benchmarks import floor, grids
from benchmarks.children import Child, ChildFailed, rate, serve

IN_FLIGHT = 1000
PAIRS = 8
SYNC_PAIRS = 3
"""Neighbours in time are compared, often: what else the machine does changes within a second."""
BATCHES = 60
WARM_UP = 0.03
FLOOD = 0.5


@gu.remote
class Echo:
    def ping(self) -> bytes:
        return b"ok"

    def pid(self) -> int:
        return os.getpid()


@gu.remote
def ok() -> bytes:
    return b"ok"


def one_at_a_time() -> dict[str, list[float]]:
    """Calls a second, and the share of the floor slices right before and after each."""
    names = ("raw_echo", "actor_rate", "task_rate", "actor_sync", "task_sync")
    found: dict[str, list[float]] = {name: [] for name in names}
    with Child("benchmarks.floor") as raw, Child("benchmarks.calls", "ipc") as ipc:
        before = raw.ask("echo")
        for _ in range(SYNC_PAIRS):
            for what in ("actor", "task"):
                rate_of_calls = ipc.ask(what)
                after = raw.ask("echo")
                found["raw_echo"].append(after)
                found[f"{what}_rate"].append(rate_of_calls)
                found[f"{what}_sync"].append(rate_of_calls / ((before + after) / 2))
                before = after
    return found


def many_in_flight() -> dict[str, list[float]]:
    """Calls a second with 1,000 in flight, and the share that is left by TCP with CURVE."""
    found: dict[str, list[float]] = {"actor_flood": [], "tcp_rate": [], "tcp_flood": []}
    tcp_only = {"GU_TRANSPORT": "tcp"}
    with (
        Child("benchmarks.calls", "ipc") as ipc,
        Child("benchmarks.calls", "tcp", env=tcp_only) as tcp,
    ):
        for child, wire in ((ipc, "ipc"), (tcp, "tcp")):
            if (used := child.ask("wire")) != wire:
                raise ChildFailed(f"calls were to go by {wire}, but go by {used}")
        before = ipc.ask("flood")
        for _ in range(PAIRS):
            crypted = tcp.ask("flood")
            after = ipc.ask("flood")
            found["actor_flood"].append(after)
            found["tcp_rate"].append(crypted)
            found["tcp_flood"].append(crypted / ((before + after) / 2))
            before = after
    return found


def timed(once: Callable[[], object], seconds: float, each: int = 1) -> float:
    """The rate after a warm-up: the lease is there again, the clock of the CPU is up."""
    rate(once, WARM_UP, each)
    return rate(once, seconds, each)


def batches(count: int) -> list[float]:
    """Milliseconds of each of ``count`` batches of 1,000 calls, on the session of this process."""
    actor = Echo.remote()  # type: ignore[attr-defined]
    ping = actor.ping.remote
    gu.get(ping())
    found = []
    for _ in range(count):
        began = time.perf_counter()
        gu.get([ping() for _ in range(IN_FLIGHT)])
        found.append((time.perf_counter() - began) * 1e3)
    return found


def main(wire: str) -> None:
    # The same grid for both, so that nothing differs but the wire.
    with grids.launched(workers_on_tcp=wire == "tcp"):
        actor = Echo.remote()  # type: ignore[attr-defined]
        pid = gu.get(actor.pid.remote())
        ping = actor.ping.remote
        serve({
            "wire": lambda: grids.wire_to(pid),
            "actor": lambda: floor.settled(lambda: gu.get(ping())),
            "task": lambda: floor.settled(lambda: gu.get(ok.remote())),
            "batches": lambda: batches(BATCHES),
            "flood": lambda: timed(
                lambda: gu.get([ping() for _ in range(IN_FLIGHT)]), FLOOD, IN_FLIGHT
            ),
        })  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
