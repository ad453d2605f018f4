"""What of a container can be seen from this process: its processes and the kernel's figures.

Owns: the way from the container's first process to its groups, and to its sessions. Must never:
take the number of a process for one of the container's unless its group says so: the daemon may
live among other numbers than we do, and then nothing can be seen.

The daemon tells figures too, but once a second only, and no counter of what was ended for memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from guactors.runtimes.base import Stats
from guactors.runtimes.cgroup_places import groups_of, number, processes
from guactors.runtimes.counters import counter
from guactors.runtimes.docker import init

_MOUNT: Final = Path("/sys/fs/cgroup")
_BEGINNING: Final = {
    (b"runc", b"init"),
    (b"/proc/self/exe", b"init"),
    (init.PATH.encode(), b"t"),
}
"""The words of what is there until it becomes the program."""
_MIB: Final = 2.0**20


class Sight:
    """Of a container. ``first``: its process 1, by its number here."""

    def __init__(self, first: int, container: str, paths: dict[str, Path]) -> None:
        self.first = first
        self._container = container
        self._paths = paths
        """Its groups by controller; the one of version 2 under the empty name."""

    def pids(self) -> set[int]:
        """All of it but the first."""
        for path in self._paths.values():
            found = set(processes(path))
            if found:
                return found - {self.first}
        return set()

    def session(self, leader: int) -> set[int]:
        """Those of the session of a program, which every program is given: what it started, unless
        that made a session of its own."""
        return {pid for pid in self.pids() if _session_of(pid) == leader}

    def is_ours(self, pid: int) -> bool:
        """Whether it is a process of the container, and lives."""
        if self._container not in _read(f"/proc/{pid}/cgroup"):
            return False
        return _fields(pid)[:1] not in ([], ["Z"], ["X"])

    def has_begun(self, pid: int) -> bool:
        """Whether it has become the program, or has ended."""
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return True
        if not line:  # about to become another program, or to end
            return not self.is_ours(pid)
        return tuple(line.split(b"\0")[:2]) not in _BEGINNING

    def inner(self, pids: Iterable[int]) -> list[int]:
        """Their numbers in the container."""
        return [
            int(line.split()[-1])
            for pid in pids
            for line in _read(f"/proc/{pid}/status").splitlines()
            if line.startswith("NSpid:")
        ]

    def stats(self) -> Stats:
        """What it has used."""
        cpu, memory, peak = self._cpu(), self._figure("memory.current"), self._figure("memory.peak")
        if "" not in self._paths or memory is None:
            memory = self._figure("memory.usage_in_bytes", "memory")
            peak = self._figure("memory.max_usage_in_bytes", "memory")
        read, written = self._moved()
        count = len(self.pids())
        return Stats(cpu, memory, peak, None, read, written, processes=count)

    def out_of_memory(self, limit: int) -> str:
        """Why one in it was ended for the memory of all; empty if none was."""
        if not limit or not self.was_out_of_memory():
            return ""
        return memory_words(limit, self.stats().memory_peak)

    def was_out_of_memory(self) -> bool:
        """Whether the kernel ended one of it for that."""
        for name, file in (("", "memory.events"), ("memory", "memory.oom_control")):
            if name in self._paths and counter(str(self._paths[name] / file), "oom_kill"):
                return True
        return False

    def _cpu(self) -> float | None:
        if "cpuacct" in self._paths:
            used = number(self._paths["cpuacct"] / "cpuacct.usage")
            if used is not None:
                return used / 1e9
        if "" in self._paths:
            used = counter(str(self._paths[""] / "cpu.stat"), "usage_usec")
            return None if used is None else used / 1e6
        return None

    def _figure(self, file: str, controller: str = "") -> int | None:
        path = self._paths.get(controller)
        return None if path is None else number(path / file)

    def _moved(self) -> tuple[int | None, int | None]:
        """Bytes from and to disks."""
        if "blkio" in self._paths:
            path = self._paths["blkio"] / "blkio.throttle.io_service_bytes"
            return _sum(path, "Read "), _sum(path, "Write ")
        if "" in self._paths:
            path = self._paths[""] / "io.stat"
            return _sum(path, "rbytes="), _sum(path, "wbytes=")
        return None, None


def find_sight(first: int, container: str) -> Sight | None:
    """None where the number ``first`` is here not that of the container's first process."""
    if first <= 0 or container not in _read(f"/proc/{first}/cgroup"):
        return None
    paths = {}
    for controller, path in groups_of(Path(f"/proc/{first}/cgroup")).items():
        here = _MOUNT / controller / path.lstrip("/")
        if controller == "" and not here.is_dir():
            here = _MOUNT / "unified" / path.lstrip("/")
        if here.is_dir() and not controller.startswith("name="):
            paths[controller] = here
    return Sight(first, container, paths) if paths else None


def memory_words(limit: int, peak: int | None) -> str:
    """What is told of an end for memory."""
    had = f", of which it had taken {peak / _MIB:.1f} MiB at most" if peak else ""
    return (
        f"it wanted more than its memory limit of {limit / _MIB:.1f} MiB{had}: allow more with "
        'limits={"memory": ...}, or give it less to do at a time'
    )


def _fields(pid: int) -> list[str]:
    """Of its ``stat``, from its state on."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _session_of(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[3]) if len(fields) > 3 else 0


def _sum(path: Path, word: str) -> int | None:
    """Of the figures that follow ``word`` in the lines of a file."""
    text = _read(os.fspath(path))
    found = [part.split()[0] for part in text.split(word)[1:] if part.split()]
    return sum(int(one) for one in found if one.isdigit())


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
