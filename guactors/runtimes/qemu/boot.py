"""From a plan to a guest that answers.

Owns: the disks of one guest, the tries, the watchdog, the warm start. Must never: wait for a guest
beyond its time, or give up the reason of a try that failed.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from guactors.errors import (
    GuactorsError,
    ImageRefused,
    InstanceLost,
    ProgramNotStarted,
    UsageError,
)
from guactors.images.manifest import Config
from guactors.runtimes.base import Command, Exit, Spec
from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.qemu import saved, scratch
from guactors.runtimes.qemu.argv import Disk, data_serial
from guactors.runtimes.qemu.box import Box
from guactors.runtimes.qemu.data import DataDisk, check_marks
from guactors.runtimes.qemu.hosts.base import Host
from guactors.runtimes.qemu.inside import Inside
from guactors.runtimes.qemu.line import CLOSED
from guactors.runtimes.qemu.plan import LEAST, Plan
from guactors.runtimes.qemu.vm import Vm
from guactors.runtimes.qemu.warm import WarmGuests

TRIES: Final = 3
RESTORE_WITHIN: Final = 15.0
QUIET_WITHIN: Final = 10.0
_PYTHON: Final = Command(("python3", "-c", "import os, sys; print(len(os.listdir()), sys.argv)"))
_PREPARED_FROM: Final = LEAST + 1
"""MiB of a guest, from which on it has room for an interpreter that waits."""


class Ground(Struct, frozen=True):
    """What a guest stands on: ``root``, the descriptor of its image's file, -1 for none, and
    ``path``, where that is; ``empty``, an empty disk to copy, None for memory; ``data``: disks that
    it only reads."""

    spec: Spec
    config: Config
    plan: Plan
    host: Host
    root: int
    path: str
    empty: Path | None
    data: tuple[DataDisk, ...] = ()


class Keeper:
    """Who may end a guest that is not ready yet. ``retries``: boots that were tried in vain."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._vm: Vm | None = None
        self._over = False
        self.retries = 0

    def keep(self, vm: Vm) -> None:
        """It is this one from here on. Raises InstanceLost, and ends it, where none is wanted."""
        with self._lock:
            self._vm = vm
            over = self._over
        if over:
            vm.close()
            raise InstanceLost(CLOSED)

    def end(self) -> None:
        """None is wanted any more. Idempotent."""
        with self._lock:
            self._over = True
            vm = self._vm
        if vm is not None:
            vm.close()


class Guest:
    """One that answers. ``disk``: the descriptor of its scratch disk, -1 for none; ``begun``: bytes
    of it that were in use when it was empty; ``tries``: boots that it took, 0 for a warm start."""

    def __init__(self, vm: Vm, inside: Inside, box: Box | None, disk: int) -> None:
        self.vm = vm
        self.inside = inside
        self.box = box
        self.disk = disk
        self.begun = 0
        self.tries = 0

    def close(self, why: str = CLOSED) -> None:
        """End it at once. Idempotent."""
        self.vm.close(why)
        if self.box is not None:
            self.box.close()
        if self.disk >= 0:
            os.close(self.disk)
            self.disk = -1

    def save(self, path: Path, key: str, data: tuple[DataDisk, ...] = ()) -> None:
        """Stand still and write all of it to the file. ``data``: disks that it has mounted. Raises
        InstanceLost, OSError."""
        self.vm.line.watched = False
        self.inside.quiet(QUIET_WITHIN)
        self.vm.qmp.execute("stop")
        marks = tuple(one.mark for one in data)
        saved.write(path, key, self.vm.qmp, self.disk, self.begun, marks)


def start_guest(ground: Ground, guardian: Guardian, warm: WarmGuests, keeper: Keeper) -> Guest:
    """From a warm one if there is any, else by booting; its data disks are mounted. Raises
    InstanceLost, ImageRefused, RuntimeMissing, UsageError."""
    guest = _plain_guest(ground, guardian, warm, keeper)
    if ground.data:
        try:
            guest.inside.mount(_serials(ground), [one.target for one in ground.data])
        except BaseException:
            guest.close()
            raise
    return guest


def _plain_guest(ground: Ground, guardian: Guardian, warm: WarmGuests, keeper: Keeper) -> Guest:
    plan = ground.plan
    if not plan.warm:
        return boot(ground, guardian, keeper)
    fd = warm.open(plan.key)
    if fd is not None:
        try:
            return restore(ground, guardian, keeper, fd, "a warm guest")
        except (InstanceLost, ImageRefused):
            warm.drop(plan.key)  # what was to save time must not cost the instance
        finally:
            os.close(fd)
    guest = boot(ground, guardian, keeper)
    try:
        if ground.config.python:
            _warm_up(guest, prepare=plan.machine.memory >= _PREPARED_FROM)
        if ground.data:
            guest.inside.mount(_serials(ground), [])
        with suppress(OSError):  # no room for it: the guest itself is well
            guest.save(warm.path(plan.key), plan.key)
            warm.trim(plan.key)
        guest.vm.qmp.execute("cont")
        _welcome(guest, RESTORE_WITHIN)
    except BaseException:
        guest.close()
        raise
    return guest


