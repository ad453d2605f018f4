"""Nothing that a benchmark starts outlives it.

Owns: noticing what the processes of a benchmark leave behind, and ending it. On Linux this process
becomes the parent of every orphan below it, so that none escapes by losing its own; elsewhere only
what still has a parent is found. Must never: touch a process that did not come from this one.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Collection

import psutil

PR_SET_CHILD_SUBREAPER = 36
POLL = 0.05


def adopt_orphans() -> None:
    """From here on. Raises OSError where the kernel refuses."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "cannot become the parent of orphans")


def present(keep: Collection[int] = ()) -> list[psutil.Process]:
    """The processes below this one, but those in ``keep`` and what is below them."""
    kept = set(keep)
    found = []
    for one in psutil.Process().children():
        if one.pid in kept:
            continue
        found.append(one)
        try:
            found += one.children(recursive=True)
        except psutil.NoSuchProcess:
            continue
    return found


def ended(keep: Collection[int] = (), within: float = 5.0) -> list[str]:
    """Wait until nothing is left below this process but ``keep``; what is there after ``within``
    seconds is killed and returned by name."""
    deadline = time.monotonic() + within
    while rest := _alive(present(keep)):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL)
    names = [_name(one) for one in rest]
    while rest:
        for one in rest:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(rest, 5.0)
        rest = _alive(present(keep))
    return names


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that run; an adopted one that has ended is laid to rest."""
    found = []
    for one in processes:
        try:
            if one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
            elif one.ppid() == os.getpid():
                one.wait(0)
        except (psutil.NoSuchProcess, psutil.TimeoutExpired):
            continue
    return found


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:120] or process.name()
    except psutil.NoSuchProcess:
        return f"process {process.pid}"
