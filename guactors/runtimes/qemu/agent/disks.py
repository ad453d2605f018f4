"""Disks with data for programs: the work of a child of the agent.

Owns: how they are found and mounted. Must never: mount outside of the image, whatever links it
has, or let anything of a disk be a device or give rights.

A guest that is saved to be started from finds others in their places each time it goes on, and its
kernel asks a disk how large it is only when it takes it. So it gives them up before, and takes them
once it goes on.
"""

from __future__ import annotations

import os
import sys

assert sys.platform == "linux", "runs in guests"

from guactors.runtimes.qemu.agent.stream import Wrong
from guactors.runtimes.qemu.agent.system import read, write
from guactors.runtimes.qemu.agent.wire import WireError, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guactors.runtimes.qemu.agent.program import Place

_BLOCK = "/sys/block"
_BUS = "/sys/bus/virtio"
_MOUNT = "/bin/busybox"
_GIVEN_UP = "/tmp/given-up-"
"""How links begin that note the device of a disk: while it is given up, nobody reads its serial."""


def attach(place: Place, fields: dict[str, object]) -> None:
    """What a question MOUNT asks for: the disks ``serials`` at the directories ``targets`` of the
    image, one by one; without targets they are given up. Does not return where all are mounted:
    the process becomes the last mount."""
    serials, targets = texts(fields, "serials"), texts(fields, "targets")
    if not targets:
        for serial in serials:
            _give_up(serial)
        return
    if len(serials) != len(targets):
        raise WireError("disks and directories do not match")
    names = [
        _taken(serial) if os.path.lexists(_GIVEN_UP + serial) else _find(serial)
        for serial in serials
    ]
    tool = os.open(_MOUNT, os.O_RDONLY | os.O_CLOEXEC)
    # The devices stay within reach by a relative name, and targets are the image's own.
    os.chdir("/dev")
    os.chroot(place.root)
    last = len(names) - 1
    for number, (name, target) in enumerate(zip(names, targets, strict=True)):
        os.makedirs(target, 0o755, exist_ok=True)
        if number == last or not os.fork():
            _become_mount(tool, name, target)
        if status := os.wait()[1]:
            os._exit(os.waitstatus_to_exitcode(status))


def _find(serial: str) -> str:
    """The name of a disk."""
    for name in os.listdir(_BLOCK):
        if name.startswith("vd") and read(f"{_BLOCK}/{name}/serial").strip() == serial:
            return name
    raise Wrong(f"the machine has no disk {serial!r}")


def _give_up(serial: str) -> None:
    device = os.path.basename(os.path.realpath(f"{_BLOCK}/{_find(serial)}/device"))
    os.symlink(device, _GIVEN_UP + serial)
    write(f"{_BUS}/drivers/virtio_blk/unbind", device)


def _taken(serial: str) -> str:
    """The name that a disk has from here on which was given up."""
    device = os.readlink(_GIVEN_UP + serial)
    os.unlink(_GIVEN_UP + serial)
    write(f"{_BUS}/drivers/virtio_blk/bind", device)
    return os.listdir(f"{_BUS}/devices/{device}/block")[0]


def _become_mount(tool: int, name: str, target: str) -> None:
    words = ["mount", "-t", "squashfs", "-o", "ro,nosuid,nodev", name, target]
    try:
        os.execve(tool, words, {})  # noqa: S606
    except OSError as error:
        os.write(2, f"the guest's mount cannot be run: {error.strerror}".encode())
    finally:
        os._exit(126)
