"""One instance of any runtime: what everybody uses who runs something.

Owns: its driver, its life, its processes, and the thread that watches its limits of time and disk,
if it has such. Must never: know which adapter the driver is of.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from guactors.errors import GuactorsError, InstanceLost, ProgramFailed, Refused
from guactors.runtimes.base import (
    Command,
    Driver,
    Exit,
    Output,
    Process,
    Size,
    Spec,
    Stats,
)
from guactors.runtimes.life import End, Life, State

log = logging.getLogger("guactors.runtimes")

CHECKPOINT_WITHIN: Final = 60.0
"""Seconds that a program may take to write down how far it is."""
MOVE_WITHIN: Final = 5.0
"""Seconds that a program which is just being started has, before its instance is suspended."""
_TAIL: Final = 2000


class Instance:
    """``driver``: of an instance that was created, or (``running``) restored. Threads: as Driver.
    ``close`` it, or use it as a context manager."""

    def __init__(self, spec: Spec, driver: Driver, *, running: bool = False) -> None:
        self.spec = spec
        self._driver = driver
        self._life = Life(spec.instance, spec.limits)
        self._lock = threading.Lock()
        self._processes: set[Running] = set()
        """Those whose end nobody has read."""
        self._changed = threading.Condition(self._lock)
        self._moves = 0
        """Things that are done to it just now."""
        self._suspended = False
        self._halted = False
        """Its driver was told to pause it for that."""
        self._closing = threading.Lock()
        self._closed = False
        self._watcher: threading.Thread | None = None
        if running:
            self._life.move(State.RUNNING, time.monotonic())
            self._watch()

    def __repr__(self) -> str:
        return f"<Instance {self.spec.instance} {self._life.state.value}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def state(self) -> State:
        """What it is at."""
        return self._life.state

    @property
    def end(self) -> End | None:
        """Why it ended, None while it has not."""
        return self._life.end

    def start(self) -> None:
        """See Driver; so all that follow."""
        self._do("start", self._driver.start, State.RUNNING)
        self._watch()

    def exec(self, command: Command) -> Running:
        """A program that runs in it."""
        with self._move("exec"), self._loss():
            process = Running(self, self._driver.exec(command))
        with self._lock:
            if self._life.state is not State.ENDED:
                self._processes.add(process)
                return process
        process.close()
        self._check("exec")
        raise InstanceLost(f"the instance {self.spec.instance} has ended")

    def put(self, path: str, data: Iterable[bytes], *, tar: bool = False) -> None:
        """Write a file, or unpack a tar."""
        self._check("put")
        with self._loss():
            self._driver.put(path, data, tar=tar)

    def get(self, path: str, *, tar: bool = False) -> Iterator[bytes]:
        """Read a file, or a tar of what is there."""
        self._check("get")
        with self._loss():
            yield from self._driver.get(path, tar=tar)

    def checkpoint(
        self, hook: Command, path: str, within: float = CHECKPOINT_WITHIN
    ) -> Iterator[bytes]:
        """Have a program in it write down how far it is, then read the tar of ``path``, where it
        wrote that; another instance that gets it by ``put`` can go on from there. For runtimes that
        cannot ``save``. Raises ProgramFailed when the hook does not end well within so many
        seconds."""
        words, said = " ".join(hook.argv), b""
        running, until = self.exec(hook), time.monotonic() + within
        try:
            while not isinstance(found := running.read(max(0.0, until - time.monotonic())), Exit):
                if found is None:
                    raise ProgramFailed(
                        f"the checkpoint hook {words!r} still ran after {within:g} s"
                    )
                said = (said + found.data)[-_TAIL:]
        finally:
            running.close()
        if found.code != 0:
            how = f"signal {found.signal}" if found.signal else f"status {found.code}"
            last = said.decode(errors="replace").strip()
            raise ProgramFailed(f"the checkpoint hook {words!r} ended with {how}: {last}")
        return self.get(path, tar=True)

    def pause(self) -> None:
        """Everything in it stands still when this returns."""
        self._do("pause", self._driver.pause, State.PAUSED)

    def resume(self) -> None:
        """It goes on."""
        self._do("resume", self._driver.resume, State.RUNNING)

    def save(self, path: str) -> None:
        """To a file; this instance is over then, and ``Runtime.restore`` makes the next."""
        self._do("save", lambda: self._driver.save(path), State.SAVED)

    def suspend(self) -> None:
        """As ``pause``, for others: whoever asks for something until ``release`` waits for that,
        and is not told that it is paused. One that is paused already stays so; of one that is lost
        the rest is ended. Raises GuactorsError where it does not stand still, and it is not taken
        for lost then."""
        with self._changed:
            self._suspended = True
            if not self._changed.wait_for(lambda: not self._moves, MOVE_WITHIN):
                raise Refused(
                    f"something is being done to the instance {self.spec.instance} for more than "
                    f"{MOVE_WITHIN:g} s"
                )
            state = self._life.state
            self._halted = state is State.RUNNING
        if state is State.RUNNING:
            self._driver.pause()
            self._enter(State.PAUSED)
        elif state is State.ENDED:
            self.close()

    def release(self) -> None:
        """It goes on where it was, if it was suspended. Raises GuactorsError where it does not."""
        with self._lock:
            halted, self._halted = self._halted, False
        try:
            if halted and self._life.state is not State.ENDED:
                self._go_on()
        finally:
            with self._changed:
                self._suspended = False
                self._changed.notify_all()

    def _go_on(self) -> None:
        if self._life.state is State.PAUSED:
            with self._loss():
                self._driver.resume()
            self._enter(State.RUNNING)
            return
        try:
            self._driver.resume()  # the pause that failed may have come late
        except GuactorsError as error:
            log.warning("the instance %s may stand still: %s", self.spec.instance, error)

    def stats(self) -> Stats:
        """What it has used."""
        with self._lock:
            self._life.check("stats")
        with self._loss():
            return self._driver.stats()

    def stop(self, grace: float = 5.0) -> None:
        """Ask all that runs in it to end; end what is left after so many seconds; close."""
        if self._life.state is State.RUNNING:
            with self._loss():
                self._driver.stop(grace)
        self.close()

    def close(self) -> None:
        """End it at once and leave nothing of it. Idempotent; when it returns it is done, whoever
        began it."""
        self._finish(End("closed", "it was closed"))
        with self._closing:
            if not self._closed:
                self._driver.close()
                for process in list(self._processes):
                    process.close()
            self._closed = True
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()

    # --- the moves ------------------------------------------------------------------------------

    def _check(self, asked: str) -> None:
        with self._changed:
            self._await_turn()
            self._life.check(asked)

    def _await_turn(self) -> None:
        """Until it is not suspended, or has ended. Its lock is held."""
        self._changed.wait_for(lambda: not self._suspended or self._life.state is State.ENDED)

    @contextmanager
    def _move(self, asked: str) -> Iterator[None]:
        """Something is done to it, which is not interrupted by its suspension."""
        with self._changed:
            self._await_turn()
            self._life.check(asked)
            self._moves += 1
        try:
            yield
        finally:
            with self._changed:
                self._moves -= 1
                self._changed.notify_all()

    def _do(self, asked: str, deed: Callable[[], None], state: State) -> None:
        with self._move(asked):
            if self._life.state is state:
                return
            with self._loss():
                deed()
            self._enter(state)

    def _enter(self, state: State) -> None:
        with self._changed:
            self._life.move(state, time.monotonic())
            self._changed.notify_all()

    def _loss(self) -> _Loss:
        return _Loss(self)

    def _finish(self, end: End) -> bool:
        with self._changed:
            news = self._life.finish(end, time.monotonic())
            processes = list(self._processes)
            self._changed.notify_all()
        for process in processes:
            process.instance_ended(end)
        return news

    def lost(self, detail: str) -> None:
        """It is not there any more."""
        self._finish(End("lost", detail))

    def forget(self, process: Running) -> None:
        """The process has ended."""
        with self._lock:
            self._processes.discard(process)

    # --- the limits -----------------------------------------------------------------------------

    def _watch(self) -> None:
        limits = self.spec.limits
        if limits.wall or limits.disk:
            name = f"limits of {self.spec.instance}"
            self._watcher = threading.Thread(target=self._keep_limits, name=name, daemon=True)
            self._watcher.start()

    def _keep_limits(self) -> None:
        while True:
            with self._changed:
                if self._life.state in (State.ENDED, State.SAVED):
                    return
                now = time.monotonic()
                self._changed.wait(self._life.next_look(now))
                running = self._life.state is State.RUNNING
            disk = self._driver.disk_used() if running and self.spec.limits.disk else None
            with self._lock:
                end = self._life.overdue(time.monotonic(), disk)
            if end is not None:
                self._finish(end)
                self._driver.close()
                return


class _Loss:
    """Turns what a driver says of its end into the end of the instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, InstanceLost):
            self._instance.lost(str(error))


