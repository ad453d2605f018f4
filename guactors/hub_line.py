"""A caller's line to the hub: dial, introduce, keep alive, dial again.

Owns: the present link to the hub and what must be known of its state. Must never: interpret work
messages (it hands them on), or block.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from guactors import errors
from guactors.config import Timing
from guactors.errors import (
    AuthFailed,
    GuactorsError,
    HubUnreachable,
    ProtocolError,
    VersionMismatch,
)
from guactors.messages import (
    Challenge,
    Endpoint,
    Fault,
    Goodbye,
    Hello,
    HubToCaller,
    Message,
    Ping,
    Pong,
    Proof,
    Welcome,
)
from guactors.transport.backoff import Backoff
from guactors.transport.base import Frame, Lane, Link, LinkFull, LinkState, SendError, Transport
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.transport.liveness import Liveness, Lost, SendPing

MOST_REFUSALS = 2
"""A key that was good once and is refused so often in a row is good no more. One refusal can be an
accident: a proof that came too late."""
_DECODER: Decoder[Message] = Decoder(HubToCaller)
SHUT_DOORS = 3
"""Refused handshakes in a row after which who was let in before believes them."""
Prove = Callable[[Challenge, str], Proof]
"""The answer to a hub's challenge on a link of ours, by its key. Raises AuthFailed."""


def error_of(fault: Fault) -> GuactorsError:
    """The error that a Fault names, to be raised where its request was made."""
    kind = getattr(errors, fault.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, GuactorsError)):
        kind = GuactorsError
    return kind(fault.detail)


