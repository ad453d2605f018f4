"""Where guactors keeps things on this machine: its home, its run directories.

Owns: paths, modes (0700 and 0600), the host id, how many files a process may open. Must never:
start a process or talk to one. ``GU_HOME`` moves the home; the default is the platform's directory
for user data.
"""

from __future__ import annotations

import os
import stat
import sys
from functools import cache
from pathlib import Path

from guactors.errors import UsageError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SHORT_TMP = Path("/tmp")
_MANY_FILES = 10_240
_IPC_PATH_MOST = 90
"""Bytes of a run directory's path: a Unix socket address has 108 (macOS 104) with the file name."""


def home() -> Path:
    """The home directory of guactors, made with mode 0700 if it is missing."""
    given = os.environ.get("GU_HOME")
    return private_directory(Path(given) if given else _user_data() / "guactors")


def _user_data() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def private_directory(path: Path) -> Path:
    """``path`` as a directory that is ours and nobody else may enter; made, with its parents, if
    missing. Raises UsageError when it belongs to somebody else or is no directory."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{path} is needed as a directory, but is a file: move it away") from None
    if hasattr(os, "getuid"):
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) and not path.is_dir():
            raise UsageError(f"{path} is no directory: set GU_HOME to one of your own")
        if path.stat().st_uid != os.getuid():
            raise UsageError(f"{path} belongs to another user: set GU_HOME to one of your own")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o700)
    return path


def new_run_dir() -> Path:
    """A fresh directory, mode 0700, for the sockets of one grid or process; its path is short,
    since a Unix socket's address is. Whoever asks for it sees to its removal."""
    import tempfile  # here and below, for its many imports would cost every start

    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base)) > _IPC_PATH_MOST - len("/gu-12345678") and _SHORT_TMP.is_dir():
        base = _SHORT_TMP
    return Path(tempfile.mkdtemp(prefix="gu-", dir=base))


@cache
def host_id() -> str:
    """Equal for two processes exactly when they run on the same machine since its last boot (in
    the same container), so that ipc addresses and pids of one mean something to the other."""
    try:
        boot = _BOOT_ID.read_text().strip()
        # Containers share the kernel's boot id, not the file system the sockets are in.
        mount = os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        import uuid

        return f"{uuid.getnode():012x}"
    return f"{boot}-{mount:x}"


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, whole or not at all, readable by nobody else at any moment."""
    import tempfile

    fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            # What is written so may be the only copy of a key.
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def raise_file_limit() -> None:
    """Let this process have as many open files as the system allows it: libzmq ends the process
    when it finds no descriptor for a connection."""
    if sys.platform == "win32":
        return
    import resource

    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says "unlimited" and means another number.
    for wanted in (most, _MANY_FILES):
        if 0 <= wanted <= soft:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        except (OSError, ValueError):
            continue
        return
