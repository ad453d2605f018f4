"""What users write: the Actor base class, and the context it finds itself in.

Owns: the hooks, when each is called, and what an actor may ask of its system. Must never: run an
actor (``cell.py`` does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from guactors.actors.mailbox import DEFAULT_CAPACITY, Priority
from guactors.actors.ref import ActorRef
from guactors.actors.supervision import Cause, Stop, Supervision

if TYPE_CHECKING:
    from guactors.actors.cell import Cell
    from guactors.actors.system import ActorSystem


class Actor:
    """Subclass it and define ``receive``; the system makes the instance and calls everything.

    One thing at a time: no two of an actor's methods ever run together, so its state needs no
    lock. Everything runs on the system's loop: a plain ``def`` must not block it, an ``async def``
    may await anything, and meanwhile other actors run while this one's messages wait.

    Each hook may be ``def`` or ``async def``. ``self.context`` is there already in ``__init__``.
    """

    expected_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors of ``receive`` that only answer the ask; supervision does not see them."""
    supervision: ClassVar[Supervision] = Stop()
    """What happens when it fails, where ``spawn`` is not told."""

    context: ActorContext

    def receive(self, message: Any) -> Any:
        """Handle one message. What it returns answers an ask. What it raises answers the ask too,
        and unless it is one of ``expected_errors`` the actor has failed."""
        raise NotImplementedError(
            f"{type(self).__qualname__} defines no receive(self, message), and was sent {message!r}"
        )

    def on_start(self) -> Any:
        """Before the first message, of each instance."""

    def on_stop(self, cause: Cause) -> Any:
        """After the last message of an instance, its children being gone; also before a restart.
        Not after ``kill``. What it raises is logged."""

    def on_child_death(self, ref: ActorRef, cause: Cause) -> Any:
        """A child is gone for good, by whatever cause. Not called for those that are stopped
        because this actor itself stops or restarts."""

    def on_restart(self, cause: Cause) -> Any:
        """On a new instance before its ``on_start``; ``cause`` ended the one before it."""


class Timer(Protocol):
    """A message scheduled for later."""

    def cancel(self) -> None:
        """Never send it; without effect once sent."""


class ActorContext:
    """An actor's own view of its system; to be used by the actor itself, on the loop thread."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    @property
    def self_ref(self) -> ActorRef:
        """The ref of this actor, to give to others."""
        return self._cell.ref

    @property
    def system(self) -> ActorSystem:
        """The system it lives in."""
        return self._cell.system

    @property
    def parent(self) -> ActorRef | None:
        """Who spawned it; None for the system's own."""
        parent = self._cell.parent
        return parent.ref if parent else None

    @property
    def children(self) -> tuple[ActorRef, ...]:
        """Those it spawned that live."""
        return tuple(child.ref for child in self._cell.children.values())

    @property
    def sender(self) -> ActorRef | None:
        """Who sent the current message, where the sender told so with ``sender=``."""
        envelope = self._cell.life.current
        return envelope.sender if envelope else None

    def spawn(
        self,
        actor: type[Actor],
        *args: Any,
        name: str | None = None,
        mailbox_size: int | None = DEFAULT_CAPACITY,
        supervision: Supervision | None = None,
        **kwargs: Any,
    ) -> ActorRef:
        """As ``ActorSystem.spawn``, for a child: it ends before this actor does."""
        cell = self._cell
        return cell.system._spawn(cell, actor, args, kwargs, name, mailbox_size, supervision)

    def stop(self, child: ActorRef | None = None) -> None:
        """Let ``child`` stop after its current message, or this actor itself (cause Completed).
        Returns at once; raises UsageError for any other ref."""
        self._cell.stop_own(child)

    def kill(self, child: ActorRef) -> None:
        """End ``child`` at once (cause Killed), as ``ActorSystem.kill`` does."""
        self._cell.kill_own(child)

    def watch(self, ref: ActorRef) -> None:
        """Receive ``Terminated(ref, cause)`` once when ``ref`` is gone, at SYSTEM priority: it may
        overtake the last messages of the dead. Twice is once; a watch lasts over restarts."""
        self._cell.watch(ref)

    def unwatch(self, ref: ActorRef) -> None:
        """No longer be told; a Terminated already in the mailbox still comes."""
        self._cell.unwatch(ref)

    def schedule(
        self, delay: float, message: Any, *, priority: Priority = Priority.NORMAL
    ) -> Timer:
        """Send itself ``message`` after ``delay`` seconds. Waits for room where the mailbox is
        full; cancelled when this instance ends or restarts."""
        return self._cell.schedule(delay, message, priority)

    def now(self) -> float:
        """The system's clock: monotonic seconds."""
        return self._cell.system.clock()
