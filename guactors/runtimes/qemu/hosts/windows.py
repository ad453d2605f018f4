"""Windows: the Hypervisor Platform, channels over the loopback, disks by their paths.

Owns: what is different there. Must never: claim what nobody has seen: no guest was booted on
Windows yet.

What there is not, and why. A mailbox disk: QEMU opens a file that it writes to for itself alone. A
disk for what a guest writes: that is made by mke2fs and has no name. Directories: mksquashfs packs
them. To save a guest: QEMU inherits no file to write to.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

import msgspec

from guactors.runtimes.qemu.argv import Machine
from guactors.runtimes.qemu.hosts.base import GUEST_CAN, Accelerator
from guactors.runtimes.qemu.hosts.ending import Launched
from guactors.runtimes.qemu.hosts.loopback import start_connecting

_SYSTEM: Final = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32")


class WindowsHost:
    """:class:`~guactors.runtimes.qemu.hosts.base.Host`. ``system``: the directory of the system's
    own libraries."""

    name = "Windows"
    accelerators: tuple[Accelerator, ...] = ("whpx", "tcg")
    hypervisor = "the Windows Hypervisor Platform is there"
    can = GUEST_CAN
    places: tuple[str, ...] = (
        os.path.join(os.environ.get("PROGRAMFILES", r"C:\Program Files"), "qemu"),
    )
    install = "install QEMU (winget install SoftwareFreedomConservancy.QEMU)"

    def __init__(self, system: Path = _SYSTEM) -> None:
        self._system = system

    def architecture(self) -> str:
        """The variable is set for a Python of 32 bits."""
        return os.environ.get("PROCESSOR_ARCHITEW6432") or platform.machine()

    def isolation(self) -> str:
        """See the port; so all that follow."""
        return "a machine of its own; nothing around QEMU itself, which runs as this user"

    def why_not(self, accelerator: Accelerator) -> str:
        """Its library comes with the optional feature of the system."""
        if accelerator != "whpx" or (self._system / "WinHvPlatform.dll").exists():
            return ""
        return "the Windows Hypervisor Platform is not there: switch that feature on, and restart"

    def facts(self) -> tuple[str, ...]:
        """The system, the processor, and whether the library is there."""
        return platform.version(), platform.processor(), self.why_not("whpx")

    def fit(self, machine: Machine) -> Machine:
        """Nothing is inherited, and QEMU has no sandbox there."""
        return msgspec.structs.replace(machine, seccomp=False, inherits=False)

    def mailbox(self) -> None:
        """There can be none."""

    def start(self, machine: Machine) -> Launched:
        """It connects to us."""
        return start_connecting(self.fit(machine))
