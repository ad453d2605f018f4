"""How much memory is in use: of the machine or of the group that limits us, and of processes.

Owns: measuring, once for each call. Must never: decide what is done about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from guactors.machine import memory_group
from guactors.provider_state.memory_watch import Memory


class MemorySampler:
    """Looks; takes some microseconds, and for each process as many more above ``threshold``."""

    def __init__(self) -> None:
        self._group = memory_group()

    def look(self, pids: Mapping[str, int], threshold: float) -> Memory:
        """See Memory; the workers only where more than ``threshold`` of the memory is in use."""
        used, total = self._use()
        if used <= threshold * total:
            return Memory(used, total)
        return Memory(used, total, {name: _held(pid) for name, pid in pids.items()})

    def _use(self) -> tuple[int, int]:
        import psutil

        machine = psutil.virtual_memory()
        used, total = int(machine.total - machine.available), int(machine.total)
        if self._group is not None:
            folder, limit = self._group
            inside = _group_use(folder)
            # Whichever is nearer to its end.
            if limit and inside * total > used * limit:
                return inside, limit
        return used, total


def _group_use(folder: Path) -> int:
    """Bytes of a group that cannot be taken back: caches of files can."""
    for name, cache in (
        ("memory.current", "inactive_file"),
        ("memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            used = int((folder / name).read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        words = dict(line.split(" ", 1) for line in lines if " " in line)
        return max(0, used - int(words.get(cache, "0")))
    return 0


def _held(pid: int) -> int:
    """Bytes that a process and those below it hold; memory shared with others is nobody's."""
    import psutil

    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            info = one.memory_info()
            total += info.rss - getattr(info, "shared", 0)
    except psutil.Error:
        # It has ended meanwhile, and holds nothing.
        return total
    return total
