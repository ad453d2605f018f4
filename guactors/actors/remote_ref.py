"""Refs to actors of another system.

Owns: how tell and ask become questions on a link. Must never: touch the link itself
(``remote.py`` does).
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from guactors.actors.mailbox import Priority, user_priority
from guactors.actors.ref import ActorRef
from guactors.actors.remote_words import Ask, Tell, lane_of
from guactors.actors.supervision import Cause
from guactors.actors.waiting import Waiter, new_waiter, settled, settled_sync
from guactors.errors import CallTimeout, NotSerializable, UsageError

if TYPE_CHECKING:
    from guactors.actors.remote import RemoteSystem


class RemoteRef(ActorRef):
    """See ActorRef; equal where system and name are.

    Other than a local ref: messages and answers are copied, as data the codec knows; a ``tell``
    returns when it is on its way, and is lost where the mailbox there is full (``tell_wait``
    returns when it is in that mailbox); errors of guactors arrive as themselves, others as
    TaskError with their text and ``remote_traceback``; a broken link raises PeerLost; there is no
    ``sender``.
    """

    __slots__ = ("_name", "_remote")

    def __init__(self, remote: RemoteSystem, name: str) -> None:
        self._remote = remote
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def tell(
        self,
        message: Any,
        *,
        priority: Priority = Priority.NORMAL,
        sender: ActorRef | None = None,
    ) -> None:
        self._check_no_sender(sender)
        level = user_priority(priority)
        self._remote.send(Tell(self._name, self._payload(message), level), lane_of(level))

    async def tell_wait(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        sender: ActorRef | None = None,
    ) -> None:
        self._check_no_sender(sender)
        waiter = new_waiter(self._remote.loop)
        withdraw = self._request(Tell, message, priority, waiter)
        await settled(waiter, timeout, withdraw, partial(self._late, timeout))

    async def ask(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        sender: ActorRef | None = None,
    ) -> Any:
        self._check_no_sender(sender)
        waiter = new_waiter(self._remote.loop)
        withdraw = self._request(Ask, message, priority, waiter)
        return await settled(waiter, timeout, withdraw, partial(self._late, timeout))

    def ask_sync(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> Any:
        if self._remote.on_loop_thread():
            raise UsageError(
                "ask_sync on the loop thread would wait for itself; there, write: await ref.ask()"
            )
        waiter: concurrent.futures.Future[Any] = concurrent.futures.Future()
        withdraw = self._request(Ask, message, priority, waiter)
        return settled_sync(waiter, timeout, withdraw, partial(self._late, timeout))

    def _watch(self, notify: Callable[[Cause], None]) -> Callable[[], None]:
        return self._remote.watch(self._name, notify)

    def _request(
        self, kind: type[Ask | Tell], message: Any, priority: Priority, waiter: Waiter
    ) -> Callable[[], None]:
        """Send it; returns how to withdraw it."""
        level = user_priority(priority)
        payload = self._payload(message)

        def make(request: int) -> Ask | Tell:
            return kind(actor=self._name, payload=payload, priority=level, request=request)

        request = self._remote.request(make, lane_of(level), waiter)
        return partial(self._remote.withdraw, request)

    def _payload(self, message: Any) -> bytes:
        try:
            return self._remote.codec.encode(message)
        except Exception as error:
            raise NotSerializable(
                f"{type(message).__name__} cannot travel to {self!r}: {error}; send plain data, "
                "or give connect() and serve() a codec that knows it"
            ) from error

    def _check_no_sender(self, sender: ActorRef | None) -> None:
        if sender is not None:
            raise UsageError(
                f"{self!r} is in another system and cannot see {sender!r}; send your name, or ask"
            )

    def _late(self, timeout: float | None) -> CallTimeout:
        return CallTimeout(
            f"actor {self._name!r} behind {self._remote!r} did not answer within {timeout} s; "
            "raise timeout=, or look at what it is busy with there"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemoteRef):
            return NotImplemented
        return self._remote is other._remote and self._name == other._name

    def __hash__(self) -> int:
        return hash((id(self._remote), self._name))

    def __repr__(self) -> str:
        return f"<RemoteRef {self._name!r} at {self._remote.link.endpoint.control}>"
