"""QEMU's command line.

Owns: what each profile of a machine consists of. Must never: start anything, name a file of the
machine that was not given, or give a guest a network.

Profiles: ``q35`` (emulated, boots everywhere), ``microvm`` (emulated; needs the host's TSC
frequency, without which one boot in five hangs), and one for each accelerator: ``kvm``, ``hvf``,
``whpx``. Disks are found by their serial in the guest, ports by their number: the order in which
they are listed may be reversed.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct

from guactors.errors import UsageError

Profile: TypeAlias = Literal["q35", "microvm", "kvm", "hvf", "whpx"]
EMULATED: Final = frozenset({"q35", "microvm"})
TB_SIZE: Final = 44
"""MiB that an emulator may use for translated code. The kernel, the agent and a Python that starts
fill about 40: with less, each new Python is translated again, which takes three times as long."""
CPU: Final = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"
"""About x86-64-v2. With more, libraries take ways through AVX, which emulation makes slow."""
_KERNEL_WORDS: Final = (
    "console=ttyS0 quiet loglevel=3 reboot=t panic=-1 random.trust_cpu=on i8042.noaux i8042.nomux "
    "i8042.dumbkbd cryptomgr.notests rcupdate.rcu_expedited=1"
)
_EMULATED_WORDS: Final = "mitigations=off"
"""What protects real processors from guessing does nothing on one that is emulated, but is emulated
as well."""
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Disk(Struct, frozen=True):
    """``fd``: of the file, which QEMU inherits; ``serial``: by which the guest finds it; ``path``:
    of the file, where QEMU can inherit nothing."""

    serial: str
    fd: int
    read_only: bool = False
    path: str = ""


def data_serial(number: int) -> str:
    """Of the disk with data of that number, from 0 on."""
    return f"data{number}"


class Machine(Struct, frozen=True):
    """``memory``: MiB; ``upper``: MiB of memory for what is written, where there is no scratch
    disk; ``tsc_khz``: of the host's clock, 0 for unknown; ``agent``, ``console``, ``monitor``:
    descriptors of sockets; ``incoming``: it waits for the state of a saved one; ``seccomp``: QEMU
    gives up the system calls that it does not need; ``inherits``: where it does not, ``agent``,
    ``console`` and ``monitor`` are ports of 127.0.0.1, to which QEMU connects."""

    qemu: str
    name: str
    kernel: str
    initrd: str
    agent: int
    console: int
    monitor: int
    disks: tuple[Disk, ...] = ()
    profile: Profile = "q35"
    memory: int = 256
    processors: int = 1
    tb_size: int = TB_SIZE
    upper: int = 64
    tsc_khz: int = 0
    incoming: bool = False
    seccomp: bool = True
    inherits: bool = True


def build_argv(machine: Machine) -> list[str]:
    """The words. Raises UsageError for a machine that cannot be."""
    if machine.profile == "microvm" and not machine.tsc_khz:
        raise UsageError(
            "an emulated microvm needs the frequency of this machine's clock, which is not known: "
            "take the machine q35"
        )
    if machine.memory < 1 or machine.processors < 1:
        raise UsageError("a machine needs memory and a processor")
    if "," in machine.name or "\0" in machine.name:
        raise UsageError(f"{machine.name!r} cannot be the name of a machine")
    argv = [machine.qemu, *_MACHINES[machine.profile]]
    if machine.profile in EMULATED:
        argv += ["-accel", f"tcg,thread=multi,tb-size={machine.tb_size}", "-cpu", CPU]
    argv += ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-name", machine.name]
    argv += ["-sandbox", _SANDBOX] if machine.seccomp else []
    argv += ["-m", f"{machine.memory}M", "-smp", str(machine.processors)]
    for name, number in (
        ("monitor", machine.monitor), ("agent", machine.agent), ("console", machine.console),
    ):  # fmt: skip
        end = f"fd={number}" if machine.inherits else f"{_CONNECTS},port={number}"
        argv += ["-chardev", f"socket,id={name},{end}"]
    argv += ["-mon", "chardev=monitor,mode=control", "-serial", "chardev:console"]
    argv += ["-device", "virtio-serial-pci,ioeventfd=off"]
    argv += ["-device", "virtserialport,chardev=agent,name=gu.agent.0"]
    argv += ["-device", "virtio-rng-pci"]
    for number, disk in enumerate(machine.disks, 1):
        argv += _disk(disk, number) if machine.inherits else _named_disk(disk)
    if machine.incoming:  # with its kernel in its memory; QEMU would hold another one
        return [*argv, "-incoming", "defer", "-S"]
    return [
        *argv,
        "-kernel",
        machine.kernel,
        "-initrd",
        machine.initrd,
        "-append",
        _append(machine),
    ]


_MACHINES: Final[dict[str, tuple[str, ...]]] = {
    "q35": ("-M", "q35"),
    "microvm": ("-M", "microvm,pcie=on,pit=on,pic=on,rtc=on"),
    "kvm": (
        "-M", "microvm,pcie=on,rtc=on,pit=off,pic=off,x-option-roms=off", "-accel", "kvm", "-cpu",
        "host",
    ),
    "hvf": ("-M", "q35", "-accel", "hvf", "-cpu", "host"),
    # Its own interrupt controller stops guests of Linux, and it knows no processor "host".
    "whpx": ("-M", "q35", "-accel", "whpx,kernel-irqchip=off", "-cpu", CPU),
}  # fmt: skip
_CONNECTS: Final = "host=127.0.0.1,server=off,ipv4=on,nodelay=on"


def _disk(disk: Disk, number: int) -> list[str]:
    node = (
        f"driver=raw,node-name={disk.serial},cache.no-flush=on,file.driver=file,"
        f"file.filename=/dev/fdset/{number},file.locking=off"
    )
    if disk.read_only:
        node += ",read-only=on"
    return ["-add-fd", f"fd={disk.fd},set={number}", "-blockdev", node, *_device(disk)]


def _named_disk(disk: Disk) -> list[str]:
    path = disk.path.replace(",", ",,")
    node = (
        f"driver=raw,node-name={disk.serial},cache.no-flush=on,file.driver=file,"
        f"file.filename={path}"
    )
    if disk.read_only:
        node += ",read-only=on"
    return ["-blockdev", node, *_device(disk)]


def _device(disk: Disk) -> list[str]:
    return ["-device", f"virtio-blk-pci,drive={disk.serial},serial={disk.serial}"]


def _append(machine: Machine) -> str:
    words = f"{_KERNEL_WORDS} gu_upper={machine.upper}m"
    if machine.profile in EMULATED:
        words += f" {_EMULATED_WORDS}"
    if machine.profile == "microvm":
        words += f" tsc_early_khz={machine.tsc_khz}"
    return words
