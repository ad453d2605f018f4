"""An instance that its session keeps: the one actor that workers have themselves.

Owns: one instance of the image that the worker is bound to, the programs that run in it, and what
they said in the background. Must never: take anything but plain data from callers, run a program of
this machine, or leave a part of the instance behind when the actor ends.

Whoever may call here may put any file into the instance and run it, so an instance must keep its
programs apart from the machine: in ``native`` by its sandbox, without which it is refused.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import msgspec

from guactors.context import running
from guactors.errors import UsageError
from guactors.remote_actor import method
from guactors.runtimes.base import Command, Exit, Runtime, Where
from guactors.runtimes.instance import Running as Program
from guactors.runtimes.program import least, limits_from, private_instance
from guactors.worker.uploads import Uploads

LONG: Final = "long"
"""Calls that last as long as a program does."""
FILES: Final = "files"
GROUPS: Final = {LONG: 64, FILES: 8}
"""Calls of each kind at a time, each on a thread, besides those that are short; what is more
waits."""
SHORT: Final = 8
MOST_PROGRAMS: Final = 256
"""Background programs that are remembered; ended ones are forgotten first."""
KEPT: Final = 1 << 20
"""Bytes of each of a background program's streams that are kept, the last ones."""
MOST_TAGS: Final = 64
LONGEST_TAG: Final = 256
WINDOW: Final = 64
"""Pieces of output or of a file that may be on their way to a reader."""
_LOOK: Final = 0.2
"""Seconds between two looks whether the reader of a silent program has gone."""
_STREAMS: Final = {1: "out", 2: "err"}

Ended = tuple[str, int | None, int | None, str, str]
"""``("exit", code, signal, reason, detail)``, as in ``runtimes.base.Exit``."""
Chunk = tuple[str, bytes] | Ended
"""``("out", bytes)``, ``("err", bytes)``, and last an :data:`Ended`."""


class Background:
    """A program that nobody need listen to: the end of what it said, and its exit."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.end: Exit | None = None
        self._changed = threading.Condition()
        self._said = {1: bytearray(), 2: bytearray()}
        self._dropped = {1: 0, 2: 0}
        self._thread = threading.Thread(target=self._read, name="program's output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for found in self.program.output():
            with self._changed:
                if isinstance(found, Exit):
                    self.end = found
                    self._changed.notify_all()
                    return
                said = self._said[found.stream]
                said += found.data
                surplus = len(said) - KEPT
                if surplus > 0:
                    del said[:surplus]
                    self._dropped[found.stream] += surplus

    def wait(self, timeout: float | None) -> Exit | None:
        """Its end, None where that does not come in time, or where nobody waits any more."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self.end is None and not _cancelled():
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, _LOOK))
            return self.end

    def told(self) -> dict[str, Any]:
        """What it said so far."""
        with self._changed:
            return {
                "out": bytes(self._said[1]),
                "err": bytes(self._said[2]),
                "dropped": dict(zip(("out", "err"), self._dropped.values(), strict=True)),
            }


