"""A mailbox that any thread may put into, with room for those who wait for room.

Owns: the lock around one actor's mailbox, the senders parked while it is full, who must be woken,
and the envelopes. Must never: run the actor, touch an event loop, or settle a future while it holds
the lock.

Threads: ``put``, ``offer`` and the counts from any; everything else, and with it every answer, from
the system's loop thread only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from guactors.actors.mailbox import (
    DEFAULT_PATIENCE,
    MailboxStatistics,
    Priority,
    PriorityMailbox,
)
from guactors.actors.supervision import Cause
from guactors.actors.waiting import Waiter, fail, fulfil
from guactors.errors import ActorDied

if TYPE_CHECKING:
    from guactors.actors.ref import ActorRef


# --- what the system tells a cell, at SYSTEM priority --------------------------------------------


class Signal(Struct, frozen=True):
    """Base of the system's own messages; ``receive`` never sees one."""


class Nudge(Signal, frozen=True):
    """Look again: a stop or a drain was asked for."""


class ChildDied(Signal, frozen=True):
    """A child is gone for good."""

    ref: ActorRef
    cause: Cause


class ChildEscalated(Signal, frozen=True):
    """A child failed and its strategy said escalate."""

    child: str
    error: BaseException


class GroupRestart(Signal, frozen=True):
    """A sibling under the same AllForOne failed: restart too, after ``delay`` seconds."""

    cause: Cause
    delay: float


class Envelope:
    """One message on its way: where its answer goes, and who waits for it to find room."""

    __slots__ = ("message", "parked", "placed", "priority", "reply", "sender")

    def __init__(
        self,
        message: Any,
        priority: int,
        sender: ActorRef | None = None,
        reply: Waiter | None = None,
        placed: Waiter | None = None,
    ) -> None:
        self.message = message
        self.priority = priority
        self.sender = sender
        self.reply = reply
        self.placed = placed
        self.parked = False

    def answer(self, value: Any) -> None:
        """Settle the question with ``value``; without effect if there is none, or nobody waits."""
        reply, self.reply = self.reply, None
        if reply is not None:
            fulfil(reply, value)

    def refuse(self, error: BaseException) -> bool:
        """Settle whoever waits with ``error``; False where nobody did."""
        waiters = [w for w in (self.reply, self.placed) if w is not None]
        self.reply = self.placed = None
        for waiter in waiters:
            fail(waiter, error)
        return bool(waiters)

    def found_room(self) -> None:
        """Tell who waits for room only."""
        placed, self.placed = self.placed, None
        if placed is not None:
            fulfil(placed, None)

    @property
    def abandoned(self) -> bool:
        """Whether who asked has stopped waiting."""
        return self.reply is not None and self.reply.done()


class Inbox:
    """See the module. ``refusal`` makes the error for a message that comes too late."""

    __slots__ = ("_clock", "_dead", "_lock", "_mailbox", "_parked", "_refusal", "_scheduled")

    def __init__(self, capacity: int | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._mailbox: PriorityMailbox[Envelope] = PriorityMailbox(capacity)
        self._parked: PriorityMailbox[Envelope] | None = None
        self._refusal: Callable[[], ActorDied] | None = None
        self._scheduled = False
        self._dead = False

    def put(self, envelope: Envelope) -> bool:
        """Queue; True where the actor must be made ready. Raises MailboxFull, or the refusal."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            self._mailbox.put(envelope, envelope.priority, self._clock())
            idle = not self._scheduled
            self._scheduled = True
            return idle

    def offer(self, envelope: Envelope) -> bool:
        """As ``put``, but park where it is full (then ``envelope.parked`` is set)."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            if envelope.priority and self._mailbox.full:
                if self._parked is None:
                    self._parked = PriorityMailbox(None, DEFAULT_PATIENCE)
                self._parked.put(envelope, envelope.priority, self._clock())
                envelope.parked = True
                return False
            self._mailbox.put(envelope, envelope.priority, self._clock())
            idle = not self._scheduled
            self._scheduled = True
            return idle

    def signal(self, message: Any) -> bool:
        """Queue at SYSTEM, even while refusing; True where the actor must be made ready."""
        with self._lock:
            if self._dead:
                return False
            self._mailbox.put(Envelope(message, Priority.SYSTEM), Priority.SYSTEM, self._clock())
            idle = not self._scheduled
            self._scheduled = True
            return idle

    def schedule(self) -> bool:
        """Count as busy from now on; True where the actor must be made ready."""
        with self._lock:
            idle = not self._scheduled
            self._scheduled = True
            return idle

    def take(self) -> Envelope | None:
        """The next message. After None the actor is idle, and the next put wakes it."""
        with self._lock:
            envelope = self._mailbox.take()
            if envelope is None:
                self._scheduled = False
                return None
            found_room = self._refill() if self._parked else ()
        for lucky in found_room:
            lucky.found_room()
        return envelope

    def withdraw(self, envelope: Envelope) -> None:
        """Take one message back, wherever it waits; nothing happens if it is gone."""
        with self._lock:
            if self._mailbox.remove(lambda other: other is envelope) is None and self._parked:
                self._parked.remove(lambda other: other is envelope)
            found_room = self._refill()
        for lucky in found_room:
            lucky.found_room()

    def _refill(self) -> list[Envelope]:
        placed: list[Envelope] = []
        parked = self._parked
        while parked and not self._mailbox.full:
            envelope = parked.take()
            if envelope is None:
                break
            self._mailbox.put(envelope, envelope.priority, self._clock())
            envelope.parked = False
            placed.append(envelope)
        return placed

    def refuse(self, refusal: Callable[[], ActorDied]) -> None:
        """From now on take no message of a user."""
        with self._lock:
            self._refusal = refusal

    def empty(self, *, dead: bool) -> list[Envelope]:
        """Take out every user's message, parked ones too; if ``dead``, signals as well, and take
        nothing ever again."""
        with self._lock:
            self._dead = self._dead or dead
            everything = self._mailbox.clear()
            if self._parked is not None:
                everything += self._parked.clear()
            if not self._dead:
                now = self._clock()
                for envelope in everything:
                    if isinstance(envelope.message, Signal):
                        self._mailbox.put(envelope, envelope.priority, now)
        return [e for e in everything if not isinstance(e.message, Signal)]

    @property
    def waiting(self) -> int:
        """Messages in the mailbox and parked before it."""
        return len(self._mailbox) + (len(self._parked) if self._parked is not None else 0)

    @property
    def parked(self) -> int:
        """Messages whose senders wait for room."""
        return len(self._parked) if self._parked is not None else 0

    def statistics(self) -> MailboxStatistics:
        """A frozen record of the mailbox."""
        with self._lock:
            return self._mailbox.statistics(self._clock())
