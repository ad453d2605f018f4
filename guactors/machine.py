"""The machine this process runs on: what a provider offers of it, and the figures of ``inf``.

Owns: measuring, and the limits that the kernel sets this process (affinity, cgroup v1 and v2). Must
never: keep a figure longer than the call that asked for it, or decide what is done with it.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from guactors.messages import MachineInfo

GIB = float(2**30)


def detect_resources() -> dict[str, float]:
    """What a provider offers unless told otherwise: ``CPU`` in whole processors, at least one, and
    ``memory`` in bytes; both as far as this process may use them."""
    memory = total_memory()
    limit = memory_limit()
    return {
        "CPU": usable_cpus(),
        "memory": memory if limit is None else min(memory, limit),
    }


def usable_cpus() -> float:
    """Processors this process may use at once, by affinity and cgroup quota; whole, at least 1."""
    count = float(os.cpu_count() or 1)
    if sys.platform == "linux":
        count = float(len(os.sched_getaffinity(0)))
    quota = cpu_quota()
    return float(max(1, int(count if quota is None else min(count, quota))))


def total_memory() -> float:
    """Bytes of the machine. Asked of the kernel where it answers: psutil costs a start-up more than
    all the rest."""
    if sys.platform == "linux":
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    import psutil

    return float(psutil.virtual_memory().total)


# --- cgroup limits --------------------------------------------------------------------------------


def cpu_quota(cgroups: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> float | None:
    """Processors' worth of time that the cgroup and its parents allow; None: no limit."""
    found = [
        _ratio(*text.split())
        for folder in _folders("", cgroups, mount)
        if (text := _read(folder / "cpu.max"))
    ]
    for folder in _folders("cpu", cgroups, mount):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        found.append(_ratio(quota, period))
    return min((value for value in found if value is not None), default=None)


def memory_limit(cgroups: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> float | None:
    """Bytes that the cgroup and its parents allow; None: no limit."""
    texts = [_read(folder / "memory.max") for folder in _folders("", cgroups, mount)]
    texts += [
        _read(folder / "memory.limit_in_bytes") for folder in _folders("memory", cgroups, mount)
    ]
    return min((float(text) for text in texts if text.isdigit()), default=None)


def _ratio(quota: str, period: str = "") -> float | None:
    if not (quota.isdigit() and period.isdigit()) or int(period) == 0:
        return None
    return int(quota) / int(period)


def _folders(controller: str, cgroups: str, mount: str) -> list[Path]:
    """The cgroup's folder under ``mount`` and those of its parents. ``controller`` empty: v2.

    In a container the path may name folders of the host that are not mounted here; the mount's own
    root is then the limit, and reading the others gives nothing."""
    for line in _read(Path(cgroups)).splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller and controller in controllers.split(","):
            root = Path(mount) / controller
        elif not controller and number == "0" and not controllers:
            root = Path(mount)
        else:
            continue
        here = Path(path.lstrip("/"))
        return [root / here, *(root / parent for parent in here.parents)]
    return []


def _read(path: Path) -> str:
    """The text of a file of the kernel, empty where there is none or it is not ours to read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# --- figures --------------------------------------------------------------------------------------


class Machine:
    """Takes figures. ``host``: this machine's id. ``storage``: a path on the disk to report.

    ``cpu_percent`` is the load since the figures before, so one object measures for one purpose."""

    def __init__(self, host: str, storage: str) -> None:
        self._host = host
        self._storage = storage
        self._bits = [64] if sys.maxsize > 2**32 else [32]
        import psutil

        self._psutil = psutil
        self._cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
        # The first measurement has nothing to compare with and answers 0.
        psutil.cpu_percent()

    def info(self) -> MachineInfo:
        """Fresh figures; takes well under a millisecond."""
        psutil = self._psutil
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(self._storage)
        return MachineInfo(
            os_name=platform.system(),
            os_release=platform.release(),
            architecture=platform.machine(),
            bits=self._bits,
            cores=self._cores,
            threads=psutil.cpu_count() or 1,
            cpu_percent=psutil.cpu_percent(),
            load1=psutil.getloadavg()[0],
            memory_total_gib=memory.total / GIB,
            memory_available_gib=memory.available / GIB,
            storage_total_gib=disk.total / GIB,
            storage_free_gib=disk.free / GIB,
            host=self._host,
        )
