"""What the daemon says a container has used.

Owns: the reading of its answer. Must never: fail for what is missing in it.
"""

from __future__ import annotations

from typing import Any

from guactors.runtimes.base import Stats


def figures_of(found: Any) -> Stats:
    """Of ``/containers/ID/stats``. The first process is ours and does not count."""
    total = _number(found, "cpu_stats", "cpu_usage", "total_usage")
    count = _number(found, "pids_stats", "current")
    networks = _part(found, "networks")
    received = sent = None
    if isinstance(networks, dict):
        received = sum(_number(one, "rx_bytes") or 0 for one in networks.values())
        sent = sum(_number(one, "tx_bytes") or 0 for one in networks.values())
    return Stats(
        None if total is None else total / 1e9,
        _number(found, "memory_stats", "usage"),
        _number(found, "memory_stats", "max_usage"),
        None,
        _moved(found, "read"),
        _moved(found, "write"),
        received,
        sent,
        None if count is None else max(0, count - 1),
    )


def _moved(found: Any, verb: str) -> int | None:
    rows = _part(found, "blkio_stats", "io_service_bytes_recursive")
    if not isinstance(rows, list):
        return None
    return sum(
        _number(row, "value") or 0
        for row in rows
        if isinstance(row, dict) and str(row.get("op", "")).lower() == verb
    )


def _part(found: Any, *names: str) -> Any:
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _number(found: Any, *names: str) -> int | None:
    part = _part(found, *names)
    return part if isinstance(part, int) and not isinstance(part, bool) else None
