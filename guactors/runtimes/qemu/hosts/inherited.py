"""QEMU with channels and files that it inherits: no name, no port, nobody else can come near.

Owns: the pairs of sockets, and what the process is started with, where systems have descriptors.
Must never: let QEMU inherit a descriptor that was not meant for it.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import msgspec

from guactors.errors import RuntimeMissing
from guactors.runtimes.qemu.argv import Machine, build_argv
from guactors.runtimes.qemu.hosts.ending import End, Launched


def start_inheriting(
    machine: Machine,
    end: Callable[[subprocess.Popen[bytes]], End],
    before: Sequence[str] = (),
) -> Launched:
    """``end``: how its end is noticed; ``before``: the words that start it, which must become it.
    Raises RuntimeMissing."""
    with ExitStack() as ours, ExitStack() as theirs:
        agent, console, monitor, errors = (_pair(ours, theirs) for _ in range(4))
        machine = msgspec.structs.replace(
            machine,
            agent=agent[1].fileno(),
            console=console[1].fileno(),
            monitor=monitor[1].fileno(),
        )
        popen = _start(machine, before, errors[1].fileno())
        try:
            noticed = end(popen)
        except BaseException:
            popen.kill()
            popen.wait()
            raise
        ours.pop_all()
    return Launched(popen, noticed, agent[0], monitor[0], (console[0], errors[0]))


def _pair(ours: ExitStack, theirs: ExitStack) -> tuple[socket.socket, socket.socket]:
    mine, other = socket.socketpair()
    ours.callback(mine.close)
    theirs.callback(other.close)
    return mine, other


def _start(machine: Machine, before: Sequence[str], stderr: int) -> subprocess.Popen[bytes]:
    inherited = [machine.agent, machine.console, machine.monitor]
    inherited += [disk.fd for disk in machine.disks]
    try:
        return subprocess.Popen(
            [*before, *build_argv(machine)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=inherited,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise RuntimeMissing(f"{machine.qemu} cannot be started: {error}") from None
