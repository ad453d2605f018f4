"""Images in virtual machines, each instance in a guest of its own.

Owns: what an instance is here: a QEMU process, its guest, a disk without a name. Must never: show a
guest a file of this machine, give it a network, or believe what it says of itself where this
machine can count.

Processor time is held by a group of the kernel's around QEMU where there are groups, memory and
processes by one inside the guest, and all of it by the size of the guest; the disk by its size.
What the machine's system has for all that is behind ``hosts/base.py``.

``Spec.options``: see ``plan.py``.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import psutil

from guactors.errors import ImageRefused, InstanceLost, RuntimeMissing, UsageError
from guactors.home import home
from guactors.images.manifest import Config
from guactors.images.squashfs import read_superblock
from guactors.messages import Limits
from guactors.runtimes.base import Capability, Command, Probe, Process, Spec, Stats
from guactors.runtimes.cgroup import Group
from guactors.runtimes.cgroup_places import find_places, sweep
from guactors.runtimes.choice import guest_packages
from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.qemu import scratch, storage
from guactors.runtimes.qemu.boot import Ground, Guest, Keeper, restore, start_guest
from guactors.runtimes.qemu.data import DataDisks
from guactors.runtimes.qemu.found import find_qemu, host_tsc_khz
from guactors.runtimes.qemu.guest.make import Guest as GuestFiles
from guactors.runtimes.qemu.guest.make import make_guest
from guactors.runtimes.qemu.hosts.base import HARDWARE, Host, find_host, profile_of
from guactors.runtimes.qemu.line import SAVED
from guactors.runtimes.qemu.plan import make_plan
from guactors.runtimes.qemu.probe import Chosen, choose
from guactors.runtimes.qemu.warm import WarmGuests
from guactors.runtimes.tools import INSTALL, find_tool

if TYPE_CHECKING:
    from guactors.images.store import ImageStore

PREFIX: Final = "gu:"
"""Of the names of our machines; the owner and the instance follow."""
_STATS_WITHIN: Final = 5.0
_LOOK_WITHIN: Final = 2.0
_ARCH: Final = "x86_64"


class QemuRuntime:
    """:class:`~guactors.runtimes.base.Runtime`. ``images`` opens the store; ``packages``: the
    directory of the Debian packages that guests are made of; ``cache``: what may be made again;
    ``program``: QEMU's, empty for the usual; ``guest``: one that was made elsewhere; ``host``: what
    the system has for it, None for this machine's."""

    name = "qemu"

    def __init__(
        self,
        images: Callable[[], ImageStore] | None = None,
        *,
        packages: Path | None = None,
        cache: Path | None = None,
        program: str = "",
        guest: GuestFiles | None = None,
        host: Host | None = None,
    ) -> None:
        self.host = host or find_host()
        self._images = images
        self._program = program
        self._packages = packages or guest_packages()
        self._cache = cache or home() / "cache" / "qemu"
        self._warm = WarmGuests(self._cache / "warm")
        self._data = DataDisks(self._cache / "data")
        self._guest = guest
        self._accelerator: Chosen | None = None
        self._counting = threading.Lock()
        self._retries = 0
        self.guardian = Guardian()
        places = find_places() if sys.platform == "linux" else None
        self._places = places
        self.capabilities = self.host.can | ({Capability.CPU} if places is not None else set())

    def probe(self) -> Probe:
        """See Runtime; so all that follow."""
        try:
            qemu = find_qemu(self._program, self.host)
            found = self._chosen()
        except (RuntimeMissing, UsageError) as error:
            return Probe(False, reason=str(error))
        facts = {
            "accel": found.name,
            self.host.accelerators[0]: found.reason or "works",
            "boot": f"{found.seconds:.1f} s",
            "kernel": self._files().release,
            "limits": self._places.guarantee if self._places is not None else "guest only",
            "scratch": self._scratch(),
            "isolation": self.host.isolation(),
            "mounts": self._mounts(),
            "boot_retries": str(self._retries),
        }
        if Capability.SAVE not in self.capabilities:
            facts["save"] = f"no, and each guest boots: not tried on {self.host.name}"
        if found.name == "tcg":
            facts["speed"] = "emulated: programs run 10 to 50 times slower"
        return Probe(found.usable, qemu.version, "" if found.usable else found.reason, facts)

    def create(self, spec: Spec) -> QemuInstance:
        """Nothing is started yet."""
        return QemuInstance(self, spec, *self._ground(spec))

    def restore(self, spec: Spec, path: str) -> QemuInstance:
        """It runs when this returns."""
        self.need(Capability.SAVE, "goes on from a file")
        made = QemuInstance(self, spec, *self._ground(spec))
        try:
            made.go_on(path)
        except BaseException:
            made.close()
            raise
        return made

    def reap(self, owner: str) -> list[str]:
        """QEMU's own words tell whose it is."""
        found = []
        mine = f"{PREFIX}{owner}:"
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                name = next((word for word in words if word.startswith(mine)), "")
                if name and "qemu" in os.path.basename(words[0]):
                    process.kill()
                    found.append(name.removeprefix(mine))
        if self._places is not None:
            sweep(self._places)
        return sorted(found)

    def close(self) -> None:
        """The guardian goes."""
        self.guardian.close()

    # --- what instances share -------------------------------------------------------------------

    def _files(self) -> GuestFiles:
        if self._guest is None:
            self._guest = make_guest(self._packages, self._cache)
        return self._guest

    def _chosen(self) -> Chosen:
        if self._accelerator is None:
            qemu = find_qemu(self._program, self.host)
            self._accelerator = choose(qemu, self._files(), self._cache, self.guardian, self.host)
        return self._accelerator

    def need(self, capability: Capability, what: str) -> None:
        """Raise UsageError where no guest does that."""
        if capability not in self.capabilities:
            raise UsageError(f"on {self.host.name} no guest {what}: nobody has tried that there")

    def _scratch(self) -> str:
        if Capability.DISK not in self.capabilities:
            return f"memory: {self.host.name} has no disks for guests"
        return "disk" if scratch.find_mke2fs() else "memory: install e2fsprogs"

    def _mounts(self) -> str:
        if Capability.MOUNT not in self.capabilities:
            return "none"
        return "disks" if find_tool("mksquashfs") else f"squashfs files only: {INSTALL}"

    def start(self, ground: Ground, keeper: Keeper) -> Guest:
        """A guest for an instance."""
        try:
            return start_guest(ground, self.guardian, self._warm, keeper)
        finally:
            with self._counting:
                self._retries += keeper.retries

    def group(self, name: str) -> Group | None:
        """That counts a guest's QEMU and holds its processor time; None where there are none."""
        return (
            None
            if self._places is None
            else Group(self._places, name, Limits(), ("cpu", "cpuacct"))
        )

    def _ground(self, spec: Spec) -> tuple[Ground, list[int]]:
        if spec.network != "none":
            raise UsageError("a guest has no network: only network='none' is possible")
        if not spec.image:
            raise UsageError("a guest runs an image: name one, or take the runtime native")
        if self._images is None:
            raise RuntimeMissing(f"there is no store of images to take {spec.image} from")
        if spec.mounts:
            self.need(Capability.MOUNT, "is shown directories")
        qemu = find_qemu(self._program, self.host)
        files = self._files()
        disks = Capability.DISK in self.capabilities and scratch.find_mke2fs()
        size = scratch.disk_for(spec.limits.disk) if disks else 0
        plan = make_plan(
            spec.options, spec.limits, name=f"{PREFIX}{spec.owner}:{spec.instance}",
            qemu=qemu, guest=files, image=spec.image, scratch=size,
            profile=profile_of(self._chosen().name),
            tsc_khz=host_tsc_khz() if spec.options.get("machine") == "microvm" else 0,
            processors=os.cpu_count() or 1, data=len(spec.mounts),
            hardware=tuple(one for one in self.host.accelerators if one in HARDWARE),
        )  # fmt: skip
        if Capability.SAVE not in self.capabilities:
            plan = msgspec.structs.replace(plan, warm=False)
        empty = scratch.template(self._cache, size) if size else None
        config, root, path = self._open(spec.image)
        try:
            data = self._data.open(spec.mounts)
        except BaseException:
            os.close(root)
            raise
        ground = Ground(spec, config, plan, self.host, root, path, empty, data)
        return ground, [root, *(one.fd for one in data)]

    def _open(self, image: str) -> tuple[Config, int, str]:
        """What runs in the image, and the descriptor and path of its root file system, verified."""
        assert self._images is not None
        store = self._images()
        manifest = store.get(image).manifest
        if manifest.arch != _ARCH:
            raise ImageRefused(
                f"the image {image} is for {manifest.arch}, and guests here are {_ARCH}"
            )
        if manifest.blob("rootfs").media != "squashfs":
            raise ImageRefused(
                f"the image {image} has a root of the kind {manifest.blob('rootfs').media}, and a "
                "guest needs a squashfs: build it again with media='squashfs'"
            )
        with store.open_blob(image, "rootfs") as file:
            read_superblock(file, file.seek(0, 2), f"the image {image}")
            return manifest.config, os.dup(file.fileno()), store.blob_path(image, "rootfs")


