"""Which accelerator works on this machine, found out by booting with it.

Owns: the trial, and the file that remembers it. Must never: take a ``/dev/kvm`` that opens for one
that works: on some machines it does not.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

assert sys.platform == "linux", "QEMU is driven on Linux only"

from guactors.errors import InstanceLost, RuntimeMissing
from guactors.images.manifest import Config
from guactors.runtimes.base import Spec
from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.qemu.argv import Disk, Machine, Profile
from guactors.runtimes.qemu.box import Box
from guactors.runtimes.qemu.found import Qemu
from guactors.runtimes.qemu.guest.make import Guest
from guactors.runtimes.qemu.inside import Inside
from guactors.runtimes.qemu.vm import Vm

KVM_WITHIN: Final = 5.0
TCG_WITHIN: Final = 30.0
_MEMORY: Final = 128
_KVM: Final = Path("/dev/kvm")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Accelerator(Struct, frozen=True):
    """``reason``: why there is nothing better, or why this does not work; ``seconds``: until its
    agent answered."""

    name: Literal["kvm", "tcg"]
    usable: bool
    reason: str = ""
    seconds: float = 0.0


def choose(
    qemu: Qemu, guest: Guest, cache: Path, guardian: Guardian, kvm: Path = _KVM
) -> Accelerator:
    """The best that works, remembered until something changes that matters."""
    path = cache / f"accelerator-{_key(qemu, guest, kvm)}"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Accelerator)
    except (OSError, msgspec.DecodeError):
        found = _try_out(qemu, guest, guardian, kvm)
    if found.usable:
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(found))
        fresh.replace(path)
    return found


def _try_out(qemu: Qemu, guest: Guest, guardian: Guardian, kvm: Path) -> Accelerator:
    if not os.access(kvm, os.R_OK | os.W_OK):
        reason = why_not_ours(kvm)
    else:
        seconds, reason = try_boot(qemu, guest, guardian, "kvm", KVM_WITHIN)
        if not reason:
            return Accelerator("kvm", True, "", seconds)
        reason = f"{kvm} opens but cannot boot: {reason}"
    seconds, fault = try_boot(qemu, guest, guardian, "q35", TCG_WITHIN)
    if fault:
        return Accelerator("tcg", False, f"no guest boots here: {fault}")
    return Accelerator("tcg", True, reason, seconds)


def why_not_ours(kvm: Path) -> str:
    """Of a device that this process may not open."""
    if not kvm.exists():
        return (
            f"there is no {kvm}: switch virtualisation on in the firmware, or nested "
            "virtualisation on the machine's host"
        )
    return f"{kvm} is not ours to use: add this user to its group (usually kvm)"


def try_boot(
    qemu: Qemu, guest: Guest, guardian: Guardian, profile: Profile, within: float
) -> tuple[float, str]:
    """Seconds until the agent of a guest without an image answered, and why it did not."""
    machine = Machine(
        qemu.path, "gu:probe", str(guest.kernel), str(guest.initrd), 0, 0, 0,
        profile=profile, memory=_MEMORY,
    )  # fmt: skip
    box = Box()
    began = time.monotonic()
    try:
        vm = Vm(msgspec.structs.replace(machine, disks=(Disk("box", box.fd),)), guardian)
    except RuntimeMissing as error:
        box.close()
        return 0.0, str(error)
    try:
        Inside(vm.line, Spec("probe", "", ""), Config(), box).welcome(within)
        return time.monotonic() - began, ""
    except InstanceLost as error:
        return 0.0, f"{error}{vm.tail()}"
    finally:
        vm.close()
        box.close()


def _key(qemu: Qemu, guest: Guest, kvm: Path) -> str:
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
    ours = str(os.access(kvm, os.R_OK | os.W_OK))
    words = (qemu.path, qemu.version, guest.key, platform.release(), boot, model, str(kvm), ours)
    return hashlib.sha3_256("\0".join(words).encode()).hexdigest()[:32]
