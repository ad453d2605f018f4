"""One hub or provider process under a launcher: forked from it, heard through a pipe.

Owns: the pid and the report pipe of one process. Must never: decide whether to start it again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

assert sys.platform != "win32", "needs fork; spawn.py serves Windows"

from guactors.runtimes import process
from guactors.runtimes.workers import Report

Body = Callable[[Report], object]
"""Runs a hub or a provider until it is told to stop."""

_READ = 65536
_LINE_MOST = 2**20


class Member:
    """``role`` is ``hub`` or ``provider``; ``name`` its id. Raises OSError where fork fails."""

    def __init__(self, role: str, name: str, body: Body) -> None:
        self.role = role
        self.name = name
        self.ready = False
        self._reports, theirs = os.pipe()
        # Never written to: its end of file tells the member, where the kernel does not.
        lifeline, self._lifeline = os.pipe()
        parent = os.getpid()
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _be_member(body, theirs, lifeline, parent)
        except OSError:
            os.close(self._reports)
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)
            os.close(lifeline)
        os.set_blocking(self._reports, False)
        self._rest = b""

    def fileno(self) -> int:
        """Readable when ``reports`` has news."""
        return self._reports

    def reports(self) -> list[dict[str, Any]]:
        """What it reported since, each with who it is; never blocks."""
        while len(self._rest) < _LINE_MOST:
            try:
                data = os.read(self._reports, _READ)
            except BlockingIOError:
                break
            if not data:
                break
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        found = [{"role": self.role, "name": self.name, "pid": self.pid, **json.loads(line)}
                 for line in lines]  # fmt: skip
        self.ready = self.ready or any(one.get("event") == "ready" for one in found)
        return found

    def signal(self, number: int) -> None:
        """To the process alone: it sees to its own children."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """SIGKILL to its group; before it is reaped, else the number may be somebody else's."""
        process.kill_group(self.pid)

    def close(self) -> None:
        """Close our ends of the pipes."""
        os.close(self._reports)
        os.close(self._lifeline)


def _be_member(body: Body, reports: int, lifeline: int, parent: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        process.close_all_but((reports, lifeline))
        _plain_process()
        if process.LINUX:
            os.close(lifeline)
            if not process.die_with_parent(signal.SIGKILL, parent):
                os._exit(1)
        else:
            threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
        body(_reporter(reports))
        status = 0
    except BaseException as error:  # noqa: BLE001 - the launcher tells it on; nobody else can
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        _reporter(reports)({"event": "error", "text": text})
    finally:
        sys.stderr.flush()
        os._exit(status)


def _plain_process() -> None:
    """Standard input from nowhere, standard output to the log, signals as in any Python."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _reporter(fd: int) -> Report:
    def report(message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[os.write(fd, data) :]
        except BrokenPipeError:
            # The launcher is gone, and we are about to be.
            return

    return report


def _end_with(lifeline: int) -> None:
    while os.read(lifeline, 1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
