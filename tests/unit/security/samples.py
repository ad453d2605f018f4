"""Keys for tests: always the same ones, told apart by a small number."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

from guactors.security.keys import Kind, PublicKey, SecretKey, new_secret


def seed(kind: Kind, number: int = 1) -> bytes:
    """32 bytes that are easy to find in a text and differ for each kind and number below 256."""
    return (f"seed-{kind.value}-".encode() + bytes([number])).ljust(32, b".")


@functools.cache
def secret(kind: Kind, number: int = 1) -> SecretKey:
    """The same secret key each time."""
    return new_secret(kind, seed(kind, number))


def public(kind: Kind, number: int = 1) -> PublicKey:
    """Its public key."""
    return secret(kind, number).public


def keypairs() -> Callable[[], tuple[str, str]]:
    """A maker of transport key pairs: z85 texts that no library would call a pair, but all
    different."""
    numbers = itertools.count(1)

    def new_keypair() -> tuple[str, str]:
        number = next(numbers)
        return f"{number:0>40}", f"{'secret' + str(number):x>40}"

    return new_keypair
