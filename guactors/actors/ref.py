"""What one holds of an actor: four verbs, and an error for each way not to get through.

Owns: the ActorRef contract and the checks that all refs share. Must never: know how a message
travels; ``cell.py`` (same system) and ``remote.py`` (over a transport) do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NoReturn

from guactors.actors.mailbox import Priority
from guactors.actors.supervision import Cause
from guactors.errors import NotSerializable


class ActorRef(ABC):
    """A handle to one actor, valid over its restarts, from any thread.

    Delivery: at most once; messages of one sender at one priority arrive in the order sent. A
    local actor is handed the message itself, and its answer comes back itself, not a copy: treat
    both as read-only.
    """

    __slots__ = ("__weakref__",)

    @property
    @abstractmethod
    def name(self) -> str:
        """The actor's path in its system: its name, after its parents' names and slashes."""

    @abstractmethod
    def tell(
        self,
        message: Any,
        *,
        priority: Priority = Priority.NORMAL,
        sender: ActorRef | None = None,
    ) -> None:
        """Put ``message`` into the mailbox and return at once.

        ``sender`` shows as ``context.sender`` to the receiver. Raises MailboxFull at the bound,
        ActorDied when the actor is gone or takes nothing more, UsageError for Priority.SYSTEM.
        """

    @abstractmethod
    async def tell_wait(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        sender: ActorRef | None = None,
    ) -> None:
        """As ``tell``, but where the mailbox is full wait for room, up to ``timeout`` seconds
        (then CallTimeout, and the message was not put)."""

    @abstractmethod
    async def ask(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        sender: ActorRef | None = None,
    ) -> Any:
        """Send ``message`` and return what ``receive`` returns for it, or raise what it raises.

        Waits for room in a full mailbox and for the answer, together up to ``timeout`` seconds
        (None: as long as the actor lives). Raises CallTimeout then: a question still queued is
        withdrawn, one being answered runs on and its answer is dropped. Raises ActorDied when the
        actor ends before it answered, UsageError when an actor asks itself.
        """

    @abstractmethod
    def ask_sync(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> Any:
        """``ask`` for plain threads. Raises UsageError on the system's own loop thread, where it
        would wait for itself."""

    @abstractmethod
    def _watch(self, notify: Callable[[Cause], None]) -> Callable[[], None]:
        """Call ``notify`` once, on the loop thread, when the actor is gone (soon, if it is
        already); the returned function takes the wish back."""

    def __reduce__(self) -> NoReturn:
        raise NotSerializable(
            f"{self!r} is a handle inside this process; send its name, and reach the actor "
            "from elsewhere with guactors.actors.remote.connect(link).actor(name)"
        )
