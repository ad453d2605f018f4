"""Whether machines of Firecracker can run here, and what is missing if not.

Owns: the search for the program, its release, and the questions to ``/dev/kvm``. Must never: take a
device that opens for one that works: only a machine that boots proves it (``driver.py``).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

assert sys.platform == "linux", "Firecracker is for Linux"

import fcntl

from guactors.errors import RuntimeMissing

LEAST: Final = (1, 10, 0)
"""The first whose guests are told that their streams broke when they are restored (its #4796), and
that have ACPI."""
_GET_API_VERSION: Final = 0xAE00
_CREATE_VM: Final = 0xAE01
_API_VERSION: Final = 12
_WITHIN: Final = 10.0
_MOST: Final = 65536
_VERSION: Final = re.compile(r"Firecracker v(\d{1,4})\.(\d{1,4})\.(\d{1,6})")
_ELF: Final = b"\x7fELF"


def find_binary(name: str = "firecracker") -> str:
    """Its path. Raises RuntimeMissing."""
    found = shutil.which(name)
    if found is None:
        raise RuntimeMissing(
            "Firecracker is not installed: put the program firecracker of its release "
            f"{_shown(LEAST)} or later into PATH"
        )
    return os.path.abspath(found)


def find_version(binary: str) -> tuple[int, int, int]:
    """Its release. Raises RuntimeMissing for one that is too old, or is none."""
    try:
        done = subprocess.run(
            [binary, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeMissing(f"{binary} does not say its version: {error}") from None
    return check_version(done.stdout[:_MOST].decode(errors="replace"), binary)


def check_version(said: str, binary: str) -> tuple[int, int, int]:
    """The release that ``--version`` tells. Raises RuntimeMissing."""
    found = _VERSION.search(said)
    if found is None:
        raise RuntimeMissing(f"{binary} is no Firecracker: it says {said.strip()[:200]!r}")
    release = int(found[1]), int(found[2]), int(found[3])
    if release < LEAST:
        raise RuntimeMissing(
            f"{binary} is release {_shown(release)}: install {_shown(LEAST)} or later"
        )
    return release


def check_kvm(path: str = "/dev/kvm") -> None:
    """Raise RuntimeMissing where the kernel makes no machines for us."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise RuntimeMissing(
            f"there is no {path}: load the module kvm_intel or kvm_amd, switch virtualisation on "
            "in the firmware or, in a virtual machine, nested virtualisation on its host"
        ) from None
    except PermissionError:
        raise RuntimeMissing(
            f"{path} may not be used: add this user to its group (usually kvm), or run as root"
        ) from None
    except OSError as error:
        raise RuntimeMissing(f"{path} cannot be used: {error.strerror}") from None
    try:
        found = fcntl.ioctl(fd, _GET_API_VERSION)
        if found != _API_VERSION:
            raise RuntimeMissing(
                f"{path} has version {found}, and Firecracker needs {_API_VERSION}"
            )
        os.close(fcntl.ioctl(fd, _CREATE_VM, 0))
    except OSError as error:
        raise RuntimeMissing(
            f"{path} makes no machine: {error.strerror}: another hypervisor may be in its way"
        ) from None
    finally:
        os.close(fd)


def check_kernel(path: str) -> None:
    """Raise RuntimeMissing for a kernel that Firecracker cannot boot."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(_ELF))
    except OSError as error:
        raise RuntimeMissing(f"the kernel {path}: {error.strerror}") from None
    if head != _ELF:
        raise RuntimeMissing(
            f"the kernel {path} is compressed, and Firecracker boots only ELF files: make one of "
            "it with scripts/extract-vmlinux of the kernel's source"
        )


def kernel_hash(path: str) -> str:
    """By which a kernel is known. Raises RuntimeMissing."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha3_256").hexdigest()
    except OSError as error:
        raise RuntimeMissing(f"the kernel {path}: {error.strerror}") from None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Of the processor, as far as it tells which snapshots go on here."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.machine()


def _shown(release: tuple[int, int, int]) -> str:
    return ".".join(map(str, release))