class Running:
    """A program in an instance: its ``Process``, which ends no later than the instance."""

    def __init__(self, instance: Instance, process: Process) -> None:
        self._instance = instance
        self._process = process
        self._end: End | None = None
        self._exit: Exit | None = None

    def read(self, timeout: float | None = None) -> Output | Exit | None:
        """See Process; so all that follow."""
        if self._exit is not None:
            return self._exit
        found = self._process.read(timeout)
        if not isinstance(found, Exit):
            return found
        end = self._end
        if end is not None and not found.reason:
            found = Exit(found.code, found.signal, end.reason, end.detail)
        elif found.reason == "lost":
            self._instance.lost(found.detail)
        self._instance.forget(self)
        self._exit = found
        return found

    def output(self) -> Iterator[Output | Exit]:
        """All it says; Exit is the last."""
        while True:
            found = self.read()
            if found is not None:
                yield found
            if isinstance(found, Exit):
                return

    def write(self, data: bytes) -> None:
        """To its standard input."""
        self._process.write(data)

    def close_input(self) -> None:
        """Its standard input ends here."""
        self._process.close_input()

    def resize(self, size: Size) -> None:
        """Of its terminal."""
        self._process.resize(size)

    def signal(self, number: int) -> None:
        """To it and all that it started."""
        self._process.signal(number)

    def close(self) -> None:
        """End it and forget it."""
        self._instance.forget(self)
        self._process.close()

    def instance_ended(self, end: End) -> None:
        """What it is told of its end from here on."""
        self._end = end
