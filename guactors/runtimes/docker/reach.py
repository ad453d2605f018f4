"""Signals for the processes of a container.

Owns: the two ways they go: from here, where the processes are seen and may be signalled, else by a
program in the container that the daemon starts. Must never: signal what is not the container's.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import Final

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

from guactors.errors import RuntimeMissing, UsageError
from guactors.runtimes.base import Command
from guactors.runtimes.docker import init, launch
from guactors.runtimes.docker.client import Client, DaemonRefused
from guactors.runtimes.docker.ends import pidfd
from guactors.runtimes.docker.sight import Sight
from guactors.runtimes.docker.words import exec_body

_WITHIN: Final = 2.0
_NAP: Final = 0.005
_WORDS_MOST: Final = 65536


class Reach:
    """Of one container. Raises RuntimeMissing and DaemonRefused."""

    def __init__(self, client: Client, container: str) -> None:
        self._client = client
        self._container = container
        self._sight: Sight | None = None
        self._first = -1
        self.ended_all = False
        """Whether the container itself was ended here."""

    def begin(self, sight: Sight | None) -> None:
        """It runs, and that is seen of it."""
        self.close()
        self._sight = sight
        self._first = -1 if sight is None else pidfd(sight.first)

    def to_session(self, leader: int, number: int, user: str) -> None:
        """A program, which runs as ``user``, and what it started."""
        if self._sight is None:
            raise UsageError(
                "a signal cannot be sent to a single program: the processes of the daemon at "
                f"{self._client.path} cannot be seen from here. Close the instance, or run the "
                "provider where the daemon runs"
            )
        pids = self._sight.session(leader)
        # First itself: a shell whose children end under it would still come to its own end.
        self._kill(sorted(pids, key=lambda pid: (pid != leader, pid)), number, user)

    def to_all(self, number: int) -> None:
        """But the first; of those that cannot be seen, whatever the container's user may signal."""
        if self._sight is None:
            self._inside("", number, [-1])
        else:
            self._kill(sorted(self._sight.pids()), number, "")

    def alive(self) -> bool:
        """Whether any but the first is; of those that cannot be seen, whether a program is."""
        if self._sight is not None:
            return bool(self._sight.pids())
        found = self._client.call("GET", f"/containers/{self._container}/json").data
        programs = found.get("ExecIDs") if isinstance(found, dict) else None
        return any(self._runs(one) for one in programs or [] if isinstance(one, str))

    def end_rest(self) -> None:
        """All but the first end; where that cannot be, all of it."""
        try:
            until = time.monotonic() + _WITHIN
            while self._sight is not None and time.monotonic() < until:
                pids = self._sight.pids()
                if not pids:
                    return
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(_NAP)
        except PermissionError:
            pass
        self.ended_all = True
        with suppress(DaemonRefused, RuntimeMissing):
            self._client.call("POST", f"/containers/{self._container}/kill")

    def end_first(self) -> bool:
        """Without the daemon: with process 1 all others of its namespace end. Whether they do."""
        if self._first < 0 or sys.platform != "linux":
            return False
        try:
            signal.pidfd_send_signal(self._first, signal.SIGKILL)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Idempotent."""
        if self._first >= 0:
            os.close(self._first)
            self._first = -1

    def _runs(self, program: str) -> bool:
        try:
            return launch.ask_state(self._client, program).running
        except DaemonRefused:  # it has been forgotten since
            return False

    def _kill(self, pids: list[int], number: int, user: str) -> None:
        forbidden = []
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
            except PermissionError:
                forbidden.append(pid)
        if forbidden and self._sight is not None:
            self._inside(user, number, self._sight.inner(forbidden))

    def _inside(self, user: str, number: int, pids: list[int]) -> None:
        """From in there, as somebody who may."""
        words = [init.PATH, str(int(number)), *(str(pid) for pid in pids)]
        body = exec_body(Command(tuple(words), user=user), "/", words)
        program = launch.prepare(self._client, self._container, body)
        line, said = self._client.hijack(f"/exec/{program}/start", {"Detach": False, "Tty": False})
        with line, suppress(OSError):
            while len(said) < _WORDS_MOST and (more := line.recv(4096)):
                said += more
