"""One QEMU process with its monitor and the line to its guest.

Owns: the process, from its start to its end. Must never: outlive its keeper (``native/guardian.py``
sees to that where there is a shell).
"""

from __future__ import annotations

import threading
from typing import Final

from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.qemu.argv import Machine
from guactors.runtimes.qemu.hosts.base import Host
from guactors.runtimes.qemu.line import CLOSED, Line
from guactors.runtimes.qemu.qmp import Qmp

_END_WITHIN: Final = 10.0


class Vm:
    """``machine``: its channels are the host's to make, the descriptors of its disks are the
    caller's. Raises RuntimeMissing where QEMU cannot be started."""

    def __init__(self, machine: Machine, guardian: Guardian, host: Host) -> None:
        self._guardian = guardian
        self._ending = threading.Lock()
        self._closed = False
        started = self._started = host.start(machine)
        self.pid = started.pid
        try:
            guardian.watch("group", str(self.pid))
            self.qmp = Qmp(started.monitor)
            self.line = Line(started.agent, started.others, started.end.alive, self._why)
        except BaseException:
            started.end.kill()
            started.end.wait(_END_WITHIN)
            started.end.close()
            raise

    def _why(self) -> str:
        found = self.line.tail()
        return f"QEMU ended {self._started.how()}" + (
            f"; its last words: {found[-2000:]}" if found else ""
        )

    def tail(self) -> str:
        """The last words of one that has not ended, in a form to put behind a sentence."""
        found = self.line.tail() if self._started.runs() else ""
        return f"; its last words: {found[-2000:]}" if found else ""

    def close(self, why: str = CLOSED) -> None:
        """Kill it. Idempotent; when it returns it is gone, whoever began it."""
        with self._ending:
            if self._closed:
                return
            self._closed = True
            self.line.finish(why)
            self._started.end.kill()
            self._started.end.wait(_END_WITHIN)
            self._guardian.forget("group", str(self.pid))
            self.qmp.close()
            self.line.close()
            self._started.end.close()
