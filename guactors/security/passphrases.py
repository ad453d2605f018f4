"""Locks: bytes that only who knows a passphrase can read.

Owns: how a passphrase becomes a key (argon2id), and the box that holds the bytes (XSalsa20 and
Poly1305). Must never: ask for a passphrase, keep one, or show one.
"""

from __future__ import annotations

import base64
import binascii
import os
import unicodedata
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from guactors.errors import UsageError

OPERATIONS: Final = 3
MEMORY: Final = 256 * 2**20
"""What one guess costs: libsodium's moderate choice, near a second of one core and 256 MiB."""

_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 24


class Lock(Struct, frozen=True, forbid_unknown_fields=True):
    """The cost of a guess (``memory`` in bytes), and base64 of salt, nonce and box.

    The limits keep a forged file from taking all of a machine."""

    kdf: Literal["argon2id"]
    operations: Annotated[int, Meta(ge=1, le=16)]
    memory: Annotated[int, Meta(ge=8192, le=2**30)]
    salt: str
    nonce: str
    box: str


def lock(data: bytes, passphrase: str) -> Lock:
    """``data`` behind a passphrase. Raises UsageError for an empty one."""
    from nacl import bindings

    if not passphrase:
        raise UsageError("an empty passphrase locks nothing: give one, or none at all")
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    key = _stretch(passphrase, salt, OPERATIONS, MEMORY)
    box = bindings.crypto_secretbox(data, nonce, key)
    return Lock("argon2id", OPERATIONS, MEMORY, *map(_to_base64, (salt, nonce, box)))


def unlock(locked: Lock, passphrase: str) -> bytes | None:
    """What is behind a lock; None for another passphrase, or when the lock was changed: nobody can
    tell these apart."""
    from nacl import bindings, exceptions

    try:
        salt, nonce, box = map(_from_base64, (locked.salt, locked.nonce, locked.box))
        key = _stretch(passphrase, salt, locked.operations, locked.memory)
        return bindings.crypto_secretbox_open(box, nonce, key)
    except (binascii.Error, ValueError, exceptions.CryptoError):
        return None


def _stretch(passphrase: str, salt: bytes, operations: int, memory: int) -> bytes:
    """The key that a passphrase makes, 32 bytes."""
    from nacl import bindings, exceptions

    # The keyboards of two systems write one letter in two ways.
    text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    try:
        return bindings.crypto_pwhash_alg(
            _KEY_BYTES, text, salt, operations, memory, bindings.crypto_pwhash_ALG_ARGON2ID13
        )
    except exceptions.RuntimeError:
        raise UsageError(
            f"a passphrase needs {memory // 2**20} MiB of memory for a moment, and there is less"
        ) from None


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
