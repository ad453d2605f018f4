"""A grid of keys: callers and providers prove who they are, and what callers may stands in grants,
one of which is revoked while they work, and given again.

Owns: who has which key, what the hub does not forget, the orders of the grid's owner. Must never:
judge rights; the real gatekeeper and the real providers do.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from guactors.config import Identity, Seal
from guactors.gatekeeper_state import GatekeeperState
from guactors.hub_core import HubCore
from guactors.messages import Challenge, Done, Hello, Message, Proof, PutGrant, RevokeGrant
from guactors.security.grants import build_grant, sign_grant
from guactors.security.introduction import prove
from guactors.security.keys import Kind, SecretKey
from guactors.security.marks import marker
from guactors.security.policy import default_policy, policy_text
from guactors.store.base import GrantRecord, KeyRecord, PutKey
from guactors.store.base import PutGrant as StoreGrant
from guactors.store.memory import MemoryStore
from tests.sim.ledger import Violation
from tests.unit.hub.keyed_bench import HUB, OWNER, WIDE, transport_of
from tests.unit.security.samples import keypairs, secret

if TYPE_CHECKING:
    from tests.sim.world import World

APPS = (secret(Kind.APP, 1), secret(Kind.APP, 2))
PROVIDERS = {f"host{number}": secret(Kind.PROVIDER, number + 1) for number in range(4)}
VICTIM = APPS[0]
"""Of every world's first caller; others have the other key, and must not notice."""
FIRST, SECOND = 1, 3
"""Serials of its grant, and of the one that follows."""
AT_ONCE = 1.0
"""Seconds after which nothing begins any more by a grant that was revoked."""
AGAIN = 0.1
_MARK = marker("secret of the hub")
_POLICY = policy_text(default_policy([OWNER.public.text]))


class Keys:
    """Of one ``world``."""

    def __init__(self, world: World) -> None:
        self.new_keypair = keypairs()
        self._world = world
        self._store = MemoryStore()
        self._running = "stop"
        self._revoked: float | None = None
        self._regranted: float | None = None
        self._app_of: dict[str, SecretKey] = {}
        known = [*APPS, *PROVIDERS.values()]
        self._store.apply([
            *(
                PutKey(KeyRecord(key.public.text, key.kind.value, "", "approved", transport_of(key),
                                 0.0, by=OWNER.public.text))
                for key in known
            ),
            *(
                StoreGrant(GrantRecord(app.public.text, OWNER.public.text, serial,
                                       self._grant(app, serial), "valid", 0.0))
                for serial, app in enumerate(APPS, FIRST)
            ),
        ])  # fmt: skip

    def _grant(self, app: SecretKey, serial: int) -> bytes:
        now = self._world.wall(self._world.clock.now) - 10
        grant = build_grant(
            hub=HUB.public.text, app=app.public.text, issuer=OWNER.public.text, serial=serial,
            now=int(now), **WIDE,
        )  # fmt: skip
        return sign_grant(grant, OWNER)

    # --- who is who -------------------------------------------------------------------------------

    def hub(self) -> dict[str, Any]:
        """What a hub with the store of the one before it is made with."""
        wall = self._world.wall
        gatekeeper = GatekeeperState(
            HUB.public, [OWNER.public], self._store.load(),
            random=self._world.rng.randbytes, wall=wall,
        )  # fmt: skip
        return {"gatekeeper": gatekeeper, "key": HUB.public.text, "mark": _MARK}

    def keep(self, core: HubCore) -> None:
        """What must not be forgotten is on the disk before anybody hears of it."""
        self._store.apply(core.ops)
        core.ops.clear()
        core.decisions.clear()

    def provider(self, name: str) -> dict[str, Any]:
        """What the configuration of this one has besides."""
        key = PROVIDERS[name]
        return {
            "seal": Seal(key.public.text, key.text),
            "identity": Identity(transport_of(key), "secret"),
            "hub_key": HUB.public.text,
            "policy": _POLICY,
            "listen_host": name,
        }

    def caller(self, session: str, number: int) -> SecretKey:
        """The key of the root caller of a session."""
        return self._app_of.setdefault(session, APPS[number % len(APPS)])

    def prove(self, key: SecretKey, hello: Hello, challenge: Challenge, link: str) -> Proof:
        """The answer of the holder of a key."""
        now = self._world.wall(self._world.clock.now)
        seal = Seal(key.public.text, key.text)
        return prove(challenge, hello, link, seal, hub_key=HUB.public.text, now=now)

    # --- the owner --------------------------------------------------------------------------------

    def plan(self, rng: Random, span: float) -> float:
        """Draw what the owner will do, and when; the time at which all is done."""
        self._running = rng.choice(("stop", "stop", "finish"))
        at = 0.2 + 0.5 * rng.random() * span
        self._world.later(at, self._revoke)
        if rng.random() < 0.2:
            return at
        again = at + rng.choice((0.01, 0.3, 3.0, 3.0))
        self._world.later(again, self._grant_again)
        return again

    def _revoke(self) -> None:
        issuer = OWNER.public.text
        if self._done(RevokeGrant(1, issuer, FIRST, self._running), self._revoke):
            self._revoked = self._world.clock.now

    def _grant_again(self) -> None:
        if self._done(PutGrant(1, self._grant(VICTIM, SECOND)), self._grant_again):
            self._regranted = self._world.clock.now

    def _done(self, order: Message, again: Callable[[], None]) -> bool:
        """Whether there is a hub that did it; otherwise ``again`` is called later."""
        world = self._world
        if world.hub is None:
            world.later(AGAIN, again)
            return False
        world.note(f"the owner says {type(order).__name__}")
        answers = world.hub.order(order)
        if not any(isinstance(answer, Done) for answer in answers):
            raise Violation(f"the owner was refused: {answers}")
        return True

    # --- judgement --------------------------------------------------------------------------------

    def may_fail(self, session: str) -> bool:
        """Whether calls of a session may fail because its grant was revoked."""
        return self._revoked is not None and self._app_of[session] is VICTIM

    def check_start(self, session: str) -> None:
        """Nothing begins without a grant. Where nothing goes wrong, everybody knows in time."""
        now = self._world.clock.now
        if self._revoked is None or self._regranted is not None or self._running != "stop":
            return
        late = now - self._revoked
        if self._world.peaceful and late > AT_ONCE and self._app_of[session] is VICTIM:
            raise Violation(f"a call of {session} begins {late:.1f} s after its grant was revoked")
