"""The hub's entrance: links that have spoken and are not peers yet.

Owns: data lanes that were faster than their control lane, who knocks and waits for the gatekeeper,
workers that providers vouch for. Must never: admit anybody (``hub_state`` does), believe a claimed
id, or keep more of a stranger than a bounded little.

A local process may speak at once. Of anybody else only Hello and Proof are heard before it is known
who it is.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from msgspec import Struct

from guactors import messages as m

MOST_EARLY = 10_000
"""Links whose data lane came first that are remembered until the control lane comes."""
MOST_MESSAGES = 1000
"""Of such a link of this machine."""
PATIENCE = 5.0
"""Seconds for which a link's data lane, a knock, or a worker not vouched for yet is kept."""
KNOCK_PATIENCE = 12.0
"""A knock outlives its challenge, whose end the gatekeeper tells."""
MOST_WAITING = 1000
MOST_VOUCHED = 100_000


@dataclass(slots=True)
class Early:
    """A link of which only the data lane has been heard."""

    until: float
    hello: bool = False
    messages: list[m.Message] = field(default_factory=list)


class Knock(Struct):
    """A Hello that waits: to be proved, or to be vouched for."""

    link: str
    user: str
    hello: m.Hello
    until: float


class Vouched(Struct, frozen=True):
    """Whom a CURVE key belongs to, by the word of the provider that made it."""

    provider: str
    worker: str
    session: str


class Entrance:
    """Links by key."""

    def __init__(self) -> None:
        self._early: OrderedDict[str, Early] = OrderedDict()
        self.knocks: OrderedDict[str, Knock] = OrderedDict()
        self._unvouched: OrderedDict[str, Knock] = OrderedDict()
        self._vouched: OrderedDict[str, Vouched] = OrderedDict()

    # --- data lanes that came first ---------------------------------------------------------------

    def early(self, link: str, message: m.Message, user: str, now: float) -> None:
        """A message of a data lane whose link is nobody's yet. Of a stranger only Hello counts."""
        early = self._early.get(link)
        if early is None:
            if len(self._early) >= MOST_EARLY:
                # The oldest: a member's control lane follows in a moment.
                self._early.popitem(last=False)
            early = self._early[link] = Early(now + PATIENCE)
        if isinstance(message, m.Hello):
            early.hello = True
        elif not user and len(early.messages) < MOST_MESSAGES:
            early.messages.append(message)

    def take_early(self, link: str) -> Early | None:
        """What its data lane said before it was a peer."""
        return self._early.pop(link, None)

    # --- knocks -----------------------------------------------------------------------------------

    def knock(self, link: str, user: str, hello: m.Hello, now: float) -> None:
        """The gatekeeper is asked about this one."""
        self._unvouched.pop(link, None)
        self.knocks[link] = Knock(link, user, hello, now + KNOCK_PATIENCE)
        while len(self.knocks) > MOST_WAITING:
            self.knocks.popitem(last=False)
        early = self._early.get(link)
        if early is not None:
            early.until = now + KNOCK_PATIENCE

    # --- workers ----------------------------------------------------------------------------------

    def vouch(self, transport: str, vouched: Vouched) -> list[Knock]:
        """A provider's word for a worker's key; the knocks that waited for it."""
        self._vouched[transport] = vouched
        self._vouched.move_to_end(transport)
        while len(self._vouched) > MOST_VOUCHED:
            self._vouched.popitem(last=False)
        return [self._unvouched.pop(x) for x, k in list(self._unvouched.items())
                if k.user == transport]  # fmt: skip

    def vouched(self, transport: str) -> Vouched | None:
        """Whom a CURVE key belongs to."""
        return self._vouched.get(transport)

    def await_vouch(self, link: str, user: str, hello: m.Hello, now: float) -> None:
        """A worker was faster than its provider's word for it."""
        self._unvouched[link] = Knock(link, user, hello, now + PATIENCE)
        while len(self._unvouched) > MOST_WAITING:
            self._unvouched.popitem(last=False)

    def provider_left(self, provider: str) -> None:
        """Its workers are gone with it."""
        for transport in [t for t, v in self._vouched.items() if v.provider == provider]:
            del self._vouched[transport]

    # --- ends -------------------------------------------------------------------------------------

    def forget(self, link: str) -> bool:
        """The link is gone; whether it had knocked."""
        self._early.pop(link, None)
        self._unvouched.pop(link, None)
        return self.knocks.pop(link, None) is not None

    def expire(self, now: float) -> list[Knock]:
        """Those nobody vouched for in time; the rest that is too old is dropped."""
        for link in [link for link, early in self._early.items() if now >= early.until]:
            del self._early[link]
        for link in [link for link, knock in self.knocks.items() if now >= knock.until]:
            del self.knocks[link]
        over = [knock for knock in self._unvouched.values() if now >= knock.until]
        for knock in over:
            del self._unvouched[knock.link]
        return over

    def next_wake(self) -> float | None:
        """When ``expire`` has something to do."""
        waits = [early.until for early in self._early.values()]
        waits += [knock.until for knock in self.knocks.values()]
        waits += [knock.until for knock in self._unvouched.values()]
        return min(waits, default=None)
