"""A process and what it started, where there is no zygote to ask: by group, or by walking the tree.

Owns: the difference between POSIX groups and Windows process trees. Must never: be used on a pid
that may already have been reaped.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

WINDOWS = sys.platform == "win32"
_MOST_ROUNDS: Final = 8


def signal_tree(pid: int, number: int) -> None:
    """Signal the process and all of its group (on Windows: kill it and its descendants)."""
    if sys.platform == "win32":
        _kill_descendants(pid)
        return
    from guactors.runtimes.process import kill_group  # type: ignore[attr-defined,unused-ignore]

    kill_group(pid, number)


def halt_tree(pid: int, *, stop: bool) -> None:
    """Stop the process and all that it started, or let them go on; ``pid`` leads its group. What
    left the group is found by its parents: a process that has lost those is not."""
    if sys.platform == "win32":
        _halt_all([pid, *descendants(pid)], stop=stop)
        return
    from guactors.runtimes.process import kill_group  # type: ignore[attr-defined,unused-ignore]

    kill_group(pid, signal.SIGSTOP if stop else signal.SIGCONT)
    strays: set[int] = set()
    # Whoever is stopped starts nobody; who is found now may have started somebody before.
    for _ in range(_MOST_ROUNDS):
        found = {child for child in descendants(pid) if _leaves(child, pid)} - strays
        if not found:
            return
        strays |= found
        _halt_all(found, stop=stop)


def descendants(pid: int) -> list[int]:
    """All that it started and whose parents live."""
    try:
        return _listed_children(pid)
    except OSError:
        pass
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _listed_children(pid: int) -> list[int]:
    """As the kernel lists them. Raises OSError where it does not, or the process is gone."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        words = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        for child in map(int, words):
            found.append(child)
            with suppress(OSError):  # it has ended meanwhile
                found += _listed_children(child)
    return found


def _leaves(pid: int, group: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        return os.getpgid(pid) != group
    except ProcessLookupError:
        return False


def _halt_all(pids: Iterable[int], *, stop: bool) -> None:
    if sys.platform != "win32":
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP if stop else signal.SIGCONT)
        return
    import psutil

    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if stop:
                process.suspend()
            else:
                process.resume()


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
