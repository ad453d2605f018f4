"""A native program as a task: started on a provider, its output streamed, nothing of it left over.

Owns: the instance around one program, from start to end. Must never: know the grid; ``gu run``
submits :func:`run_program` like any other generator.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import Any, Final

import msgspec

from guactors.errors import (
    GuactorsError,
    InstanceLost,
    InternalError,
    ProgramNotStarted,
    RuntimeMissing,
    UsageError,
)
from guactors.ids import fresh
from guactors.messages import Limits
from guactors.runtimes.base import Capability, Command, Exit, Runtime, Spec, Where
from guactors.runtimes.choice import NATIVE
from guactors.runtimes.instance import Instance, Running
from guactors.runtimes.native.driver import NativeRuntime
from guactors.runtimes.native.guardian import Guardian

Chunk = tuple[str, bytes | int]
"""``("out", bytes)``, ``("err", bytes)``, and last ``("exit", code)``; a code below zero is minus
the signal that ended the program."""

WINDOW: Final = 64
"""Chunks that may be unread before a program has to wait: neither its worker nor who reads holds
more of what it says, however slow he is."""
GRACE: Final = 1.0
"""Seconds between asking a cancelled program to end and killing it."""
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
_STREAMS: Final = {1: "out", 2: "err"}
_NOTHING: Final[Mapping[str, Any]] = {}
UNCOUNTED: Final[Mapping[str, Any]] = {"counted": False}
"""Options of a native instance that nobody asks what it has used."""


def run_program(
    argv: list[str], env: dict[str, str], cwd: str, limits: Mapping[str, float] | None = None
) -> Iterator[Chunk]:
    """Run ``argv`` and yield its output as it comes, then its exit code (see :data:`Chunk`).

    ``env`` is added to the worker's environment. An empty ``cwd`` is a fresh directory that is
    removed afterwards. Standard input is empty. A program that cannot be started exits with 127
    (not found) or 126, as in a shell, and one line on "err"; one that its ``limits`` ended (see
    :func:`limits_from`) says so there. When the generator is closed or interrupted, and when the
    program ends, all that it started is ended too."""
    command = Command(tuple(argv), env, cwd, main=True)
    yield from run_in(programs_of_machine(), command, limits_from(limits), options=UNCOUNTED)


def run_in(
    runtime: Runtime,
    command: Command,
    limits: Limits,
    image: str = "",
    options: Mapping[str, Any] = _NOTHING,
    owner: str = "",
) -> Iterator[Chunk]:
    """As :func:`run_program`, in an instance of this runtime with these options."""
    with instance_in(runtime, limits, image, options, owner) as instance:
        code = yield from _run(instance, command)
    # Last of all: who hears the end may end this process at once.
    yield "exit", code


@contextmanager
def instance_in(
    runtime: Runtime,
    limits: Limits,
    image: str = "",
    options: Mapping[str, Any] = _NOTHING,
    owner: str = "",
) -> Iterator[Instance]:
    """One that runs, in a directory of its own; both are gone afterwards, also when this process is
    killed. ``owner``: the provider's id. Raises as ``Runtime.create`` and ``Driver.start`` do."""
    _STANDING.await_turn()
    directory = tempfile.mkdtemp(prefix="gu-run-")
    guardian().watch("directory", directory)
    given = {"root": directory, **options} if runtime.name == NATIVE else dict(options)
    whose = owner or str(os.getpid())
    spec = Spec(fresh("instance"), whose, directory, image, limits, options=given)
    try:
        with Instance(spec, runtime.create(spec)) as instance:
            instance.start()
            with _STANDING.kept(instance):
                yield instance
    finally:
        # A program may well leave directories here that it forbade itself to enter.
        shutil.rmtree(directory, ignore_errors=True)
        guardian().forget("directory", directory)


