"""A provider of another machine: it has a key and a policy, and sessions of apps show warrants.
The keys and grants are those of ``tests/unit/security``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from guactors.config import Identity, Seal
from guactors.messages import Challenge, Revoked, Warrant, WarrantWord, Welcome
from guactors.security.grants import Grant, sign_grant
from guactors.security.keys import Kind, SecretKey
from guactors.security.policy import Policy, default_policy
from guactors.security.statements import HELLO_TYPE, make_statement
from tests.unit.provider.bench import EPOCH, VERSIONS, Bench
from tests.unit.security.grant_samples import HUB, NOW, OWNER, wide
from tests.unit.security.samples import public, secret

APP_KEY = secret(Kind.APP)
OWN = secret(Kind.PROVIDER)
NONCE = b"n" * 32
POLICY = default_policy([OWNER.public.text])

assert NOW == EPOCH


def policy_bytes(policy: Policy = POLICY, **changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(policy, **changes))


def warrant(
    *grants: Grant,
    session: str = "s-1",
    key: SecretKey = APP_KEY,
    issuer: SecretKey = OWNER,
    successions: Sequence[bytes] = (),
    **changes: Any,
) -> Warrant:
    """What the hub shows of a session of ``key``; ``changes``: of the statement's fields."""
    fields: dict[str, Any] = {
        "hub": HUB.text,
        "key": key.public.text,
        "link": "link-9",
        "nonce": NONCE,
        "peer": "c-1",
        "role": "caller",
        "session": session,
        "transport": "caller-key",
        "at": NOW,
    }
    statement = make_statement(**{**fields, **changes})
    return Warrant(
        WarrantWord(
            session,
            key.public.text,
            statement,
            key.sign(HELLO_TYPE, statement),
            [sign_grant(one, issuer) for one in grants],
            list(successions),
        )
    )


def revoked(
    *keys: str,
    epoch: int = 1,
    grants: Sequence[Grant] = (),
    transports: Sequence[str] = (),
    running: str = "stop",
) -> Revoked:
    places = [f"{grant.issuer} {grant.serial}" for grant in grants]
    return Revoked(epoch, list(keys), list(transports), places, running)


class Guarded(Bench):
    """A bench whose provider has a policy and a key; the hub has welcomed it."""

    def __init__(self, *, policy: bytes = b"", up: bool = True, **options: Any) -> None:
        given = {
            "seal": Seal(OWN.public.text, OWN.text),
            "hub_key": HUB.text,
            "policy": policy or policy_bytes(),
            "listen_host": "10.0.0.2",
            "identity": Identity("provider-key", "provider-secret"),
            **options,
        }
        super().__init__(up=False, **given)
        if up:
            self.hub_up()
            self.to_hub.clear()

    def hub_up(self) -> None:
        """The hub challenges, is shown the proof, and welcomes."""
        self.link_up()
        self.hub(Challenge(NONCE, HUB.text))
        self.hub(Welcome("h-1", VERSIONS, HUB.text))

    def warrant(self, session: str = "s-1") -> None:
        """Nothing: tests show the warrants themselves."""

    def show(self, *grants: Grant, **options: Any) -> None:
        """The hub shows the warrant of a session with these grants, or with a wide one."""
        self.hub(warrant(*(grants or (wide(),)), **options))


__all__ = ["APP_KEY", "HUB", "NONCE", "OWN", "OWNER", "POLICY", "Guarded", "policy_bytes", "public",
           "revoked", "secret", "warrant", "wide"]  # fmt: skip
