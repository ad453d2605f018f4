"""The tokens that went out by this door, and whose they are.

Owns: this list. Must never: keep the text of a token, or take its being here for a right: the hub
is asked each time. What is not here never reaches the hub, so that guessing costs it nothing. A new
process knows none: everybody gets a new token, as after the quarter of an hour that one lives.
"""

from __future__ import annotations

import hashlib
from typing import Final

from msgspec import Struct

MOST: Final = 10_000


class Bearer(Struct, frozen=True):
    """Who shows a token: the token, and the text of the key that it was given to."""

    token: str
    key: str

    def __repr__(self) -> str:
        return f"Bearer(key={self.key!r})"


class Bearers:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self._keys: dict[bytes, tuple[str, float]] = {}

    def __repr__(self) -> str:
        return f"<Bearers {len(self._keys)}>"

    def gave(self, token: str, key: str, until: float) -> None:
        """A token was given to the holder of a key."""
        while len(self._keys) >= MOST:
            del self._keys[next(iter(self._keys))]
        self._keys[_digest(token)] = key, until

    def find(self, token: str, now: float) -> Bearer | None:
        """Who shows this token; None if it is none of ours, or old."""
        digest = _digest(token)
        key, until = self._keys.get(digest, ("", 0.0))
        if now < until:
            return Bearer(token, key)
        self._keys.pop(digest, None)
        return None

    def drop(self, token: str) -> None:
        """It is good no more."""
        self._keys.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return hashlib.sha3_256(token.encode()).digest()
