"""The hub's mark on what it gives away and wants to know again: a keyed digest.

Owns: how it is computed. Must never: be taken for a signature; only the hub itself can check it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

_PURPOSE: Final = b"guactors.mark/1"
_SIZE: Final = 32


def marker(secret: str) -> Callable[..., bytes]:
    """``mark(*parts)`` of texts and bytes, 32 bytes; the same after a restart with this secret."""
    key = hashlib.sha3_256(_PURPOSE + secret.encode()).digest()

    def mark(*parts: str | bytes) -> bytes:
        digest = hashlib.blake2b(key=key, digest_size=_SIZE)
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
        return digest.digest()

    return mark
