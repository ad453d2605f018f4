"""An instance as a container.

Owns: the container, from its making to its removal, and what the daemon's refusals mean for it.
Must never: outlive its ``close`` or its keeper (``orphans.py``), or take a daemon that went away
for a fault of the program.

``Spec.options``: ``ulimits``, limits of each process by name, ``{"nofile": 1024}``; else those are
the daemon's usual ones. (Podman's are beyond what it may set where it lacks CAP_SYS_RESOURCE.)
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

from guactors.errors import (
    GuactorsError,
    ImageRefused,
    InstanceLost,
    InternalError,
    ProgramNotStarted,
    ProtocolError,
    RuntimeMissing,
    UsageError,
)
from guactors.runtimes.base import Command, Exit, Process, Size, Spec, Stats
from guactors.runtimes.docker import init, launch
from guactors.runtimes.docker.client import Client, DaemonRefused
from guactors.runtimes.docker.ends import Ends, pidfd
from guactors.runtimes.docker.figures import figures_of
from guactors.runtimes.docker.files import Files
from guactors.runtimes.docker.images import Loaded
from guactors.runtimes.docker.orphans import Watch
from guactors.runtimes.docker.process import ContainerProcess
from guactors.runtimes.docker.reach import Reach
from guactors.runtimes.docker.removal import remove_container
from guactors.runtimes.docker.sight import Sight, find_sight, memory_words
from guactors.runtimes.docker.words import (
    NOT_FOUND,
    NOT_RUN,
    container_body,
    container_name,
    directory,
    exec_body,
    exit_of,
)
from guactors.runtimes.mounts import check_mounts

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of programs, where neither the image nor anybody else says so."""
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
_START_WITHIN: Final = 120.0
_GLANCE: Final = 2.0
"""Seconds that ``lost`` may wait for the daemon."""
_NAP: Final = 0.005
log = logging.getLogger("guactors.runtimes")


