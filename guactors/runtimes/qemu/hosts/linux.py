"""Linux: KVM, descriptors for all, namespaces and seccomp around QEMU.

Owns: what only Linux has. Must never: take a ``/dev/kvm`` that opens for one that works: on some
machines it does not.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

assert sys.platform == "linux", "of Linux only"

from guactors.runtimes.base import Capability
from guactors.runtimes.qemu.argv import Machine
from guactors.runtimes.qemu.box import Box
from guactors.runtimes.qemu.hosts.base import GUEST_CAN, Accelerator
from guactors.runtimes.qemu.hosts.ending import Launched, PidfdEnd
from guactors.runtimes.qemu.hosts.inherited import start_inheriting

_KVM: Final = Path("/dev/kvm")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_WITHIN: Final = 20.0


class LinuxHost:
    """:class:`~guactors.runtimes.qemu.hosts.base.Host`. ``kvm``: the device."""

    name = "Linux"
    accelerators: tuple[Accelerator, ...] = ("kvm", "tcg")
    can = GUEST_CAN | {Capability.SAVE, Capability.DISK, Capability.MOUNT}
    places: tuple[str, ...] = ()
    install = (
        "install QEMU (Debian, Ubuntu: apt install qemu-system-x86; Fedora: dnf install "
        "qemu-system-x86)"
    )

    def __init__(self, kvm: Path = _KVM) -> None:
        self._kvm = kvm
        self.hypervisor = f"{kvm} opens"

    def architecture(self) -> str:
        """See the port; so all that follow."""
        return platform.machine()

    def isolation(self) -> str:
        """The namespaces are those that this process may make."""
        apart = ", namespaces" if namespaces() else "; no namespaces: unshare does not work here"
        return "a machine of its own, seccomp" + apart

    def why_not(self, accelerator: Accelerator) -> str:
        """KVM is a device that this process may not open."""
        if accelerator != "kvm" or os.access(self._kvm, os.R_OK | os.W_OK):
            return ""
        if not self._kvm.exists():
            return (
                f"there is no {self._kvm}: switch virtualisation on in the firmware, or nested "
                "virtualisation on the machine's host"
            )
        return f"{self._kvm} is not ours to use: add this user to its group (usually kvm)"

    def facts(self) -> tuple[str, ...]:
        """Since when the machine runs, its kernel and processor, and the device."""
        try:
            boot = _BOOT_ID.read_text(encoding="ascii").strip()
        except OSError:
            boot = ""
        model = ""
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    model = line.partition(":")[2].strip()
                    break
        ours = str(os.access(self._kvm, os.R_OK | os.W_OK))
        return platform.release(), boot, model, str(self._kvm), ours

    def fit(self, machine: Machine) -> Machine:
        """As it is."""
        return machine

    def mailbox(self) -> Box:
        """A file in memory."""
        return Box(os.memfd_create("gu-box", os.MFD_CLOEXEC))

    def start(self, machine: Machine) -> Launched:
        """In namespaces of its own, as far as this process may make them."""
        return start_inheriting(self.fit(machine), PidfdEnd, namespaces())


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
