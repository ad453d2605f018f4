"""Which images go when the store is full.

Owns: the choice. Pure. Must never: choose an image in use, or any at all when that is not enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct


class Candidate(Struct, frozen=True):
    """An image: ``blobs`` are the names of its blobs; ``last_used`` in epoch seconds."""

    id: str
    last_used: float
    blobs: frozenset[str]
    pinned: bool = False


def victims(
    images: Sequence[Candidate], sizes: Mapping[str, int], excess: int
) -> list[Candidate] | None:
    """The images to remove so that at least ``excess`` bytes become free, longest unused first.

    ``sizes``: the bytes of each blob that is stored. A blob is free when no image has it any more.
    None when all that may go are not enough; never one whose removal is not needed."""
    if excess <= 0:
        return []
    users = Counter(name for image in images for name in image.blobs)
    free = 0
    chosen: list[Candidate] = []

    def take(image: Candidate) -> int:
        users.subtract(image.blobs)
        return sum(sizes.get(name, 0) for name in image.blobs if not users[name])

    def give_back(image: Candidate) -> int:
        back = sum(sizes.get(name, 0) for name in image.blobs if not users[name])
        users.update(image.blobs)
        return back

    for image in sorted(images, key=lambda image: (image.last_used, image.id)):
        if not image.pinned and free < excess:
            chosen.append(image)
            free += take(image)
    if free < excess:
        return None
    for image in chosen[-2::-1]:  # the last one was needed
        back = give_back(image)
        if free - back >= excess:
            chosen.remove(image)
            free -= back
        else:
            take(image)
    return chosen