class _Standing:
    """The instances that run in this process, and whether they are to stand still. Threads: any."""

    def __init__(self) -> None:
        self._instances: set[Instance] = set()
        self._halted = False
        self._ending = False
        self._changed = threading.Condition()

    def await_turn(self) -> None:
        """Until a new one may begin."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._halted or self._ending))

    @contextmanager
    def kept(self, instance: Instance) -> Iterator[None]:
        """This one obeys from here on."""
        try:
            with self._changed:
                self._instances.add(instance)
                if self._halted:
                    instance.suspend()
            yield
        finally:
            with self._changed:
                self._instances.discard(instance)

    def end(self, grace: float) -> None:
        """None begins any more, and nobody is told how those that run end."""
        until = time.monotonic() + grace
        with self._changed:
            self._ending = True
            instances = list(self._instances)
        for instance in instances:
            with suppress(GuactorsError):  # whoever kills this process ends what is left
                instance.stop(max(0.0, until - time.monotonic()))

    def await_own_end(self) -> None:
        """For ever, where this process is to end; else not at all."""
        with self._changed:
            self._changed.wait_for(lambda: not self._ending)

    def any(self) -> bool:
        """Whether one runs."""
        return bool(self._instances)

    def halt(self) -> None:
        with self._changed:
            self._halted = True
            for instance in list(self._instances):
                instance.suspend()

    def go_on(self) -> None:
        with self._changed:
            self._halted = False
            self._changed.notify_all()
            for instance in list(self._instances):
                with suppress(InstanceLost):
                    instance.release()


_STANDING: Final = _Standing()


def pause_all() -> None:
    """All instances that were made here stand still; who makes one from now on, or asks one for
    something, waits. Raises GuactorsError where one does not stand still."""
    _STANDING.halt()


def resume_all() -> None:
    """They go on, but those that somebody else had paused."""
    _STANDING.go_on()


def has_instances() -> bool:
    """Whether any was made here and has not ended."""
    return _STANDING.any()


def end_all(grace: float) -> None:
    """All are asked to end, and ended after so many seconds. Their programs' exits are told to
    nobody: this process is to end."""
    _STANDING.end(grace)


def private_instance(
    runtime: Runtime, where: Where, limits: Limits
) -> AbstractContextManager[Instance]:
    """As :func:`instance_in`, one in which anything may be run: it keeps that apart from this
    machine. Raises RuntimeMissing where its runtime cannot."""
    if Capability.PRIVATE not in runtime.capabilities:
        raise RuntimeMissing(
            f"the runtime {where.runtime!r} of this machine cannot keep what runs there apart from "
            "it: install the package bubblewrap there, or use another runtime"
        )
    options = {"root": where.root, "sandbox": "bubblewrap"} if where.runtime == NATIVE else {}
    return instance_in(runtime, limits, where.image, options, where.owner)


def _run(instance: Instance, command: Command) -> Generator[Chunk, None, int]:
    try:
        running = instance.exec(command)
    except ProgramNotStarted as error:
        yield "err", f"gu run: {error}\n".encode()
        return error.code
    try:
        for found in running.output():
            if not isinstance(found, Exit):
                yield _STREAMS[found.stream], found.data
                continue
            _STANDING.await_own_end()
            if found.detail:
                yield "err", f"gu run: {found.detail}\n".encode()
            return found.code or 0 if found.signal is None else -found.signal
    except BaseException:
        _ask_to_end(running)
        raise
    raise InternalError(f"the end of {command.argv[0]} was never told")


def _ask_to_end(running: Running) -> None:
    running.signal(signal.SIGTERM)
    until = time.monotonic() + GRACE
    while (left := until - time.monotonic()) > 0 and not isinstance(running.read(left), Exit):
        continue


def limits_from(given: Mapping[str, float] | None) -> Limits:
    """``{"cpu": processors, "memory": bytes, "pids": processes, "disk": bytes, "wall": seconds}``,
    each above 0 or missing. Raises UsageError."""
    found: dict[str, float] = {}
    for name, value in (given or {}).items():
        if name not in Limits.__struct_fields__:
            known = ", ".join(Limits.__struct_fields__)
            raise UsageError(f"{name!r} is no limit of a program; there are {known}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise UsageError(f"the limit {name!r} is a number above 0, not {value!r}")
        found[name] = float(value) if name in {"cpu", "wall"} else max(1, int(value))
    return Limits(**found)  # type: ignore[arg-type]


def least(one: Limits, other: Limits | None) -> Limits:
    """The smaller of each limit that either has."""
    if other is None:
        return one
    pairs = zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)
    return Limits(*(min(pair) or max(pair) for pair in pairs))


@cache
def guardian() -> Guardian:
    """Of this process's programs."""
    return Guardian()


@cache
def programs_of_machine() -> NativeRuntime:
    """The runtime that this process's programs share."""
    return NativeRuntime(guardian=guardian())


def forget() -> None:
    """Give up what they share."""
    if guardian.cache_info().currsize:
        guardian().close()
    guardian.cache_clear()
    programs_of_machine.cache_clear()
