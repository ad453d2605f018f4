"""The machine this process runs on: what a provider offers of it, and the figures of ``inf``.

Owns: measuring, and the limits that the kernel sets this process (affinity, cgroup v1 and v2). Must
never: keep a figure longer than the call that asked for it, or decide what is done with it.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from guactors.errors import UsageError
from guactors.messages import MachineInfo

GIB = float(2**30)
MEMORY_THRESHOLD = 0.95


def detect_resources() -> dict[str, float]:
    """What a provider offers unless told otherwise: ``CPU`` in whole processors, at least one,
    ``memory`` in bytes, and ``GPU`` if there are any; all as far as this process may use them."""
    memory = total_memory()
    limit = memory_limit()
    found = {
        "CPU": usable_cpus(),
        "memory": memory if limit is None else min(memory, limit),
    }
    gpus = find_gpus()
    return {**found, "GPU": float(len(gpus))} if gpus else found


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


def memory_threshold() -> float:
    """The share of memory above which workers are ended: GU_MEMORY_THRESHOLD, 0 for never. Raises
    UsageError for what is no share."""
    text = os.environ.get("GU_MEMORY_THRESHOLD", "")
    if not text:
        return MEMORY_THRESHOLD
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"GU_MEMORY_THRESHOLD={text!r} is no number from 0 to 1")
    return value


# --- GPUs ----------------------------------------------------------------------------------------


class Gpu(NamedTuple):
    """``id``: as CUDA_VISIBLE_DEVICES names it. ``model``: empty where the driver does not say."""

    id: str
    model: str


def find_gpus(
    proc: str = "/proc/driver/nvidia/gpus", dev: str = "/dev", env: Mapping[str, str] = os.environ
) -> list[Gpu]:
    """The NVIDIA GPUs that this process may use, told by the driver's own files: no tool is run and
    no library is loaded. A container lists those of its host; what has no device file here is not
    ours. CUDA_VISIBLE_DEVICES in ``env`` chooses among them, as it does for CUDA."""
    there = []
    for folder in sorted(Path(proc).glob("*")):
        facts = dict(
            re.findall(r"^([^:\n]+):[ \t]*(.*)$", _read(folder / "information"), re.MULTILINE)
        )
        minor = facts.get("Device Minor", "").strip()
        if minor.isdigit() and Path(dev, f"nvidia{minor}").exists():
            there.append(facts.get("Model", "").strip())
    gpus = [Gpu(str(number), model) for number, model in enumerate(there)]
    visible = env.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not gpus:
        return gpus
    chosen = []
    for id in (part.strip() for part in visible.split(",")):
        if id.isdigit() and int(id) < len(gpus):
            chosen.append(gpus[int(id)])
        elif id.startswith(("GPU-", "MIG-")):
            chosen.append(Gpu(id, gpus[0].model))
        else:
            break  # as CUDA does: what follows an unknown one does not count
    return chosen


def find_labels(gpus: list[Gpu] | None = None) -> dict[str, str]:
    """Labels that a machine has by itself: ``accelerator_type`` where all GPUs are of one model."""
    models = {gpu.model for gpu in (find_gpus() if gpus is None else gpus)}
    if len(models) != 1 or not any(models):
        return {}
    words = [word for word in re.split(r"[ -]+", models.pop()) if word not in ("NVIDIA", "Tesla")]
    # A100, V100, T4, H100: the chip's name, without the board's.
    chip = next((word for word in words if re.fullmatch(r"[A-Z]{1,2}[0-9]+[A-Z]?", word)), "")
    return {"accelerator_type": (chip or "-".join(words))[:256]}


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


def memory_group(
    cgroups: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup"
) -> tuple[Path, int] | None:
    """The folder of the cgroup that allows least, of ours and its parents, and the bytes that it
    allows; None: no limit."""
    found = []
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        for folder in _folders(controller, cgroups, mount):
            text = _read(folder / name)
            if text.isdigit():
                found.append((int(text), folder))
    limit, folder = min(found, default=(0, Path()))
    return (folder, limit) if limit else None


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
    ``limits``: how those of workers are kept.

    ``cpu_percent`` is the load since the figures before, so one object measures for one purpose."""

    def __init__(self, host: str, storage: str, limits: str = "") -> None:
        self._host = host
        self._storage = storage
        self._limits = limits
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
            limits=self._limits,
        )
