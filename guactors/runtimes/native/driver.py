"""Programs of this machine, and of unpacked images, each instance in a directory of its own.

Owns: what an instance is here: a directory, a group of processes, and the words before a program
that make its sandbox. Must never: hand a secret of this process on.

Without a sandbox a program is a process of this machine like any other: an image says *which*
program runs, not what it may do (``Probe.facts["isolation"]``).

``Spec.options``: ``root``, the directory of the instance, into which its image is unpacked already;
``counted``, False where nobody asks what the instance has used; ``sandbox``,
``bubblewrap``: its programs see no network, no other process, of the machine's files only programs
and libraries, and of an image's nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from guactors.errors import RuntimeMissing, UsageError
from guactors.runtimes.base import Capability, Command, Probe, Process, Spec, Stats
from guactors.runtimes.cgroup_places import find_places, sweep
from guactors.runtimes.command import without_secrets
from guactors.runtimes.mounts import check_mounts
from guactors.runtimes.native.belonging import MARK, find_belonging
from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.native.images import clean_environment, program_in
from guactors.runtimes.native.sandbox import confine, find_bubblewrap
from guactors.runtimes.native.workspace import Workspace, bytes_below

if TYPE_CHECKING:
    from guactors.images.store import ImageStore

WORK: Final = "work"
_NAP: Final = 0.005
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
_ALWAYS: Final = frozenset({
    Capability.HOST, Capability.IMAGE, Capability.PAUSE, Capability.DISK,
})  # fmt: skip


class NativeRuntime:
    """:class:`~guactors.runtimes.base.Runtime`. ``images`` opens the store, where there is one."""

    name = "native"

    def __init__(
        self,
        images: Callable[[], ImageStore] | None = None,
        guardian: Guardian | None = None,
    ) -> None:
        self._images = images
        self._guardian = guardian or Guardian()
        places = find_places() if sys.platform == "linux" else None
        held = {Capability.CPU, Capability.MEMORY} if places is not None else set()
        if places is not None and "pids" in places.bases:
            held.add(Capability.PIDS)
        if sys.platform != "win32":
            held.add(Capability.TTY)
            if os.geteuid() == 0:
                held.add(Capability.USER)
        if find_bubblewrap():
            held |= {Capability.PRIVATE, Capability.MOUNT}
        self.capabilities = _ALWAYS | held
        self._limits = places.guarantee if places is not None else "rlimit"

    def probe(self) -> Probe:
        """See Runtime; so all that follow."""
        sandbox = find_bubblewrap()
        facts = {
            "limits": self._limits,
            "sandbox": sandbox or "none: install bubblewrap",
            "isolation": "none, unless its sandbox is asked for",
        }
        return Probe(True, facts=facts)

    def create(self, spec: Spec) -> NativeInstance:
        """A directory with nothing running."""
        return NativeInstance(spec, self._root(spec), self._guardian)

    def restore(self, spec: Spec, path: str) -> NativeInstance:
        """Nothing is ever saved."""
        raise UsageError(
            f"{spec.instance}: programs of a machine cannot be saved to {path}: run them in a VM"
        )

    def reap(self, owner: str) -> list[str]:
        """Whose maker is dead; that is not known by owner, for a group has no room for it."""
        del owner
        places = find_places() if sys.platform == "linux" else None
        return sweep(places) if places is not None else []

    def close(self) -> None:
        """The guardian goes."""
        self._guardian.close()

    def _root(self, spec: Spec) -> Path:
        given = spec.options.get("root")
        if given:
            return Path(given)
        root = Path(spec.directory) / WORK
        if not spec.image:
            root.mkdir(mode=0o700)
            return root
        if self._images is None:
            raise RuntimeMissing(f"there is no store of images to take {spec.image} from")
        from guactors.images.unpack import unpack_image

        unpack_image(self._images(), spec.image, root)
        return root


class NativeInstance:
    """:class:`~guactors.runtimes.base.Driver`."""

    def __init__(self, spec: Spec, root: Path, guardian: Guardian) -> None:
        self._spec = spec
        self._root = root
        self._files = Workspace(root)
        self._guardian = guardian
        self._sandbox = spec.options.get("sandbox", "")
        if self._sandbox not in {"", "bubblewrap"}:
            raise UsageError(f"there is no sandbox {self._sandbox!r}: there is 'bubblewrap'")
        if self._sandbox and not find_bubblewrap():
            raise RuntimeMissing("the sandbox needs bubblewrap: install the package bubblewrap")
        check_mounts(spec.mounts)
        if spec.mounts and not self._sandbox:
            raise UsageError(
                f"{spec.instance}: only a sandbox can mount: ask for sandbox='bubblewrap', or let "
                f"its programs read {spec.mounts[0].source} where it is"
            )
        self._belonging = find_belonging(
            spec.instance, spec.limits, counted=spec.options.get("counted", True)
        )
        self._watched = self._belonging.watched()
        for kind, value in self._watched:
            guardian.watch(kind, value)
        self._closed = False

    def start(self) -> None:
        """See Driver; so all that follow."""

    def exec(self, command: Command) -> Process:
        """A child of this process."""
        argv, cwd, env = self._resolve(command)
        user = None if self._sandbox else self._user(command)
        if sys.platform == "win32":
            from guactors.runtimes.native import windows

            with self._belonging.birth():
                gone = windows.start(command, argv, env, cwd, main_ended=self._end_rest(command))
            self._belonging.born(gone.pid)
            return gone
        from guactors.runtimes.native import child

        with self._belonging.birth() as words:
            popen, terminal = child.start(command, [*words, *argv], env, cwd, user)
        self._belonging.born(popen.pid)
        value = str(popen.pid)
        self._guardian.watch("group", value)
        return child.Child(
            popen,
            terminal,
            confined=bool(self._sandbox),
            main_ended=self._end_rest(command),
            why=self._why,
            reaped=lambda: self._guardian.forget("group", value),
        )

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """In its directory."""
        self._files.put(path, data, tar=tar)

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """From there."""
        return self._files.get(path, tar=tar)

    def pause(self) -> None:
        """By the freezer, else by SIGSTOP."""
        self._belonging.freeze()

    def resume(self) -> None:
        """All go on."""
        self._belonging.thaw()

    def save(self, path: str) -> None:
        """The kernel cannot."""
        raise UsageError(
            f"{self._spec.instance}: programs of a machine cannot be saved to {path}: run them in "
            "a VM"
        )

    def stats(self) -> Stats:
        """Of all its processes."""
        found = self._belonging.stats()
        return Stats(
            found.cpu_seconds, found.memory, found.memory_peak, self.disk_used(), found.read,
            found.written, processes=found.processes,
        )  # fmt: skip

    def disk_used(self) -> int | None:
        """Of its directory."""
        return bytes_below(self._root)

    def lost(self) -> str:
        """It never is."""
        return ""

    def stop(self, grace: float) -> None:
        """SIGTERM, then the rest."""
        self._belonging.signal(signal.SIGTERM)
        until = time.monotonic() + grace
        while self._belonging.alive() and time.monotonic() < until:
            time.sleep(_NAP)
        self._belonging.end()

    def close(self) -> None:
        """All end at once."""
        if self._closed:
            return
        self._closed = True
        self._belonging.end()
        for kind, value in self._watched:
            self._guardian.forget(kind, value)

    # --- which program --------------------------------------------------------------------------

    def _resolve(self, command: Command) -> tuple[list[str], str, dict[str, str]]:
        given = {**self._spec.env, **command.env}
        if not command.argv or not command.argv[0]:
            raise UsageError("no program is named")
        if self._spec.image:
            argv, cwd = program_in(self._files, command, given, confined=bool(self._sandbox))
            env = {**clean_environment(), **given}
        else:
            argv, env = list(command.argv), {**without_secrets(os.environ), **given}
            cwd = os.path.join(self._root, os.path.expanduser(command.cwd))
        env[MARK] = self._spec.instance
        if self._sandbox:
            user = self._user(command)
            argv = confine(self._spec, self._files, argv, cwd, env.get("PATH", ""), user)
            cwd = str(self._root)
        return argv, cwd, env

    def _user(self, command: Command) -> tuple[int, int] | None:
        if not command.user:
            return None
        from guactors.runtimes.native.users import find_user

        return find_user(command.user, self._files if self._spec.image else None)

    def _end_rest(self, command: Command) -> Callable[[], None] | None:
        return (lambda: self._belonging.signal(_KILL)) if command.main else None

    def _why(self) -> tuple[str, str]:
        memory = self._belonging.out_of_memory()
        return ("memory_limit", memory) if memory else ("", "")
