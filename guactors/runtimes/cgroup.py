"""One group of processes that the system holds to limits, counts, stops and ends together.

Owns: its directories, one in each hierarchy. Must never: move a process that it was not given, or
leave a directory behind.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from guactors.errors import InternalError
from guactors.messages import Limits
from guactors.runtimes.cgroup_places import (
    Places,
    group_name,
    number,
    processes,
    remove,
    write,
    write_if_there,
)
from guactors.runtimes.counters import counter

PERIOD: Final = 100_000
"""Microseconds over which processor time is held."""
LEAST_QUOTA: Final = 1000
"""The kernel takes no less."""
FREEZE_WITHIN: Final = 2.0
_END_WITHIN: Final = 2.0
_NAP: Final = 0.0005
_STILL: Final = frozenset("DZX")
"""States of threads, as /proc has them."""
_MIB: Final = 2.0**20
_ENTER: Final = 'echo 0 > "$0" && exec "$@"'


class Group:
    """``name``: its own among those of this process. It is made in the hierarchies that its limits
    need and in those of ``also``, as far as they are there. Raises OSError where the kernel does
    not want."""

    def __init__(self, places: Places, name: str, limits: Limits, also: Sequence[str] = ()) -> None:
        self._places = places
        self._name = group_name(name)
        self._limits = limits
        self.paths: dict[str, Path] = {}
        try:
            for controller in dict.fromkeys((*_needed(limits), *also)):
                if controller in places.bases:
                    self._make(controller)
            self._limit(limits)
        except OSError:
            self.remove()
            raise

    def _make(self, controller: str) -> Path:
        path = self._places.bases[controller] / self._name
        if path not in self.paths.values():
            path.mkdir()
        self.paths[controller] = path
        return path

    def _limit(self, limits: Limits) -> None:
        unified = self._places.unified
        if limits.cpu:
            quota, path = _quota(limits.cpu), self.paths["cpu"]
            if unified:
                write(path / "cpu.max", f"{quota} {PERIOD}")
            else:
                write(path / "cpu.cfs_period_us", str(PERIOD))
                write(path / "cpu.cfs_quota_us", str(quota))
        if limits.memory:
            most, path = str(limits.memory), self.paths["memory"]
            if unified:
                write(path / "memory.max", most)
                write_if_there(path / "memory.swap.max", "0")
                write_if_there(path / "memory.oom.group", "1")
            else:
                write(path / "memory.limit_in_bytes", most)
                write_if_there(path / "memory.memsw.limit_in_bytes", most)
        if limits.pids and "pids" in self.paths:
            write(self.paths["pids"] / "pids.max", str(limits.pids))

    def hold(self, limits: Limits) -> None:
        """To these from here on, for what must not be slow at its start."""
        self._limits = limits
        self._limit(limits)

    # --- who is in it ---------------------------------------------------------------------------

    def add(self, pid: int) -> None:
        """A process, and what it starts from here on."""
        for path in self._all():
            write(path / "cgroup.procs", str(pid))

    @contextmanager
    def birth(self) -> Iterator[list[str]]:
        """What this thread starts meanwhile is born in here, behind the words that are given. Only
        one that stands still in a frozen group could not come back: that hierarchy is left out, and
        joined by ``freeze``."""
        if self._places.unified:
            # Threads cannot go alone there: the process itself goes, before it is the program.
            yield ["/bin/sh", "-c", _ENTER, str(self._any() / "cgroup.procs")]
            return
        me = str(threading.get_native_id())
        there = [name for name in self.paths if name != "freezer"]
        try:
            for name in there:
                write(self.paths[name] / "tasks", me)
            yield []
        finally:
            for name in there:
                write(self._places.own[name] / "tasks", me)

    def pids(self) -> set[int]:
        """All that are in it."""
        return {pid for path in self._all() for pid in processes(path)}

    # --- all together ---------------------------------------------------------------------------

    def freeze(self) -> None:
        """All in it stand still when this returns. Raises OSError where they do not."""
        if self._places.unified:
            write(self._any() / "cgroup.freeze", "1")
            self._await_frozen(lambda: counter(str(self._any() / "cgroup.events"), "frozen") == 1)
            return
        path = self.paths.get("freezer") or self._make("freezer")
        while late := self.pids() - set(processes(path)):
            for pid in late:
                self._join(path, pid)
        write(path / "freezer.state", "FROZEN")
        state = path / "freezer.state"
        self._await_frozen(lambda: state.read_text().strip() == "FROZEN" or _asleep(path))

    def thaw(self) -> None:
        """They go on."""
        if self._places.unified:
            write(self._any() / "cgroup.freeze", "0")
        elif "freezer" in self.paths:
            write(self.paths["freezer"] / "freezer.state", "THAWED")

    @property
    def can_freeze(self) -> bool:
        """Whether the kernel lets us."""
        return "freezer" in self._places.bases

    def signal(self, sent: int) -> None:
        """To all in it."""
        for pid in self.pids():
            try:
                os.kill(pid, sent)
            except ProcessLookupError:
                continue

    def remove(self) -> None:
        """End all that is in it, and it. Raises InternalError if something does not end."""
        if self._places.unified and self.paths:
            write_if_there(self._any() / "cgroup.freeze", "0")
        elif "freezer" in self.paths:
            write_if_there(self.paths["freezer"] / "freezer.state", "THAWED")
        left = self._all()
        until = time.monotonic() + _END_WITHIN
        while left := [path for path in left if not remove(path)]:
            if time.monotonic() > until:
                raise InternalError(f"the group {left[0]} does not end: what is in it hangs")
            time.sleep(_NAP)
        self.paths.clear()

    def try_remove(self) -> bool:
        """As ``remove``, without waiting: whether it is gone."""
        self.paths = {name: path for name, path in self.paths.items() if not remove(path)}
        return not self.paths

    # --- what it has used -----------------------------------------------------------------------

    def cpu_seconds(self) -> float | None:
        """Of all that ever were in it."""
        if self._places.unified:
            found = counter(str(self._any() / "cpu.stat"), "usage_usec")
            return None if found is None else found / 1e6
        used = number(self.paths["cpuacct"] / "cpuacct.usage") if "cpuacct" in self.paths else None
        return None if used is None else used / 1e9

    def memory(self) -> tuple[int | None, int | None]:
        """Bytes now, and at most."""
        path = self.paths.get("memory")
        if path is None:
            return None, None
        if self._places.unified:
            return number(path / "memory.current"), number(path / "memory.peak")
        now, peak = path / "memory.usage_in_bytes", path / "memory.max_usage_in_bytes"
        return number(now), number(peak)

    def out_of_memory(self) -> str:
        """Why one in it was ended for the memory of all; empty if none was."""
        path = self.paths.get("memory")
        if path is None or not self._limits.memory:
            return ""
        events = "memory.events" if self._places.unified else "memory.oom_control"
        if not counter(str(path / events), "oom_kill"):
            return ""
        peak = self.memory()[1]
        had = f", of which it had taken {peak / _MIB:.1f} MiB at most" if peak else ""
        return (
            f"it wanted more than its memory limit of {self._limits.memory / _MIB:.1f} MiB{had}: "
            'allow more with limits={"memory": ...}, or give it less to do at a time'
        )

    # --- helpers --------------------------------------------------------------------------------

    def _all(self) -> list[Path]:
        return list(dict.fromkeys(self.paths.values()))

    def _any(self) -> Path:
        return next(iter(self.paths.values()))

    def _join(self, path: Path, pid: int) -> None:
        try:
            write(path / "cgroup.procs", str(pid))
        except ProcessLookupError:
            return

    def _await_frozen(self, frozen: object) -> None:
        assert callable(frozen)
        until = time.monotonic() + FREEZE_WITHIN
        while not frozen():
            if time.monotonic() > until:
                self.thaw()
                raise OSError(f"something in {self._any().name} does not stand still")
            time.sleep(_NAP)


def _asleep(path: Path) -> bool:
    """Whether every thread of a group that is being frozen sleeps in the kernel, where it stays: a
    parent whose child was frozen between vfork and exec is never counted as frozen."""
    for thread in (path / "tasks").read_text().split():
        try:
            words = Path("/proc", thread, "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words.rpartition(") ")[2][:1] not in _STILL:
            return False
    return True


def _needed(limits: Limits) -> list[str]:
    wanted = [("cpu", limits.cpu), ("memory", limits.memory), ("pids", limits.pids)]
    return [name for name, value in wanted if value]


def _quota(cpu: float) -> int:
    return max(LEAST_QUOTA, round(cpu * PERIOD))
