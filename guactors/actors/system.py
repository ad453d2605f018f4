"""The actor system: who there is, whose turn it is, and the end of all.

Owns: the registry of names, the dispatcher, start-up and shutdown, the commands to any actor. Must
never: call an actor's code itself (``life.py``) or start a process.

Threads: a system lives on one event loop; refs, ``spawn``, ``actor`` and the statistics work from
any thread, and so do ``stop``, ``drain`` and ``kill`` from any loop (plain threads: ``run``).
"""

from __future__ import annotations

import asyncio
import contextvars
import difflib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from guactors.actors.actor import Actor, ActorContext
from guactors.actors.cell import ActorStatistics, Cell
from guactors.actors.inbox import Envelope
from guactors.actors.local import LocalRef
from guactors.actors.mailbox import DEFAULT_CAPACITY, Priority
from guactors.actors.ref import ActorRef
from guactors.actors.supervision import Cause, Killed, Stopped, Supervision, SystemShutdown
from guactors.errors import ActorDied, NameTaken, UsageError

log = logging.getLogger("guactors.actors")

R = TypeVar("R")

TURN = 0.005
"""Seconds the dispatcher runs actors before the loop sees to its sockets and timers again."""
LAST_GRACE = 1.0
"""Seconds that killed actors' tasks get at shutdown to take note of it."""


@dataclass(frozen=True)
class SystemStatistics:
    """One look at a system. ``dead_letters``: tells that were lost with their receiver."""

    name: str
    state: str
    processed: int
    dead_letters: int
    actors: tuple[ActorStatistics, ...]


