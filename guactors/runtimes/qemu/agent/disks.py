"""Disks with data for programs: the work of a child of the agent.

Owns: how they are found and mounted. Must never: mount outside of the image, whatever links it
has, or let anything of a disk be a device or give rights.

A guest that goes on from a file has seen other disks in their places, and has read from them how
large they are. So each is given up and taken anew, which costs 10 to 20 ms of an emulated guest;
nothing less makes the kernel ask again.
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


def attach(place: Place, fields: dict[str, object]) -> None:
    """What a question MOUNT asks for: the disks ``serials`` at the directories ``targets`` of the
    image, one by one. ``renew``: the guest went on from a file. Does not return where all is
    well: the process becomes the last mount."""
    serials, targets = texts(fields, "serials"), texts(fields, "targets")
    if not serials or len(serials) != len(targets):
        raise WireError("disks and directories do not match")
    there = {
        read(f"{_BLOCK}/{name}/serial").strip(): name
        for name in os.listdir(_BLOCK)
        if name.startswith("vd")
    }
    names = []
    for serial in serials:
        if serial not in there:
            raise Wrong(f"the machine has no disk {serial!r}")
        names.append(_taken_anew(there[serial]) if fields.get("renew") else there[serial])
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


def _taken_anew(name: str) -> str:
    """The name that the disk has from here on."""
    device = os.path.basename(os.path.realpath(f"{_BLOCK}/{name}/device"))
    write(f"{_BUS}/drivers/virtio_blk/unbind", device)
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
