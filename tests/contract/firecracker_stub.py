"""Machines of Firecracker without a machine: our runtime whole, the stand-in for its program, and
the real agent as a process.

Owns: the program that is put in place of firecracker, an image, an agent that outlives its machine.
Must never: ask the kernel for a machine.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from guactors.images.build import add_rootfs
from guactors.images.manifest import Config
from guactors.images.store import ImageStore
from guactors.runtimes.base import Capability
from guactors.runtimes.firecracker import probing
from guactors.runtimes.firecracker.guests import FirecrackerRuntime
from guactors.runtimes.qemu.guest.make import Guest
from tests.contract.firecracker_server import VERSION
from tests.contract.guest_stub import HOME, agent_words
from tests.contract.runtime_bench import Bench

PROGRAM = Path(__file__).parent / "firecracker_agent.py"
NOT_HELD = frozenset({Capability.MEMORY, Capability.PIDS, Capability.DISK, Capability.SAVE})
"""A process has no memory and no disk of its own."""


class StubBench(Bench):
    """``agent``: what the stand-in is told of it, None for one a machine."""

    def __init__(self, directory: Path, agent: Any = None) -> None:
        self._no_kvm = mock.patch.object(probing, "check_kvm")
        self._no_kvm.start()
        store = ImageStore(directory / "store", quota=1 << 30, now=time.time)
        blob = store.ingest([b"hsqs and so on"], role="rootfs", media="squashfs")
        image = add_rootfs(store, blob, name="stub", config=Config(workdir=HOME))
        runtime = FirecrackerRuntime(
            lambda: store,
            cache=directory / "cache",
            guest=files(directory),
            binary=program(directory, agent or agent_words("guest", "listening:{line}")),
        )
        super().__init__(runtime, directory, image, without=NOT_HELD)

    def close(self) -> None:
        super().close()
        self._no_kvm.stop()


def files(directory: Path) -> Guest:
    """Of a guest that looks like one."""
    kernel, initrd = directory / "kernel", directory / "initrd"
    kernel.write_bytes(b"\x7fELF of a kernel")
    initrd.write_bytes(b"070701")
    return Guest(kernel, initrd, "key", "6.1-stub")


def program(directory: Path, agent: Any) -> str:
    """What is run as firecracker."""
    path = directory / "firecracker"
    words = shlex.join([sys.executable, "-S", str(PROGRAM), json.dumps(agent)])
    path.write_text(
        "#!/bin/sh\n"
        f'if test "$1" = --version; then echo "Firecracker v{VERSION}"; exit; fi\n'
        f'exec {words} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


@contextmanager
def standing_agent(directory: Path) -> Iterator[dict[str, Any]]:
    """One that outlives the machines that it is the guest of: what the stand-in is told of it."""
    home, path = directory / "guest-home", directory / "guest.sock"
    home.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        line = listener.fileno()
        words = agent_words(str(home), f"listening:{line}")
        agent = subprocess.Popen(words, pass_fds=[line])
    try:
        yield {"socket": str(path), "pid": agent.pid}
    finally:
        agent.kill()
        agent.wait()
