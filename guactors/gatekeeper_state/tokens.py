"""Tokens of the HTTP server's clients, and the challenges they are got for.

Owns: which challenges are open and which tokens are good, and for whom. Must never: keep the text
of a token (its digest will do), redeem a challenge twice, or outlast the memory of the process: a
new hub asks everybody to prove himself again.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from guactors.gatekeeper_state.invitations import digest_of, secret_text
from guactors.security.keys import PublicKey

PREFIX: Final = "gu_token_"
LIFETIME: Final = 900.0
"""Seconds a token is good for."""
PATIENCE: Final = 60.0
"""Seconds a challenge is good for."""
MOST_TOKENS: Final = 10_000
MOST_OF_KEY: Final = 100
"""Tokens of one key: it pushes out its own before those of others."""
MOST_CHALLENGES: Final = 10_000


class _Token(Struct, frozen=True):
    key: str
    expires: float


class _Open(Struct, frozen=True):
    key: PublicKey
    expires: float


class TokenBook:
    """Times are monotonic seconds. All tables are in the order of their ends: everything in one
    lives equally long."""

    def __init__(self) -> None:
        self._tokens: dict[str, _Token] = {}
        self._of_key: dict[str, dict[str, None]] = {}
        self._challenges: dict[bytes, _Open] = {}

    def __repr__(self) -> str:
        return f"<TokenBook tokens={len(self._tokens)} challenges={len(self._challenges)}>"

    def challenge(self, key: PublicKey, nonce: bytes, now: float) -> None:
        """Who signs ``nonce`` with ``key`` in time gets a token."""
        while self._challenges:
            first = next(iter(self._challenges))
            if len(self._challenges) < MOST_CHALLENGES and now < self._challenges[first].expires:
                break
            del self._challenges[first]
        self._challenges[nonce] = _Open(key, now + PATIENCE)

    def redeem(self, nonce: bytes, now: float) -> PublicKey | None:
        """The key that must have signed; None if the challenge is unknown, old or redeemed."""
        found = self._challenges.pop(nonce, None)
        return found.key if found is not None and now < found.expires else None

    def issue(self, key: str, secret: bytes, now: float) -> str:
        """A new token's text. ``secret``: 32 random bytes."""
        while self._tokens and now >= next(iter(self._tokens.values())).expires:
            self._forget(next(iter(self._tokens)))
        own = self._of_key.get(key, {})
        if len(own) >= MOST_OF_KEY:
            self._forget(next(iter(own)))
        elif len(self._tokens) >= MOST_TOKENS:
            self._forget(next(iter(self._tokens)))
        text = secret_text(PREFIX, secret)
        digest = digest_of(text)
        self._tokens[digest] = _Token(key, now + LIFETIME)
        self._of_key.setdefault(key, {})[digest] = None
        return text

    def bearer(self, text: str, now: float) -> str | None:
        """Whose token it is; None if it is not good."""
        found = self._tokens.get(digest_of(text))
        return found.key if found is not None and now < found.expires else None

    def drop(self, text: str) -> None:
        """It is not to be used any more; no fault where there is none."""
        digest = digest_of(text)
        if digest in self._tokens:
            self._forget(digest)

    def drop_all(self, key: str) -> None:
        """The key is out, and all tokens of it."""
        for digest in list(self._of_key.get(key, ())):
            self._forget(digest)

    def holders(self) -> set[str]:
        """The keys that have a token."""
        return set(self._of_key)

    def _forget(self, digest: str) -> None:
        key = self._tokens.pop(digest).key
        own = self._of_key[key]
        del own[digest]
        if not own:
            del self._of_key[key]

    def check(self) -> None:
        """Every invariant holds."""
        assert len(self._tokens) <= MOST_TOKENS
        assert len(self._challenges) <= MOST_CHALLENGES
        assert sum(map(len, self._of_key.values())) == len(self._tokens)
        assert all(0 < len(own) <= MOST_OF_KEY for own in self._of_key.values())
        ends = [token.expires for token in self._tokens.values()]
        assert ends == sorted(ends)
