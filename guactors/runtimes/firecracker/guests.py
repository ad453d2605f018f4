"""Machines of Firecracker with the guest that QEMU's machines boot: its kernel, initramfs, agent.

Owns: what differs, the kernel as an ELF file, the words for it, a disk with a file system, and the
agent on a vsock. Must never: know how a machine is made, or what its agent's frames are.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

assert sys.platform == "linux", "Firecracker is for Linux"

from guactors.errors import ImageRefused, InstanceLost, RuntimeMissing
from guactors.home import home
from guactors.images.manifest import Config
from guactors.runtimes.base import Capability, Command, Probe, Process, Spec, Stats
from guactors.runtimes.choice import guest_packages
from guactors.runtimes.firecracker import driver
from guactors.runtimes.firecracker.agent import Guest
from guactors.runtimes.qemu import scratch, storage
from guactors.runtimes.qemu.guest.kernel import unpacked
from guactors.runtimes.qemu.guest.make import Guest as GuestFiles
from guactors.runtimes.qemu.guest.make import make_guest
from guactors.runtimes.qemu.inside import Inside
from guactors.runtimes.qemu.line import Line

if TYPE_CHECKING:
    from guactors.images.store import ImageStore

PORT: Final = 5000
"""Of the vsock, where the agent listens."""
OWN_MIB: Final = 96
ARGUMENTS: Final = (
    "console=ttyS0 quiet loglevel=3 reboot=k panic=1 pci=off random.trust_cpu=on i8042.noaux "
    "i8042.nomux i8042.dumbkbd cryptomgr.notests rcupdate.rcu_expedited=1 "
    f"gu_upper=64m gu_vsock={PORT}"
)
"""All that the kernel is told: Firecracker's own words forbid modules, and this kernel has its
drivers in modules. What begins with ``gu_`` is for the first program in the guest."""
_ASK_WITHIN: Final = 5.0
_ELF: Final = b"\x7fELF"
_LEAST_DISK: Final = 4 * scratch.MIB


class FirecrackerRuntime(driver.FirecrackerRuntime):
    """:class:`~guactors.runtimes.base.Runtime`. ``images`` opens the store; ``packages``: the
    directory of the Debian packages that guests are made of; ``cache``: what may be made again;
    ``guest``: the files of one that was made elsewhere; the others as in ``driver.py``."""

    capabilities = driver.FirecrackerRuntime.capabilities | {Capability.PIDS}

    def __init__(
        self,
        images: Callable[[], ImageStore],
        *,
        packages: Path | None = None,
        cache: Path | None = None,
        guest: GuestFiles | None = None,
        binary: str = "firecracker",
        kvm: str = "/dev/kvm",
        within: float = driver.AGENT_WITHIN,
    ) -> None:
        super().__init__(self._made, images, binary=binary, kvm=kvm, within=within)
        self._store = images
        self._packages = packages
        self._cache = cache
        self._files = guest
        self._whole: Guest | None = None

    def probe(self) -> Probe:
        """See Runtime."""
        found = super().probe()
        if not found.usable or self._files is None:
            return found
        facts = {**found.facts, "kernel": self._files.release, "isolation": "a machine of its own"}
        return Probe(True, found.version, facts=facts)

    def _made(self) -> Guest:
        """Made when it is first wanted."""
        if self._whole is None:
            cache = self._cache or home() / "cache" / "qemu"
            if self._files is None:
                self._files = make_guest(self._packages or guest_packages(), cache)
            if not scratch.find_mke2fs():
                raise RuntimeMissing("a machine's disk needs the program mke2fs: install e2fsprogs")
            self._whole = Guest(
                str(elf_kernel(self._files)), str(self._files.initrd), ARGUMENTS, PORT,
                self._open_agent, lambda path, size: make_disk(cache, path, size), OWN_MIB,
            )  # fmt: skip
        return self._whole

    def _open_agent(self, stream: socket.socket, spec: Spec, within: float) -> GuestAgent:
        config = self._store().get(spec.image).manifest.config if spec.image else Config()
        return GuestAgent(stream, spec, config, within)


class GuestAgent:
    """:class:`~guactors.runtimes.firecracker.agent.Agent`: ours, on a stream that is connected."""

    def __init__(self, stream: socket.socket, spec: Spec, config: Config, within: float) -> None:
        self._within = within
        self._line = Line(stream)
        self._inside = Inside(self._line, spec, config, None)
        try:
            self._welcome(keep=False)
        except BaseException:
            self._line.close()
            raise

    def _welcome(self, *, keep: bool) -> None:
        self._inside.welcome(self._within, keep=keep)
        fault = self._inside.fault
        if fault.startswith("the root file system"):
            raise ImageRefused(f"the image cannot be read by the guest: {fault}")
        if fault:
            raise InstanceLost(f"the guest could not be set up: {fault}")
        self._line.watched = True

    def exec(self, command: Command) -> Process:
        """See Agent; so all that follow."""
        return self._inside.exec(command)

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """All of it over the stream: a machine of Firecracker has no mailbox disk."""
        self._inside.put(path, data, tar=tar)

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """Likewise."""
        return self._inside.get(path, tar=tar)

    def stats(self) -> Stats:
        """The rest is counted outside."""
        return Stats(processes=self._inside.stats(_ASK_WITHIN).get("processes"))

    def stop(self, grace: float) -> None:
        """All programs are asked, then ended."""
        self._inside.stop(grace)

    def pause(self) -> None:
        """Nothing is under way on the stream after that. What is not on the disk is in the memory,
        and both are kept as they are at the same moment."""
        self._line.watched = False
        self._inside.quiet(self._within)

    def resume(self) -> None:
        """The hello sets the clock."""
        self._welcome(keep=True)

    def restored(self) -> None:
        """The hello sets the clock and renews the randomness."""
        self._welcome(keep=False)

    def close(self) -> None:
        """Its programs end with the line, as far as anybody here is told."""
        self._line.close()


def elf_kernel(files: GuestFiles) -> Path:
    """The kernel as Firecracker wants it, made once beside the one it is made of. Raises
    RuntimeMissing for one that this Python cannot unpack."""
    with files.kernel.open("rb") as file:
        if file.read(len(_ELF)) == _ELF:
            return files.kernel
    path = files.kernel.with_name("vmlinux")
    if path.exists():
        return path
    data = unpacked(files.kernel.read_bytes())
    if not data.startswith(_ELF):
        raise RuntimeMissing(
            f"the kernel {files.release} of {files.kernel.parent} is packed in a way that this "
            "Python cannot read, and Firecracker boots only what is unpacked: take the package "
            "linux-image-cloud-amd64 of Debian 12"
        )
    fd, fresh = tempfile.mkstemp(prefix=".vmlinux-", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
    return path


def make_disk(cache: Path, path: Path, size: int) -> None:
    """A new file with an empty file system of at most ``size`` bytes."""
    source = scratch.template(cache, max(_LEAST_DISK, size // scratch.MIB * scratch.MIB))
    with source.open("rb") as old, path.open("xb") as new:
        new.truncate(os.fstat(old.fileno()).st_size)
        for at, length in storage.extents(old.fileno()):
            storage.copy(old.fileno(), at, new.fileno(), at, length)
