"""macOS: the Hypervisor framework, channels and files that QEMU inherits, nothing around QEMU.

Owns: what is different there. Must never: claim what nobody has seen: no guest was booted on macOS
yet, so none is saved or started from a saved one.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from guactors.runtimes.base import Capability
from guactors.runtimes.qemu.argv import Machine
from guactors.runtimes.qemu.box import Box
from guactors.runtimes.qemu.hosts.base import GUEST_CAN, Accelerator
from guactors.runtimes.qemu.hosts.ending import Launched, WaitedEnd
from guactors.runtimes.qemu.hosts.inherited import start_inheriting
from guactors.runtimes.qemu.scratch import nameless

_SYSCTL: Final = "/usr/sbin/sysctl"
_WITHIN: Final = 5.0


class MacHost:
    """:class:`~guactors.runtimes.qemu.hosts.base.Host`. ``sysctl``: the program that tells of the
    processor."""

    name = "macOS"
    accelerators: tuple[Accelerator, ...] = ("hvf", "tcg")
    hypervisor = "macOS has its Hypervisor framework"
    can = GUEST_CAN | {Capability.DISK, Capability.MOUNT}
    places: tuple[str, ...] = ("/opt/homebrew/bin", "/usr/local/bin", "/opt/local/bin")
    install = "install QEMU (brew install qemu; port install qemu)"

    def __init__(self, sysctl: str = _SYSCTL) -> None:
        self._sysctl = sysctl

    def architecture(self) -> str:
        """A Python for x86_64 runs translated on arm64."""
        return "arm64" if self._ask("sysctl.proc_translated") == "1" else platform.machine()

    def isolation(self) -> str:
        """See the port; so all that follow."""
        return "a machine of its own; nothing around QEMU itself, which macOS has no means for"

    def why_not(self, accelerator: Accelerator) -> str:
        """The kernel says whether the processor has it."""
        if accelerator != "hvf" or self._ask("kern.hv_support") == "1":
            return ""
        return "macOS has no Hypervisor framework for this processor (sysctl kern.hv_support)"

    def facts(self) -> tuple[str, ...]:
        """The system, the processor, and whether the framework is there."""
        asked = ("machdep.cpu.brand_string", "kern.hv_support")
        return platform.release(), *map(self._ask, asked)

    def fit(self, machine: Machine) -> Machine:
        """QEMU has no sandbox there, and does not know the word for it."""
        return msgspec.structs.replace(machine, seccomp=False)

    def mailbox(self) -> Box:
        """A file without a name: there are none in memory."""
        return Box(nameless(Path(tempfile.gettempdir())))

    def start(self, machine: Machine) -> Launched:
        """As this user, with what it inherits."""
        return start_inheriting(self.fit(machine), WaitedEnd)

    def _ask(self, name: str) -> str:
        """What the kernel says of that name, empty where it has nothing to say."""
        try:
            done = subprocess.run(
                [self._sysctl, "-n", name], capture_output=True, timeout=_WITHIN, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode("utf-8", "replace").strip()
