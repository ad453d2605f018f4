"""Which processes belong to an instance, and what is done to all of them.

Owns: the port :class:`Belonging` and its two adapters: groups that the kernel keeps, and a mark in
the environment where it keeps none for us. Must never: signal a process that is not the instance's.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final, Protocol

import psutil

from guactors.messages import Limits
from guactors.runtimes.base import Stats
from guactors.runtimes.cgroup import Group
from guactors.runtimes.cgroup_places import find_places
from guactors.runtimes.fences import RlimitFences
from guactors.runtimes.native.guardian import Kind

MARK: Final = "GU_INSTANCE"
"""The variable that says whose a process is, where no group does."""
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
_STOP: Final = getattr(signal, "SIGSTOP", signal.SIGTERM)
_CONTINUE: Final = getattr(signal, "SIGCONT", signal.SIGTERM)
_STOPPED: Final = {
    psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD, psutil.STATUS_DISK_SLEEP,
}  # fmt: skip
"""Asleep in the kernel is as good as stopped, for the signal waits there: a parent whose child was
stopped between vfork and exec would never come out."""
_WITHIN: Final = 2.0
_NAP: Final = 0.001


class Belonging(Protocol):
    """All processes of one instance. Threads: one at a time uses an object."""

    held: frozenset[str]
    """The limits that are held for all of them together."""

    def birth(self) -> AbstractContextManager[list[str]]:
        """What this thread starts meanwhile belongs to it, behind the words that are given."""

    def born(self, pid: int) -> None:
        """That was started in ``birth``."""

    def signal(self, number: int) -> None:
        """To all."""

    def alive(self) -> bool:
        """Whether there is any."""

    def freeze(self) -> None:
        """All stand still when this returns. Raises OSError where they do not."""

    def thaw(self) -> None:
        """They go on."""

    def watched(self) -> list[tuple[Kind, str]]:
        """What a guardian must end should this process be killed."""

    def out_of_memory(self) -> str:
        """Why one was ended for the memory of all, empty if none was."""

    def stats(self) -> Stats:
        """What they have used."""

    def end(self) -> None:
        """None is left when this returns."""


class Grouped:
    """By a group of the kernel's: nothing leaves it."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.held = frozenset({"cpu", "memory", *({"pids"} & group.paths.keys())})

    def birth(self) -> AbstractContextManager[list[str]]:
        """See the port; so all that follow."""
        return self._group.birth()

    def born(self, pid: int) -> None:
        """Nothing is to be done."""

    def signal(self, number: int) -> None:
        """To all."""
        self._group.signal(number)

    def alive(self) -> bool:
        """Whether there is any."""
        return bool(self._group.pids())

    def freeze(self) -> None:
        """All stand still."""
        if self._group.can_freeze:
            self._group.freeze()
        else:
            _stand_still(self._pids)

    def thaw(self) -> None:
        """They go on."""
        if self._group.can_freeze:
            self._group.thaw()
        else:
            self._group.signal(_CONTINUE)

    def _pids(self) -> set[int]:
        return self._group.pids()

    def watched(self) -> list[tuple[Kind, str]]:
        """See the port."""
        return [("cgroup", str(path)) for path in dict.fromkeys(self._group.paths.values())]

    def out_of_memory(self) -> str:
        """See the port."""
        return self._group.out_of_memory()

    def stats(self) -> Stats:
        """See the port."""
        memory, peak = self._group.memory()
        pids = self._group.pids()
        read, written = _bytes_moved(pids)
        return Stats(
            self._group.cpu_seconds(), memory, peak, None, read, written, processes=len(pids)
        )

    def end(self) -> None:
        """None is left."""
        self._group.remove()


class Marked:
    """By a variable that every process inherits, unless it throws its environment away."""

    held: frozenset[str] = frozenset()

    def __init__(self, instance: str, limits: Limits) -> None:
        self._instance = instance
        self._limits = limits
        self._fences = RlimitFences()
        self._cpu = 0.0

    @contextmanager
    def birth(self) -> Iterator[list[str]]:
        """See the port; so all that follow."""
        yield []

    def born(self, pid: int) -> None:
        """Hold what can be held: the memory of each."""
        with suppress(OSError):
            self._fences.put(self._instance, pid, self._limits)

    def signal(self, number: int) -> None:
        """To all."""
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def alive(self) -> bool:
        """Whether there is any."""
        return bool(self._all())

    def freeze(self) -> None:
        """All stand still."""
        if sys.platform == "win32":
            for process in self._all():
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
        else:
            _stand_still(lambda: {process.pid for process in self._all()})

    def thaw(self) -> None:
        """They go on."""
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def watched(self) -> list[tuple[Kind, str]]:
        """Its children have groups, which are watched one by one."""
        return []

    def out_of_memory(self) -> str:
        """Nobody counts."""
        return ""

    def stats(self) -> Stats:
        """Of those that live."""
        cpu = memory = count = 0.0
        found = self._all()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu += times.user + times.system + times.children_user + times.children_system
                memory += process.memory_info().rss
                count += 1
        read, written = _bytes_moved({process.pid for process in found})
        return Stats(cpu, int(memory), None, None, read, written, processes=int(count))

    def end(self) -> None:
        """None is left."""
        until = time.monotonic() + _WITHIN
        while (left := self._all()) and time.monotonic() < until:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(_NAP)

    def _all(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get(MARK) == self._instance:
                    found.append(process)
            except psutil.Error:
                continue
        return found


def find_belonging(instance: str, limits: Limits, *, counted: bool = True) -> Belonging:
    """The strongest there is. GU_LIMITS (``cgroup``, ``rlimit``, ``none``) wants others. Not
    ``counted``: without all that is only for ``stats``."""
    if sys.platform == "linux" and os.environ.get("GU_LIMITS", "") not in {"rlimit", "none"}:
        places = find_places()
        if places is not None:
            tracked = "pids" if "pids" in places.bases else "memory"
            also = (tracked, "memory", "cpuacct") if counted else (tracked,)
            return Grouped(Group(places, instance, limits, also))
    return Marked(instance, limits)


def _stand_still(pids: object) -> None:
    """Stop all of them, and those that they start meanwhile."""
    assert callable(pids)
    until = time.monotonic() + _WITHIN
    stopped: set[int] = set()
    while late := pids() - stopped:
        for pid in late:
            with suppress(ProcessLookupError):
                os.kill(pid, _STOP)
        stopped |= late
    for pid in stopped:
        while _runs(pid):
            if time.monotonic() > until:
                raise OSError(f"process {pid} does not stand still")
            time.sleep(_NAP)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in _STOPPED
    except psutil.NoSuchProcess:
        return False


def _bytes_moved(pids: set[int]) -> tuple[int | None, int | None]:
    """Read from and written to disks by those that live, None where the system does not say."""
    if sys.platform == "darwin":
        return None, None
    read = written = 0
    for pid in pids:
        try:
            found = psutil.Process(pid).io_counters()
        except psutil.NoSuchProcess:
            continue
        except (psutil.Error, AttributeError):
            return None, None
        read += found.read_bytes
        written += found.write_bytes
    return read, written
