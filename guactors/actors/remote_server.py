"""The side of the bridge that has the actors.

Owns: each peer's open questions and watches, and their end when the peer goes. Must never: make an
actor for a peer, let one reach an actor that is not served, or trust a byte of what arrives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from guactors.actors.local import LocalRef
from guactors.actors.mailbox import Priority
from guactors.actors.remote_lines import Pump, Unsent
from guactors.actors.remote_words import (
    Answer,
    Ask,
    CauseWord,
    Codec,
    Message,
    Probe,
    Questions,
    Tell,
    Terminated,
    Unwatch,
    Watch,
    Withdraw,
    cause_word,
    decode_question,
    encode,
    lane_of,
    refusal,
)
from guactors.actors.supervision import Cause, Lost
from guactors.actors.system import ActorSystem
from guactors.errors import GuactorsError, MailboxFull, NotSerializable, ProtocolError, UsageError
from guactors.ids import LinkKey
from guactors.transport.base import Lane, Listener, PeerGone

log = logging.getLogger("guactors.actors.remote")

MOST_OPEN = 10_000
"""Questions of one peer that may be open at a time."""
BATCH = 256
"""Messages handled before the loop sees to others."""


@dataclass
class _Peer:
    key: LinkKey
    unsent: Unsent
    open: dict[int, Callable[[], None]] = field(default_factory=dict)
    watches: dict[str, Callable[[], None]] = field(default_factory=dict)


class Served:
    """Named actors of ``system`` behind ``listener``; see ``remote.serve``. ``endpoint`` is where
    to dial; ``faults`` counts messages that were not ours, ``dropped`` tells that found no room or
    no actor."""

    def __init__(
        self,
        system: ActorSystem,
        listener: Listener,
        actors: Collection[str] | None,
        codec: Codec,
    ) -> None:
        self._system = system
        self._listener = listener
        self._served = None if actors is None else frozenset(actors)
        self._codec = codec
        self.endpoint = listener.endpoint
        self._peers: dict[LinkKey, _Peer] = {}
        self._closed = False
        self.faults = 0
        self.dropped = 0
        self._pump = Pump(system.loop, listener.filenos(), self._step)
        self._pump.poke()

    def close(self) -> None:
        """Close the listener; open questions of peers are withdrawn. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._pump.close()
        for peer in list(self._peers.values()):
            self._forget(peer)
        self._listener.close()

    def _step(self) -> None:
        for _ in range(BATCH):
            got = self._listener.receive()
            if got is None:
                break
            key, _, frames = got
            try:
                question = decode_question(frames)
            except ProtocolError as fault:
                self.faults += 1
                log.warning("%r: dropped a message of %s: %s", self, key, fault)
                self._send(self._peer(key), Lane.CONTROL, refusal(0, fault))
                continue
            self._on_question(self._peer(key), question)
        else:
            self._pump.poke()
        if self._listener.disturbed():
            for peer in list(self._peers.values()):
                self._send(peer, Lane.CONTROL, Probe())
        for peer in list(self._peers.values()):
            self._flush(peer)

    def _peer(self, key: LinkKey) -> _Peer:
        peer = self._peers.get(key)
        if peer is None:
            peer = self._peers[key] = _Peer(key, Unsent(partial(self._listener.send, key)))
        return peer

    # --- questions -------------------------------------------------------------------------------

    def _on_question(self, peer: _Peer, question: Questions) -> None:
        match question:
            case Tell(request=0):
                self._on_tell(question)
            case Tell() | Ask():
                self._on_request(peer, question)
            case Withdraw():
                withdraw = peer.open.pop(question.request, None)
                if withdraw is not None:
                    withdraw()
            case Watch():
                self._on_watch(peer, question.actor)
            case Unwatch():
                forget = peer.watches.pop(question.actor, None)
                if forget is not None:
                    forget()

    def _ref(self, name: str) -> LocalRef:
        ref = self._system.actor(name)
        served = self._served
        assert isinstance(ref, LocalRef)
        if name in served if served is not None else ref.cell.named:
            return ref
        raise UsageError(f"actor {name!r} is not served here; see serve(actors=)")

    def _open(self, payload: bytes) -> Any:
        try:
            return self._codec.decode(payload)
        except Exception as error:
            raise ProtocolError("malformed", f"the payload cannot be decoded: {error}") from error

    def _on_tell(self, tell: Tell) -> None:
        try:
            self._ref(tell.actor).tell(self._open(tell.payload), priority=Priority(tell.priority))
        except GuactorsError as error:
            self.dropped += 1
            log.warning("%r: a tell to %r was lost: %s", self, tell.actor, error)

    def _on_request(self, peer: _Peer, question: Tell | Ask) -> None:
        request, priority = question.request, Priority(question.priority)
        lane = lane_of(priority)
        try:
            if len(peer.open) >= MOST_OPEN or request in peer.open:
                raise MailboxFull(f"{len(peer.open)} questions of this link are open already")
            ref = self._ref(question.actor)
            start = ref.start_ask if isinstance(question, Ask) else ref.start_tell
            future, withdraw = start(self._open(question.payload), priority)
        except GuactorsError as error:
            self._send(peer, lane, refusal(request, error))
            return
        peer.open[request] = withdraw
        future.add_done_callback(partial(self._on_answer, peer, request, lane))

    def _on_answer(
        self, peer: _Peer, request: int, lane: Lane, future: asyncio.Future[Any]
    ) -> None:
        if future.cancelled():
            return
        error = future.exception()
        peer.open.pop(request, None)
        if self._peers.get(peer.key) is not peer:
            return
        if error is not None:
            self._send(peer, lane, refusal(request, error))
            return
        try:
            payload = self._codec.encode(future.result())
        except Exception as reason:  # noqa: BLE001 - a codec of the user, any error
            told = NotSerializable(f"the answer {type(future.result()).__name__}: {reason}")
            self._send(peer, lane, refusal(request, told))
        else:
            self._send(peer, lane, Answer(request, payload))

    def _on_watch(self, peer: _Peer, name: str) -> None:
        if name in peer.watches:
            return
        try:
            ref = self._ref(name)
        except UsageError as error:
            gone = cause_word(Lost(str(error)))
            self._send(peer, Lane.CONTROL, Terminated(name, gone))
        else:
            peer.watches[name] = ref._watch(partial(self._on_death, peer, name))

    def _on_death(self, peer: _Peer, name: str, cause: Cause) -> None:
        peer.watches.pop(name, None)
        told: CauseWord = cause_word(cause)
        self._send(peer, Lane.CONTROL, Terminated(name, told))

    # --- sending ---------------------------------------------------------------------------------

    def _send(self, peer: _Peer, lane: Lane, message: Message) -> None:
        if self._closed:
            return
        try:
            peer.unsent.send_soon(lane, encode(message))
        except PeerGone:
            self._forget(peer)
        except MailboxFull:
            # It reads no answers: what it waits for cannot be kept for it without end.
            log.warning("%r: %s does not read its answers, forgetting it", self, peer.key)
            self._forget(peer)
        self._pump.poke()

    def _flush(self, peer: _Peer) -> None:
        try:
            if not peer.unsent.flush():
                self._pump.poke_later()
        except PeerGone:
            self._forget(peer)

    def _forget(self, peer: _Peer) -> None:
        self._peers.pop(peer.key, None)
        for give_up in (*peer.open.values(), *peer.watches.values()):
            give_up()
        peer.open.clear()
        peer.watches.clear()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._peers)} peers"
        return (
            f"<Served {self._system.name!r} on {self.endpoint.control}, {state}, "
            f"{self.faults} faults, {self.dropped} dropped>"
        )
