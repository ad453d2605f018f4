"""In which order Firecracker is asked: its states, and what each allows.

Owns: the state of one process, what may be asked in it, and the requests that boot a machine or go
on with a saved one. Must never: send anything.

::

    FRESH ──PUT of a device──> SET UP ──InstanceStart──> RUNNING <──Resumed──┐
      │                                                     └───Paused────> PAUSED
      └─────────────────────────snapshot/load───────────────────────────────^
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from guactors.errors import InternalError, ProtocolError
from guactors.runtimes.firecracker import requests
from guactors.runtimes.firecracker.requests import Network, Request

INTERFACE: Final = "eth0"
ROOT: Final = "rootfs"
SCRATCH: Final = "scratch"


class State(StrEnum):
    """Of a process of Firecracker."""

    FRESH = "fresh"
    SET_UP = "set up"
    RUNNING = "running"
    PAUSED = "paused"


class Plan(Struct, frozen=True):
    """What a machine is made of. Paths as in ``requests.py``; ``rootfs``, ``scratch``: disks to
    read and to write, empty for none; ``cid``: of its vsock, whose socket is at ``vsock``."""

    cpus: int
    memory_mib: int
    kernel: str
    initrd: str
    arguments: str
    rootfs: str
    scratch: str
    vsock: str
    cid: int = requests.LEAST_CID
    network: Network | None = None


def boot(plan: Plan) -> list[Request]:
    """Everything until it runs."""
    wanted = [
        requests.machine_config(plan.cpus, plan.memory_mib),
        requests.boot_source(plan.kernel, plan.initrd, plan.arguments),
    ]
    if plan.rootfs:
        # Root in name only: the initrd mounts it by its place. With a root device Firecracker
        # would add ``root=`` to the arguments, which must be as we say.
        wanted.append(requests.drive(ROOT, plan.rootfs, root=False, read_only=True))
    if plan.scratch:
        wanted.append(requests.drive(SCRATCH, plan.scratch, root=False, read_only=False))
    if plan.network is not None:
        wanted.append(requests.network_interface(INTERFACE, plan.network))
    wanted += [requests.vsock(plan.cid, plan.vsock), requests.entropy()]
    return [*wanted, requests.instance_start()]


def restore(state: str, memory: str, network: Network | None) -> list[Request]:
    """Everything until one that was saved runs again."""
    networks = {INTERFACE: network.device} if network is not None else None
    return [requests.snapshot_load(state, memory, networks=networks), requests.resume()]


def save(state: str, memory: str) -> list[Request]:
    """Everything until one that runs, or is paused, is saved."""
    return [requests.pause(), requests.snapshot_create(state, memory)]


class Sequence:
    """The state of one process, by what it was asked. Threads: one at a time uses an object."""

    def __init__(self) -> None:
        self.state = State.FRESH

    def check(self, request: Request) -> None:
        """Raise InternalError for what cannot be asked now."""
        if self.state not in _allowed(request):
            raise InternalError(f"{request} of a Firecracker that is {self.state}")

    def done(self, request: Request) -> None:
        """It was, and is in another state by that, if it is."""
        self.state = _after(request, self.state)

    def agrees(self, said: object) -> None:
        """Raise ProtocolError where Firecracker says (``GET /``) that it is in another."""
        if said != _NAMES[self.state]:
            raise ProtocolError(
                "unexpected", f"it is {str(said)[:40]!r}, and should be {self.state}"
            )


_NAMES: Final = {
    State.FRESH: "Not started",
    State.SET_UP: "Not started",
    State.RUNNING: "Running",
    State.PAUSED: "Paused",
}
_BEFORE: Final = (State.FRESH, State.SET_UP)
_AFTER: Final = (State.RUNNING, State.PAUSED)


def _allowed(request: Request) -> tuple[State, ...]:
    body: dict[str, Any] = request.body or {}
    if request.method == "GET":
        return tuple(State)
    if request.path == "/vm":
        return _AFTER
    if request.path == "/snapshot/create":
        return (State.PAUSED,)
    if request.path == "/snapshot/load":
        return (State.FRESH,)
    if request.path == "/actions":
        return _BEFORE if body["action_type"] == "InstanceStart" else _AFTER
    return _BEFORE


def _after(request: Request, state: State) -> State:
    body: dict[str, Any] = request.body or {}
    if request.path == "/snapshot/load":
        return State.RUNNING if body["resume_vm"] else State.PAUSED
    if request.path == "/vm":
        return State.PAUSED if body["state"] == "Paused" else State.RUNNING
    if request.path == "/actions" and body["action_type"] == "InstanceStart":
        return State.RUNNING
    return State.SET_UP if request.method == "PUT" and state is State.FRESH else state
