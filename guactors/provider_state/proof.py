"""How a provider shows that it is who it says.

Owns: the answer to a hub's Challenge. Must never: let the secret out, or sign anything else.
"""

from __future__ import annotations

from collections.abc import Callable

from guactors.config import ProviderConfig
from guactors.errors import UsageError
from guactors.messages import Challenge, Hello, Proof
from guactors.security.introduction import prove
from guactors.security.keys import Kind, parse_secret


class Prover:
    """``wall`` turns monotonic seconds into epoch seconds. Raises UsageError for a secret that is
    none, or is not that of the key that is claimed."""

    def __init__(
        self, config: ProviderConfig, hello: Hello, wall: Callable[[float], float]
    ) -> None:
        self._config = config
        self._hello = hello
        self._wall = wall
        if not config.seal.key:
            return
        public = parse_secret(config.seal.secret, Kind.PROVIDER).public.text
        if not public == config.seal.key == hello.key:
            raise UsageError(
                f"provider {config.name} claims the key {hello.key or config.seal.key}, but has "
                f"the secret of {public}: use the key file of that name"
            )

    def prove(self, challenge: Challenge, link: str, now: float) -> Proof:
        """The answer to a challenge that came on ``link``. Raises AuthFailed when it is another
        hub's."""
        config = self._config
        if not config.seal.key:
            raise UsageError(f"provider {config.name} has no key to prove")
        return prove(
            challenge,
            self._hello,
            link,
            config.seal,
            hub_key=config.hub_key,
            invitation=config.invitation,
            now=self._wall(now),
        )
