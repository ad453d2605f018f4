"""The port of host systems: what of a machine's system QEMU is driven with.

Owns: the protocol, the words for accelerators, the choice of the adapter, and which processors
there are guests for. Must never: import an adapter of another system than this one, or boot
anything.
"""

from __future__ import annotations

import sys
from typing import Final, Literal, Protocol, TypeAlias

from guactors.errors import RuntimeMissing
from guactors.runtimes.base import Capability
from guactors.runtimes.qemu.argv import Machine, Profile
from guactors.runtimes.qemu.box import Box
from guactors.runtimes.qemu.hosts.ending import Launched

Accelerator: TypeAlias = Literal["kvm", "hvf", "whpx", "tcg"]
HARDWARE: Final[tuple[Accelerator, ...]] = ("kvm", "hvf", "whpx")
"""Those that use a processor's own virtualisation; ``tcg`` emulates one."""
GUEST_CAN: Final = frozenset({
    Capability.IMAGE, Capability.PRIVATE, Capability.PAUSE, Capability.TTY, Capability.USER,
    Capability.MEMORY, Capability.PIDS,
})  # fmt: skip
"""What guests can wherever they run."""
_GUESTS: Final = {"x86_64", "AMD64", "amd64"}


class Host(Protocol):
    """One system. Threads: any."""

    name: str
    """As people call it."""
    accelerators: tuple[Accelerator, ...]
    """To be tried, the best first."""
    hypervisor: str
    """That the one of the hardware seems to be there, in words."""
    can: frozenset[Capability]
    """What a guest can here; processor time, which others hold, is not among it."""
    places: tuple[str, ...]
    """Directories that QEMU may be in besides those of PATH."""
    install: str
    """How one gets it."""

    def architecture(self) -> str:
        """Of the processor, not of this Python, which may be translated."""

    def isolation(self) -> str:
        """What is between a guest and this machine."""

    def why_not(self, accelerator: Accelerator) -> str:
        """Why it need not be tried, as far as a look tells; empty otherwise."""

    def facts(self) -> tuple[str, ...]:
        """All that decides which accelerator works, besides QEMU and the guest."""

    def fit(self, machine: Machine) -> Machine:
        """The same with what the system lets QEMU do."""

    def mailbox(self) -> Box | None:
        """A mailbox disk, None where this process and QEMU cannot both have a file open to write;
        files go over the line then."""

    def start(self, machine: Machine) -> Launched:
        """QEMU, with its channels. Raises RuntimeMissing where it cannot be started."""


def find_host() -> Host:
    """Of this machine. Raises RuntimeMissing where there is none."""
    if sys.platform == "linux":
        from guactors.runtimes.qemu.hosts.linux import LinuxHost

        return LinuxHost()
    if sys.platform == "darwin":
        from guactors.runtimes.qemu.hosts.mac import MacHost

        return MacHost()
    if sys.platform == "win32":
        from guactors.runtimes.qemu.hosts.windows import WindowsHost

        return WindowsHost()
    raise RuntimeMissing(f"guests do not run on {sys.platform}")


def check_architecture(host: Host) -> None:
    """Raise RuntimeMissing where there is no guest for its processor: one of another kind would be
    emulated with an order of memory that its programs do not expect."""
    found = host.architecture()
    if found not in _GUESTS:
        raise RuntimeMissing(
            f"there is no guest for {found} yet, guests are made for x86_64 only: take the runtime "
            "native or docker on this machine"
        )


def profile_of(accelerator: Accelerator) -> Profile:
    """The machine that it carries."""
    return "q35" if accelerator == "tcg" else accelerator
