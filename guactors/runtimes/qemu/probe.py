"""Which accelerator works on this machine, found out by booting with it.

Owns: the trial, and the file that remembers it. Must never: believe a look where a boot would tell.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from guactors.errors import InstanceLost, RuntimeMissing
from guactors.images.manifest import Config
from guactors.runtimes.base import Spec
from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.qemu.argv import Disk, Machine, Profile
from guactors.runtimes.qemu.found import Qemu
from guactors.runtimes.qemu.guest.make import Guest
from guactors.runtimes.qemu.hosts.base import Accelerator, Host, profile_of
from guactors.runtimes.qemu.inside import Inside
from guactors.runtimes.qemu.vm import Vm

WITHIN: Final[dict[Accelerator, float]] = {"kvm": 5.0, "hvf": 10.0, "whpx": 10.0, "tcg": 30.0}
_MEMORY: Final = 128


class Chosen(Struct, frozen=True):
    """``reason``: why there is nothing better, or why this does not work; ``seconds``: until its
    agent answered."""

    name: Accelerator
    usable: bool
    reason: str = ""
    seconds: float = 0.0


def choose(qemu: Qemu, guest: Guest, cache: Path, guardian: Guardian, host: Host) -> Chosen:
    """The best that works, remembered until something changes that matters."""
    path = cache / f"accelerator-{_key(qemu, guest, host)}"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Chosen)
    except (OSError, msgspec.DecodeError):
        found = _try_out(qemu, guest, guardian, host)
    if found.usable:
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(found))
        fresh.replace(path)
    return found


def _try_out(qemu: Qemu, guest: Guest, guardian: Guardian, host: Host) -> Chosen:
    reasons = []
    for name in host.accelerators:
        if reason := host.why_not(name):
            reasons.append(reason)
            continue
        seconds, fault = try_boot(qemu, guest, guardian, profile_of(name), WITHIN[name], host)
        if not fault:
            return Chosen(name, True, "; ".join(reasons), seconds)
        what = "no guest boots here" if name == "tcg" else f"{host.hypervisor} but cannot boot"
        reasons.append(f"{what}: {fault}")
    return Chosen(host.accelerators[-1], False, reasons[-1])


def try_boot(
    qemu: Qemu, guest: Guest, guardian: Guardian, profile: Profile, within: float, host: Host
) -> tuple[float, str]:
    """Seconds until the agent of a guest without an image answered, and why it did not."""
    box = host.mailbox()
    machine = Machine(
        qemu.path, "gu:probe", str(guest.kernel), str(guest.initrd), 0, 0, 0,
        profile=profile, memory=_MEMORY, disks=() if box is None else (Disk("box", box.fd),),
    )  # fmt: skip
    began = time.monotonic()
    try:
        vm = Vm(machine, guardian, host)
        try:
            Inside(vm.line, Spec("probe", "", ""), Config(), box).welcome(within)
            return time.monotonic() - began, ""
        except InstanceLost as error:
            return 0.0, f"{error}{vm.tail()}"
        finally:
            vm.close()
    except RuntimeMissing as error:
        return 0.0, str(error)
    finally:
        if box is not None:
            box.close()


def _key(qemu: Qemu, guest: Guest, host: Host) -> str:
    words = (qemu.path, qemu.version, guest.key, host.name, *host.facts())
    return hashlib.sha3_256("\0".join(words).encode()).hexdigest()[:32]
