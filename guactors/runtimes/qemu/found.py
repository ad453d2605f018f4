"""QEMU on this machine: where it is, which version, and what it may be told about the machine.

Owns: the search. Must never: take a release that lacks what ``argv.py`` uses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

from msgspec import Struct

from guactors.errors import RuntimeMissing
from guactors.runtimes.qemu.hosts.base import Host, check_architecture, find_host

PROGRAM: Final = "qemu-system-x86_64"
OLDEST: Final = (7, 0)
_VERSION: Final = re.compile(r"version (\d+)\.(\d+)[.0-9]*[^\n]*")
_TSC: Final = re.compile(
    rb"tsc: (?:Detected|Refined TSC clocksource calibration:) (\d+)\.(\d{3}) MHz"
)
_WITHIN: Final = 20.0


class Qemu(Struct, frozen=True):
    """``version``: its own words."""

    path: str
    version: str


def qemu_path(program: str = "", host: Host | None = None) -> str | None:
    """Where it is, None where it is not. Raises RuntimeMissing where guests do not run."""
    places = (host or find_host()).places
    return shutil.which(
        program or PROGRAM, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *places])
    )


def find_qemu(program: str = "", host: Host | None = None) -> Qemu:
    """The one to use. ``program``: a path or name, empty for the usual; ``host``: empty for this
    machine's. Raises RuntimeMissing."""
    host = host or find_host()
    check_architecture(host)
    path = qemu_path(program, host)
    if path is None:
        raise RuntimeMissing(f"{program or PROGRAM} is not installed: {host.install}")
    return _ask(path, os.stat(path).st_mtime_ns)


@lru_cache(8)
def _ask(path: str, _: int) -> Qemu:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, timeout=_WITHIN, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeMissing(f"{path} does not work: {error}") from None
    found = _VERSION.search(done.stdout)
    if done.returncode or found is None:
        raise RuntimeMissing(f"{path} does not say its version: {done.stderr.strip()[-200:]}")
    if (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise RuntimeMissing(f"{path} is {found[0]}: {oldest} or newer is needed")
    return Qemu(path, found[0])


def host_tsc_khz(log: Path = Path("/dev/kmsg")) -> int:
    """The frequency of this machine's clock as its kernel has measured it, 0 where it does not
    tell: the frequency of a processor, which others tell, is another one."""
    if sys.platform != "linux":
        return 0
    try:
        fd = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    best = 0
    try:
        for _ in range(100_000):
            try:
                record = os.read(fd, 8192)
            except BrokenPipeError:  # overwritten while we read
                continue
            except OSError:
                break
            if not record:
                break
            for found in _TSC.finditer(record):
                best = int(found[1]) * 1000 + int(found[2])
    finally:
        os.close(fd)
    return best
