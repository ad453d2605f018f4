"""The provider's one line to its hub: dialling again, silence, deaths that must be told twice.

Owns: whether the hub is there, when to dial where, when to sample, and which deaths the hub may
have missed. Must never: know what a lease is; it passes on what ``core`` tells.

A message given to a link that then breaks may be lost, and nobody learns which. State needs no
care: the Offer after each reconnect tells all of it. Deaths do, they are not state: those told
within ``timing.lost_after`` before the loss, and those that happened while the line was down, are
told again after the Offer. The hub ignores what it knows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from guactors.config import ProviderConfig
from guactors.errors import UsageError
from guactors.messages import (
    ActorEnded,
    Fault,
    Hello,
    LeaseEnded,
    Message,
    Offer,
    Ping,
    Pong,
    Sample,
)
from guactors.provider_state.effects import Dial, DropHub, Effect, GiveUp, Note, SendHub, TakeSample
from guactors.transport.backoff import Backoff
from guactors.transport.liveness import Effect as Finding
from guactors.transport.liveness import Liveness, Lost, Recovered, SendPing, Silent

FATAL_FAULTS = frozenset({"VersionMismatch", "AuthFailed"})
"""Refusals that asking again will not change."""
MOST_DEATHS = 10_000


class HubLine:
    """``random`` returns floats in [0, 1), for the jitter of the back-off."""

    def __init__(self, config: ProviderConfig, hello: Hello, random: Callable[[], float]) -> None:
        self.up = False
        self.welcome = False
        """Welcomed on the present link."""
        self.known = False
        """Ever welcomed: from then on nothing makes us give up."""
        if not config.hub:
            raise UsageError(f"provider {config.name} was given no address of a hub")
        self._config = config
        self._hello = hello
        timing = config.timing
        self._backoff = Backoff(timing.redial_first, timing.redial_most, random)
        self._liveness = Liveness(timing)
        self._dial_at: float | None = None
        self._sample_at = 0.0
        self._dials = 0
        self._deaths: deque[tuple[float, LeaseEnded | ActorEnded]] = deque(maxlen=MOST_DEATHS)

    # --- the link -------------------------------------------------------------------------------

    def dial(self) -> list[Effect]:
        """Dial the next address in turn."""
        self._dial_at = None
        endpoint = self._config.hub[self._dials % len(self._config.hub)]
        self._dials += 1
        return [Dial(endpoint)]

    def on_up(self, offer: Offer, now: float) -> list[Effect]:
        """The link stands: who we are, what we have, who died."""
        self.up = True
        self.welcome = False
        self._dial_at = None
        self._liveness = Liveness(self._config.timing)
        self._liveness.on_heard(now)
        self._sample_at = now + self._config.timing.sample
        told: list[Message] = [self._hello, offer, *(death for _, death in self._deaths)]
        self._deaths = deque(((now, death) for _, death in self._deaths), maxlen=MOST_DEATHS)
        return [SendHub(message) for message in told]

    def on_down(self, cause: str, detail: str, now: float) -> list[Effect]:
        """The link broke or never stood: dial again later. ``cause`` as in transport.base.Down."""
        if self.up:
            self._forget_deaths(now)
        self.up = self.welcome = False
        if cause == "auth" and not self.known:
            return [GiveUp("AuthFailed", f"the hub refused provider {self._config.name}: {detail}")]
        pause = self._backoff.next()
        self._dial_at = now + pause
        text = f"no line to the hub ({cause}{': ' + detail if detail else ''})"
        return [Note("warning", f"{text}; dialling again in {pause:.2f} s")]

    def _drop(self, reason: str, now: float) -> list[Effect]:
        return [DropHub(reason), *self.on_down("lost", reason, now)]

    # --- messages -------------------------------------------------------------------------------

    def tell(self, message: Message, now: float) -> list[Effect]:
        """Send now if the line stands. Deaths are kept for later as well, the rest is state that
        the next Offer tells."""
        if isinstance(message, LeaseEnded | ActorEnded):
            if self.up:
                self._forget_deaths(now)
            self._deaths.append((now, message))
        return [SendHub(message)] if self.up else []

    def _forget_deaths(self, now: float) -> None:
        """Those told so long ago that the hub must have heard. Only for while the line stands."""
        horizon = now - self._config.timing.lost_after
        while self._deaths and self._deaths[0][0] < horizon:
            self._deaths.popleft()

    def on_heard(self, now: float) -> None:
        """Any message from the hub shows that it lives."""
        self._liveness.on_heard(now)

    def on_ping(self, ping: Ping) -> list[Effect]:
        """Answer it."""
        return [SendHub(Pong(ping.number))]

    def on_welcome(self) -> None:
        """The hub takes us."""
        self.welcome = self.known = True
        self._backoff.reset()

    def on_goodbye(self, reason: str, now: float) -> list[Effect]:
        """The hub stops; another may come in its place."""
        return self._drop(
            f"the hub said goodbye: {reason}" if reason else "the hub said goodbye", now
        )

    def on_fault(self, fault: Fault, now: float) -> list[Effect]:
        """The hub refuses us, or did not understand one message."""
        if fault.kind in FATAL_FAULTS and not self.known:
            return [GiveUp(fault.kind, fault.detail)]
        note = Note("warning", f"the hub answered {fault.kind}: {fault.detail}")
        if fault.kind in FATAL_FAULTS or not self.welcome:
            return [note, *self._drop(f"refused: {fault.kind}", now)]
        return [note]

    # --- time -----------------------------------------------------------------------------------

    def on_tick(self, now: float) -> list[Effect]:
        """Redial, ping, sample, whatever is due."""
        if self._dial_at is not None and now >= self._dial_at:
            return self.dial()
        if not self.up:
            return []
        effects = self._judge(self._liveness.tick(now), now)
        if self.up and now >= self._sample_at:
            self._sample_at = now + self._config.timing.sample
            effects.append(TakeSample())
        return effects

    def on_sample(self, sample: Sample) -> list[Effect]:
        """Figures were taken."""
        return [SendHub(sample)] if self.up else []

    def next_wake(self, now: float) -> float | None:
        """When on_tick has something to do."""
        if not self.up:
            return self._dial_at
        return min(self._liveness.next_wake(now), self._sample_at)

    def _judge(self, findings: list[Finding], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for finding in findings:
            match finding:
                case SendPing(number):
                    effects.append(SendHub(Ping(number)))
                case Silent():
                    effects.append(Note("warning", "the hub is silent"))
                case Recovered():
                    effects.append(Note("info", "the hub is heard again"))
                case Lost():
                    effects += self._drop("silent for too long", now)
        return effects