class Deployment:
    """``where``: what the worker is bound to; ``open_runtime`` gives the adapter.
    The rest comes from the session: ``limits`` as ``limits_from`` takes them, the
    ``env`` of all its programs. The instance runs when this returns.

    Every public method may be called by everybody who may call the actor."""

    def __init__(
        self,
        where: Where,
        open_runtime: Callable[[], Runtime],
        /,
        limits: Any = None,
        env: Any = None,
        name: Any = "",
        tags: Any = (),
    ) -> None:
        if limits is not None and type(limits) is not dict:
            raise UsageError("the limits of a deployment are a dict of numbers")
        if not _texts([name]) or len(name) > LONGEST_TAG:
            raise UsageError(f"a name is a text of at most {LONGEST_TAG} characters")
        self._where = where
        self._name = name
        self._env = _variables(env)
        self._lock = threading.Lock()
        self._tags = _tags(tags)
        self._programs: dict[int, Background] = {}
        self._last = 0
        self._running = 0
        self._ran = False
        self._held = ExitStack()
        self._uploads = Uploads(self._put)
        held = least(limits_from(limits), where.limits)
        runtime = open_runtime()
        self._held.callback(runtime.close)
        try:
            made = private_instance(runtime, where, held)
            self._instance = self._held.enter_context(made)
        except BaseException:
            self._held.close()
            raise

    def _close(self) -> None:
        """End it at once and leave nothing. Idempotent; not for callers."""
        self._uploads.close()
        self._held.close()

    # --- programs -------------------------------------------------------------------------------

    @method(concurrency_group=LONG, _generator_backpressure_num_objects=WINDOW)
    def exec(
        self, argv: Any, env: Any = None, cwd: Any = "", user: Any = "", stdin: Any = b""
    ) -> Iterator[Chunk]:
        """Run a program and tell what it says as it says it. It ends when nobody listens. Raises
        ProgramNotStarted, InstanceLost, UsageError."""
        program = self._start(argv, env, cwd, user, stdin)
        try:
            self._count(1)
            yield from _said(program)
        finally:
            self._count(-1)
            program.close()

    def start(
        self, argv: Any, env: Any = None, cwd: Any = "", user: Any = "", stdin: Any = b""
    ) -> int:
        """Run a program in the background: its number here. Raises as ``exec``."""
        with self._lock:
            self._make_room()
        program = Background(self._start(argv, env, cwd, user, stdin))
        with self._lock:
            self._last += 1
            self._programs[self._last] = program
            return self._last

    @method(concurrency_group=LONG)
    def wait(self, number: Any, timeout: Any = None) -> Ended | None:
        """How a background program ended; None after ``timeout`` seconds."""
        if timeout is not None and not _number(timeout, 0.0):
            raise UsageError(f"a timeout is a number of seconds or None, not {timeout!r}")
        end = self._find(number).wait(timeout)
        return None if end is None else _ended(end)

    def signal(self, number: Any, sent: Any = int(signal.SIGTERM)) -> None:
        """Send a signal to a background program and all that it started."""
        if type(sent) is not int or not 0 < sent < 65:
            raise UsageError(f"a signal is a number from 1 to 64, not {sent!r}")
        self._find(number).program.signal(sent)

    def output(self, number: Any) -> dict[str, Any]:
        """What a background program said: ``out`` and ``err``, the last MiB of each; ``dropped``:
        how many bytes came before."""
        return self._find(number).told()

    def programs(self) -> dict[int, Ended | None]:
        """The background programs by number, and how each ended."""
        with self._lock:
            found = list(self._programs.items())
        return {number: _ended(one.end) if one.end else None for number, one in found}

    # --- files ----------------------------------------------------------------------------------

    @method(concurrency_group=FILES)
    def begin_put(self, path: Any, tar: Any = False) -> int:
        """Begin to write a file, or to unpack a tar into a directory: its number here."""
        return self._uploads.begin(_path(path), tar=bool(tar))

    @method(concurrency_group=FILES)
    def put(self, number: Any, data: Any) -> None:
        """The next piece of it."""
        if type(data) is not bytes:
            raise UsageError("the content of a file is bytes")
        self._uploads.more(number, data)

    @method(concurrency_group=FILES)
    def end_put(self, number: Any, complete: Any = True) -> None:
        """All of it was sent, or (``complete`` False) no more comes: nothing is written then, but
        what a tar had before. Raises what went wrong with it."""
        self._uploads.end(number, complete=bool(complete))

    def _put(self, path: str, data: Iterator[bytes], tar: bool) -> None:
        self._instance.put(path, data, tar=tar)

    @method(concurrency_group=FILES, _generator_backpressure_num_objects=WINDOW)
    def get(self, path: Any, tar: Any = False) -> Iterator[bytes]:
        """A file, or a tar of a file or directory, in pieces."""
        for piece in self._instance.get(_path(path), tar=bool(tar)):
            yield from (piece[at : at + _PIECE] for at in range(0, len(piece), _PIECE))

    # --- all of it ------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """``state`` as in ``runtimes.life.State``, why it ended, its tags, runtime and image,
        whether programs run or ever ran."""
        with self._lock:
            busy = self._running + sum(one.end is None for one in self._programs.values())
            tags, ran = list(self._tags), self._ran
        end = self._instance.end
        return {
            "state": self._instance.state.value,
            "end": "" if end is None else end.detail or end.reason,
            "name": self._name,
            "tags": tags,
            "runtime": self._where.runtime,
            "image": self._where.image,
            "running": busy,
            "ran": ran,
        }

    def change_tags(self, add: Any = (), remove: Any = ()) -> list[str]:
        """The tags that it has now."""
        gone = _tags(remove)
        with self._lock:
            self._tags = _tags([*(tag for tag in self._tags if tag not in gone), *_tags(add)])
            return list(self._tags)

    def stats(self) -> dict[str, Any]:
        """What it has used, see ``runtimes.base.Stats``."""
        return msgspec.structs.asdict(self._instance.stats())

    def pause(self) -> None:
        """Everything in it stands still when this returns."""
        self._instance.pause()

    def resume(self) -> None:
        """It goes on."""
        self._instance.resume()

    def stop(self, grace: Any = 5.0) -> None:
        """Ask its programs to end, end what is left after ``grace`` seconds, and leave nothing of
        the instance; the actor tells of it until it is released."""
        if not _number(grace, 0.0):
            raise UsageError(f"a grace is a number of seconds, not {grace!r}")
        self._instance.stop(float(grace))

    # --- inside ---------------------------------------------------------------------------------

    def _start(self, argv: Any, env: Any, cwd: Any, user: Any, stdin: Any) -> Program:
        if type(argv) not in (list, tuple) or not _texts(argv) or not argv or not argv[0]:
            raise UsageError("a program is a list of texts, of which the first names it")
        if not _texts([cwd, user]):
            raise UsageError("the directory and the user of a program are texts")
        if type(stdin) is not bytes:
            raise UsageError("the input of a program is bytes")
        variables = {**self._env, **_variables(env)}
        command = Command(tuple(argv), variables, cwd, user, stdin=bool(stdin))
        program = self._instance.exec(command)
        self._ran = True
        if stdin:
            feeder = threading.Thread(target=_feed, args=(program, stdin), daemon=True)
            feeder.start()
        return program

    def _count(self, change: int) -> None:
        with self._lock:
            self._running += change

    def _find(self, number: Any) -> Background:
        with self._lock:
            found = self._programs.get(number) if type(number) is int else None
        if found is None:
            raise UsageError(f"no program {number!r} was started here, or it is forgotten")
        return found

    def _make_room(self) -> None:
        for number, one in list(self._programs.items()):
            if len(self._programs) < MOST_PROGRAMS:
                return
            if one.end is not None:
                del self._programs[number]
        if len(self._programs) >= MOST_PROGRAMS:
            raise UsageError(
                f"{MOST_PROGRAMS} programs run in the background already: wait for some to end"
            )


_PIECE: Final = 65536


def _said(program: Program) -> Iterator[Chunk]:
    while True:
        found = program.read(_LOOK)
        if found is None:
            if _cancelled():
                program.signal(signal.SIGTERM)
                return
        elif isinstance(found, Exit):
            yield _ended(found)
            return
        else:
            yield _STREAMS[found.stream], found.data


def _feed(program: Program, data: bytes) -> None:
    program.write(data)
    program.close_input()


def _cancelled() -> bool:
    call = running.get()
    return call is not None and call.cancelled


def _ended(end: Exit) -> Ended:
    return "exit", end.code, end.signal, end.reason, end.detail


def _texts(values: Any) -> bool:
    return all(type(one) is str and "\0" not in one for one in values)


def _path(value: Any) -> str:
    if not _texts([value]):
        raise UsageError("a path is a text")
    return str(value)


def _number(value: Any, least_: float) -> bool:
    return type(value) in (int, float) and least_ <= value < math.inf


def _variables(env: Any) -> dict[str, str]:
    if env is None:
        return {}
    if type(env) is not dict or not _texts([*env, *env.values()]):
        raise UsageError("the variables of a program are a dict of texts")
    return env


def _tags(given: Any) -> list[str]:
    fits = type(given) in (list, tuple) and _texts(given)
    if not fits or len(given) > MOST_TAGS or any(not 0 < len(x) <= LONGEST_TAG for x in given):
        raise UsageError(
            f"tags are a list of at most {MOST_TAGS} texts of 1 to {LONGEST_TAG} characters"
        )
    return list(dict.fromkeys(given))
