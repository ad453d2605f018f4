"""One QEMU process with its monitor and the line to its guest.

Owns: the process, its descriptors, its end. Must never: outlive its keeper (``native/guardian.py``
sees to that), or give QEMU a path where a descriptor will do.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from typing import Final

import msgspec

assert sys.platform == "linux", "QEMU is driven on Linux only"

from guactors.errors import RuntimeMissing
from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.qemu.argv import Machine, build_argv
from guactors.runtimes.qemu.found import namespaces
from guactors.runtimes.qemu.line import CLOSED, Line
from guactors.runtimes.qemu.qmp import Qmp

_END_WITHIN: Final = 10.0


class Vm:
    """``machine``: its descriptors for agent, console and monitor are set here, those of its disks
    are the caller's. Raises RuntimeMissing where QEMU cannot be started."""

    def __init__(self, machine: Machine, guardian: Guardian) -> None:
        self._guardian = guardian
        self._ending = threading.Lock()
        self._closed = False
        with ExitStack() as ours, ExitStack() as theirs:
            agent = _pair(ours, theirs)
            console = _pair(ours, theirs)
            monitor = _pair(ours, theirs)
            errors, stderr = os.pipe()
            ours.callback(os.close, errors)
            theirs.callback(os.close, stderr)
            machine = msgspec.structs.replace(
                machine,
                agent=agent[1].fileno(),
                console=console[1].fileno(),
                monitor=monitor[1].fileno(),
            )
            self._popen = _start(machine, stderr)
            self.pid = self._popen.pid
            self._pidfd = os.pidfd_open(self.pid)
            guardian.watch("group", str(self.pid))
            ours.pop_all()
        self.qmp = Qmp(monitor[0])
        self.line = Line(agent[0], (console[0].detach(), errors), self._pidfd, self._why)

    def _why(self) -> str:
        code = self._popen.wait()
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        found = self.line.tail()
        return f"QEMU ended {how}" + (f"; its last words: {found[-2000:]}" if found else "")

    def tail(self) -> str:
        """The last words of one that has not ended, in a form to put behind a sentence."""
        found = "" if self._popen.poll() is not None else self.line.tail()
        return f"; its last words: {found[-2000:]}" if found else ""

    def close(self, why: str = CLOSED) -> None:
        """Kill it. Idempotent; when it returns it is gone, whoever began it."""
        with self._ending:
            if self._closed:
                return
            self._closed = True
            self.line.finish(why)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._popen.wait(_END_WITHIN)
            self._guardian.forget("group", str(self.pid))
            self.qmp.close()
            self.line.close()
            os.close(self._pidfd)


def _pair(ours: ExitStack, theirs: ExitStack) -> tuple[socket.socket, socket.socket]:
    mine, other = socket.socketpair()
    ours.callback(mine.close)
    theirs.callback(other.close)
    return mine, other


def _start(machine: Machine, stderr: int) -> subprocess.Popen[bytes]:
    argv = [*namespaces(), *build_argv(machine)]
    inherited = [machine.agent, machine.console, machine.monitor]
    inherited += [disk.fd for disk in machine.disks]
    try:
        return subprocess.Popen(
            argv,
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
