"""A process and what it started, where there is no zygote to ask: by group, or by walking the tree.

Owns: the difference between POSIX groups and Windows process trees. Must never: be used on a pid
that may already have been reaped.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

WINDOWS = sys.platform == "win32"


def signal_tree(pid: int, number: int) -> None:
    """Signal the process and all of its group (on Windows: kill it and its descendants)."""
    if sys.platform == "win32":
        _kill_descendants(pid)
        return
    from guactors.runtimes.process import kill_group  # type: ignore[attr-defined,unused-ignore]

    kill_group(pid, number)


def kill_tree(pid: int) -> None:
    """End the process and all of its group, or descendants."""
    signal_tree(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def end_own_group() -> NoReturn:
    """End this process and all of its group, or descendants."""
    if sys.platform == "win32":
        _kill_descendants(os.getpid(), itself=False)
    elif os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _kill_descendants(pid: int, *, itself: bool = True) -> None:
    import psutil

    try:
        root = psutil.Process(pid)
        found = root.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for victim in [*found, root] if itself else found:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
