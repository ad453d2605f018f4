"""What can be asked of a guest that runs, whatever carries its line.

Owns: the words of programs and files as the agent wants them. Must never: know QEMU.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from guactors.errors import InstanceLost, UsageError
from guactors.images.manifest import Config
from guactors.runtimes.base import Command, Exit, Spec
from guactors.runtimes.qemu.agent import wire
from guactors.runtimes.qemu.box import Box
from guactors.runtimes.qemu.files import Files
from guactors.runtimes.qemu.line import Line
from guactors.runtimes.qemu.process import GuestProcess

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MIB: Final = 2.0**20
_SEED: Final = 64
_SETTLE: Final = 10.0
_MOUNT_WITHIN: Final = 30.0
_SAID_MOST: Final = 2000


class Inside:
    """``home``: the directory of the image that is the instance's own."""

    def __init__(self, line: Line, spec: Spec, config: Config, box: Box | None) -> None:
        self._line = line
        self._spec = spec
        self._config = config
        self._files = Files(self._begin, box, lambda: self.stats(_SETTLE))
        self.hello: dict[str, object] = {}
        self.fault = ""
        """Why the guest could not be set up, in its own words."""

    def welcome(self, within: float, *, keep: bool = False) -> None:
        """Say hello, also after it was restored: its clock, its randomness and its limits are set
        then. ``keep``: the programs under way are still ours. Raises InstanceLost where it does not
        answer, or as no agent of ours does."""
        limits = self._spec.limits
        self.hello = self._line.ask(
            wire.HELLO, within, clock=time.time_ns(), seed=secrets.token_bytes(_SEED),
            home=self._config.workdir, memory=limits.memory, pids=limits.pids,
            name=self._spec.instance[:64], keep=keep,
        )  # fmt: skip
        version = self.hello.get("version")
        if version != wire.VERSION:
            raise InstanceLost(f"its agent speaks version {version}, this is {wire.VERSION}")
        self.fault = str(self.hello.get("fault", ""))[:500]

    def exec(self, command: Command) -> GuestProcess:
        """See Driver."""
        if not command.argv or not command.argv[0]:
            raise UsageError("no program is named")
        env = {"PATH": PATH, "HOME": "/root"}
        if command.tty is not None:
            env["TERM"] = "xterm"
        env |= {**self._config.env, **self._spec.env, **command.env}
        for name, value in env.items():
            if not name or "=" in name or "\0" in name + value:
                raise UsageError(f"{name!r} cannot be an environment variable")
        size = command.tty
        fields: dict[str, Any] = {
            "argv": list(command.argv),
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": command.cwd,
            "user": command.user or (self._config.user if self._config.user != "0:0" else ""),
            "stdin": command.stdin,
            "main": command.main,
            "tty": None if size is None else True,
            "rows": size.rows if size else 0,
            "columns": size.columns if size else 0,
        }
        return self._begin(wire.SPAWN, **fields)

    def prepare(self, name: str, within: float) -> None:
        """Have an interpreter of that name wait for the first program, see ``agent/ready.py``. It
        is nobody's yet: of the image's variables only."""
        env = {"PATH": PATH, "HOME": "/root", **self._config.env}
        words = [f"{key}={value}" for key, value in env.items()]
        self._line.ask(wire.PREPARE, within, name=name, env=words)

    def mount(self, serials: list[str], targets: list[str]) -> None:
        """Disks at directories of the image, one after another; without directories, others may be
        in their places when the guest goes on from a file. Raises UsageError, InstanceLost."""
        process = self._begin(wire.MOUNT, serials=serials, targets=targets)
        said, until = b"", time.monotonic() + _MOUNT_WITHIN
        try:
            while not isinstance(found := process.read(max(0.0, until - time.monotonic())), Exit):
                if found is None:
                    raise InstanceLost(f"its data disks were not mounted in {_MOUNT_WITHIN:g} s")
                said = (said + found.data)[-_SAID_MOST:]
        finally:
            process.close()
        if found.reason:
            raise InstanceLost(found.detail)
        if found.code:
            why = said.decode("utf-8", "replace").strip()
            raise UsageError(
                f"the guest {self._spec.instance} cannot mount "
                f"{', '.join(targets or serials)}: {why}"
            )

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """See Driver."""
        self._files.put(path, data, tar=tar)

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """See Driver."""
        return self._files.get(path, tar=tar)

    def stats(self, within: float) -> dict[str, int]:
        """What the guest says of itself: ``processes``, ``memory``, ``disk``, each not below 0."""
        found = self._line.ask(wire.STATS, within)
        return {
            name: max(0, value)
            for name, value in found.items()
            if isinstance(value, int) and name in {"processes", "memory", "disk"}
        }

    def stop(self, grace: float) -> None:
        """Ask everything in it to end, and wait for that for so many seconds."""
        self._line.ask(wire.STOP, grace + 5.0, milliseconds=int(max(0.0, grace) * 1000))

    def quiet(self, within: float) -> None:
        """Nothing is under way on its line after that, until it is spoken to."""
        self._line.ask(wire.QUIET, within)

    def _begin(self, kind: int, **fields: Any) -> GuestProcess:
        try:
            channel, remote = self._line.begin(kind, **fields)
        except wire.WireError as error:
            raise UsageError(f"this cannot be asked of a guest: {error}") from None
        return GuestProcess(self._line, channel, remote, self._memory())

    def _memory(self) -> str:
        most = self._spec.limits.memory
        if not most:
            return "it wanted more memory than the guest has: allow more with limits"
        return (
            f"it wanted more than its memory limit of {most / _MIB:.1f} MiB: "
            'allow more with limits={"memory": ...}, or give it less to do at a time'
        )
