"""The disk that a guest writes to: a sparse file without a name.

Owns: how one is made, copied and counted. Must never: leave a file in a directory: what no process
holds any more is gone.

Each is a copy of a template made once, bit for bit the same: a guest that was saved has parts of
its disk in memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from guactors.errors import RuntimeMissing
from guactors.runtimes.qemu import storage

MIB: Final = 1 << 20
USUAL: Final = 8192 * MIB
"""Where nobody said how much. Sparse: what is not written takes no room."""
_WITHIN: Final = 60.0
_UUID: Final = "67756163-746f-4273-8067-75657374ff01"
_PLACES: Final = (
    "/usr/sbin", "/sbin", "/opt/homebrew/opt/e2fsprogs/sbin", "/usr/local/opt/e2fsprogs/sbin",
)  # fmt: skip
_OPTIONS: Final = (
    "-q", "-F", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-m", "0", "-U", _UUID, "-E",
    f"lazy_itable_init=1,nodiscard,root_owner=0:0,hash_seed={_UUID}",
)  # fmt: skip


def find_mke2fs() -> str:
    """The path of the program, empty where there is none."""
    places = os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
    return shutil.which("mke2fs", path=places) or ""


def disk_for(limit: int) -> int:
    """Bytes of the disk for a limit: more, so that one that goes beyond is seen to."""
    size = 2 * limit + 16 * MIB if limit else USUAL
    return -(-size // MIB) * MIB


def template(cache: Path, size: int) -> Path:
    """An empty disk of ``size`` bytes. Raises RuntimeMissing where none can be made."""
    path = cache / f"scratch-{size // MIB}"
    if path.exists():
        return path
    program = find_mke2fs()
    if not program:
        raise RuntimeMissing("a guest's disk needs the program mke2fs: install e2fsprogs")
    cache.mkdir(parents=True, exist_ok=True)
    fd, fresh = tempfile.mkstemp(prefix="scratch-part-", dir=cache)
    try:
        os.ftruncate(fd, size)
        done = subprocess.run(
            [program, *_OPTIONS, fresh], capture_output=True, timeout=_WITHIN, check=False
        )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[-500:]
            raise RuntimeMissing(f"mke2fs cannot make a disk of {size // MIB} MiB: {said}")
        os.replace(fresh, path)
    except subprocess.TimeoutExpired:
        raise RuntimeMissing("mke2fs does not end: the disk of this machine hangs") from None
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(fresh)
    return path


def nameless(directory: Path) -> int:
    """The descriptor of a file without a name, on the disk of ``directory``. Not on Windows, where
    a file that is open has one."""
    if sys.platform == "linux":
        with suppress(OSError):  # not every file system has them
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fd, path = tempfile.mkstemp(dir=directory)
    os.unlink(path)
    return fd


def fresh_disk(source: Path, directory: Path) -> int:
    """The descriptor of a copy of a template."""
    to = nameless(directory)
    try:
        fd = storage.open_to_read(source)
        try:
            os.ftruncate(to, os.fstat(fd).st_size)
            for at, size in storage.extents(fd):
                storage.copy(fd, at, to, at, size)
        finally:
            os.close(fd)
    except BaseException:
        os.close(to)
        raise
    return to


def used(fd: int) -> int:
    """Bytes that a disk takes on this machine."""
    return storage.taken(os.fstat(fd))
