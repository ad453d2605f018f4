"""Where on this machine groups of processes can be made, so that the system counts and holds them.

Owns: finding the directories of cgroups version 2 where they are delegated to us, of version 1, or
of both side by side; removing what processes that are dead have left there. Must never: make a
group that stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from msgspec import Struct

PREFIX: Final = "guactors-"
"""Of the names of our groups; the pid of who made it follows."""
CONTROLLERS: Final = ("cpu", "cpuacct", "memory", "pids", "freezer")
"""Of version 1, each a hierarchy; mounts may have several of them in one."""
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)


class Places(Struct, frozen=True):
    """``bases``: the directories to make groups in, by controller; of version 2 (``unified``) the
    same one for all. ``own``: those whose members we are."""

    bases: dict[str, Path]
    own: dict[str, Path] = {}
    unified: bool = False

    @property
    def guarantee(self) -> str:
        """See Fences."""
        return "cgroup-v2" if self.unified else "cgroup-v1"


_MOUNT: Final = Path("/sys/fs/cgroup")


def find_places(mount: Path = _MOUNT, cgroups: Path = Path("/proc/self/cgroup")) -> Places | None:
    """Those that can hold processor time and memory, None if there are none. Which groups this
    process is in may change, and is looked at each time."""
    try:
        return _find_places(mount, cgroups.read_text())
    except OSError:
        return None


@lru_cache(maxsize=4)
def _find_places(mount: Path, cgroups: str) -> Places | None:
    own = _groups_in(cgroups)
    unified = own.get("")
    if unified is not None and (mount / "cgroup.controllers").exists():
        # A group with processes in it cannot have groups with controllers: then our parent, if it
        # was delegated to us.
        here = mount / unified.lstrip("/")
        for base in (here, here.parent):
            if base.is_relative_to(mount) and _delegated(base):
                return Places(dict.fromkeys(CONTROLLERS, base), {}, unified=True)
    bases: dict[str, Path] = {}
    members: dict[str, Path] = {}
    for name in CONTROLLERS:
        found = _v1_base(mount / name, own[name]) if name in own else None
        if found is not None:
            bases[name] = members[name] = found
    return Places(bases, members) if {"cpu", "memory"} <= bases.keys() else None


def sweep(places: Places) -> list[str]:
    """End and remove the groups of makers that are dead; their names."""
    found = []
    for base in set(places.bases.values()):
        for path in base.glob(f"{PREFIX}*"):
            maker = path.name.removeprefix(PREFIX).partition("-")[0]
            if maker.isdigit() and not Path("/proc", maker).exists():
                remove(path)
                found.append(path.name)
    return sorted(set(found))


def group_name(name: str) -> str:
    """Of a group that this process makes."""
    return f"{PREFIX}{os.getpid()}-{name}"


def remove(path: Path) -> bool:
    """End what is in the group; whether it is gone. It is not while its last process is ending."""
    for pid in processes(path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, _KILL)
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def processes(path: Path) -> Iterator[int]:
    """Those that are in the group."""
    try:
        words = (path / "cgroup.procs").read_text().split()
    except OSError:
        return
    # Zero is somebody of another namespace.
    yield from (int(word) for word in words if word != "0")


def write(path: Path, text: str) -> None:
    """Opened as it is: the kernel makes these files, and creating one must not succeed."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def write_if_there(path: Path, text: str) -> None:
    """What some kernels do not have."""
    with contextlib.suppress(OSError):
        write(path, text)


def number(path: Path) -> int | None:
    """What a file with one number says, None where there is no such file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def groups_of(cgroups: Path) -> dict[str, str]:
    """Of a process, by its file: by controller, empty for version 2, the path of its group."""
    try:
        return _groups_in(cgroups.read_text())
    except OSError:
        return {}


def _groups_in(cgroups: str) -> dict[str, str]:
    """By controller, empty for version 2: the path of our group."""
    found = {}
    for line in cgroups.splitlines():
        serial, controllers, path = [*line.split(":", 2), "", ""][:3]
        if serial == "0" and not controllers:
            found[""] = path
        for name in controllers.split(","):
            if name:
                found[name] = path
    return found


def _delegated(base: Path) -> bool:
    control = base / "cgroup.subtree_control"
    try:
        given = set(control.read_text().split())
        if not {"cpu", "memory"} <= given:
            write(control, "+cpu +memory")
        if "pids" not in given:
            write_if_there(control, "+pids")
    except OSError:
        return False
    return _can_make(base)


def _v1_base(root: Path, own: str) -> Path | None:
    """In a container our path may name folders of the host: then the mount's root is ours."""
    here = root / own.lstrip("/")
    base = here if here.is_dir() else root
    return base if _can_make(base) else None


def _can_make(base: Path) -> bool:
    probe = base / f"{PREFIX}{os.getpid()}-probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True
