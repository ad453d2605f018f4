"""How fast calls are: one at a time beside the raw floor, and 1,000 in flight by ipc and by TCP.

Owns: the rows ``actor_sync``, ``task_sync``, ``actor_flood``, ``tcp_flood``. What is compared takes
turns: floor, actor, floor, task, floor; ipc, tcp, ipc. A call has no argument and returns b"ok".

    python -m benchmarks.calls ipc|tcp    a caller with a grid of its own
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import guactors as gu
from benchmarks import floor, grids
from benchmarks.children import Child, ChildFailed, rate, serve

IN_FLIGHT = 1000
WARM_UP = 0.1
FLOOD = 0.6


@gu.remote
class Echo:
    def ping(self) -> bytes:
        return b"ok"

    def pid(self) -> int:
        return os.getpid()


@gu.remote
def ok() -> bytes:
    return b"ok"


def one_at_a_time() -> dict[str, float]:
    """Calls a second, and their share of the floor beside them."""
    with Child("benchmarks.floor") as raw, Child("benchmarks.calls", "ipc") as ipc:
        first = raw.ask("echo")
        actor = ipc.ask("actor")
        second = raw.ask("echo")
        task = ipc.ask("task")
        third = raw.ask("echo")
    return {
        "raw_echo": second,
        "actor_rate": actor,
        "task_rate": task,
        "actor_sync": actor / ((first + second) / 2),
        "task_sync": task / ((second + third) / 2),
    }


def many_in_flight() -> dict[str, float]:
    """Calls a second with 1,000 in flight, and the share that is left by TCP with CURVE."""
    with Child("benchmarks.calls", "ipc") as ipc:
        tcp = Child("benchmarks.calls", "tcp", env={"GU_TRANSPORT": "tcp"})
        with tcp:
            for child, wire in ((ipc, "ipc"), (tcp, "tcp")):
                if (found := child.ask("wire")) != wire:
                    raise ChildFailed(f"calls were to go by {wire}, but go by {found}")
            first = ipc.ask("flood")
            crypted = tcp.ask("flood")
            second = ipc.ask("flood")
    plain = (first + second) / 2
    return {"actor_flood": plain, "tcp_rate": crypted, "tcp_flood": crypted / plain}


def timed(once: Callable[[], object], seconds: float, each: int = 1) -> float:
    """The rate after a warm-up: the lease is there again, the clock of the CPU is up."""
    rate(once, WARM_UP, each)
    return rate(once, seconds, each)


def main(wire: str) -> None:
    # The same grid for both, so that nothing differs but the wire.
    with grids.launched(workers_on_tcp=wire == "tcp"):
        actor = Echo.remote()  # type: ignore[attr-defined]
        pid = gu.get(actor.pid.remote())
        ping = actor.ping.remote
        serve({
            "wire": lambda: grids.wire_to(pid),
            "actor": lambda: timed(lambda: gu.get(ping()), floor.SLICE),
            "task": lambda: timed(lambda: gu.get(ok.remote()), floor.SLICE),
            "flood": lambda: timed(
                lambda: gu.get([ping() for _ in range(IN_FLIGHT)]), FLOOD, IN_FLIGHT
            ),
        })  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