class QemuInstance:
    """:class:`~guactors.runtimes.base.Driver`. ``owned``: descriptors to close with it."""

    def __init__(self, runtime: QemuRuntime, spec: Spec, ground: Ground, owned: list[int]) -> None:
        self._runtime = runtime
        self._spec = spec
        self._ground = ground
        self._owned = owned
        self._guest: Guest | None = None
        self._group: Group | None = None
        self._paused = self._closed = False
        self._closing = threading.Lock()
        self._starting = threading.Lock()
        self._keeper = Keeper()

    @property
    def guest(self) -> Guest:
        """The one that runs. Raises InstanceLost where there is none any more."""
        if self._guest is None:
            raise InstanceLost(f"the guest of {self._spec.instance} is not there")
        return self._guest

    def start(self) -> None:
        """From a warm guest, or by booting."""
        with self._starting:
            self._run(self._runtime.start(self._ground, self._keeper))

    def go_on(self, path: str) -> None:
        """From a file that ``save`` wrote."""
        try:
            fd = storage.open_to_read(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        try:
            with self._starting:
                guardian = self._runtime.guardian
                self._run(restore(self._ground, guardian, self._keeper, fd, path))
        finally:
            os.close(fd)

    def _run(self, guest: Guest) -> None:
        self._guest = guest
        self._group = self._runtime.group(self._spec.instance)
        if self._group is not None:
            # After it has booted: that is not the image's doing.
            self._group.add(guest.vm.pid)
            self._group.hold(Limits(cpu=self._spec.limits.cpu))

    def exec(self, command: Command) -> Process:
        """By the agent."""
        return self.guest.inside.exec(command)

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """By the agent, what is large over the mailbox disk."""
        self.guest.inside.put(path, data, tar=tar)

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """Likewise."""
        return self.guest.inside.get(path, tar=tar)

    def pause(self) -> None:
        """QEMU stops it."""
        guest = self.guest
        guest.vm.line.pause()
        guest.vm.qmp.execute("stop")
        self._paused = True

    def resume(self) -> None:
        """QEMU goes on."""
        guest = self.guest
        guest.vm.qmp.execute("cont")
        self._paused = False
        guest.vm.line.resume()

    def save(self, path: str) -> None:
        """Its agent falls silent, QEMU writes its memory, we write its disk."""
        guest = self.guest
        self._runtime.need(Capability.SAVE, "is saved")
        if self._paused:
            self.resume()
        guest.save(Path(path), self._ground.plan.key, self._ground.data)
        guest.close(SAVED)

    def stats(self) -> Stats:
        """Of QEMU, which this machine counts; of processes only the guest knows."""
        guest = self.guest
        cpu, memory, peak, read, written = _counted(guest.vm.pid)
        if self._group is not None:
            cpu = self._group.cpu_seconds()
        told: dict[str, int] = {}
        if not self._paused:
            told = guest.inside.stats(_STATS_WITHIN)
        return Stats(
            cpu, memory, peak, self._disk(told), read, written, processes=told.get("processes")
        )

    def disk_used(self) -> int | None:
        """As the guest says, so that what it still holds in memory counts; where it does not say,
        what its disk takes on this machine."""
        guest = self._guest
        if guest is None or guest.disk < 0:
            return None
        told: dict[str, int] = {}
        with suppress(InstanceLost):
            told = guest.inside.stats(_LOOK_WITHIN)
        with suppress(OSError):
            return self._disk(told)
        return None

    def _disk(self, told: dict[str, int]) -> int:
        guest = self.guest
        here = scratch.used(guest.disk) if guest.disk >= 0 else 0
        return max(0, told["disk"] - guest.begun) if "disk" in told else here

    def lost(self) -> str:
        """As its line knows."""
        return "" if self._guest is None else self._guest.vm.line.over

    def stop(self, grace: float) -> None:
        """Its programs are asked; of the guest itself nothing is kept, so it is just ended."""
        self.guest.inside.stop(grace)

    def close(self) -> None:
        """All of it at once, also one that is being started: who starts it learns so, and what it
        was given is not closed before."""
        self._keeper.end()
        with self._starting, self._closing:
            if self._closed:
                return
            self._closed = True
            try:
                if self._guest is not None:
                    self._guest.close()
                if self._group is not None:
                    self._group.remove()
            finally:
                for fd in self._owned:
                    os.close(fd)


def _counted(
    pid: int,
) -> tuple[float | None, int | None, int | None, int | None, int | None]:
    try:
        process = psutil.Process(pid)
        times, memory = process.cpu_times(), process.memory_info()
        cpu, peak = times.user + times.system, getattr(memory, "peak_wset", None) or _peak(pid)
        if sys.platform == "darwin":  # which does not count what a process reads and writes
            return cpu, memory.rss, peak, None, None
        moved = process.io_counters()
        return cpu, memory.rss, peak, moved.read_bytes, moved.write_bytes
    except psutil.Error:
        return None, None, None, None, None


def _peak(pid: int) -> int | None:
    """Linux tells; Windows has it in the figures of the memory."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
