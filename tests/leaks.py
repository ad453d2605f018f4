"""What a test may leave behind: nothing. Snapshots of the process and the machine, and their
difference.

Owns: the list of kinds that count as leaks. Must never: clean up, which would hide the leak.
"""

from __future__ import annotations

import gc
import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

KINDS = ("fds", "threads", "processes", "shm", "dirs")
SEMAPHORE = "shm: /dev/shm/sem."
SETTLE = 3.0
"""Seconds until what is on its way out must be gone."""


@dataclass(frozen=True)
class Snapshot:
    """What there is, by kind: one readable line each, under a key that tells twins apart."""

    found: dict[str, dict[str, str]] = field(default_factory=dict)

    def since(self, before: Snapshot, kinds: tuple[str, ...]) -> list[str]:
        """Lines for everything of ``kinds`` that ``before`` did not have."""
        return [
            f"{kind}: {line}"
            for kind in kinds
            for key, line in self.found[kind].items()
            if key not in before.found[kind]
        ]


def take(home: Path, run_root: Path) -> Snapshot:
    """The present state. ``home``: GU_HOME of the test, by which processes that left our family
    tree are known; ``run_root``: where ``gu-*`` directories with sockets appear."""
    return Snapshot({
        "fds": _fds(),
        "threads": _threads(),
        "processes": _processes(home),
        "shm": _shared_memory(home),
        "dirs": _names(run_root, "gu-*"),
    })  # fmt: skip


def settle(before: Snapshot, home: Path, run_root: Path, kinds: tuple[str, ...]) -> list[str]:
    """The leaks that are still there after :data:`SETTLE` seconds; returns as soon as none is."""
    deadline = time.monotonic() + SETTLE
    collected = False
    while True:
        leaks = take(home, run_root).since(before, kinds)
        if leaks:
            leaks = _without_semaphores_of_others(leaks, home)
        if not leaks or time.monotonic() > deadline:
            return leaks
        if not collected:
            gc.collect()
            collected = True
        time.sleep(0.02)


def _fds() -> dict[str, str]:
    table = Path("/proc/self/fd")
    if not table.exists():
        return {}
    found = {}
    for entry in os.listdir(table):
        try:
            target = os.readlink(table / entry)
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        found[f"{entry} {target}"] = f"{entry} -> {target}"
    return found


def _threads() -> dict[str, str]:
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        return {}
    found = {}
    for entry in os.listdir(tasks):
        try:
            name = (tasks / entry / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):  # ended while we looked
            continue
        found[entry] = f"{entry} {name}"
    return found


def _without_semaphores_of_others(leaks: list[str], home: Path) -> list[str]:
    """Less those that only processes outside our family have in their memory: the simulation beside
    us begins and ends when it likes. One that nobody has any more was left behind, and counts."""
    inodes: dict[str, str] = {}  # who makes one has it in memory under another name
    for leak in leaks:
        if leak.startswith(SEMAPHORE):
            with suppress(FileNotFoundError):
                inodes[str(os.stat(leak.removeprefix("shm: ")).st_ino)] = leak
    if not inodes:
        return leaks
    ours = {os.getpid(), *_family(home)}
    theirs, own = set[str](), set[str]()
    for pid in psutil.pids():
        try:
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        except OSError:  # gone, or somebody else's
            continue
        mapped = {line.split()[4] for line in lines if "/dev/shm/" in line}
        (own if pid in ours else theirs).update(inodes[one] for one in mapped & inodes.keys())
    return [leak for leak in leaks if leak not in theirs - own]


def _family(home: Path) -> dict[int, psutil.Process]:
    me = psutil.Process()
    family = {child.pid: child for child in me.children(recursive=True)}
    for process in psutil.process_iter():
        if process.pid in family or process.pid == me.pid:
            continue
        try:
            ours = process.environ().get("GU_HOME", "").startswith(str(home))
        except psutil.Error:  # gone, or somebody else's
            continue
        if ours:
            family[process.pid] = process
    return family


def _processes(home: Path) -> dict[str, str]:
    found = {}
    for pid, process in _family(home).items():
        try:
            line = f"{pid} {process.status()} {' '.join(process.cmdline())[:200]}"
        except psutil.NoSuchProcess:
            continue
        found[f"{pid} {process.create_time()}"] = line
    return found


def _shared_memory(home: Path) -> dict[str, str]:
    """All but the stores of other homes: other test runs on this machine have theirs."""
    digest = hashlib.blake2b(os.fspath(home).encode(), digest_size=4).hexdigest()
    found = {}
    for name in _names(Path("/dev/shm"), "*"):
        if "guactors-" not in name:
            found[name] = name
        elif name.endswith(digest):
            inside = _names(Path(name), "*") or {name: name}
            found.update(inside)
    return found


def _names(directory: Path, pattern: str) -> dict[str, str]:
    if not directory.is_dir():
        return {}
    return {str(path): str(path) for path in directory.glob(pattern)}
