"""What ``gu doctor`` looks at: one function a check, each with what it found and the remedy.

Owns: the checks. Must never: repair anything, or raise for what it finds.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from guactors import home
from guactors.errors import GuactorsError, UsageError
from guactors.grid_client import GridClient
from guactors.grid_file import read_grid_file
from guactors.transport import zmq_link
from guactors.transport.addresses import IPC_PATH_LIMIT

OK, WARN, FAIL = "ok", "warn", "fail"

OLDEST_PYTHON = (3, 11)
OLDEST_LIBZMQ = (4, 3)
FEW_FILES = 4096
LITTLE_SHM = 64 * 2**20
SOCKET_NAME = len("/gu-xxxxxxxx/w-0123456789abcdef.d")
"""What a run directory adds to the temporary one, at most."""


@dataclass(frozen=True)
class Finding:
    """``state`` is ``ok``, ``warn`` (works, but less well) or ``fail``."""

    check: str
    state: str
    found: str
    remedy: str = ""


def python() -> Finding:
    """The interpreter."""
    found = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Finding("python", OK, found)
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", FAIL, found, f"install Python {wanted} or newer")


def zeromq() -> Finding:
    """The messaging library and its encryption."""
    pyzmq, libzmq, curve = zmq_link.library()
    found = f"pyzmq {pyzmq}, libzmq {libzmq}"
    numbers = tuple(int(part) for part in libzmq.split(".")[:2])
    if numbers < OLDEST_LIBZMQ:
        return Finding("zeromq", FAIL, found, "pip install --upgrade pyzmq (its wheel has 4.3)")
    if not curve:
        remedy = "pip install --force-reinstall pyzmq: this build cannot encrypt (CURVE)"
        return Finding("zeromq", FAIL, f"{found}, no CURVE", remedy)
    return Finding("zeromq", OK, f"{found}, CURVE")


def packages() -> Finding:
    """What must be of one version on all machines of a grid, or nearly so."""
    names = ("guactors", "msgspec", "cloudpickle", "psutil")
    return Finding("packages", OK, ", ".join(f"{name} {version(name)}" for name in names))


def fork() -> Finding:
    """How fast workers start."""
    if hasattr(os, "fork") and os.environ.get("GU_START") != "spawn":
        return Finding("fork", OK, "workers are forked from a preloaded process")
    remedy = "unset GU_START" if hasattr(os, "fork") else "none on this platform: it has no fork"
    return Finding("fork", WARN, "workers are started one by one, 0.1 s each", remedy)


def pidfd() -> Finding:
    """How the end of a process is noticed."""
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError as error:
            remedy = "Linux 5.3 or newer, and no filter against it"
            return Finding("pidfd", WARN, f"pidfd_open: {error.strerror}", remedy)
        return Finding("pidfd", OK, "process ends are seen at once")
    return Finding("pidfd", WARN, "not on this platform", "none: ends are seen by waiting threads")


def cgroup() -> Finding:
    """Whether the kernel's limits are visible."""
    if sys.platform != "linux":
        return Finding("cgroup", OK, "none on this platform")
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return Finding("cgroup", OK, "version 2")
    if Path("/sys/fs/cgroup/memory").exists():
        return Finding("cgroup", OK, "version 1")
    remedy = "mount /sys/fs/cgroup: limits of a container are not seen, gu provider needs --memory"
    return Finding("cgroup", WARN, "not mounted", remedy)


def home_directory() -> Finding:
    """Where keys and the grid file live."""
    try:
        return Finding("home", OK, str(home.home()))
    except UsageError as error:
        return Finding("home", FAIL, str(error), "set GU_HOME to a directory of yours")
    except OSError as error:
        remedy = "make it writable, or set GU_HOME to a directory of yours"
        return Finding("home", FAIL, f"{error.filename}: {error.strerror}", remedy)


def sockets() -> Finding:
    """Where ipc sockets go, and whether their names fit."""
    path = tempfile.gettempdir()
    if len(path) + SOCKET_NAME > IPC_PATH_LIMIT:
        remedy = "set TMPDIR to a shorter path, such as /tmp"
        return Finding("sockets", FAIL, f"{path} is too long for socket names", remedy)
    probe = tempfile.mkdtemp(prefix="gu-")
    try:
        mode = stat.S_IMODE(os.stat(probe).st_mode)
    finally:
        os.rmdir(probe)
    if os.name == "posix" and mode & 0o077:
        remedy = "set TMPDIR to a directory on a file system with rights"
        return Finding("sockets", FAIL, f"{path} makes directories of mode {mode:04o}", remedy)
    return Finding("sockets", OK, f"private directories in {path}")


def open_files() -> Finding:
    """How many peers and workers this process could hold."""
    if sys.platform == "win32":
        return Finding("open files", OK, "no limit on this platform")
    import resource

    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FEW_FILES:
        return Finding("open files", OK, f"limit {soft}")
    remedy = "ulimit -n 65536 before a hub for more than some hundred workers"
    return Finding("open files", WARN, f"limit {soft}", remedy)


def shared_memory() -> Finding:
    """Room for large objects."""
    path = Path("/dev/shm")
    if not path.is_dir():
        if sys.platform == "linux":
            return Finding("/dev/shm", WARN, "not there", "mount a tmpfs on it")
        return Finding("/dev/shm", OK, "none on this platform")
    total = shutil.disk_usage(path).total
    found = f"{total / 2**20:.0f} MiB"
    if total < LITTLE_SHM:
        return Finding("/dev/shm", WARN, found, "in a container: --shm-size=1g or more")
    return Finding("/dev/shm", OK, found)


def memory() -> Finding:
    """Memory left for work."""
    left = psutil.virtual_memory().available
    if left < 256 * 2**20:
        return Finding("memory", WARN, f"{left / 2**20:.0f} MiB left", "close something large")
    return Finding("memory", OK, f"{left / 2**30:.1f} GiB available")


def grid() -> Finding:
    """The grid that this user runs here, if any."""
    if read_grid_file() is None and "GU_ADDRESS" not in os.environ:
        return Finding("grid", OK, "none is running (gu up starts one)")
    try:
        with GridClient(timeout=3.0) as client:
            peers = client.grid().peers
            return Finding("grid", OK, f"{client.address.shown} answers, {len(peers)} peers")
    except GuactorsError as error:
        remedy = "gu down, then gu up; or correct GU_ADDRESS"
        return Finding("grid", FAIL, str(error).split("\n", 1)[0], remedy)


CHECKS: tuple[Callable[[], Finding], ...] = (
    python,
    zeromq,
    packages,
    fork,
    pidfd,
    cgroup,
    home_directory,
    sockets,
    open_files,
    shared_memory,
    memory,
    grid,
)


def examine() -> Iterator[Finding]:
    """All findings in order, each as soon as it is made."""
    for check in CHECKS:
        try:
            yield check()
        except OSError as error:
            name = check.__name__.replace("_", " ")
            yield Finding(name, FAIL, str(error), "make that readable for this user")