def _warm_up(guest: Guest, *, prepare: bool) -> None:
    """Have the image's Python in the guest's memory: reading and unpacking it is half of the time
    that its first program takes. Then have one wait."""
    try:
        process = guest.inside.exec(_PYTHON)
    except ProgramNotStarted:
        return
    until = time.monotonic() + RESTORE_WITHIN
    while (left := until - time.monotonic()) > 0 and not isinstance(process.read(left), Exit):
        continue
    process.close()
    if prepare:
        with suppress(UsageError):  # what is called so may be no Python
            guest.inside.prepare(_PYTHON.argv[0], 2 * RESTORE_WITHIN)


def boot(ground: Ground, guardian: Guardian, keeper: Keeper) -> Guest:
    """Up to TRIES times, the last one as q35, which hangs least."""
    faults: list[str] = []
    for number in range(1, TRIES + 1):
        profile = ground.plan.machine.profile
        if number == TRIES and profile == "microvm":
            profile = "q35"
        began = time.monotonic()
        disk = -1 if ground.empty is None else scratch.fresh_disk(
            ground.empty, Path(ground.spec.directory)
        )  # fmt: skip
        guest = _begin(ground, guardian, keeper, disk, incoming=False, profile=profile)
        try:
            _welcome(guest, ground.plan.boot_within)
        except InstanceLost as error:
            took = time.monotonic() - began
            faults.append(f"try {number} ({profile}, {took:.1f} s): {error}{guest.vm.tail()}")
            guest.close()
            keeper.retries += 1
        except BaseException:
            guest.close()
            raise
        else:
            guest.tries = number
            guest.begun = _number(guest.inside.hello.get("disk"))
            return guest
    raise InstanceLost(
        f"the guest {ground.spec.instance} did not boot in {TRIES} tries: " + "\n".join(faults)
    )


def restore(ground: Ground, guardian: Guardian, keeper: Keeper, fd: int, path: str) -> Guest:
    """What was saved in an open file, which stays open."""
    head = saved.read_head(fd, ground.plan.key, path)
    check_marks(head.data, ground.data, path)
    disk = saved.read_disk(fd, head, Path(ground.spec.directory))
    profile = ground.plan.machine.profile
    guest = _begin(ground, guardian, keeper, disk, incoming=True, profile=profile)
    try:
        saved.load(guest.vm.qmp, fd)
        _welcome(guest, RESTORE_WITHIN)
        guest.begun = head.disk_begun
    except GuactorsError as error:
        tail = guest.vm.tail()
        guest.close()
        raise InstanceLost(f"{path} does not go on: {error}{tail}") from None
    except BaseException:
        guest.close()
        raise
    return guest


def _begin(
    ground: Ground, guardian: Guardian, keeper: Keeper, disk: int, *, incoming: bool, profile: str
) -> Guest:
    box: Box | None = None
    try:
        box = ground.host.mailbox()
        disks = []
        if ground.root >= 0:
            disks.append(Disk("root", ground.root, read_only=True, path=ground.path))
        if disk >= 0:
            disks.append(Disk("scratch", disk))
        if box is not None:
            disks.append(Disk("box", box.fd))
        disks += [
            Disk(serial, one.fd, read_only=True)
            for serial, one in zip(_serials(ground), ground.data, strict=True)
        ]
        machine = msgspec.structs.replace(
            ground.plan.machine, disks=tuple(disks), incoming=incoming, profile=profile
        )
        vm = Vm(machine, guardian, ground.host)
        keeper.keep(vm)
    except BaseException:
        if box is not None:
            box.close()
        if disk >= 0:
            os.close(disk)
        raise
    return Guest(vm, Inside(vm.line, ground.spec, ground.config, box), box, disk)


def _serials(ground: Ground) -> list[str]:
    return [data_serial(number) for number in range(len(ground.data))]


def _welcome(guest: Guest, within: float) -> None:
    guest.inside.welcome(within)
    fault = guest.inside.fault
    if fault.startswith("the root file system"):
        raise ImageRefused(f"the image cannot be read by the guest: {fault}")
    if fault:
        raise InstanceLost(f"the guest could not be set up: {fault}")
    guest.vm.line.watched = True


def _number(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
