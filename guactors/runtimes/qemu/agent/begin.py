"""Where the agent begins: what it finds in its guest.

Owns: the place of programs and the line, before there is an agent. Must never: return in a guest:
the machine ends with its agent.

With ``GU_STUB`` (a directory in place of the image) it is an ordinary process of an ordinary
machine, which is how nearly all of it is tested.
"""

from __future__ import annotations

import os
import sys

assert sys.platform == "linux", "runs in guests"

from guactors.runtimes.qemu.agent.lines import open_line
from guactors.runtimes.qemu.agent.main import Agent
from guactors.runtimes.qemu.agent.program import Place
from guactors.runtimes.qemu.agent.system import write


def main() -> None:
    """Serve the line that the first argument means, see ``lines.py``."""
    where = sys.argv[1]
    stub = os.environ.get("GU_STUB", "")
    if stub:
        os.chdir(stub)
        _serve(where, Place("", "", -1))
        return
    try:
        _serve(where, _guest())
    except Exception as error:  # noqa: BLE001 - the kernel would say much more, and not why
        os.write(2, f"the agent: {type(error).__name__}: {error}\n".encode())
    os.sync()
    write("/proc/sysrq-trigger", "b")


def _guest() -> Place:
    group = "/sys/fs/cgroup/instance"
    write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids")
    os.mkdir(group)
    name = os.environ.get("GU_BOX", "")
    box = os.open(name, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC) if name else -1
    return Place("/image", group, box)


def _serve(where: str, place: Place) -> None:
    line, renew = open_line(where)
    Agent(line, place, renew).run()
