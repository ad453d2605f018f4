"""The provider's one line to its hub: dialling again, showing who we are, silence, deaths that must
be told twice.

Owns: whether the hub is there and listens, when to dial where, when to sample, and which deaths the
hub may have missed. Must never: know what a lease is; it passes on what ``core`` tells.

A provider without a key speaks as soon as the link stands. One with a key says Hello, answers the
hub's Challenge with a Proof, and says nothing else before the Welcome: until then it is a stranger.

A message given to a link that then breaks may be lost, and nobody learns which. State needs no
care: the Offer after each reconnect tells all of it. Deaths do, they are not state: those told
within ``timing.lost_after`` before the loss, and those that happened while the line was down, are
told again after the Offer. The hub ignores what it knows. Reports for its audit log wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from guactors.config import ProviderConfig
from guactors.errors import UsageError
from guactors.messages import (
    ActorEnded,
    Challenge,
    Fault,
    Hello,
    LeaseEnded,
    Message,
    Offer,
    Ping,
    Pong,
    Proof,
    Report,
    Sample,
    Welcome,
)
from guactors.provider_state.effects import Dial, DropHub, Effect, GiveUp, Note, SendHub, TakeSample
from guactors.transport.backoff import Backoff
from guactors.transport.liveness import Effect as Finding
from guactors.transport.liveness import Liveness, Lost, Recovered, SendPing, Silent

FATAL_FAULTS = frozenset({"VersionMismatch", "AuthFailed"})
"""Refusals that asking again will not change."""
MOST_DEATHS = 10_000
MOST_REPORTS = 1_000
PENDING_PAUSE = 2.0
"""Seconds, more or less, between two tries while the hub's owner has not approved our key."""
MOST_REFUSALS = 2
"""A key that was good once and is refused so often in a row is good no more. One refusal can be an
accident: a proof that came too late."""

Prove = Callable[[Challenge, str, float], Proof]
"""Answers a challenge that came on the link of this key at this time."""