class HubLine:
    """``on_up()`` after each Welcome, ``on_message(message)`` for work. ``prove(challenge, link)``
    answers a Challenge. ``on_refused(error)``: the hub wants no more of us, for good. ``watch`` and
    ``unwatch`` are called with links as they come and go; ``rng`` gives the jitter between
    dials."""

    def __init__(
        self,
        transport: Transport,
        endpoints: Sequence[Endpoint],
        hello: Hello,
        timing: Timing,
        *,
        prove: Prove,
        on_up: Callable[[], None],
        on_refused: Callable[[GuactorsError], None],
        on_message: Callable[[Message], None],
        watch: Callable[[Link], None],
        unwatch: Callable[[Link], None],
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.up = False
        self.suspect = False
        """Something was sent since the last service: the send may have consumed the signal of an
        arrival, so serve once more before sleeping."""
        self.refusal: GuactorsError | None = None
        self.last_down = ""
        self._welcomed = False
        self._refusals = 0
        self._shut_doors = 0
        self._transport = transport
        self._endpoints = list(endpoints)
        self._hello = hello
        self._timing = timing
        self._prove = prove
        self._on_up = on_up
        self._on_refused = on_refused
        self._on_message = on_message
        self._watch = watch
        self._unwatch = unwatch
        self._backoff = Backoff(timing.redial_first, timing.redial_most, rng)
        self._link: Link | None = None
        self._liveness = Liveness(timing)
        self._now = 0.0
        self._redial_at = 0.0
        self._tries = 0
        self._overflow: list[Message] = []

    def _dial(self, now: float) -> None:
        endpoint = self._endpoints[self._tries % len(self._endpoints)]
        self._tries += 1
        self._link = self._transport.dial(endpoint)
        self._liveness = Liveness(self._timing)
        self._watch(self._link)
        hello = encode(self._hello)
        self._link.send(Lane.CONTROL, [hello])
        self._link.send(Lane.DATA, [hello])

    def send(self, message: Message) -> None:
        """To the hub; dropped without a link, since all is told again after the next one."""
        if self._link is None or not (self.up or isinstance(message, Hello | Proof)):
            return
        if self._overflow:
            self._overflow.append(message)
            return
        self.suspect = True
        try:
            self._link.send(lane_of(message), [encode(message)])
        except LinkFull:
            self._overflow.append(message)
        except SendError as error:
            self._lose(str(error), 0.0)

    def service(self, now: float) -> float:
        """Receive, keep alive, redial. Returns when to be called again at the latest."""
        self._now = now
        if self._link is None:
            if now < self._redial_at:
                return self._redial_at
            self._dial(now)
        link = self._link
        assert link is not None
        self.suspect = False
        while (got := link.receive()) is not None:
            self._liveness.on_heard(now)
            self._handle(got[1])
            if self._link is not link:
                return now
        if link.state() is LinkState.DOWN:
            down = link.down()
            if down is not None and down.cause == "auth":
                text = (
                    f"the hub at {link.endpoint.control} refused our key, or is not the one the "
                    f"join address names ({down.detail}); check the address"
                )
                self._shut_doors += 1
                # A hub that ends during the handshake looks like one that refuses it.
                if not self._welcomed or self._shut_doors >= SHUT_DOORS:
                    self._refuse(AuthFailed(text), certain=True)
            self._lose(f"{down.cause}: {down.detail}" if down else "down", now)
            return self._redial_at
        self._resend()
        for effect in self._liveness.tick(now):
            if isinstance(effect, SendPing):
                self.send(Ping(effect.number))
            elif isinstance(effect, Lost):
                self._lose("the hub is silent", now)
                return self._redial_at
        return self._liveness.next_wake(now)

    def _resend(self) -> None:
        waiting, self._overflow = self._overflow, []
        for message in waiting:
            self.send(message)

    def _handle(self, frames: list[Frame]) -> None:
        try:
            message, _ = _DECODER.decode(frames)
        except ProtocolError as error:
            self.refusal = VersionMismatch(f"the hub speaks another protocol ({error})")
            return
        match message:
            case Ping(number):
                self.send(Pong(number))
            case Pong():
                pass
            case Welcome():
                self.up = self._welcomed = True
                self.refusal, self._refusals, self._shut_doors = None, 0, 0
                self._backoff.reset()
                self._on_up()
            case Goodbye(reason):
                self._lose(reason or "the hub left", 0.0)
            case Challenge():
                self._answer(message)
            case Fault(request=0):
                self._on_fault(error_of(message))
            case _:
                self._on_message(message)

    def _answer(self, challenge: Challenge) -> None:
        assert self._link is not None
        try:
            self.send(self._prove(challenge, self._link.key))
        except AuthFailed as error:
            self._refuse(error, certain=True)
            self._lose(str(error), 0.0)

    def _on_fault(self, error: GuactorsError) -> None:
        """The hub's no. On a link that it had welcomed an AuthFailed means that our key was
        revoked; on a new one it can be an accident. A worker, which has no key, is vouched for by
        its provider, who may be later than it: it is never refused for good."""
        again = self._welcomed and not self.up and isinstance(error, AuthFailed)
        if not again:
            self._refuse(error, certain=self.up)
            return
        self._refusals += 1
        hello = self._hello
        vouched = hello.transport and not (hello.key or hello.whose)
        self._refuse(error, certain=not vouched and self._refusals >= MOST_REFUSALS)
        self._lose(str(error), self._now)

    def _refuse(self, error: GuactorsError, *, certain: bool) -> None:
        self.refusal = error
        if certain and isinstance(error, AuthFailed) and self._welcomed:
            self._redial_at = math.inf
            self._on_refused(error)

    def _lose(self, why: str, now: float) -> None:
        link, self._link = self._link, None
        self.up = self.suspect = False
        self.last_down = why
        self._overflow.clear()
        if self._redial_at < math.inf:
            self._redial_at = now + self._backoff.next()
        if link is not None:
            self._unwatch(link)
            link.close()

    def unreachable(self) -> HubUnreachable:
        """The error for somebody who waited in vain."""
        at = ", ".join(endpoint.control for endpoint in self._endpoints)
        return HubUnreachable(
            f"no hub answers at {at} ({self.last_down or 'no answer'}); is it running there?"
        )

    def close(self) -> None:
        """Say goodbye and close."""
        if self.up:
            self.send(Goodbye("shutdown"))
        if self._link is not None:
            self._unwatch(self._link)
            self._link.close()
            self._link = None
        self.up = False
