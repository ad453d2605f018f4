"""How a provider shows that it is who it says.

Owns: the answer to a hub's Challenge. Must never: let the secret out, or sign anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from guactors.config import ProviderConfig
from guactors.errors import UsageError
from guactors.messages import Challenge, Hello, Proof
from guactors.security.keys import Kind, parse_secret
from guactors.security.statements import HELLO_TYPE, make_statement

if TYPE_CHECKING:
    from guactors.security.keys import SecretKey


class Prover:
    """``wall`` turns monotonic seconds into epoch seconds. Raises UsageError for a secret that is
    none, or is not that of the key that is claimed."""

    def __init__(
        self, config: ProviderConfig, hello: Hello, wall: Callable[[float], float]
    ) -> None:
        self._config = config
        self._hello = hello
        self._wall = wall
        self._secret: SecretKey | None = None
        if not config.seal.key:
            return
        self._secret = parse_secret(config.seal.secret, Kind.PROVIDER)
        if not self._secret.public.text == config.seal.key == hello.key:
            raise UsageError(
                f"provider {config.name} claims the key {hello.key or config.seal.key}, but has "
                f"the secret of {self._secret.public.text}: use the key file of that name"
            )

    def prove(self, challenge: Challenge, link: str, now: float) -> Proof:
        """The answer to a challenge that came on ``link``."""
        if self._secret is None:
            raise UsageError(f"provider {self._config.name} has no key to prove")
        hello = self._hello
        statement = make_statement(
            hub=challenge.hub,
            key=hello.key,
            link=link,
            nonce=challenge.nonce,
            peer=hello.peer,
            role=hello.role,
            session=hello.session,
            transport=hello.transport,
            at=self._wall(now),
        )
        signature = self._secret.sign(HELLO_TYPE, statement)
        seal = self._config.seal
        return Proof(statement, signature, self._config.invitation, list(seal.successions))
