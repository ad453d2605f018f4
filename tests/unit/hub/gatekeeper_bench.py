"""A gatekeeper on the bench: its store is applied to, its effects are sorted, every invariant is
checked after each event. It can be started again from what it persisted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, TypeVar

from guactors import messages as m
from guactors.gatekeeper_state import GatekeeperState
from guactors.ids import LinkKey
from guactors.scheduling import events as e
from guactors.security.grants import build_grant, sign_grant
from guactors.security.keys import Kind, PublicKey, SecretKey
from guactors.security.signing import envelope_text
from guactors.security.statements import HELLO_TYPE, make_statement
from guactors.security.succession import name_successor
from guactors.store.base import Op
from guactors.store.memory import MemoryStore
from tests.unit.security.samples import public, secret

T = TypeVar("T")

HUB, OWNER, OTHER_OWNER = secret(Kind.HUB), secret(Kind.OWNER), secret(Kind.OWNER, 2)
APP, PROVIDER = secret(Kind.APP), secret(Kind.PROVIDER)
EPOCH = 1_800_000_000.0
LOCAL = e.Standing()
VERSIONS = m.Versions("0", "3.11.7")
ROLES = {Kind.APP: "caller", Kind.OWNER: "caller", Kind.PROVIDER: "provider"}


def transport_of(key: SecretKey) -> str:
    """A z85 text that stands for the CURVE key of this principal."""
    return key.public.text[-40:]


class Bench:
    """``now`` is monotonic; the wall shows EPOCH at 1000.0, moved by ``drift``."""

    def __init__(
        self,
        owners: Sequence[PublicKey] = (OWNER.public, OTHER_OWNER.public),
        ops: Sequence[Op] = (),
        *,
        begin: bool = True,
    ) -> None:
        self.now = 1000.0
        self.drift = 0.0
        self.owners = list(owners)
        self.store = MemoryStore()
        self.store.apply(ops)
        self.effects: list[e.Effect] = []
        self.lines: list[e.Decision] = []
        self._numbers = count(1)
        self._serials = count(1)
        self.start(begin=begin)

    def start(self, *, begin: bool = True) -> None:
        """A new process with the old store."""
        self.room = GatekeeperState(
            HUB.public, self.owners, self.store.load(), random=self.random, wall=self.wall
        )
        if begin:
            self.tick()

    def random(self, size: int) -> bytes:
        return next(self._numbers).to_bytes(size, "big")

    def wall(self, now: float | None = None) -> float:
        return EPOCH - 1000.0 + self.drift + (self.now if now is None else now)

    def number(self) -> int:
        return next(self._numbers)

    # --- driving --------------------------------------------------------------------------------

    def feed(self, event: e.Event) -> list[e.Effect]:
        """One event; its effects in order, all carried out."""
        return self._carry(self.room.handle(event, self.now))

    def tick(self, seconds: float = 0.0) -> list[e.Effect]:
        """Time passes at once."""
        self.now += seconds
        return self._carry(self.room.on_tick(self.now))

    def sleep(self, seconds: float) -> list[e.Effect]:
        """Time passes, and the room is woken when it wants to be."""
        end, effects = self.now + seconds, []
        while (wake := self.room.next_wake(self.now)) is not None and wake <= end:
            assert wake > self.now - 1e-9, "it wants to be woken in the past"
            self.now = max(self.now, wake)
            effects += self.tick()
        self.now = end
        return effects

    def _carry(self, effects: list[e.Effect]) -> list[e.Effect]:
        for effect in effects:
            if isinstance(effect, e.Persist):
                self.store.apply(effect.ops)
            elif isinstance(effect, e.Record):
                self.lines += effect.decisions
        self.room.check()
        self.effects = effects
        return effects

    # --- reading effects ------------------------------------------------------------------------

    def told(self, kind: type[T], effects: list[e.Effect] | None = None) -> list[T]:
        """Events of this kind that the last effects tell a room."""
        found = self.effects if effects is None else effects
        return [x.event for x in found if isinstance(x, e.ToRoom) and isinstance(x.event, kind)]

    def answers(self, kind: type[T]) -> list[T]:
        """Messages of this kind to peers."""
        return [
            x.message
            for x in self.effects
            if isinstance(x, e.ToPeer) and isinstance(x.message, kind)
        ]

    def refusals(self) -> list[tuple[str, str, str]]:
        """Who, action and reason of all lines about refusals so far."""
        return [(x.who, x.action, x.reason) for x in self.lines if x.decision == "refused"]

    # --- the door -------------------------------------------------------------------------------

    def hello(self, key: SecretKey, /, **more: Any) -> m.Hello:
        fields: dict[str, Any] = {
            "peer": f"c-{self.number()}",
            "role": ROLES.get(key.kind, "caller"),
            "versions": VERSIONS,
            "pid": 1,
            "host": "there",
            "session": "s-1",
            "root": True,
            "name": "",
            "key": key.public.text,
            "transport": transport_of(key),
        }
        return m.Hello(**fields | more)

    def knock(
        self, hello: m.Hello, link: str = "", user: str | None = None
    ) -> tuple[str, m.Challenge | None]:
        """The link, and the challenge if there is one."""
        link = link or f"k-{self.number()}"
        user = hello.transport if user is None else user
        self.feed(e.Knocked(LinkKey(link), user, hello))
        sent = [x for x in self.effects if isinstance(x, e.Send)]
        assert all(x.link == link for x in sent)
        challenges = [x.message for x in sent if isinstance(x.message, m.Challenge)]
        assert len(challenges) == len(sent)
        return link, challenges[0] if challenges else None

    def sign(
        self, key: SecretKey, challenge: m.Challenge, hello: m.Hello, link: str, /, **other: Any
    ) -> m.Proof:
        """A good proof, but for the fields in ``other``."""
        fields: dict[str, Any] = {
            "hub": challenge.hub,
            "key": hello.key,
            "link": link,
            "nonce": challenge.nonce,
            "peer": hello.peer,
            "role": hello.role,
            "session": hello.session,
            "transport": hello.transport,
            "at": self.wall(),
        }
        beside = {name: other.pop(name) for name in ("invitation", "successions") if name in other}
        statement = make_statement(**fields | other)
        return m.Proof(statement, key.sign(HELLO_TYPE, statement), **beside)

    def prove(self, link: str, proof: m.Proof, user: str) -> e.Admitted | e.TurnedAway:
        self.feed(e.Proved(LinkKey(link), user, proof))
        return self.verdict()

    def verdict(self) -> e.Admitted | e.TurnedAway:
        """What the last effects say of who stands at the door: one thing."""
        found = self.told(e.Admitted) + self.told(e.TurnedAway)
        assert len(found) == 1, found
        return found[0]

    def join(self, key: SecretKey, /, **more: Any) -> e.Admitted | e.TurnedAway:
        """Knock and prove; ``invitation`` and ``successions`` go into the proof."""
        beside = {name: more.pop(name) for name in ("invitation", "successions") if name in more}
        hello = self.hello(key, **more)
        link, challenge = self.knock(hello)
        if challenge is None:
            return self.verdict()
        proof = self.sign(key, challenge, hello, link, **beside)
        return self.prove(link, proof, hello.transport)

    def enter(self, key: SecretKey, /, **more: Any) -> e.Standing:
        """As ``join``, when it must be let in."""
        verdict = self.join(key, **more)
        assert isinstance(verdict, e.Admitted), verdict
        return verdict.standing

    # --- the office -----------------------------------------------------------------------------

    def ask(self, message: m.Message, standing: e.Standing = LOCAL, peer: str = "c-9") -> Any:
        """The one answer to the peer; None if there is none."""
        self.feed(e.AuthorityAsked(peer, standing, message))
        found = self.answers(m.Message)
        assert len(found) <= 1, found
        if found:
            assert getattr(found[0], "request", None) == getattr(message, "request", None)
        return found[0] if found else None

    def approve(self, *keys: SecretKey) -> None:
        for key in keys:
            done = self.ask(m.ApproveKey(1, key.public.text))
            assert isinstance(done, m.Done), done

    def envelope(
        self, app: SecretKey = APP, owner: SecretKey = OWNER, serial: int = 0, **fields: Any
    ) -> bytes:
        """A signed grant; without ``actions`` it allows to submit."""
        fields.setdefault("actions", ["submit"])
        start = fields.pop("start", self.wall() - 10)
        hub = fields.pop("hub", HUB.public.text)
        grant = build_grant(
            hub=hub, app=app.public.text, issuer=owner.public.text,
            serial=serial or next(self._serials), now=start, **fields,
        )  # fmt: skip
        return sign_grant(grant, owner)

    def grant(self, app: SecretKey = APP, owner: SecretKey = OWNER, **fields: Any) -> bytes:
        """Put a grant and have it taken."""
        envelope = self.envelope(app, owner, **fields)
        done = self.ask(m.PutGrant(1, envelope))
        assert isinstance(done, m.Done), done
        return envelope

    def standing(self, key: SecretKey) -> e.Standing:
        """As the hub would say of a peer; the gatekeeper must look for itself."""
        return e.Standing(key.public.text, key.kind.value)

    def may(self, key: SecretKey, action: str) -> bool:
        """What the key may do, by its own standing at the door."""
        verdict = self.join(key)
        if isinstance(verdict, e.TurnedAway):
            return False
        return verdict.standing.rights.may(action, self.wall()).allowed


def follows(old: SecretKey, new: SecretKey) -> bytes:
    """The statement that ``new`` follows ``old``."""
    return envelope_text(name_successor(old, new, int(EPOCH)))


__all__ = [
    "APP", "EPOCH", "HUB", "LOCAL", "OTHER_OWNER", "OWNER", "PROVIDER", "Bench", "follows",
    "public", "secret", "transport_of",
]  # fmt: skip
