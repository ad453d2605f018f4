"""The one place that calls an actor's code: start, messages, failure, restart, end.

Owns: the instance and the coroutine it lives in. Must never: decide a failure's consequence
(``supervision.py``), settle the affairs of the dead (``cell.py``), or leave the loop's thread.

How it runs: the system drives ``serve()`` by hand, with no task, for as long as the actor's methods
are plain functions; that is what makes a tell cheap and an idle actor free. At the first ``async``
one the coroutine asks its driver to make it a task (``NeedTask``) and stays that one task for the
rest of its life: user code finds a current task as everywhere in asyncio, and a thousand messages
still cost one task. Idle, the task waits on one future.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Generator
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeAlias

from guactors.actors.inbox import (
    ChildDied,
    ChildEscalated,
    Envelope,
    GroupRestart,
    Signal,
)
from guactors.actors.supervision import (
    Cause,
    Completed,
    Decision,
    End,
    Escalated,
    Failed,
    GoOn,
    Killed,
    RestartAfter,
    RestartBudget,
    StartFailed,
    Stopped,
    decide,
    describe,
)
from guactors.errors import TaskCancelled

if TYPE_CHECKING:
    from guactors.actors.actor import Actor, ActorContext
    from guactors.actors.cell import Cell

log = logging.getLogger("guactors.actors")

BATCH = 64
"""Messages an actor handles in a row before others get their turn."""

Failure: TypeAlias = Failed | Escalated


class State(enum.Enum):
    """Where an actor is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    DEAD = "dead"


class NeedTask:
    """Awaited by a coroutine that is driven by hand: its driver makes it a task, and it goes on."""

    def __await__(self) -> Generator[NeedTask, None, None]:
        yield self


