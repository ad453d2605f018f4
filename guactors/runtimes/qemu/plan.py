"""Which machine an instance gets.

Owns: the numbers, from limits and options, and the key of all that must be the same where a saved
guest goes on. Must never: start or open anything.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from guactors.errors import UsageError
from guactors.messages import Limits
from guactors.runtimes.qemu.argv import (
    TB_SIZE,
    Disk,
    Machine,
    Profile,
    build_argv,
    data_serial,
)
from guactors.runtimes.qemu.found import Qemu
from guactors.runtimes.qemu.guest.make import Guest

LEAST: Final = 96
"""MiB with which a guest boots."""
OWN: Final = 80
"""MiB of a guest that its kernel and agent want for themselves."""
USUAL: Final = 256
STEP: Final = 32
"""MiB: so that limits that differ little share one warm guest."""
_MIB: Final = 1 << 20
_PROCESSORS_MOST: Final = 64
OPTIONS: Final = {
    "machine": str, "memory": int, "tb_size": int, "warm": bool, "boot_within": float,
}  # fmt: skip
"""``machine``: ``auto`` or a profile; ``memory``: MiB of the guest, instead of what its limit
needs; ``tb_size``: MiB, see ``argv.py``; ``warm``: false boots anew each time; ``boot_within``:
seconds of one try."""


class Plan(Struct, frozen=True):
    """``machine``: without descriptors; ``key``: of a saved guest; ``scratch``: bytes of its disk,
    0 for memory."""

    machine: Machine
    key: str
    scratch: int
    warm: bool
    boot_within: float


def make_plan(
    options: dict[str, Any],
    limits: Limits,
    *,
    name: str,
    qemu: Qemu,
    guest: Guest,
    image: str,
    profile: Profile,
    scratch: int,
    tsc_khz: int,
    processors: int,
    data: int = 0,
    hardware: tuple[str, ...] = ("kvm",),
) -> Plan:
    """``profile``: where the options leave it open; ``image``: its id, empty for none; ``scratch``:
    bytes of the disk, 0 where none can be made; ``processors``: of this machine; ``data``: how many
    disks with data it has; ``hardware``: the profiles besides those that are emulated. Raises
    UsageError."""
    _check(options)
    wanted = options.get("machine", "auto")
    there = ("auto", "q35", "microvm", *hardware)
    if wanted not in there:
        raise UsageError(f"there is no machine {wanted!r}: there are {', '.join(there)}")
    if wanted != "auto":
        profile = cast(Profile, wanted)
    memory = options.get("memory") or memory_for(limits.memory)
    if memory < LEAST:
        raise UsageError(f"a guest with {memory} MiB does not boot: give it {LEAST} or more")
    machine = Machine(
        qemu.path, name, str(guest.kernel), str(guest.initrd), 0, 0, 0,
        profile=profile, memory=memory, processors=processors_for(limits.cpu, processors),
        tb_size=options.get("tb_size", TB_SIZE), upper=memory // 2, tsc_khz=tsc_khz,
    )  # fmt: skip
    within = float(options.get("boot_within", 5.0 if profile == "kvm" else 15.0))
    key = key_of(machine, qemu, guest, image, scratch, data)
    return Plan(machine, key, scratch, bool(options.get("warm", True)), within)


def key_of(
    machine: Machine, qemu: Qemu, guest: Guest, image: str, scratch: int, data: int = 0
) -> str:
    """Of all that must be the same where a saved guest goes on: of disks with ``data`` how many
    there are, whatever they hold."""
    disks = [Disk("root", 0, read_only=True), Disk("scratch", 0), Disk("box", 0)]
    disks += [Disk(data_serial(number), 0, read_only=True) for number in range(data)]
    plain = msgspec.structs.replace(
        machine, name="guest", agent=0, console=0, monitor=0, disks=tuple(disks), incoming=False
    )
    words = [*build_argv(plain), qemu.version, guest.key, image, str(scratch)]
    return hashlib.sha3_256("\0".join(words).encode()).hexdigest()[:32]


def memory_for(limit: int) -> int:
    """MiB of a guest whose programs may have ``limit`` bytes, 0 for no limit."""
    if not limit:
        return USUAL
    return max(LEAST, -(-(limit // _MIB + OWN) // STEP) * STEP)


def processors_for(cpu: float, there: int) -> int:
    """Of a guest that may use ``cpu`` of those that are there, 0 for no limit."""
    return max(1, min(math.ceil(cpu), there, _PROCESSORS_MOST))


def _check(options: dict[str, Any]) -> None:
    for name, value in options.items():
        kind = OPTIONS.get(name)
        if kind is None:
            raise UsageError(f"there is no option {name!r}: there are {', '.join(OPTIONS)}")
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (kind is not bool and isinstance(value, bool)):
            raise UsageError(f"the option {name!r} is no {kind.__name__}")
        if kind in {int, float} and not 0 < value < 1 << 24:
            raise UsageError(f"the option {name!r} cannot be {value}")
