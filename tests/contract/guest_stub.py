"""A guest without a machine: the agent as a process of this one, a socketpair as its line.

Owns: that process, in a sandbox that sees this machine's programs and one directory. Must never: be
taken for a runtime.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from guactors.errors import UsageError
from guactors.images.manifest import Config
from guactors.runtimes.base import Capability, Command, Probe, Process, Spec, Stats
from guactors.runtimes.qemu import agent
from guactors.runtimes.qemu.inside import Inside
from guactors.runtimes.qemu.line import Line

WITHIN = 10.0
BOOT = """
import sys, types
for name in ("guactors", "guactors.runtimes", "guactors.runtimes.qemu"):
    sys.modules[name] = types.ModuleType(name)
name += ".agent"
sys.modules[name] = types.ModuleType(name)
sys.modules[name].__path__ = [sys.argv.pop(1)]
from guactors.runtimes.qemu.agent.begin import main
main()
"""
"""The agent's modules and nothing else of the package, as in a guest."""


HOME = "/home"


def agent_words(directory: str, line: str) -> list[str]:
    """The command that runs it on a line (``agent/lines.py``), in a sandbox where its programs find
    ``directory`` as HOME."""
    there = str(Path(agent.__file__).parent)
    words = ["bwrap", "--die-with-parent", "--unshare-pid", "--cap-add", "ALL"]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", sys.base_prefix, there):
        words += ["--ro-bind-try", path, path]
    words += ["--bind", directory, HOME, "--setenv", "GU_STUB", HOME]
    python = os.path.realpath(sys.executable)
    return [*words, python, "-I", "-S", "-B", "-c", BOOT, there, line]


def start_agent(directory: Path) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """It, and our end of its line."""
    ours, theirs = socket.socketpair()
    with theirs:
        line = theirs.fileno()
        popen = subprocess.Popen(agent_words(str(directory), str(line)), pass_fds=[line])
    return popen, ours


class StubRuntime:
    """A Runtime whose guests are processes."""

    name = "stub"
    capabilities = frozenset({Capability.TTY, Capability.USER, Capability.IMAGE})

    def probe(self) -> Probe:
        return Probe(True)

    def create(self, spec: Spec) -> StubInstance:
        if spec.mounts:
            raise UsageError("a process has no disks to mount")
        return StubInstance(spec)

    def restore(self, spec: Spec, path: str) -> StubInstance:
        raise NotImplementedError

    def reap(self, owner: str) -> list[str]:
        return []

    def close(self) -> None:
        return


class StubInstance:
    """A Driver."""

    def __init__(self, spec: Spec) -> None:
        self._work = Path(spec.directory, "work")
        self._work.mkdir()
        self._popen, sock = start_agent(self._work)
        self._line = Line(sock)
        self.inside = Inside(self._line, spec, Config(workdir=HOME), None)

    def start(self) -> None:
        self.inside.welcome(WITHIN)
        self._line.watched = True

    def exec(self, command: Command) -> Process:
        return self.inside.exec(command)

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        self.inside.put(path, data, tar=tar)

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        return self.inside.get(path, tar=tar)

    def pause(self) -> None:
        raise NotImplementedError

    resume = pause

    def save(self, path: str) -> None:
        raise NotImplementedError

    def stats(self) -> Stats:
        found = self.inside.stats(WITHIN)
        return Stats(1.0, 1, processes=found["processes"])

    def disk_used(self) -> int | None:
        return None

    def lost(self) -> str:
        return self._line.over

    def stop(self, grace: float) -> None:
        self.inside.stop(grace)

    def close(self) -> None:
        self._line.close()  # the agent ends with its line, and all in its sandbox with it
        try:
            self._popen.wait(WITHIN)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