class HubLine:
    """``random`` returns floats in [0, 1), for the jitter of the back-off; ``prove`` is asked where
    the provider has a key."""

    def __init__(
        self,
        config: ProviderConfig,
        hello: Hello,
        random: Callable[[], float],
        prove: Prove,
    ) -> None:
        self.up = False
        """The hub listens to us: whatever else is sent."""
        self.welcome = False
        """Welcomed on the present link."""
        self.known = False
        """Ever welcomed."""
        if not config.hub:
            raise UsageError(f"provider {config.name} was given no address of a hub")
        self._config = config
        self._hello = hello
        self._random = random
        self._prove = prove
        timing = config.timing
        self._backoff = Backoff(timing.redial_first, timing.redial_most, random)
        self._liveness = Liveness(timing)
        self._linked = False
        self._link = ""
        self._dial_at: float | None = None
        self._sample_at = 0.0
        self._dials = 0
        self._refusals = 0
        self._pending_told = False
        self._deaths: deque[tuple[float, LeaseEnded | ActorEnded]] = deque(maxlen=MOST_DEATHS)
        self._reports: deque[Report] = deque(maxlen=MOST_REPORTS)

    # --- the link -------------------------------------------------------------------------------

    def dial(self) -> list[Effect]:
        """Dial the next address in turn."""
        self._dial_at = None
        endpoint = self._config.hub[self._dials % len(self._config.hub)]
        self._dials += 1
        return [Dial(endpoint)]

    def on_up(self, link: str, now: float) -> list[Effect]:
        """The link of this key stands: who we are. ``introduce`` follows once ``up``."""
        self._linked = True
        self._link = link
        self.up = not self._config.seal.key
        self.welcome = False
        self._dial_at = None
        self._liveness = Liveness(self._config.timing)
        self._liveness.on_heard(now)
        self._sample_at = now + self._config.timing.sample
        return [SendHub(self._hello)]

    def introduce(self, offer: Offer, now: float) -> list[Effect]:
        """The first words of a link that is ``up``: what we have, who died, what was refused."""
        told: list[Message] = [offer, *(death for _, death in self._deaths), *self._reports]
        self._deaths = deque(((now, death) for _, death in self._deaths), maxlen=MOST_DEATHS)
        self._reports.clear()
        return [SendHub(message) for message in told]

    def on_down(self, cause: str, detail: str, now: float) -> list[Effect]:
        """The link broke or never stood: dial again later. ``cause`` as in transport.base.Down."""
        self._close(now)
        if cause == "auth" and not self.known:
            return [GiveUp("AuthFailed", f"the hub refused provider {self._config.name}: {detail}")]
        if cause == "unreachable" and not (self.known or self._config.patient):
            return [GiveUp("HubUnreachable", f"no hub answers: {detail}")]
        pause = self._backoff.next()
        self._dial_at = now + pause
        text = f"no line to the hub ({cause}{': ' + detail if detail else ''})"
        return [Note("warning", f"{text}; dialling again in {pause:.2f} s")]

    def _close(self, now: float) -> None:
        if self.up:
            self._forget_deaths(now)
        self._linked = self.up = self.welcome = False

    def _drop(self, reason: str, now: float) -> list[Effect]:
        return [DropHub(reason), *self.on_down("lost", reason, now)]

    # --- messages -------------------------------------------------------------------------------

    def tell(self, message: Message, now: float) -> list[Effect]:
        """Send now if the hub listens. Deaths are kept for later as well, reports if it does not;
        the rest is state that the next Offer tells."""
        if isinstance(message, LeaseEnded | ActorEnded):
            if self.up:
                self._forget_deaths(now)
            self._deaths.append((now, message))
        elif isinstance(message, Report) and not self.up:
            self._reports.append(message)
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
        return [SendHub(Pong(ping.number))] if self.up else []

    def on_challenge(self, challenge: Challenge, now: float) -> list[Effect]:
        """The hub wants to see that we are who we say."""
        if not self._config.seal.key or not self._linked or self.welcome:
            return [Note("warning", "the hub asked for a proof of a key that was not claimed")]
        if challenge.hub != self._config.hub_key:
            return [self._wrong_hub(challenge.hub)]
        return [SendHub(self._prove(challenge, self._link, now))]

    def on_welcome(self, welcome: Welcome) -> list[Effect]:
        """The hub takes us; ``introduce`` is due where it was not ``up`` before."""
        if self._config.hub_key and welcome.key not in ("", self._config.hub_key):
            return [self._wrong_hub(welcome.key)]
        self.welcome = self.known = True
        self.up = self._linked
        self._refusals = 0
        self._pending_told = False
        self._backoff.reset()
        return []

    def _wrong_hub(self, key: str) -> GiveUp:
        return GiveUp(
            "AuthFailed",
            f"that is not the hub that provider {self._config.name} belongs to: its key is {key}, "
            f"expected is {self._config.hub_key}; join again if the hub was made anew",
        )

    def on_goodbye(self, reason: str, now: float) -> list[Effect]:
        """The hub stops; another may come in its place."""
        return self._drop(
            f"the hub said goodbye: {reason}" if reason else "the hub said goodbye", now
        )

    def on_fault(self, fault: Fault, now: float) -> list[Effect]:
        """The hub refuses us, or did not understand one message."""
        if fault.kind == "PendingApproval":
            return self._on_pending(fault.detail, now)
        fatal = fault.kind in FATAL_FAULTS
        if fatal and (not self.known or self._refused_for_good(fault.kind)):
            return [GiveUp(fault.kind, fault.detail)]
        note = Note("warning", f"the hub answered {fault.kind}: {fault.detail}")
        if fatal or not self.welcome:
            return [note, *self._drop(f"refused: {fault.kind}", now)]
        return [note]

    def _refused_for_good(self, kind: str) -> bool:
        if kind != "AuthFailed" or not self._config.seal.key:
            return False
        self._refusals += 1
        return self._refusals >= MOST_REFUSALS

    def _on_pending(self, detail: str, now: float) -> list[Effect]:
        self._close(now)
        self._dial_at = now + PENDING_PAUSE * (0.75 + 0.5 * self._random())
        effects: list[Effect] = [DropHub("waiting for approval")]
        if not self._pending_told:
            self._pending_told = True
            text = f"provider {self._config.name} waits for the hub's owner to let it in"
            command = f"gu key approve {self._config.seal.key}"
            effects.append(Note("warning", f"{text}: {command} ({detail})"))
        return effects

    # --- time -----------------------------------------------------------------------------------

    def on_tick(self, now: float) -> list[Effect]:
        """Redial, ping, sample, whatever is due."""
        if self._dial_at is not None and now >= self._dial_at:
            return self.dial()
        if not self._linked:
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
        if not self._linked:
            return self._dial_at
        wake = self._liveness.next_wake(now)
        return min(wake, self._sample_at) if self.up else wake

    def _judge(self, findings: list[Finding], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for finding in findings:
            match finding:
                case SendPing(number):
                    if self.up:
                        effects.append(SendHub(Ping(number)))
                case Silent():
                    effects.append(Note("warning", "the hub is silent"))
                case Recovered():
                    effects.append(Note("info", "the hub is heard again"))
                case Lost():
                    effects += self._drop("silent for too long", now)
        return effects
