"""Alternatives: what something takes where there is no room for what it would rather have.

Owns: their order in a Shape. Pure; must never: choose one (the hub does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from guactors.messages import Shape

MOST_ALTERNATIVES: Final = 8


def variants(shape: Shape) -> list[Mapping[str, float]]:
    """All amounts that would do, the best first."""
    others = shape.alternatives
    return [*others[: shape.taken], shape.resources, *others[shape.taken :]]


def taking(shape: Shape, number: int) -> Shape:
    """The shape with the variant of that number as its resources."""
    if not shape.alternatives or number == shape.taken:
        return shape
    found = [dict(amounts) for amounts in variants(shape)]
    return replace(shape, resources=found.pop(number), alternatives=found, taken=number)


def is_taking(shape: Shape) -> int:
    """The number of the variant that its resources are."""
    return min(shape.taken, len(shape.alternatives))