class DockerInstance:
    """:class:`~guactors.runtimes.base.Driver`. ``processors``: of the daemon's machine."""

    def __init__(
        self,
        spec: Spec,
        client: Client,
        ends: Ends,
        loaded: Loaded,
        processors: int,
        watch: Watch,
    ) -> None:
        self._spec = spec
        self._client = client
        self._ends = ends
        self._config = loaded.config
        self._lock = threading.Lock()
        self._processes: set[ContainerProcess] = set()
        self._sight: Sight | None = None
        self._started_at = 0.0
        self._closed = False
        self._container = self._create(loaded.id, processors, watch)
        self._reach = Reach(client, self._container)
        uid, _, gid = loaded.config.user.partition(":")
        owner = (int(uid), int(gid))
        workdir = loaded.config.workdir
        self._files = Files(client, self._container, workdir, owner, spec.directory)

    def start(self) -> None:
        """See Driver; so all that follow."""
        with self._asked("start"):
            self._client.call("POST", self._url("start"), timeout=_START_WITHIN)
            found = self._client.call("GET", self._url("json")).data
        self._started_at = time.time()
        first = _state(found).get("Pid")
        self._sight = find_sight(first if isinstance(first, int) else 0, self._container)
        self._reach.begin(self._sight)

    def exec(self, command: Command) -> Process:
        """By the daemon."""
        if not command.argv or not command.argv[0]:
            raise UsageError("no program is named")
        cwd = directory(self._config.workdir, command.cwd)
        argv = list(command.argv)
        if command.tty is not None:
            argv = [init.PATH, "t", self._program(command, cwd), *argv]
        with self._asked("exec"):
            body = exec_body(command, cwd, argv)
            program = launch.prepare(self._client, self._container, body)

            def make(line: socket.socket, rest: bytes) -> ContainerProcess:
                return self._process(program, command, line, rest)

            process = launch.start(self._client, program, command, self._sight, make)
            fd = pidfd(process.pid) if self._sight is not None else -1
            if fd >= 0 and self._sight is not None and not self._sight.is_ours(process.pid):
                os.close(fd)  # it has ended, and the number is somebody else's
                fd = -1
            self._ends.watch(process, fd, lambda: self.outcome(program) is None)
        return process

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """As an archive."""
        with self._asked("put"):
            self._files.put(path, data, tar=tar)

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """As one, too."""
        with self._asked("get"):
            yield from self._files.get(path, tar=tar)

    def pause(self) -> None:
        """By the daemon's freezer."""
        self._switch("pause", "already paused")

    def resume(self) -> None:
        """All go on."""
        self._switch("unpause", "not paused")

    def save(self, path: str) -> None:
        """The daemon cannot, but as an experiment."""
        raise UsageError(f"{self._spec.instance}: a container cannot be saved to {path}: run a VM")

    def stats(self) -> Stats:
        """From the kernel where it can be seen, else as the daemon tells it, once a second."""
        sight = self._sight
        if sight is None:
            with self._asked("stats"):
                query = {"stream": "0", "one-shot": "1"}
                found = figures_of(self._client.call("GET", self._url("stats"), query=query).data)
        else:
            found = sight.stats()
        return Stats(
            found.cpu_seconds, found.memory, found.memory_peak, self.disk_used(), found.read,
            found.written, found.received, found.sent, found.processes,
        )  # fmt: skip

    def disk_used(self) -> int | None:
        """Of the layer in which it writes."""
        try:
            found = self._client.call("GET", self._url("json"), query={"size": "1"}).data
        except (DaemonRefused, GuactorsError):
            return None  # whoever asks for more will be told
        size = found.get("SizeRw") if isinstance(found, dict) else None
        return size if isinstance(size, int) else 0

    def lost(self) -> str:
        """What the daemon says of it."""
        if self._closed:
            return ""
        try:
            found = self._client.call("GET", self._url("json"), timeout=_GLANCE).data
        except RuntimeMissing as missing:
            return str(missing)
        except DaemonRefused as refused:
            if refused.status != 404:
                return ""
            return f"the container {self._container[:12]} is not there any more: who removed it?"
        state = _state(found)
        if not self._started_at or state.get("Running") or state.get("Restarting"):
            return ""
        if self._reach.ended_all:
            return "its main program has ended, and with it all that ran there"
        return (
            f"the container {self._container[:12]} has ended with the status "
            f"{state.get('ExitCode')}: somebody ended it, or its daemon was started again"
        )

    def stop(self, grace: float) -> None:
        """SIGTERM, then the rest."""
        with self._asked("stop"):
            self._reach.to_all(signal.SIGTERM)
            until = time.monotonic() + grace
            while self._reach.alive() and time.monotonic() < until:
                time.sleep(_NAP)
            self._reach.end_rest()

    def close(self) -> None:
        """The container is removed; by a daemon that is not there it cannot be, then its processes
        end, and ``reap`` removes what is left."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            remove_container(self._client, self._container)
        except RuntimeMissing as missing:
            ended = self._reach.end_first()
            log.warning(
                "the container %s %s, and is not removed: %s",
                self._container[:12], "has ended" if ended else "may still run", missing,
            )  # fmt: skip
        except InternalError:
            self._reach.end_first()
            raise
        finally:
            self._reach.close()

    # --- what a program asks of its container -----------------------------------------------------

    def outcome(self, program: str) -> Exit | None:
        """See Ways; so all that follow."""
        try:
            state = launch.ask_state(self._client, program)
        except RuntimeMissing as missing:
            return self._unless_closed(Exit(None, None, "lost", str(missing)))
        except DaemonRefused as refused:
            words = self.lost() or f"the daemon has forgotten the program: {refused.words}"
            return self._unless_closed(Exit(None, None, "lost", words))
        if state.running or state.code is None:
            return None
        found = exit_of(state.code)
        if found.signal != _KILL:
            return found
        memory = self._out_of_memory()
        if memory:
            return Exit(None, found.signal, "memory_limit", memory)
        if self._reach.ended_all:
            return found
        lost = self.lost()
        detail = lost or self._perhaps_memory()
        return self._unless_closed(Exit(None, found.signal, "lost" if lost else "", detail))

    def send(self, pid: int, number: int, user: str) -> None:
        """To its session."""
        with self._asked("signal"):
            self._reach.to_session(pid, number, user)

    def resize(self, program: str, size: Size) -> None:
        """By the daemon."""
        query = {"h": str(max(1, size.rows)), "w": str(max(1, size.columns))}
        with suppress(RuntimeMissing, DaemonRefused):  # it has ended, or nobody is there to see
            self._client.call("POST", f"/exec/{program}/resize", query=query)

    def ended(self, process: ContainerProcess) -> None:
        """It is forgotten."""
        self._ends.forget(process)
        with self._lock:
            self._processes.discard(process)

    # --- helpers ----------------------------------------------------------------------------------

    def _create(self, image: str, processors: int, watch: Watch) -> str:
        body = container_body(self._spec, image, processors, watch.keeper)
        check_mounts(self._spec.mounts)  # some daemons would make what is missing
        query = {"name": container_name(self._spec)}
        try:
            with watch.birth(self._spec.instance):
                answer = self._client.call("POST", "/containers/create", body, query=query).data
        except DaemonRefused as refused:
            raise _not_created(self._spec, self._client.path, refused) from None
        found = answer.get("Id") if isinstance(answer, dict) else None
        if not isinstance(found, str) or not found.isalnum():
            raise RuntimeMissing(f"the daemon at {self._client.path} names no container")
        return found

    def _process(
        self, program: str, command: Command, line: socket.socket, rest: bytes
    ) -> ContainerProcess:
        process = ContainerProcess(
            self,
            program,
            line,
            rest,
            terminal=command.tty is not None,
            takes_input=command.stdin,
            user=command.user,
            main_ended=self._end_rest if command.main else None,
        )
        with self._lock:
            self._processes.add(process)
        return process

    def _program(self, command: Command, cwd: str) -> str:
        """The file that is meant: whoever starts it in a terminal looks nowhere."""
        name = command.argv[0]
        if "/" in name:
            places = [directory(cwd, name)]
        else:
            env = {"PATH": _PATH, **self._config.env, **self._spec.env, **command.env}
            places = [directory(cwd, f"{where or '.'}/{name}") for where in env["PATH"].split(":")]
        with self._asked("exec"):
            found = [(where, self._files.stat(where)) for where in places]
        there = [(where, stat) for where, stat in found if stat is not None]
        for where, stat in there:
            if not stat.directory and stat.mode & 0o111:
                return where
        if there:
            raise ProgramNotStarted(f"{name}: Permission denied", NOT_RUN)
        raise ProgramNotStarted(f"{name}: No such file or directory", NOT_FOUND)

    def _end_rest(self) -> None:
        with suppress(InstanceLost, UsageError), self._asked("end"):
            self._reach.end_rest()

    def _switch(self, verb: str, done: str) -> None:
        with self._asked(verb):
            try:
                self._client.call("POST", self._url(verb))
            except DaemonRefused as refused:
                if done not in refused.words:
                    raise

    def _out_of_memory(self) -> str:
        limit = self._spec.limits.memory
        if not limit:
            return ""
        if self._sight is not None and self._sight.is_ours(self._sight.first):
            return self._sight.out_of_memory(limit)
        query = {
            "since": f"{self._started_at:.9f}",
            "until": f"{time.time():.9f}",
            "filters": json.dumps({"container": [self._container], "event": ["oom"]}),
        }
        try:
            answer = self._client.call("GET", "/events", query=query).data
        except (DaemonRefused, GuactorsError):
            return ""
        return memory_words(limit, None) if answer else ""

    def _perhaps_memory(self) -> str:
        """What is to be said of a SIGKILL where only the daemon could know more."""
        limit = self._spec.limits.memory
        if self._sight is not None or not limit:
            return ""
        return (
            "SIGKILL ended it, and it may have been for its memory limit of "
            f"{limit / 2**20:.1f} MiB: the daemon at {self._client.path} says nothing of that, as "
            "some never do, and its processes cannot be seen from here"
        )

    def _unless_closed(self, found: Exit) -> Exit:
        return Exit(None, _KILL) if self._closed else found

    def _url(self, verb: str) -> str:
        return f"/containers/{self._container}/{verb}"

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Says of a refusal what it means."""
        try:
            yield
        except RuntimeMissing as missing:
            raise InstanceLost(f"the instance {self._spec.instance}: {missing}") from None
        except ProtocolError as error:
            nonsense = self._client.nonsense(error)
            raise InstanceLost(f"the instance {self._spec.instance}, {what}: {nonsense}") from None
        except DaemonRefused as refused:
            lost = self.lost() or ("it was closed" if self._closed else "")
            if lost:
                raise InstanceLost(f"the instance {self._spec.instance}: {lost}") from None
            raise UsageError(
                f"the instance {self._spec.instance}, {what}: the Docker daemon at "
                f"{self._client.path} says: {refused.words}"
            ) from None


def _state(found: Any) -> dict[str, Any]:
    state = found.get("State") if isinstance(found, dict) else None
    return state if isinstance(state, dict) else {}


def _not_created(spec: Spec, path: str, refused: DaemonRefused) -> GuactorsError:
    words = f"{spec.instance}: the Docker daemon at {path} says: {refused.words}"
    if refused.status == 404:
        return ImageRefused(words)
    if refused.status in {400, 409}:
        return UsageError(words)
    return RuntimeMissing(words)
