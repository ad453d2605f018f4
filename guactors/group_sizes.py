"""How big a placement group may be, and how many of them go into one message.

Owns: those limits, which keep every message about groups well below what its lane carries. Pure;
must never: know what a group is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from guactors.messages import GroupSpec, GroupUpdate

T = TypeVar("T")
MOST_BUNDLES = 1000
LARGEST = 128 << 10
"""Bytes of one group as it is written."""
MOST_AT_ONCE = 500
FULL = 512 << 10
"""Bytes in one message."""

_encoder = msgspec.msgpack.Encoder()


def size_of(spec: GroupSpec) -> int:
    """Bytes of it in a message."""
    return len(_encoder.encode(spec))


def size_of_update(update: GroupUpdate) -> int:
    """As much as it may take: four bytes a letter, and ids of full length."""
    return 256 + 66 * len(update.providers) + 4 * len(update.reason)


def parts(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in order, as many together as one message takes."""
    part: list[T] = []
    room = FULL
    for item in items:
        needs = size(item)
        if part and (needs > room or len(part) >= MOST_AT_ONCE):
            yield part
            part, room = [], FULL
        part.append(item)
        room -= needs
    if part:
        yield part
