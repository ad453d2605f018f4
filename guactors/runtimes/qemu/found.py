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


def find_qemu(program: str = "") -> Qemu:
    """The one to use. ``program``: a path or name, empty for the usual. Raises RuntimeMissing."""
    if sys.platform != "linux":
        raise RuntimeMissing("guests run on Linux only so far")
    path = shutil.which(program or PROGRAM)
    if path is None:
        raise RuntimeMissing(
            f"{program or PROGRAM} is not installed: install QEMU (Debian, Ubuntu: apt install "
            "qemu-system-x86; Fedora: dnf install qemu-system-x86)"
        )
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


@lru_cache(1)
def namespaces() -> tuple[str, ...]:
    """The words that start a program apart from the network, the shared memory and the name of this
    machine, as far as this process may: as root, else where users may have namespaces of their own.
    Empty where neither works."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    for words in ((), ("--user",)):
        argv = (unshare, *words, "--net", "--ipc", "--uts", "--")
        try:
            done = subprocess.run(
                [*argv, "/bin/true"], capture_output=True, timeout=_WITHIN, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ()
        if done.returncode == 0:
            return argv
    return ()


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
