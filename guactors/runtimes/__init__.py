"""Everything that starts processes: the port in ``base``, its adapters, and the door to them."""

from __future__ import annotations

import os
import sys

from guactors.runtimes.workers import WorkerProcesses

__all__ = ["open_workers"]


def open_workers(entry: str = "guactors.worker:run_worker", method: str = "") -> WorkerProcesses:
    """The worker processes of this platform. ``method``: ``fork``, ``spawn``, or empty for the
    environment's ``GU_START``, or else fork where it is sound (not on macOS, whose frameworks break
    in forked children). Call it before the process has a thread or a ZeroMQ context."""
    sound = "fork" if sys.platform == "linux" else "spawn"
    wanted = method or os.environ.get("GU_START") or sound
    if sys.platform != "win32" and wanted == "fork":
        from guactors.runtimes.python import PythonWorkers

        return PythonWorkers(entry)
    from guactors.runtimes.spawn import SpawnedWorkers

    return SpawnedWorkers(entry)
