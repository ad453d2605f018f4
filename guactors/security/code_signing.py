"""The signatures that leave with the code this process sends.

Owns: signing each blob once in a session, and keeping the signatures that came with code from
elsewhere. Must never: judge a signature (``code`` does).

A process without signer keys, such as a worker whose function calls others, cannot sign. It passes
on what it received: a blob that is byte for byte the one it got leaves with the signatures it came
with. That holds for functions of installed modules, which are pickled by name. A function that was
pickled by value is pickled anew where it is called from, mostly into other bytes, and so leaves
unsigned: where signatures are asked for, nested calls of such functions are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from guactors.security.code import Purpose
    from guactors.security.keys import SecretKey

MOST_RECEIVED: Final = 10_000

_signed: WeakKeyDictionary[Any, dict[bytes, bytes]] = WeakKeyDictionary()
_received: dict[bytes, bytes] = {}


def signatures_for(
    session: object, secrets: Sequence[SecretKey], purpose: str, blob: bytes
) -> bytes:
    """What goes along with ``blob``, made at its first use in the session; empty without
    ``secrets``, unless the blob came signed. ``purpose``: "function" or "class"."""
    if not blob:
        return b""
    if not secrets:
        return _received.get(_key(purpose, blob), b"") if _received else b""
    made = _signed.setdefault(session, {})
    key = _key(purpose, blob)
    signatures = made.get(key)
    if signatures is None:
        # A grid of one machine signs nothing and does not load what signs.
        from guactors.security.code import Purpose, sign_code

        signatures = made[key] = sign_code(secrets, Purpose(purpose), blob)
    return signatures


def remember(purpose: Purpose, blob: bytes, signatures: bytes) -> None:
    """These came with the blob and were good."""
    if len(_received) >= MOST_RECEIVED:
        del _received[next(iter(_received))]
    _received[_key(purpose.value, blob)] = signatures


def _key(purpose: str, blob: bytes) -> bytes:
    return hashlib.blake2b(blob, digest_size=32, person=purpose.encode()).digest()