class ActorSystem:
    """A family of actors on one asyncio loop.

    ``async with ActorSystem("name") as system`` inside a running loop, or, in a program of plain
    threads, ``with ActorSystem.in_thread("name") as system``, which runs a loop of its own. Leaving
    the block is ``shutdown()``. ``clock`` gives monotonic seconds.
    """

    def __init__(
        self, name: str = "actors", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.clock = clock
        self.context = contextvars.Context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._state = "new"
        # Reentrant: refusals made under it show the system, and its repr looks under it.
        self._lock = threading.RLock()
        self._cells: dict[str, Cell] = {}
        self._counts: dict[str, int] = {}
        self._ready: deque[Cell] = deque()
        self._dispatching = False
        self._tasks: dict[asyncio.Task[Any], Cell] = {}
        self._empty: asyncio.Event | None = None
        self._processed = 0
        self._dead_letters = 0

    # --- life ------------------------------------------------------------------------------------

    @classmethod
    def in_thread(
        cls, name: str = "actors", *, clock: Callable[[], float] = time.monotonic
    ) -> AbstractContextManager[ActorSystem]:
        """A context manager that runs a system on a loop in a thread of its own."""
        from guactors.actors.threaded import system_in_thread

        return system_in_thread(cls(name, clock=clock))

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise UsageError(f"{self!r} was started already; make a new ActorSystem")
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._empty = asyncio.Event()
        self._state = "running"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it lives on. Raises UsageError before it was started."""
        if self._loop is None:
            raise UsageError(
                f"{self!r} is not started; use it inside "
                "'async with ActorSystem(...)' or 'with ActorSystem.in_thread(...)'"
            )
        return self._loop

    def on_loop_thread(self) -> bool:
        """Whether the caller runs on the loop's thread."""
        return threading.get_ident() == self._thread

    async def shutdown(self, timeout: float | None = 10.0) -> None:
        """Stop all actors, each after its current message and its children; after ``timeout``
        seconds (None: never) kill those that are left. Everyone who waits for an answer gets
        ActorDied. Idempotent."""
        await self._here(self._shutdown(timeout))

    async def _shutdown(self, timeout: float | None) -> None:
        acting = self._acting()
        if acting is not None:
            raise UsageError(
                f"actor {acting.path} shuts its own system down and would wait for itself; "
                "let the owner of the system do it"
            )
        with self._lock:
            if self._state == "running":
                self._state = "stopping"
        for cell in self.children_of(None):
            cell.request_stop(SystemShutdown())
        assert self._empty is not None
        try:
            async with asyncio.timeout(timeout):
                while self._cells:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            log.warning("%r: killing what did not stop within %s s", self, timeout)
        finally:
            for cell in self.children_of(None):
                cell.bury(Killed("the shutdown of its system"))
            self._state = "shut down"
        if self._tasks:
            _, stubborn = await asyncio.wait(self._tasks, timeout=LAST_GRACE)
            for task in stubborn:
                log.error("%s swallows its cancellation and runs on", task.get_name())

    # --- spawn and find --------------------------------------------------------------------------

    def spawn(
        self,
        actor: type[Actor],
        *args: Any,
        name: str | None = None,
        mailbox_size: int | None = DEFAULT_CAPACITY,
        supervision: Supervision | None = None,
        **kwargs: Any,
    ) -> ActorRef:
        """Make an actor of class ``actor``; ``args`` and ``kwargs`` go to its constructor, which
        runs soon, on the loop. Returns at once; messages sent meanwhile wait.

        ``name`` must be free (else NameTaken), without one a name is made up. ``mailbox_size``
        bounds waiting messages (None: no bound). ``supervision`` is what happens when it fails
        (default: the class's). From any thread.
        """
        return self._spawn(None, actor, args, kwargs, name, mailbox_size, supervision)

    def _spawn(
        self,
        parent: Cell | None,
        actor: type[Actor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None,
        mailbox_size: int | None,
        supervision: Supervision | None,
    ) -> ActorRef:
        if not (isinstance(actor, type) and issubclass(actor, Actor)):
            raise UsageError(f"spawn takes a subclass of Actor and its arguments, not {actor!r}")
        if name is not None and (not name or "/" in name or len(name) > 128):
            raise UsageError(f"an actor's name has 1 to 128 characters and no '/': {name!r}")

        def make(context: ActorContext) -> Actor:
            instance = actor.__new__(actor)
            instance.context = context
            type(instance).__init__(instance, *args, **kwargs)
            return instance

        prefix = f"{parent.path}/" if parent else ""
        with self._lock:
            self._check_may_spawn(parent, actor)
            path = prefix + name if name else self._make_name(prefix, actor)
            if path in self._cells:
                raise NameTaken(
                    f"system {self.name!r} has an actor {path!r}: {self._cells[path]!r}; "
                    "stop it first, or choose another name"
                )
            policy = actor.supervision if supervision is None else supervision
            cell = Cell(self, parent, path, make, mailbox_size, policy)
            cell.named = name is not None
            self._cells[path] = cell
            if parent is not None:
                parent.children[path] = cell
        cell.inbox.schedule()
        self.ready(cell)
        return cell.ref

    def _check_may_spawn(self, parent: Cell | None, actor: type[Actor]) -> None:
        if self._state != "running":
            raise UsageError(f"{self!r} takes no new {actor.__name__}: it is {self._state}")
        if parent is not None and (parent.cause is not None or parent.life.leaving):
            raise UsageError(f"{parent!r} is ending and can spawn no {actor.__name__}")

    def _make_name(self, prefix: str, actor: type[Actor]) -> str:
        stem = prefix + actor.__name__.lower()
        while True:
            self._counts[stem] = self._counts.get(stem, 0) + 1
            path = f"{stem}-{self._counts[stem]}"
            if path not in self._cells:
                return path

    def actor(self, name: str) -> ActorRef:
        """The living actor of that path. Raises UsageError, with near matches, if there is none."""
        cell = self._cells.get(name)
        if cell is not None:
            return cell.ref
        near = difflib.get_close_matches(name, list(self._cells), n=3)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise UsageError(f"no living actor {name!r} in system {self.name!r}{hint}")

    def actors(self) -> tuple[ActorRef, ...]:
        """All living actors, parents before children."""
        return tuple(cell.ref for cell in self._living())

    def _living(self) -> list[Cell]:
        with self._lock:
            return list(self._cells.values())

    def children_of(self, parent: Cell | None) -> list[Cell]:
        """The living children; of None those without a parent."""
        if parent is not None:
            return list(parent.children.values())
        return [cell for cell in self._living() if cell.parent is None]

    # --- commands --------------------------------------------------------------------------------

    async def stop(self, ref: ActorRef) -> Cause:
        """Let it end after its current message, ``on_stop`` included; queued messages are dropped,
        queued asks answered with ActorKilled. Returns the cause of its end when it is gone."""
        return await self._here(
            self._ended(ref, lambda cell: cell.request_stop(Stopped("ActorSystem.stop")))
        )

    async def drain(self, ref: ActorRef) -> Cause:
        """As ``stop``, but after all that is queued; new messages are refused meanwhile."""
        return await self._here(self._ended(ref, Cell.request_drain))

    async def kill(self, ref: ActorRef) -> Cause:
        """End it and its children now: an ``async`` method is cancelled where it awaits, a plain
        one finishes unheard; ``on_stop`` is not called."""
        return await self._here(
            self._ended(ref, lambda cell: cell.bury(Killed("ActorSystem.kill")))
        )

    async def wait_dead(self, ref: ActorRef) -> Cause:
        """Wait until it is gone, by whatever cause."""
        return await self._here(self._ended(ref, lambda _: None))

    def control(self, ref: ActorRef, message: Any) -> None:
        """``tell`` at SYSTEM: ahead of everything and beside the bound. For those who own the
        system, not for those who merely hold a ref. Raises ActorDied. From any thread."""
        self._cell(ref).send(Envelope(message, Priority.SYSTEM))

    def run(self, work: Coroutine[Any, Any, R], timeout: float | None = None) -> R:
        """Run a coroutine on the system's loop from a plain thread and return its result, as in
        ``system.run(system.stop(ref))``. Raises UsageError on the loop thread, TimeoutError."""
        if self.on_loop_thread():
            work.close()
            raise UsageError("run() on the loop thread would wait for itself; there, use await")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    async def _ended(self, ref: ActorRef, how: Callable[[Cell], None]) -> Cause:
        cell = self._cell(ref)
        acting = relative = self._acting()
        while relative is not None and acting is not None:
            if relative is cell:
                raise UsageError(
                    f"actor {acting.path} waits for the end of {cell.path}, which waits for the "
                    "end of its current message; use context.stop(), which returns at once"
                )
            relative = relative.parent
        how(cell)
        if cell.cause is not None:
            return cell.cause
        ended: asyncio.Future[Cause] = self.loop.create_future()
        forget = cell.add_watcher(lambda cause: None if ended.done() else ended.set_result(cause))
        try:
            return await ended
        finally:
            forget()

    def _cell(self, ref: ActorRef) -> Cell:
        if isinstance(ref, LocalRef) and ref.cell.system is self:
            return ref.cell
        raise UsageError(f"{ref!r} is not an actor of system {self.name!r}")

    def _acting(self) -> Cell | None:
        """The actor inside whose async code the caller runs."""
        task = asyncio.current_task()
        return self._tasks.get(task) if task is not None else None

    async def _here(self, work: Coroutine[Any, Any, R]) -> R:
        loop = self._loop
        if loop is None or loop is asyncio.get_running_loop():
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    # --- the dispatcher --------------------------------------------------------------------------

    def ready(self, cell: Cell) -> None:
        """``cell`` has something to do. From any thread; at most once until it was resumed."""
        self._ready.append(cell)
        if not self._dispatching:
            self._wake()

    def _wake(self) -> None:
        loop = self.loop
        self._dispatching = True
        try:
            if threading.get_ident() == self._thread:
                loop.call_soon(self._dispatch, context=self.context)
            else:
                loop.call_soon_threadsafe(self._dispatch, context=self.context)
        except RuntimeError as error:
            raise ActorDied(
                f"the event loop of system {self.name!r} is closed: it was not shut down in time"
            ) from error

    def _dispatch(self) -> None:
        # Cleared before the queue is read: who appends afterwards wakes us again.
        self._dispatching = False
        ready = self._ready
        until = time.monotonic() + TURN
        try:
            for _ in range(len(ready)):
                ready.popleft().life.resume()
                if time.monotonic() > until:
                    break
        finally:
            if ready and not self._dispatching:
                self._wake()

    def adopt(self, coroutine: Coroutine[Any, Any, None], cell: Cell) -> None:
        """Make a coroutine that asked for it (NeedTask) a task, in its actor's name."""
        task = self.loop.create_task(coroutine, name=f"actor {cell.path} of {self.name}")
        self._tasks[task] = cell
        task.add_done_callback(self._tasks.pop)

    def forget(self, cell: Cell) -> None:
        """``cell`` is dead: its name is free."""
        with self._lock:
            del self._cells[cell.path]
            self._processed += cell.life.processed
        if not self._cells and self._empty is not None:
            self._empty.set()

    def count_dead_letters(self, lost: int) -> None:
        """``lost`` more messages went nowhere."""
        self._dead_letters += lost

    def statistics(self) -> SystemStatistics:
        """A frozen record of the system and all living actors. From any thread."""
        living = self._living()
        return SystemStatistics(
            name=self.name,
            state=self._state,
            processed=self._processed + sum(cell.life.processed for cell in living),
            dead_letters=self._dead_letters,
            actors=tuple(cell.statistics() for cell in living),
        )

    def __repr__(self) -> str:
        living = self._living()
        queued = sum(cell.inbox.waiting for cell in living)
        return (
            f"<ActorSystem {self.name!r} {self._state}, {len(living)} actors, {queued} queued, "
            f"{self._dead_letters} dead letters>"
        )