class Life:
    """See the module. ``make`` builds one instance."""

    __slots__ = (
        "_budget", "_cell", "_children_gone", "_idle", "_make", "_pause", "_task", "actor",
        "current", "draining", "failures", "leaving", "processed", "restarts", "state",
    )  # fmt: skip

    def __init__(self, cell: Cell, make: Callable[[ActorContext], Actor]) -> None:
        self._cell = cell
        self._make: Callable[[ActorContext], Actor] | None = make
        self._budget = RestartBudget()
        self._task: asyncio.Task[Any] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._pause: asyncio.Future[None] | None = None
        self._children_gone: asyncio.Future[None] | None = None
        self.actor: Actor | None = None
        self.current: Envelope | None = None
        self.state = State.STARTING
        self.draining = False
        self.leaving = False
        self.processed = self.failures = self.restarts = 0

    # --- driven by the system --------------------------------------------------------------------

    def resume(self) -> None:
        """Run until there is nothing to do, or others must have their turn. Loop thread only."""
        if self.state is State.DEAD:
            return
        if self._task is not None:
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
            return
        coroutine = self.serve()
        try:
            coroutine.send(None)
        except StopIteration:
            return
        self._cell.system.adopt(coroutine, self._cell)

    async def serve(self) -> None:
        """One turn without a task, or with one the whole life."""
        try:
            if self.state is State.STARTING:
                await self._start()
            while self.state is not State.DEAD:
                idle = await self._serve_batch()
                if self._task is None:
                    if not idle:
                        self._cell.system.ready(self._cell)
                    return
                if not idle:
                    await asyncio.sleep(0)
                elif not self._is_dead():
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle
        except asyncio.CancelledError:
            # Not killed by us: the loop is being torn down, or somebody cancelled all tasks.
            self._cell.bury(Killed("the cancellation of its task"))
            raise
        except BaseException as error:
            self._cell.bury(Failed(error))
            raise

    async def _serve_batch(self) -> bool:
        """Handle up to BATCH messages; True when there is nothing more to do for now."""
        take = self._cell.inbox.take
        for _ in range(BATCH):
            envelope = take()
            if envelope is None:
                if self.draining:
                    await self._end(Completed())
                return True
            message = envelope.message
            if not envelope.priority and isinstance(message, Signal):
                await self._on_signal(message)
            elif not envelope.abandoned:
                assert self.actor is not None
                self.current = envelope
                try:
                    answer = self.actor.receive(message)
                    if type(answer) is CoroutineType:
                        answer = await self._awaited(answer)
                except Exception as error:  # noqa: BLE001 - the user's code, any error
                    await self._on_error(envelope, error)
                else:
                    envelope.answer(answer)
                self.current = None
                self.processed += 1
            if self._is_dead():
                return True
        return False

    def _is_dead(self) -> bool:
        return self.state is State.DEAD

    async def _awaited(self, result: Any) -> Any:
        """What a method of the user returned, or what its coroutine returns."""
        if type(result) is not CoroutineType:
            return result
        try:
            await self._become_task()
        except BaseException:
            result.close()
            raise
        try:
            return await result
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._is_dead() or (task is not None and task.cancelling()):
                raise
            raise TaskCancelled(
                f"actor {self._cell.path} awaited something that was cancelled"
            ) from error

    async def _become_task(self) -> None:
        if self._task is None:
            await NeedTask()
            self._task = asyncio.current_task()
            if self._is_dead():
                raise asyncio.CancelledError(f"actor {self._cell.path} was killed")

    async def _wait(self, waiter: asyncio.Future[None]) -> None:
        await self._become_task()
        await waiter

    # --- signals ---------------------------------------------------------------------------------

    async def _on_signal(self, signal: Signal) -> None:
        """A Nudge does nothing by itself: what it points to is looked at after every signal."""
        if self._cell.stop_cause is not None:
            await self._end(self._cell.stop_cause)
        elif isinstance(signal, ChildDied):
            assert self.actor is not None
            try:
                await self._awaited(self.actor.on_child_death(signal.ref, signal.cause))
            except Exception as error:  # noqa: BLE001 - the user's code, any error
                await self._fail(Failed(error))
        elif isinstance(signal, ChildEscalated):
            await self._fail(Escalated(signal.child, signal.error))
        elif isinstance(signal, GroupRestart):
            await self._restart(signal.cause, signal.delay)

    async def _on_error(self, envelope: Envelope, error: Exception) -> None:
        told = envelope.refuse(error)
        if self.actor is not None and isinstance(error, self.actor.expected_errors):
            if not told:
                log.warning("actor %s: %r after a tell", self._cell.path, error)
            return
        await self._fail(Failed(error))

    # --- start, failure, restart, end ------------------------------------------------------------

    async def _start(self) -> None:
        try:
            await self._new_instance(None)
        except Exception as error:
            log.exception("actor %s failed to start", self._cell.path)
            await self._end(StartFailed(error), hook=False)

    async def _new_instance(self, before: Cause | None) -> None:
        assert self._make is not None
        self.actor = self._make(self._cell.context)
        if before is not None:
            await self._awaited(self.actor.on_restart(before))
        await self._awaited(self.actor.on_start())
        if not self._is_dead():
            self.state = State.RUNNING

    def _decide(self, failure: Failure) -> Decision:
        self.failures += 1
        cell = self._cell
        decision = decide(cell.supervision, self._budget, cell.system.clock())
        log.warning(
            "actor %s, %s: %s", cell.path, describe(failure), decision, exc_info=failure.error
        )
        return decision

    async def _fail(self, failure: Failure) -> None:
        if self._is_dead():
            return
        decision = self._decide(failure)
        if isinstance(decision, GoOn):
            return
        cell = self._cell
        for sibling in cell.group():
            if isinstance(decision, RestartAfter):
                sibling.signal(GroupRestart(Stopped(f"the failure of {cell.path}"), decision.delay))
            else:
                sibling.request_stop(Stopped(f"the failure of {cell.path}"))
        if isinstance(decision, RestartAfter):
            await self._restart(failure, decision.delay)
        else:
            await self._end_failed(failure, decision)

    async def _end_failed(self, failure: Failure, decision: End, *, hook: bool = True) -> None:
        await self._end(failure, hook=hook)
        parent = self._cell.parent
        if decision.escalate and parent is not None and not parent.life.leaving:
            parent.signal(ChildEscalated(self._cell.path, failure.error))

    async def _restart(self, cause: Cause, delay: float) -> None:
        """A new instance, tried again as often as the strategy allows."""
        started = True
        while not self._is_dead():
            self.state = State.RESTARTING
            await self._leave(cause, hook=started)
            await self._back_off(delay)
            if self._cell.stop_cause is not None:
                self._cell.bury(self._cell.stop_cause)
                return
            try:
                await self._new_instance(cause)
            except Exception as error:  # noqa: BLE001 - the user's code, any error
                failure = Failed(error)
                decision = self._decide(failure)
                if not isinstance(decision, RestartAfter):
                    end = decision if isinstance(decision, End) else End()
                    await self._end_failed(failure, end, hook=False)
                    return
                cause, delay, started = failure, decision.delay, False
            else:
                self.restarts += 1
                return

    async def _end(self, cause: Cause, *, hook: bool = True) -> None:
        """Turn the queue away first: a child that waits for our answer could not stop otherwise."""
        if self._is_dead():
            return
        self.state = State.STOPPING
        self._cell.turn_away(cause)
        await self._leave(cause, hook=hook)
        self._cell.bury(cause)

    async def _leave(self, cause: Cause, *, hook: bool) -> None:
        """End the children, then the instance."""
        cell = self._cell
        self.leaving = True
        cell.cancel_timers()
        for child in list(cell.children.values()):
            child.request_stop(Stopped(cell.path))
        while cell.children:
            self._children_gone = asyncio.get_running_loop().create_future()
            await self._wait(self._children_gone)
        actor, self.actor = self.actor, None
        if hook and actor is not None:
            try:
                await self._awaited(actor.on_stop(cause))
            except Exception:
                log.exception("actor %s: on_stop failed", cell.path)
        self.leaving = False

    async def _back_off(self, delay: float) -> None:
        if delay <= 0 or self._cell.stop_cause is not None:
            return
        loop = asyncio.get_running_loop()
        self._pause = loop.create_future()
        timer = loop.call_later(delay, self.interrupt_pause)
        try:
            await self._wait(self._pause)
        finally:
            timer.cancel()
            self._pause = None

    # --- called by the cell ----------------------------------------------------------------------

    def interrupt_pause(self) -> None:
        """Cut a back-off short."""
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)

    def child_is_gone(self) -> None:
        """Tell ``_leave`` to look again."""
        if self._children_gone is not None and not self._children_gone.done():
            self._children_gone.set_result(None)

    def describe(self) -> str:
        """The state in one word."""
        return "draining" if self.draining and self.state is State.RUNNING else self.state.value

    def is_current_task(self) -> bool:
        """Whether the caller runs inside this actor's own code."""
        return self._task is not None and asyncio.current_task() is self._task

    def give_up(self) -> Envelope | None:
        """Dead: let go of everything; the message being handled, if any, is returned."""
        self.state = State.DEAD
        current, self.current = self.current, None
        if self._task is not None and not self.is_current_task():
            self._task.cancel()
        self.actor = self._make = None
        return current
