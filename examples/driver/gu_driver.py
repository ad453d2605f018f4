"""What every driver for guactors needs: the protocol of docs/drivers.md, in one thread.

Standard library only; copy it. A driver is a :class:`Driver` with methods of its own for what it
runs; ``machine.py`` beside this file is one, ``golem_plugin.py`` another.

One thread and one loop: a program that may not start another process (its group is full) can still
be spoken to, paused and ended.
"""

from __future__ import annotations

import base64
import ctypes
import heapq
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any

assert sys.platform != "win32", "needs POSIX"

from gu_files import Files
from gu_programs import Program, Refused, descendants

PROTOCOL = 1
LINE = 1 << 20
_SUBREAPER = 36  # of prctl(2)

Message = dict[str, Any]


class Loop:
    """Descriptors, times, and the ends of children."""

    def __init__(self, on_child: Callable[[], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, int] = {}
        self._times: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()
        self._on_child = on_child
        self._wake, waker = os.pipe()
        for fd in (self._wake, waker):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.watch(self._wake, selectors.EVENT_READ, self._woken)

    def watch(self, fd: int, mask: int, call: Callable[[int], None]) -> None:
        """Call it when the descriptor is ready for ``mask``; nothing at all for 0."""
        known = self._watched.get(fd, 0)
        if mask == known:
            return
        if not mask:
            self._selector.unregister(fd)
            del self._watched[fd]
            return
        if known:
            self._selector.modify(fd, mask, call)
        else:
            self._selector.register(fd, mask, call)
        self._watched[fd] = mask

    def at(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it so many seconds from now."""
        heapq.heappush(self._times, (time.monotonic() + seconds, next(self._count), call))

    def run(self) -> None:
        """Until somebody raises SystemExit."""
        while True:
            while self._times and self._times[0][0] <= time.monotonic():
                heapq.heappop(self._times)[2]()
            patience = self._times[0][0] - time.monotonic() if self._times else None
            for key, mask in self._selector.select(patience):
                # A call before this one may have closed it.
                if key.fd in self._watched:
                    key.data(mask)

    def _woken(self, _: int) -> None:
        os.read(self._wake, 4096)
        self._on_child()


class Driver:
    """Programs as children of this process, files in a directory. Subclasses say what they are, and
    may do more at ``create``, ``start``, ``close`` and for each program."""

    name = ""
    version = ""
    capabilities: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.spec: Message = {}
        self.files: Files | None = None
        self.loop = Loop(self.reap)
        self.programs: dict[int, Program] = {}
        self._line = b""
        self._input, self._output = os.dup(0), os.dup(1)
        # What somebody prints by mistake must not get between the lines of the protocol.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        if sys.platform == "linux":
            # Whoever leaves its parent becomes ours: so nobody is missed at the end.
            ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)

    # --- what a driver may do otherwise ---------------------------------------------------------

    def create(self, spec: Message) -> None:
        """Make the instance: ``self.files`` is where its files are."""
        root = os.path.join(spec["directory"], "work")
        os.mkdir(root, 0o700)
        self.files = Files(root)

    def start(self) -> None:
        """Make it ready for programs."""

    def command_line(self, command: Message) -> tuple[list[str], str, dict[str, str]]:
        """Words, directory and environment of a program."""
        assert self.files is not None
        env = {**os.environ, **self.spec["env"], **command["env"]}
        env["GU_INSTANCE"] = os.environ.get("GU_INSTANCE", "")
        return command["argv"], os.path.join(self.files.root, command["cwd"]), env

    def path(self, path: str) -> str:
        """Where a path of the caller is below ``self.files``."""
        return path

    # --- the protocol ---------------------------------------------------------------------------

    def run(self) -> None:
        """Until ``close``, or until nobody is there any more."""
        self.loop.watch(self._input, selectors.EVENT_READ, self._read)
        self.loop.run()

    def tell(self, **message: Any) -> None:
        """One line. It may block: guactors always reads."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._output, data) :]
        except BrokenPipeError:
            self._leave()

    def _read(self, _: int) -> None:
        data = os.read(self._input, 1 << 18)
        if not data:
            self._leave()
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > LINE:
            sys.exit("a line that is too long")
        for line in lines:
            self._on_line(json.loads(line))

    def _on_line(self, message: Message) -> None:
        verb, number = message["verb"], message.get("id")
        if number is None:
            # An order may come when its program has just ended: then it is nobody's.
            program = self.programs.get(message["program"])
            if program is not None:
                getattr(program, f"order_{verb}")(message)
            return
        try:
            do = getattr(self, f"do_{verb}", None)
            if do is None:
                raise Refused("unsupported", f"there is no verb {verb!r}")
            result = do(message)
        except Refused as error:
            self.tell(type="error", id=number, kind=error.kind, message=str(error), code=error.code)
        except OSError as error:
            self.tell(type="error", id=number, kind="usage", message=f"{verb}: {error}")
        else:
            if result is not LATER:
                self.tell(type="ok", id=number, result=result or {})

    def _leave(self) -> None:
        self.end_all()
        raise SystemExit(0)

    # --- verbs ----------------------------------------------------------------------------------

    def do_hello(self, message: Message) -> Message:
        if message["protocol"] != PROTOCOL:
            raise Refused("unsupported", f"this driver speaks protocol {PROTOCOL}")
        return {
            "protocol": PROTOCOL,
            "name": self.name,
            "version": self.version,
            "capabilities": list(self.capabilities),
        }

    def do_create(self, message: Message) -> None:
        self.spec = message["spec"]
        self.create(self.spec)

    def do_start(self, _: Message) -> None:
        self.start()

    def do_exec(self, message: Message) -> Message:
        words, cwd, env = self.command_line(message)
        program = Program(self, message, words, cwd, env)
        self.programs[program.number] = program
        return {"credit": program.ROOM}

    def do_put(self, message: Message) -> None:
        self._files.put(message["transfer"], self.path(message["path"]), message["tar"])

    def do_put_data(self, message: Message) -> None:
        self._files.put_data(message["transfer"], base64.b64decode(message["data"]))

    def do_put_end(self, message: Message) -> None:
        self._files.put_end(message["transfer"])

    def do_put_drop(self, message: Message) -> None:
        self._files.drop(message["transfer"])

    def do_get(self, message: Message) -> None:
        self._files.get(message["transfer"], self.path(message["path"]), message["tar"])

    def do_get_data(self, message: Message) -> Message:
        data = self._files.get_data(message["transfer"], message["most"])
        return {"data": base64.b64encode(data).decode(), "end": not data}

    def do_get_drop(self, message: Message) -> None:
        self._files.drop(message["transfer"])

    def do_pause(self, _: Message) -> None:
        """Stop everyone, and those that they start meanwhile."""
        stopped: set[int] = set()
        until = time.monotonic() + 2.0
        while True:
            found = self.family()
            for pid in found.keys() - stopped:
                send(pid, signal.SIGSTOP)
            # D: asleep in the kernel, as one is whose child was stopped between vfork and exec. It
            # runs no program before the signal stops it.
            if found.keys() <= stopped and all(state in "TtDZX" for state in found.values()):
                return
            stopped |= found.keys()
            if time.monotonic() > until:
                for pid in stopped:
                    send(pid, signal.SIGCONT)
                raise Refused("usage", "not everything stands still: try again")
            time.sleep(0.001)

    def do_resume(self, _: Message) -> None:
        for pid in self.family():
            send(pid, signal.SIGCONT)

    def do_stop(self, message: Message) -> object:
        for pid in self.family():
            send(pid, signal.SIGTERM)
        self._await_end(message["id"], time.monotonic() + message["grace"])
        return LATER

    def do_close(self, message: Message) -> None:
        self.end_all()
        if self.files is not None:
            self.files.close()
        self.tell(type="ok", id=message["id"], result={})
        raise SystemExit(0)

    # --- processes ------------------------------------------------------------------------------

    def reap(self) -> None:
        """Children that have ended, our own and those that were left to us."""
        by_pid = {program.pid: program for program in self.programs.values()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in by_pid:
                by_pid[pid].reaped(os.waitstatus_to_exitcode(status))

    def family(self) -> dict[int, str]:
        """All processes of the instance, with their states."""
        if sys.platform == "linux":
            return descendants(os.getpid())
        return {program.pid: "S" for program in self.programs.values() if program.lives}

    def end_all(self) -> None:
        """Nobody is left."""
        until = time.monotonic() + 2.0
        while (left := self.family()) and time.monotonic() < until:
            for pid in left:
                send(pid, signal.SIGKILL)
            self.reap()
            time.sleep(0.001)

    def _await_end(self, number: int, until: float) -> None:
        living = [state for state in self.family().values() if state not in "ZX"]
        if living and time.monotonic() < until:
            self.loop.at(0.01, lambda: self._await_end(number, until))
            return
        self.end_all()
        self.tell(type="ok", id=number, result={})

    @property
    def _files(self) -> Files:
        if self.files is None:
            raise Refused("usage", "there is no instance yet")
        return self.files


LATER = object()
"""The answer of a request that is answered later."""


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
