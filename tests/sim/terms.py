"""What sessions say of themselves when they begin, and how what waits ages.

Owns: these draws, from a source of their own, so that the rest of a seed stays what it was. Must
never: draw while the world runs.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple


class Terms(NamedTuple):
    """As in ``messages.Hello``."""

    share: float
    quota: dict[str, float]


def aging(seed: int) -> float:
    """Of the grid, seconds as in ``Timing``: some steps pass while work waits."""
    return Random(f"aging of {seed}").choice((0.0, 0.0, 0.02, 0.1, 0.5))


def draw(seed: int, number: int) -> Terms:
    """Of the session of this number. None asks for more than anybody may."""
    rng = Random(f"session {number} of {seed}")
    # Actors and groups may be held until the end: bounded, what waits for them would wait as long.
    quota = rng.choice(({}, {}, {}, {"tasks": 1.0}, {"tasks": 2.0}, {"tasks": 3.0}))
    return Terms(rng.choice((1.0, 1.0, 0.5, 0.1)), quota)
