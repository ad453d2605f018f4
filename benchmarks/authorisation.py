"""What it costs that each message is authorised by the key it comes from.

    python -m benchmarks.authorisation [--check]

Owns: four figures, each against its own floor in the same run, by turns:

* ``message_us``: a message through a listener with CURVE, with its doors asked and without;
* ``actor_call_percent``: that, of an actor call over TCP with CURVE;
* ``control_us``: a control message of a caller through the hub's rooms, by the grants of an app and
  for a local process, which is judged by nothing;
* ``join_ms``: dial, handshake, challenge, proof, welcome.

Prints one line of JSON: medians. ``--check``: exit status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import guactors as gu
from benchmarks import grids
from guactors import messages as m
from guactors.config import Identity, Timing
from guactors.grid_client import GridClient
from guactors.grid_file import read_grid_file
from guactors.hub_core import HubCore
from guactors.ids import LinkKey, fresh
from guactors.scheduling import events as e
from guactors.security import grants, keys, rights
from guactors.security.key_files import key_path
from guactors.transport.base import Lane
from guactors.transport.doors import KeySet
from guactors.transport.zmq_link import ZmqTransport, new_keypair

ROUNDS = 9
MESSAGES = 5000
TARGETS = {"actor_call_percent": 5.0, "control_us": 20.0, "join_ms": 150.0}
NOW = 1_800_000_000


@gu.remote
class Echo:
    def echo(self) -> int:
        return 1


def message_us() -> tuple[float, float]:
    """Microseconds of receiving a message: with the doors asked, without."""
    pair = new_keypair()
    transport = ZmqTransport(Identity(*pair))
    times: dict[bool, list[float]] = {True: [], False: []}
    try:
        for number in range(2 * ROUNDS):
            asked = number % 2 == 0
            listener: Any = transport.listen("tcp://127.0.0.1:0", doors=KeySet([pair[0]]))
            if not asked:
                # As on a socket file: nobody is asked.
                listener._doors = None
                listener._take_from = tuple(port.take_from for port in listener._ports)
            times[asked].append(_receive(transport, listener))
            listener.close()
    finally:
        transport.close()
    return statistics.median(times[True]), statistics.median(times[False])


def _receive(transport: ZmqTransport, listener: Any) -> float:
    link = transport.dial(listener.endpoint)
    frame = [bytes(100)]
    for _ in range(MESSAGES):
        link.send(Lane.DATA, frame)
    heard, spent = 0, 0.0
    while heard < MESSAGES:
        begun = time.perf_counter()
        got = listener.receive(Lane.DATA)
        if got is not None:
            spent += time.perf_counter() - begun
            heard += 1
    link.close()
    return spent / MESSAGES * 1e6


def actor_call_us() -> float:
    """Microseconds of one call of an actor over TCP with CURVE."""
    os.environ["GU_TRANSPORT"] = "tcp"
    try:
        with grids.launched(workers_on_tcp=True):
            echo = Echo.remote()
            gu.get(echo.echo.remote())
            rounds = []
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                for _ in range(200):
                    gu.get(echo.echo.remote())
                rounds.append((time.perf_counter() - begun) / 200 * 1e6)
    finally:
        del os.environ["GU_TRANSPORT"]
    return statistics.median(rounds)


def control_us() -> tuple[float, float]:
    """Microseconds of SetDemand in the hub's rooms: of an app with five grants, of a local one."""
    secret = [keys.new_secret(kind, bytes(32)) for kind in (keys.Kind.OWNER, keys.Kind.HUB,
                                                             keys.Kind.APP)]  # fmt: skip
    owner, hub, app = (one.public.text for one in secret)
    wide = grants.build_grant(
        hub=hub, app=app, issuer=owner, serial=1, now=NOW - 10, providers=["*"],
        runtimes=["python"], function_signers=["*"], max_priority=9,
        quotas={"cpu": "*", "memory": "*", "gpu": "*", "storage": "*", "instances": "*"},
        actions=["submit", "read_stats"],
    )  # fmt: skip
    # Four that do not fit come first.
    narrow = grants.build_grant(
        hub=hub, app=app, issuer=owner, serial=2, now=NOW - 10, providers=["label:a=b"],
        runtimes=["docker"], actions=["read_stats"],
    )  # fmt: skip
    allowed = rights.Rights(grants=(narrow,) * 4 + (wide,), principal=app)
    cores = {
        True: _core(e.Standing(app, "app", "app", allowed)),
        False: _core(e.Standing()),
    }
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * ROUNDS):
        judged = number % 2 == 0
        times[judged].append(_demands(cores[judged]))
    return statistics.median(times[True]), statistics.median(times[False])


def _core(standing: e.Standing) -> HubCore:
    core = HubCore("h", Timing(), fresh, now=0.0, wall=lambda _: float(NOW))
    versions = m.Versions("0", "3.11.0")
    hellos = [m.Hello("p-1", "provider", versions, 1, "here", name="box"),
              m.Hello("c-1", "caller", versions, 1, "here", "s-1", True)]  # fmt: skip
    for hello in hellos:
        core.on_message(LinkKey(f"k-{hello.peer}"), hello, 20.0)
    core.on_message(LinkKey("k-p-1"), m.Offer({"CPU": 1.0}, {}, [], [], m.MachineInfo()), 20.0)
    peer = core.hub.peers.by_link["k-c-1"]
    peer.standing = standing
    joined = e.CallerJoined("c-1", "s-1", "3.11", True, "", standing)
    core.scheduler.handle(joined, 20.0)
    return core


def _demands(core: HubCore) -> float:
    link, shape = LinkKey("k-c-1"), m.Shape({"CPU": 1.0})
    core.on_message(link, m.SetDemand("d", shape, 2), 20.0)
    messages = [m.SetDemand("d", shape, count) for count in (3, 2)]
    begun = time.perf_counter()
    for _ in range(500):
        for message in messages:
            core.on_message(link, message, 20.0)
    return (time.perf_counter() - begun) / 1000 * 1e6


def join_ms() -> float:
    """Milliseconds from nothing to a welcome over TCP, by an owner's key."""
    with grids.launched():
        grid = read_grid_file()
        assert grid is not None
        owner = str(key_path(keys.Kind.OWNER, "main"))

        def join() -> None:
            with GridClient(grid.address, key=owner):
                return

        return _median_ms(join)


def _median_ms(work: Callable[[], None]) -> float:
    times = []
    work()
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description="what authorisation costs")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    (checked, unchecked), call = message_us(), actor_call_us()
    judged, free = control_us()
    found = {
        "message_us": checked, "message_floor_us": unchecked, "actor_call_us": call,
        "actor_call_percent": 100 * (checked - unchecked) / call,
        "control_message_us": judged, "control_floor_us": free, "control_us": judged - free,
        "join_ms": join_ms(),
    }  # fmt: skip
    missed = [name for name, most in TARGETS.items() if found[name] > most]
    rounded = {name: round(value, 2) for name, value in found.items()}
    print(json.dumps({**rounded, "targets": TARGETS, "missed": missed}))
    return 1 if asked.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
