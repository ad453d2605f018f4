"""One actor as its system holds it: its inbox, its family, its watchers, and what is done to it.

Owns: the actor's place among the others, the commands (stop, drain, kill), and the burial: whoever
waits for an answer of the dead gets one. Must never: call the user's code (``life.py`` does) or
choose the order of messages (``mailbox.py`` does).

Threads: ``send`` and ``offer`` and the statistics from any; the rest on the system's loop thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from guactors.actors.actor import Actor, ActorContext
from guactors.actors.inbox import ChildDied, Envelope, Inbox, Nudge, Signal
from guactors.actors.life import Life, State
from guactors.actors.local import LocalRef
from guactors.actors.mailbox import MailboxStatistics, Priority, user_priority
from guactors.actors.ref import ActorRef
from guactors.actors.supervision import (
    AllForOne,
    Cause,
    Completed,
    Killed,
    Stopped,
    Supervision,
    Terminated,
    death_error,
    describe,
)
from guactors.errors import ActorDied, Death, UsageError

if TYPE_CHECKING:
    from guactors.actors.system import ActorSystem

log = logging.getLogger("guactors.actors")


@dataclass(frozen=True)
class ActorStatistics:
    """One look at one actor; counts are over all its restarts. ``parked``: senders that wait for
    room in the mailbox."""

    name: str
    state: str
    processed: int
    failures: int
    restarts: int
    parked: int
    mailbox: MailboxStatistics


class CellTimer:
    """A message an instance has scheduled for itself."""

    __slots__ = ("_cell", "_handle")

    def __init__(self, cell: Cell, delay: float, envelope: Envelope) -> None:
        self._cell = cell
        self._handle = cell.system.loop.call_later(
            delay, self._fire, envelope, context=cell.system.context
        )

    def cancel(self) -> None:
        """See ``actor.Timer``."""
        self._handle.cancel()
        self._cell.timers.discard(self)

    def _fire(self, envelope: Envelope) -> None:
        self._cell.timers.discard(self)
        try:
            self._cell.offer(envelope)
        except ActorDied:
            self._cell.system.count_dead_letters(1)


class Cell:
    """See the module. ``cause`` is None while it lives."""

    __slots__ = (
        "cause", "children", "context", "inbox", "life", "named", "parent", "path", "ref",
        "stop_cause", "supervision", "system", "timers", "watchers", "watching",
    )  # fmt: skip

    def __init__(
        self,
        system: ActorSystem,
        parent: Cell | None,
        path: str,
        make: Callable[[ActorContext], Actor],
        mailbox_size: int | None,
        supervision: Supervision,
    ) -> None:
        self.system = system
        self.parent = parent
        self.path = path
        self.named = False
        self.supervision = supervision
        self.inbox = Inbox(mailbox_size, system.clock)
        self.ref = LocalRef(self)
        self.context = ActorContext(self)
        self.life = Life(self, make)
        self.cause: Cause | None = None
        self.stop_cause: Cause | None = None
        self.children: dict[str, Cell] = {}
        self.timers: set[CellTimer] = set()
        self.watchers: dict[object, Callable[[Cause], None]] = {}
        self.watching: dict[ActorRef, Callable[[], None]] = {}

    # --- messages --------------------------------------------------------------------------------

    def send(self, envelope: Envelope) -> None:
        """Queue a user's message. Raises MailboxFull or ActorDied."""
        if self.inbox.put(envelope):
            self.system.ready(self)

    def offer(self, envelope: Envelope) -> None:
        """As ``send``, but park the message where the mailbox is full."""
        if self.inbox.offer(envelope):
            self.system.ready(self)

    def signal(self, message: Signal | Terminated) -> None:
        """Queue a message of the system's own; a dead actor's is dropped."""
        if self.inbox.signal(message):
            self.system.ready(self)

    def schedule(self, delay: float, message: Any, priority: Priority) -> CellTimer:
        """See ``ActorContext.schedule``."""
        if delay < 0:
            raise UsageError(f"a delay is 0 seconds or more, not {delay}")
        timer = CellTimer(self, delay, Envelope(message, user_priority(priority), self.ref))
        self.timers.add(timer)
        return timer

    def cancel_timers(self) -> None:
        """Cancel whatever the instance has scheduled."""
        for timer in list(self.timers):
            timer.cancel()

    # --- watching --------------------------------------------------------------------------------

    def add_watcher(self, notify: Callable[[Cause], None]) -> Callable[[], None]:
        """See ``ActorRef._watch``."""
        if self.cause is not None:
            handle = self.system.loop.call_soon(notify, self.cause, context=self.system.context)
            return handle.cancel
        token = object()
        self.watchers[token] = notify

        def forget() -> None:
            self.watchers.pop(token, None)

        return forget

    def watch(self, ref: ActorRef) -> None:
        """See ``ActorContext.watch``."""
        if ref is self.ref:
            raise UsageError(f"actor {self.path} watches itself; define on_stop instead")
        if ref not in self.watching:
            self.watching[ref] = ref._watch(partial(self._watched_one_is_gone, ref))

    def unwatch(self, ref: ActorRef) -> None:
        """See ``ActorContext.unwatch``."""
        forget = self.watching.pop(ref, None)
        if forget is not None:
            forget()

    def _watched_one_is_gone(self, ref: ActorRef, cause: Cause) -> None:
        if self.watching.pop(ref, None) is not None:
            self.signal(Terminated(ref, cause))

    # --- commands --------------------------------------------------------------------------------

    def child(self, ref: ActorRef) -> Cell:
        """The living or dead child behind ``ref``. Raises UsageError for another's."""
        if isinstance(ref, LocalRef) and ref.cell.parent is self:
            return ref.cell
        raise UsageError(
            f"{ref!r} is no child of {self.path}; an actor ends its own children, "
            "the system's owner ends any: ActorSystem.stop(ref), kill(ref)"
        )

    def stop_own(self, ref: ActorRef | None) -> None:
        """See ``ActorContext.stop``."""
        if ref is None or ref is self.ref:
            self.request_stop(Completed())
        else:
            self.child(ref).request_stop(Stopped(self.path))

    def kill_own(self, ref: ActorRef) -> None:
        """See ``ActorContext.kill``."""
        self.child(ref).bury(Killed(self.path))

    def request_stop(self, cause: Cause) -> None:
        """Let it end after its current message. The first cause asked for counts."""
        if self.stop_cause is None:
            self.stop_cause = cause
            self.life.interrupt_pause()
            self.signal(Nudge())

    def request_drain(self) -> None:
        """Let it end with Completed after all that is queued; new messages are refused."""
        if self.cause is None and self.life.state is not State.STOPPING:
            self.life.draining = True
            self.inbox.refuse(partial(self._refusal, "is being drained and takes nothing new"))
            self.signal(Nudge())

    def group(self) -> list[Cell]:
        """The siblings that share its AllForOne, without itself; empty for one-for-one."""
        mine = self.supervision
        if not isinstance(mine, AllForOne):
            return []
        return [
            other
            for other in self.system.children_of(self.parent)
            if other is not self
            and isinstance(other.supervision, AllForOne)
            and other.supervision.group == mine.group
        ]

    # --- the end ---------------------------------------------------------------------------------

    def turn_away(self, cause: Cause) -> None:
        """Refuse new messages, and answer all that are queued: it is about to end."""
        self.inbox.refuse(partial(self._refusal, "is stopping"))
        self._refuse_all(self.inbox.empty(dead=False), cause)

    def _refusal(self, doing: str) -> ActorDied:
        if self.cause is not None:
            return death_error(self._who(), self.cause)
        return ActorDied(f"actor {self._who()} {doing}", Death("released", detail=doing))

    def _who(self) -> str:
        return f"{self.path!r} of system {self.system.name!r}"

    def _refuse_all(self, envelopes: list[Envelope], cause: Cause) -> None:
        lost = sum(not e.refuse(death_error(self._who(), cause)) for e in envelopes)
        self.system.count_dead_letters(lost)
        if lost:
            log.info("actor %s: %d messages dropped, %s", self.path, lost, describe(cause))

    def bury(self, cause: Cause) -> None:
        """End it now: children too, everyone who waits is answered, all are told. Idempotent."""
        if self.cause is not None:
            return
        self.cause = cause
        for child in list(self.children.values()):
            child.bury(Killed(f"the death of {self.path}"))
        self.cancel_timers()
        for forget in self.watching.values():
            forget()
        self.watching.clear()
        self.inbox.refuse(partial(self._refusal, "is dead"))
        unanswered = self.inbox.empty(dead=True)
        current = self.life.give_up()
        if current is not None:
            current.refuse(death_error(self._who(), cause))
        self._refuse_all(unanswered, cause)
        self.system.forget(self)
        self._tell_parent(cause)
        watchers, self.watchers = self.watchers, {}
        for notify in watchers.values():
            notify(cause)

    def _tell_parent(self, cause: Cause) -> None:
        parent = self.parent
        if parent is None:
            return
        parent.children.pop(self.path, None)
        if parent.life.leaving:
            parent.life.child_is_gone()
        else:
            parent.signal(ChildDied(self.ref, cause))

    def statistics(self) -> ActorStatistics:
        """A frozen record; from any thread."""
        return ActorStatistics(
            name=self.path,
            state=self.life.describe(),
            processed=self.life.processed,
            failures=self.life.failures,
            restarts=self.life.restarts,
            parked=self.inbox.parked,
            mailbox=self.inbox.statistics(),
        )

    def __repr__(self) -> str:
        who = f"ActorRef {self.path!r} of {self.system.name!r}"
        if self.cause is not None:
            return f"<{who}, dead: {describe(self.cause)}>"
        return f"<{who}, {self.life.describe()}, {self.inbox.waiting} queued>"
