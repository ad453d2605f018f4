"""Refs to actors of another system, over any transport: ``serve`` there, ``connect`` here.

Owns: the side of the bridge that holds refs: open questions, watches, and the promise that each is
answered, by the other side or by the loss of the link. Must never: dial again (a link never comes
back: connect anew), or build anything but plain data from what arrives, unless given a codec.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from types import TracebackType
from typing import Self

from guactors.actors.remote_lines import Pump, Unsent
from guactors.actors.remote_ref import RemoteRef
from guactors.actors.remote_server import BATCH, Served
from guactors.actors.remote_words import (
    LONGEST_PATH,
    Answer,
    Answers,
    Codec,
    Message,
    MsgpackCodec,
    Refusal,
    Tell,
    Terminated,
    Unwatch,
    Watch,
    Withdraw,
    cause_of,
    decode_answer,
    encode,
    error_of,
)
from guactors.actors.supervision import Cause, Lost
from guactors.actors.system import ActorSystem
from guactors.actors.waiting import Waiter, fail, fulfil
from guactors.errors import Death, MailboxFull, PeerLost, ProtocolError, UsageError
from guactors.transport.base import Frame, Lane, Link, LinkState, Listener, PeerGone

__all__ = ["Codec", "MsgpackCodec", "RemoteRef", "RemoteSystem", "Served", "connect", "serve"]


def serve(
    system: ActorSystem,
    listener: Listener,
    *,
    actors: Collection[str] | None = None,
    codec: Codec | None = None,
) -> Served:
    """Let whoever the transport admits to ``listener`` reach actors of ``system``: those with the
    paths ``actors``, or, where None, those that were spawned with a ``name=``.

    Call it on the system's loop. The listener is the bridge's from now on; ``close()`` closes it.
    """
    if not system.on_loop_thread():
        raise UsageError(f"serve() belongs on the loop of {system!r}")
    return Served(system, listener, actors, codec or MsgpackCodec())


def connect(link: Link, *, codec: Codec | None = None) -> RemoteSystem:
    """The actors behind ``link``. Call it on a running loop; the link is the bridge's from now on.
    Use as ``async with connect(link) as remote``, or call ``close()``."""
    return RemoteSystem(link, codec or MsgpackCodec(), asyncio.get_running_loop())


class RemoteSystem:
    """One link to a served system, and everyone here who waits for something there."""

    def __init__(self, link: Link, codec: Codec, loop: asyncio.AbstractEventLoop) -> None:
        self.link = link
        self.codec = codec
        self.loop = loop
        self._thread = threading.get_ident()
        # Refs may be used from any thread, a lane of a link by one at a time only.
        self._lock = threading.RLock()
        self._unsent = Unsent(link.send)
        self._last_request = 0
        self._open: dict[int, tuple[Waiter, Lane]] = {}
        self._watches: dict[str, dict[object, Callable[[Cause], None]]] = {}
        self._lost: str | None = None
        self.faults = 0
        self._pump = Pump(loop, link.filenos(), self._step)
        self._pump.poke()

    def actor(self, name: str) -> RemoteRef:
        """A ref to the actor of that path; whether it exists shows when it is used."""
        if not name or len(name) > LONGEST_PATH:
            raise UsageError(f"an actor's path has 1 to {LONGEST_PATH} characters, not {len(name)}")
        return RemoteRef(self, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the link; open questions end with PeerLost. On the loop. Idempotent."""
        self._end("closed by this side")

    # --- used by refs, from any thread -----------------------------------------------------------

    def send(self, message: Tell, lane: Lane) -> None:
        """Send at once. Raises MailboxFull or PeerLost."""
        self._put(self._unsent.send_now, message, lane)

    def request(self, make: Callable[[int], Message], lane: Lane, waiter: Waiter) -> int:
        """Send a question that ``waiter`` waits for; returns its number. Raises PeerLost."""
        with self._lock:
            self._last_request += 1
            request = self._last_request
            self._put(self._unsent.send_soon, make(request), lane)
            self._open[request] = waiter, lane
        return request

    def withdraw(self, request: int) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            waited = self._open.pop(request, None)
            if waited is None:
                return
            # Whoever withdraws is leaving already, and where the link is lost so is the question.
            with suppress(PeerLost, MailboxFull):
                self._put(self._unsent.send_soon, Withdraw(request), waited[1])

    def watch(self, name: str, notify: Callable[[Cause], None]) -> Callable[[], None]:
        """See ``ActorRef._watch``."""
        token = object()
        with self._lock:
            if self._lost is not None:
                return self.loop.call_soon(notify, Lost(self._lost)).cancel
            if name not in self._watches:
                self._put(self._unsent.send_soon, Watch(name), Lane.CONTROL)
                self._watches[name] = {}
            self._watches[name][token] = notify

        def forget() -> None:
            with self._lock:
                watchers = self._watches.get(name, {})
                if watchers.pop(token, None) is not None and not watchers:
                    del self._watches[name]
                    with suppress(PeerLost, MailboxFull):
                        self._put(self._unsent.send_soon, Unwatch(name), Lane.CONTROL)

        return forget

    def on_loop_thread(self) -> bool:
        """Whether the caller runs on the loop's thread."""
        return threading.get_ident() == self._thread

    def _put(self, send: Callable[[Lane, list[Frame]], None], message: Message, lane: Lane) -> None:
        with self._lock:
            if self._lost is not None:
                raise self._loss(self._lost)
            try:
                send(lane, encode(message))
            except PeerGone as gone:
                raise self._loss(str(gone)) from gone
        self._pump.poke()

    def _loss(self, detail: str) -> PeerLost:
        return PeerLost(
            f"the link to the actor system at {self.link.endpoint.control} is down; dial and "
            "connect again; whether the message was handled is unknown",
            Death("link_lost", detail=detail),
        )

    # --- on the loop -----------------------------------------------------------------------------

    def _step(self) -> None:
        with self._lock:
            for _ in range(BATCH):
                got = self.link.receive()
                if got is None:
                    break
                try:
                    answer = decode_answer(got[1])
                except ProtocolError as fault:
                    self.faults += 1
                    self._end(f"the other side speaks another language: {fault}")
                    return
                self._on_answer(answer)
                if self._lost is not None:
                    return
            else:
                self._pump.poke()
                return
            if self.link.state() is LinkState.DOWN:
                down = self.link.down()
                self._end(f"{down.cause}: {down.detail}" if down is not None else "down")
                return
            try:
                if not self._unsent.flush():
                    self._pump.poke_later()
            except PeerGone:
                self._pump.poke_later()

    def _on_answer(self, answer: Answers) -> None:
        if isinstance(answer, Terminated):
            cause = cause_of(answer.cause)
            for notify in self._watches.pop(answer.actor, {}).values():
                notify(cause)
        elif isinstance(answer, Refusal) and not answer.request:
            self._end(f"the other side did not understand: {answer.text}")
        elif isinstance(answer, Answer | Refusal):
            waiter, _ = self._open.pop(answer.request, (None, None))
            if waiter is None:
                return
            if isinstance(answer, Refusal):
                fail(waiter, error_of(answer))
                return
            try:
                value = self.codec.decode(answer.payload)
            except Exception as error:  # noqa: BLE001 - a codec of the user, any error
                fail(waiter, ProtocolError("malformed", f"the answer cannot be decoded: {error}"))
            else:
                fulfil(waiter, value)

    def _end(self, detail: str) -> None:
        with self._lock:
            if self._lost is not None:
                return
            self._lost = detail
            self._pump.close()
            self.link.close()
            waiting, self._open = self._open, {}
            watching, self._watches = self._watches, {}
        for waiter, _ in waiting.values():
            fail(waiter, self._loss(detail))
        for watchers in watching.values():
            for notify in watchers.values():
                notify(Lost(detail))

    def __repr__(self) -> str:
        state = f"lost: {self._lost}" if self._lost else self.link.state().value
        return (
            f"<RemoteSystem at {self.link.endpoint.control}, {state}, {len(self._open)} open "
            f"questions, {len(self._watches)} watched>"
        )
