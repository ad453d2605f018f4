"""The operating system's words about processes: groups, deaths, reaping, the out-of-memory killer.

Only for POSIX; ``tree.py`` has what Windows needs too.

Owns: the few calls that differ between platforms (prctl, wait4, /proc, cgroup counters), each with
the best substitute where it is missing. Must never: know what a worker is, or keep a list of them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from guactors.runtimes.counters import counter

assert sys.platform != "win32", "needs fork; spawn.py serves Windows"

LINUX = sys.platform == "linux"

GUARDIAN = b"\0guardian\0"
"""The end of a guardian's command line, see ``native/guardian.py``."""
_GUARDIAN_WITHIN = 3.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OOM_COUNTERS = (
    ("/sys/fs/cgroup/memory.events", "oom_kill"),
    ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
    ("/proc/vmstat", "oom_kill"),
)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _prctl() -> Callable[[int, int], int]:
    function = _libc().prctl
    function.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)

    def call(option: int, value: int) -> int:
        return int(function(option, value, 0, 0, 0))

    return call


def preload() -> None:
    """Do once, before forking, what every child would otherwise do again."""
    if LINUX:
        _prctl()


def give_back_memory() -> None:
    """Return what importing left free on the heap to the system, where the C library can."""
    if LINUX and hasattr(_libc(), "malloc_trim"):
        _libc().malloc_trim(0)


def die_with_parent(number: int, parent: int) -> bool:
    """Have the kernel send this process signal ``number`` when the thread that forked it ends.

    Returns False when ``parent`` (the pid it was forked from) is already gone, so that the signal
    will never come. Where the platform has no such call only that check is done."""
    if LINUX:
        _prctl()(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


def single_threaded() -> bool:
    """Whether this process has one thread, those of C libraries included: then it may fork."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent ends; False where this cannot be."""
    return LINUX and _prctl()(_PR_SET_CHILD_SUBREAPER, 1) == 0


def kill_group(leader: int, number: int = signal.SIGKILL) -> None:
    """Signal the process group of ``leader``, which must be ours and unreaped, else its number may
    be somebody else's by now; the leader alone where it does not lead a group yet."""
    for send in (os.killpg, os.kill):
        try:
            send(leader, number)
        except (ProcessLookupError, PermissionError):
            # A group of which only zombies are left answers EPERM on some systems.
            continue
        return


def next_dead_child(known: Iterable[int]) -> int | None:
    """The pid of a child that has ended and is not reaped yet, else None. Where the platform cannot
    tell of all children (macOS before Python 3.13), only of the ``known`` ones."""
    if not hasattr(os, "waitid"):
        return next((pid for pid in known if _is_zombie(pid)), None)
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None


def has_ended(pid: int) -> bool:
    """Whether this child has ended; it is not reaped."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def reap(pid: int, *, block: bool = False) -> tuple[int, int] | None:
    """Reap a child: its wait status and peak resident bytes; None when it lives or is not ours."""
    try:
        done, status, usage = os.wait4(pid, 0 if block else os.WNOHANG)
    except ChildProcessError:
        return None
    return (status, _rss_bytes(usage)) if done else None


def reap_within(pid: int, seconds: float) -> tuple[int, int] | None:
    """Wait so long for a child's end and reap it; None when it lives on (or is not ours)."""
    deadline = time.monotonic() + seconds
    try:
        watch = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        return reap(pid)
    if watch is not None:
        try:
            select.select([watch], [], [], seconds)
        finally:
            os.close(watch)
        return reap(pid)
    while (ended := reap(pid)) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return ended


def _rss_bytes(usage: resource.struct_rusage) -> int:
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def split_status(status: int) -> tuple[int | None, int | None]:
    """A wait status as ``(exit_code, signal)``, one of them None."""
    code = os.waitstatus_to_exitcode(status)
    return (None, -code) if code < 0 else (code, None)


def children() -> list[int]:
    """Pids of this process's children, dead or alive; empty where the platform does not tell."""
    try:
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
    except OSError:
        return []


def end_children() -> None:
    """SIGKILL every child and its group, and whatever comes to us as an orphan meanwhile, and reap
    them all. Only for a process all of whose children are ours. Guardians, which are cleaning up
    after somebody, get a moment to finish."""
    for _ in range(64):
        found = [pid for pid in children() if not _is_guardian(pid)]
        if not found:
            break
        for pid in found:
            if os.getpgid(pid) != os.getpgid(0):
                kill_group(pid)
            else:
                os.kill(pid, signal.SIGKILL)
        for pid in found:
            reap(pid, block=True)
    for pid in children():
        if reap_within(pid, _GUARDIAN_WITHIN) is None:
            kill_group(pid)
            reap(pid, block=True)


def _is_guardian(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().endswith(GUARDIAN)
    except OSError:
        return False


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor but these and the standard three: after a fork, so that no end of a
    pipe outlives its owner in a child that never heard of it."""
    low = 3
    for fd in sorted({fd for fd in keep if fd >= 3}):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, _descriptor_limit())


def _descriptor_limit() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # CPython closes a range in one call where the kernel can; a limit keeps the others bearable.
    return min(limit, 2**20) if limit > 0 else 2**16


class OutOfMemoryWatch:
    """Tells a SIGKILL by the kernel's out-of-memory killer from somebody's ``kill -9``, by the
    counters the kernel keeps. ``counters``: (file, key) pairs; missing ones are passed over."""

    def __init__(self, counters: Iterable[tuple[str, str]] = _OOM_COUNTERS) -> None:
        self._counters = tuple(counters)
        self._seen = self._read()

    def rose(self) -> bool:
        """True when a counter rose since the last time this was asked (or since the start)."""
        now = self._read()
        risen = any(value > self._seen.get(path, value) for path, value in now.items())
        self._seen = now
        return risen

    def _read(self) -> dict[str, int]:
        return {
            path: value for path, key in self._counters if (value := counter(path, key)) is not None
        }
