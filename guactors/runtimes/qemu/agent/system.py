"""The system around programs: clock, randomness, limits, and who there is.

Owns: the kernel's files in the guest. Must never: touch those of a machine that is no guest.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

assert sys.platform == "linux", "runs in guests"

from guactors.runtimes.qemu.agent.program import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

KILL = 9
_RESEED = 0x5207


class System:
    """``started``: asked for the programs that live, where no group of the kernel's knows."""

    def __init__(self, place: Place, started: Callable[[], list[int]]) -> None:
        self.place = place
        self._started = started

    def set_clock(self, nanoseconds: int) -> None:
        """Of the guest; 0 leaves it."""
        if nanoseconds and os.getpid() == 1:
            time.clock_settime_ns(time.CLOCK_REALTIME, nanoseconds)

    def seed(self, seed: object) -> None:
        """A guest that was restored would else draw what another one drew."""
        if isinstance(seed, bytes) and seed and os.getpid() == 1:
            fd = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, seed)
            fcntl.ioctl(fd, _RESEED)
            os.close(fd)

    def limit(self, memory: int, pids: int) -> None:
        """What all programs together may have, 0 for no limit."""
        group = self.place.group
        if not group:
            return
        write(f"{group}/memory.max", str(memory or "max"))
        write(f"{group}/memory.oom.group", "1")
        write(f"{group}/pids.max", str(pids or "max"))

    def ooms(self) -> int:
        """How many were ended for the memory of all so far."""
        for line in read(f"{self.place.group}/memory.events").split("\n"):
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0

    def members(self) -> list[int]:
        """All that programs started and that lives."""
        if self.place.group:
            return [int(word) for word in read(f"{self.place.group}/cgroup.procs").split()]
        return self._started()

    def signal_all(self, number: int) -> None:
        """To all of these."""
        if number == KILL and self.place.group:
            write(f"{self.place.group}/cgroup.kill", "1")
            return
        for pid in self.members():
            try:
                os.kill(pid, number) if self.place.group else os.killpg(pid, number)
            except ProcessLookupError:
                continue

    def disk(self) -> int:
        """Bytes in use of what is written to."""
        found = os.statvfs("/upper" if self.place.root else ".")
        return (found.f_blocks - found.f_bfree) * found.f_frsize


def children() -> list[int]:
    """Of the first process."""
    return [int(word) for word in read("/proc/1/task/1/children").split()]


def read(path: str) -> str:
    """The text of a file of the kernel's, empty where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 1 << 20).decode()
    finally:
        os.close(fd)


def write(path: str, said: str) -> None:
    """To a file of the kernel's."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, said.encode())
    finally:
        os.close(fd)
