"""The whole hub with a gatekeeper and real keys: peers that dial over TCP, say who they are, prove
it, and are judged by grants. Every message carries the CURVE key it comes from."""

from __future__ import annotations

from itertools import count
from typing import Any

from guactors import messages as m
from guactors.gatekeeper_state import GatekeeperState
from guactors.hub_core import HubCore
from guactors.ids import LinkKey
from guactors.scheduling import events as e
from guactors.security.grants import Quotas, build_grant, sign_grant
from guactors.security.keys import Kind, SecretKey
from guactors.security.marks import marker
from guactors.security.statements import HELLO_TYPE, make_statement
from guactors.store.memory import MemoryStore
from guactors.transport.base import Lane
from guactors.transport.frames import Decoder, encode
from tests.unit.hub.bench import SETTLED, TIMING, VERSIONS, Bench, numbered
from tests.unit.security.samples import secret

HUB, OWNER = secret(Kind.HUB), secret(Kind.OWNER)
APP, OTHER = secret(Kind.APP), secret(Kind.APP, 2)
PROVIDER = secret(Kind.PROVIDER)
EPOCH = 1_800_000_000.0
MARK = marker("secret of the hub")
WIDE: dict[str, Any] = {
    "providers": ["*"],
    "runtimes": ["*"],
    "image_hashes": ["*"],
    "function_signers": ["*"],
    "max_priority": 10,
    "preemption": ["*"],
    "quotas": Quotas("*", "*", "*", "*", "*"),
    "actions": ["submit", "read_stats"],
}
_TO_HUB: Decoder[m.Message] = Decoder(m.ToHub)


def transport_of(key: SecretKey) -> str:
    """A z85 text that stands for the CURVE key of this principal."""
    return key.public.text[-40:]


class KeyedBench(Bench):
    """``user_of`` says which CURVE key a link comes from; links that are not in it are local."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.user_of: dict[str, str] = {}
        self.shut_out: list[str] = []
        self._random = count(1)
        self._serials = count(1)
        self._requests = count(1)
        self.restart()

    def restart(self) -> None:
        """A new hub process with the old store; everybody has to come again."""
        self.store.apply(getattr(self.core, "ops", []))
        gatekeeper = GatekeeperState(
            HUB.public,
            [OWNER.public],
            self.store.load(),
            random=lambda size: next(self._random).to_bytes(size, "big"),
            wall=self.wall,
        )
        self.core = HubCore(
            "h-1", TIMING, numbered(), versions=VERSIONS, now=self.now,
            gatekeeper=gatekeeper, key=HUB.public.text, wall=self.wall, mark=MARK,
        )  # fmt: skip
        self.link_of.clear()
        self.trays.clear()
        self.carry(self.core.on_tick(self.now))
        self.now += SETTLED

    def wall(self, now: float) -> float:
        return EPOCH - 1000.0 + now

    def feed(self, link: str, message: m.Message, lane: Lane | None = None) -> None:
        decoded, _ = _TO_HUB.decode([encode(message)])
        user = self.user_of.get(link, "")
        self.carry(self.core.on_message(LinkKey(link), decoded, self.now, lane, user))

    def carry(self, effects: list[Any]) -> None:
        self.shut_out += [key for x in effects if isinstance(x, e.ShutOut) for key in x.keys]
        super().carry([x for x in effects if not isinstance(x, e.ShutOut)])

    # --- peers ----------------------------------------------------------------------------------

    def knock(
        self, key: SecretKey, peer: str, session: str = "", **more: Any
    ) -> tuple[str, m.Hello]:
        """Dial and say Hello with a key; the link, and what was said."""
        link = f"k-{peer}-{next(self._random)}"
        role = "provider" if key.kind is Kind.PROVIDER else "caller"
        fields: dict[str, Any] = {"root": bool(session), "namespace": "space", "name": peer}
        hello = m.Hello(
            peer, role, VERSIONS, 1, "there", session, key=key.public.text,
            transport=transport_of(key), **{**fields, **more},
        )  # fmt: skip
        self.link_of[peer] = link
        self.user_of[link] = transport_of(key)
        self.feed(link, hello, Lane.CONTROL)
        self.feed(link, hello, Lane.DATA)
        return link, hello

    def prove(self, key: SecretKey, link: str, hello: m.Hello, **proof: Any) -> None:
        """Answer the challenge."""
        challenge = self.one(hello.peer, m.Challenge)
        statement = make_statement(
            hub=challenge.hub, key=key.public.text, link=link, nonce=challenge.nonce,
            peer=hello.peer, role=hello.role, session=hello.session, transport=hello.transport,
            at=self.wall(self.now),
        )  # fmt: skip
        signature = key.sign(HELLO_TYPE, statement)
        self.feed(link, m.Proof(statement, signature, **proof), Lane.CONTROL)

    def come(self, key: SecretKey, peer: str, session: str = "", **more: Any) -> str:
        """Knock, prove, and be welcome."""
        link, hello = self.knock(key, peer, session, **more)
        self.prove(key, link, hello)
        assert self.one(peer, m.Welcome).key == HUB.public.text, self.trays[peer]
        return link

    def owner(self) -> None:
        """The owner's tool, as peer ``c-owner``."""
        self.come(OWNER, "c-owner")

    def ask(self, message: m.Message, peer: str = "c-owner") -> m.Message:
        """The answer to a question of a peer."""
        request = next(self._requests)
        fields = {name: getattr(message, name) for name in message.__struct_fields__}
        self.say(peer, type(message)(**{**fields, "request": request}))
        [answer] = [x for x in self.trays[peer] if getattr(x, "request", None) == request]
        self.trays[peer].remove(answer)
        return answer

    def done(self, message: m.Message, peer: str = "c-owner") -> None:
        answer = self.ask(message, peer)
        assert isinstance(answer, m.Done), answer

    def approve(self, *keys: SecretKey) -> None:
        """Make known, and let in."""
        for key in keys:
            self.done(m.ApproveKey(0, key.public.text))

    def grant(self, app: SecretKey = APP, **fields: Any) -> int:
        """Wide, but for ``fields``; its serial."""
        serial = next(self._serials)
        grant = build_grant(
            hub=HUB.public.text, app=app.public.text, issuer=OWNER.public.text, serial=serial,
            now=EPOCH - 10, **{**WIDE, **fields},
        )  # fmt: skip
        self.done(m.PutGrant(0, sign_grant(grant, OWNER)))
        return serial

    def keyed_provider(
        self,
        peer: str = "p-1",
        key: SecretKey = PROVIDER,
        cpus: float = 2.0,
        labels: dict[str, str] | None = None,
    ) -> None:
        """A provider with a key, approved, and its offer."""
        self.come(key, peer)
        self.say(peer, m.Offer({"CPU": cpus}, labels or {}, [], [], m.MachineInfo()))
