"""Refs to actors of this process's own systems.

Owns: how tell and ask reach a cell, from its loop, another loop or a plain thread, and how their
time-outs end. Must never: look into the mailbox's order or call the actor.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from guactors.actors.inbox import Envelope
from guactors.actors.mailbox import Priority, user_priority
from guactors.actors.ref import ActorRef
from guactors.actors.supervision import Cause
from guactors.actors.waiting import new_waiter, settled, settled_sync
from guactors.errors import CallTimeout, UsageError

if TYPE_CHECKING:
    from guactors.actors.cell import Cell


class LocalRef(ActorRef):
    """See ActorRef. One per actor, compared by identity."""

    __slots__ = ("cell",)

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    @property
    def name(self) -> str:
        return self.cell.path

    def tell(
        self,
        message: Any,
        *,
        priority: Priority = Priority.NORMAL,
        sender: ActorRef | None = None,
    ) -> None:
        if priority is not Priority.NORMAL:
            priority = user_priority(priority)
        cell = self.cell
        if cell.inbox.put(Envelope(message, priority, sender)):
            cell.system.ready(cell)

    async def tell_wait(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        sender: ActorRef | None = None,
    ) -> None:
        placed = new_waiter(self.cell.system.loop)
        envelope = Envelope(message, user_priority(priority), sender, placed=placed)
        self.cell.offer(envelope)
        if envelope.parked:
            try:
                self._check_not_itself("waits for room in its own mailbox")
            except UsageError:
                self._withdraw(envelope)
                raise
            await settled(
                placed, timeout, partial(self._withdraw, envelope), partial(self._late, timeout)
            )

    async def ask(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        sender: ActorRef | None = None,
    ) -> Any:
        self._check_not_itself("asks itself")
        reply = new_waiter(self.cell.system.loop)
        envelope = Envelope(message, user_priority(priority), sender, reply)
        self.cell.offer(envelope)
        return await settled(
            reply, timeout, partial(self._withdraw, envelope), partial(self._late, timeout)
        )

    def ask_sync(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> Any:
        if self.cell.system.on_loop_thread():
            raise UsageError(
                f"ask_sync on the loop thread of system {self.cell.system.name!r} would wait for "
                f"itself; there, write: await ref.ask({type(message).__name__} ...)"
            )
        reply: concurrent.futures.Future[Any] = concurrent.futures.Future()
        envelope = Envelope(message, user_priority(priority), None, reply)
        self.cell.offer(envelope)
        return settled_sync(
            reply, timeout, partial(self._withdraw, envelope), partial(self._late, timeout)
        )

    def start_ask(
        self, message: Any, priority: Priority
    ) -> tuple[asyncio.Future[Any], Callable[[], None]]:
        """For bridges, on the loop thread: the future of the answer, and how to withdraw."""
        reply = self.cell.system.loop.create_future()
        envelope = Envelope(message, user_priority(priority), reply=reply)
        self.cell.offer(envelope)
        return reply, partial(self._give_up, reply, envelope)

    def start_tell(
        self, message: Any, priority: Priority
    ) -> tuple[asyncio.Future[Any], Callable[[], None]]:
        """For bridges, on the loop thread: the future of there being room, and how to withdraw."""
        placed = self.cell.system.loop.create_future()
        envelope = Envelope(message, user_priority(priority), placed=placed)
        self.cell.offer(envelope)
        if not envelope.parked:
            envelope.found_room()
        return placed, partial(self._give_up, placed, envelope)

    def _give_up(self, waiter: asyncio.Future[Any], envelope: Envelope) -> None:
        waiter.cancel()
        self._withdraw(envelope)

    def _watch(self, notify: Callable[[Cause], None]) -> Callable[[], None]:
        return self.cell.add_watcher(notify)

    def _withdraw(self, envelope: Envelope) -> None:
        system = self.cell.system
        if system.on_loop_thread():
            self.cell.inbox.withdraw(envelope)
        elif not system.loop.is_closed():
            system.loop.call_soon_threadsafe(self.cell.inbox.withdraw, envelope)

    def _late(self, timeout: float | None) -> CallTimeout:
        cell = self.cell
        return CallTimeout(
            f"actor {cell.path!r} of system {cell.system.name!r} did not answer within {timeout} s "
            f"({cell.life.describe()}, {cell.inbox.waiting} queued); "
            "raise timeout=, or see ActorSystem.statistics() for what it is busy with"
        )

    def _check_not_itself(self, doing: str) -> None:
        if self.cell.life.is_current_task():
            raise UsageError(
                f"actor {self.cell.path} {doing} while it handles a message, and would wait "
                "forever; tell itself instead, or call the method directly"
            )

    def __repr__(self) -> str:
        return repr(self.cell)
