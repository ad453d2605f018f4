"""Fences by cgroups: version 2 where they are delegated to us, version 1, or both side by side.

Owns: the groups below our own one whose names begin with ``guactors-PID-``. Must never: move a
process that is not a worker's, change a group that it did not make, or leave one behind: those of
a provider that was killed are removed by the next one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from guactors.messages import Limits
from guactors.runtimes.counters import counter

log = logging.getLogger("guactors.provider")

PERIOD: Final = 100_000
"""Microseconds over which processor time is held."""
LEAST_QUOTA: Final = 1000
"""The kernel takes no less."""
_PREFIX: Final = "guactors-"
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
_MIB: Final = 2.0**20
_CLOSE_WITHIN: Final = 0.5


class _Group(Struct):
    """``memory``: the limit, 0 for none; ``paths``: its directories, one for each hierarchy."""

    memory: int
    paths: list[Path]


class CgroupFences:
    """:class:`~guactors.runtimes.fences.Fences`. ``cpu``, ``memory``: the directories to make
    groups in; the same one: that is version 2."""

    def __init__(self, cpu: Path, memory: Path) -> None:
        self._cpu = cpu
        self._memory = memory
        self._unified = cpu == memory
        self.guarantee = "cgroup-v2" if self._unified else "cgroup-v1"
        self._groups: dict[str, _Group] = {}
        self._left: list[Path] = []
        """Directories that could not be removed yet: the last process in there is ending."""

    def put(self, worker: str, pid: int, limits: Limits) -> None:
        """See the port."""
        self._tidy()
        group = self._groups.setdefault(worker, _Group(limits.memory, []))
        try:
            if self._unified:
                path = self._make(self._cpu, worker, group)
                if limits.cpu:
                    _write(path / "cpu.max", f"{_quota(limits.cpu)} {PERIOD}")
                if limits.memory:
                    _write(path / "memory.max", str(limits.memory))
                    _write_if_there(path / "memory.swap.max", "0")
                    _write_if_there(path / "memory.oom.group", "1")
                _write(path / "cgroup.procs", str(pid))
                return
            if limits.cpu:
                path = self._make(self._cpu, worker, group)
                _write(path / "cpu.cfs_period_us", str(PERIOD))
                _write(path / "cpu.cfs_quota_us", str(_quota(limits.cpu)))
                _write(path / "cgroup.procs", str(pid))
            if limits.memory:
                path = self._make(self._memory, worker, group)
                _write(path / "memory.limit_in_bytes", str(limits.memory))
                _write_if_there(path / "memory.memsw.limit_in_bytes", str(limits.memory))
                _write(path / "cgroup.procs", str(pid))
        except OSError:
            self.remove(worker)
            raise

    def broken_by(self, worker: str) -> str:
        """See the port."""
        group = self._groups.get(worker)
        if group is None or not group.memory:
            return ""
        path = group.paths[-1]
        v2 = self._unified
        if not counter(str(path / ("memory.events" if v2 else "memory.oom_control")), "oom_kill"):
            return ""
        peak = _number(path / ("memory.peak" if v2 else "memory.max_usage_in_bytes"))
        had = f", of which it had taken {peak / _MIB:.1f} MiB at most" if peak else ""
        return (
            f"it wanted more than its memory limit of {group.memory / _MIB:.1f} MiB{had}: allow "
            'more with limits={"memory": ...}, or give it less to do at a time'
        )

    def remove(self, worker: str) -> None:
        """See the port."""
        group = self._groups.pop(worker, None)
        if group is not None:
            self._left += group.paths
        self._tidy()

    def close(self) -> None:
        """See the port."""
        for worker in list(self._groups):
            self.remove(worker)
        deadline = time.monotonic() + _CLOSE_WITHIN
        while self._left and time.monotonic() < deadline:
            time.sleep(0.005)
            self._tidy()
        for path in self._left:
            log.warning("the cgroup %s is still in use and stays", path)

    def _make(self, base: Path, worker: str, group: _Group) -> Path:
        path = base / f"{_PREFIX}{os.getpid()}-{worker}"
        path.mkdir()
        group.paths.append(path)
        return path

    def _tidy(self) -> None:
        self._left = [path for path in self._left if not _remove(path)]


def find_cgroups(
    mount: Path = Path("/sys/fs/cgroup"), cgroups: Path = Path("/proc/self/cgroup")
) -> CgroupFences | None:
    """Those that we may make groups in, None if there are none. Removes what was left behind."""
    own = _own_groups(cgroups)
    unified = own.get("")
    if unified is not None and (mount / "cgroup.controllers").exists():
        # A group with processes in it cannot have groups with controllers: then our parent, if it
        # was delegated to us.
        here = mount / unified.lstrip("/")
        for base in (here, here.parent):
            if base.is_relative_to(mount) and _delegated(base):
                return _swept(CgroupFences(base, base), base)
    if "cpu" in own and "memory" in own:
        cpu, memory = (_v1_base(mount / name, own[name]) for name in ("cpu", "memory"))
        if cpu is not None and memory is not None:
            return _swept(CgroupFences(cpu, memory), cpu, memory)
    return None


def _own_groups(cgroups: Path) -> dict[str, str]:
    """By controller, empty for version 2: the path of our group."""
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            found[""] = path
        for name in controllers.split(","):
            if name:
                found[name] = path
    return found


def _delegated(base: Path) -> bool:
    control = base / "cgroup.subtree_control"
    try:
        if not {"cpu", "memory"} <= set(control.read_text().split()):
            _write(control, "+cpu +memory")
    except OSError:
        return False
    return _can_make(base)


def _v1_base(root: Path, own: str) -> Path | None:
    """In a container our path may name folders of the host: then the mount's root is ours."""
    here = root / own.lstrip("/")
    base = here if here.is_dir() else root
    return base if _can_make(base) else None


def _can_make(base: Path) -> bool:
    probe = base / f"{_PREFIX}{os.getpid()}-probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _swept(fences: CgroupFences, *bases: Path) -> CgroupFences:
    for base in bases:
        for path in base.glob(f"{_PREFIX}*"):
            owner = path.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdigit() and not Path("/proc", owner).exists():
                with contextlib.suppress(OSError):
                    path.rmdir()
    return fences


def _remove(path: Path) -> bool:
    """Whether it is gone. What runs in it left the worker's process group, and ends here."""
    for pid in _processes(path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, _KILL)
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _processes(path: Path) -> Iterator[int]:
    try:
        words = (path / "cgroup.procs").read_text().split()
    except OSError:
        return
    # Zero is somebody of another namespace.
    yield from (int(word) for word in words if word != "0")


def _quota(cpu: float) -> int:
    return max(LEAST_QUOTA, round(cpu * PERIOD))


def _write(path: Path, text: str) -> None:
    # Opened as it is: the kernel makes these files, and creating one must not succeed.
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _write_if_there(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        _write(path, text)


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
