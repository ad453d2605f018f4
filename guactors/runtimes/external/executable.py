"""The process of a driver, and all that it starts.

Owns: the process, its group and its pipes, from its start until nothing of it is left. Must never:
read a line, or signal a number that may be somebody else's by now.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

assert sys.platform != "win32", "needs process groups and poll"

from guactors.errors import RuntimeMissing
from guactors.messages import Limits
from guactors.runtimes import process
from guactors.runtimes.base import Stats
from guactors.runtimes.command import without_secrets
from guactors.runtimes.external.manifest import Driver, runs_on
from guactors.runtimes.native.belonging import MARK, find_belonging
from guactors.runtimes.native.guardian import Guardian

LOOK: Final = 0.2
"""Seconds between two looks at what no descriptor tells of."""
_NAP: Final = 0.005
_SIGNALS: Final = {int(one): one.name for one in signal.Signals}


class Executable:
    """Of ``driver`` for ``instance``, with all that it starts held to ``limits``. Raises
    RuntimeMissing where it cannot be started. Threads: any."""

    def __init__(self, driver: Driver, instance: str, limits: Limits, guardian: Guardian) -> None:
        self._driver = driver
        self._guardian = guardian
        self._belongs = threading.Lock()
        self._ending = threading.Lock()
        self._reaped = False
        if not runs_on(driver.manifest.platforms):
            names = ", ".join(driver.manifest.platforms)
            raise RuntimeMissing(f"the driver {driver.name!r} is for {names}: not this machine")
        self._belonging = find_belonging(instance, limits)
        self._watched = self._belonging.watched()
        for kind, value in self._watched:
            guardian.watch(kind, value)
        try:
            self._popen = self._start(instance)
        except BaseException:
            self._end_rest()
            raise
        pipes = (self._popen.stdin, self._popen.stdout, self._popen.stderr)
        self.input, self.output, self.errors = (_fd(pipe) for pipe in pipes)
        os.set_blocking(self.input, False)

    @property
    def pid(self) -> int:
        """Its number, and its group's."""
        return self._popen.pid

    def _start(self, instance: str) -> subprocess.Popen[bytes]:
        command = self._driver.manifest.command
        try:
            with self._belonging.birth() as before:
                popen = subprocess.Popen(
                    [*before, *command],
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=self._driver.path.parent,
                    env=without_secrets(os.environ) | {MARK: instance},
                    process_group=0,
                )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise RuntimeMissing(
                f"the driver {self._driver.name!r} does not start: {command[0]}: {said}: see "
                f"'command' in {self._driver.path}"
            ) from None
        self._guardian.watch("group", str(popen.pid))
        self._belonging.born(popen.pid)
        return popen

    def write(self, line: bytes, until: float, go_on: Callable[[], bool]) -> bool:
        """To its standard input, as long as it may: False where it did not take all of it until
        then. Raises OSError where it takes nothing any more. One thread at a time."""
        left = memoryview(line)
        while left and go_on():
            try:
                left = left[os.write(self.input, left) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self.input, select.POLLOUT)
                poll.poll(LOOK * 1000)
                if time.monotonic() > until:
                    return False
        return True

    def has_ended(self) -> bool:
        """Whether its process has."""
        with self._ending:
            return self._reaped or process.has_ended(self.pid)

    def how_it_ended(self) -> str:
        """Once its output has: its process may do so a moment later, and does now."""
        until = time.monotonic() + LOOK
        while not (ended := self.has_ended()) and time.monotonic() < until:
            time.sleep(_NAP)
        self.reap()
        code = self._popen.returncode
        if not ended:
            return "closed its standard output"
        return f"was ended by {_SIGNALS.get(-code, -code)}" if code < 0 else f"ended, status {code}"

    # --- of all that it started -----------------------------------------------------------------

    def out_of_memory(self) -> str:
        """Why one was ended for the memory of all, empty if none was."""
        with self._belongs:
            return self._belonging.out_of_memory()

    def stats(self) -> Stats:
        """What it and they have used."""
        with self._belongs:
            return self._belonging.stats()

    # --- its end --------------------------------------------------------------------------------

    def kill(self) -> None:
        """It and all that it started end soon."""
        with self._ending:
            self._kill()
        with self._belongs:
            self._belonging.signal(signal.SIGKILL)

    def _kill(self) -> None:
        if not self._reaped:
            process.kill_group(self.pid)
            # It may have left its group, in which others are.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Its process is gone when this returns. Idempotent."""
        with self._ending:
            if self._reaped:
                return
            self._kill()
            ended = process.reap(self.pid, block=True)
            self._popen.returncode = os.waitstatus_to_exitcode(ended[0]) if ended else 0
            self._reaped = True
            self._guardian.forget("group", str(self.pid))

    def close(self) -> None:
        """Nothing is left, and nobody uses its pipes any more. Once."""
        try:
            self.reap()
        finally:
            for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()
            self._end_rest()

    def _end_rest(self) -> None:
        with self._belongs:
            self._belonging.end()
        for kind, value in self._watched:
            self._guardian.forget(kind, value)


def _fd(pipe: object) -> int:
    found = pipe.fileno() if hasattr(pipe, "fileno") else -1
    assert isinstance(found, int)
    return found
