"""How a value lies in a block of shared memory: a header, then its parts, each as arrays want it.

Owns: these sizes. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

HEADER: Final = 64
"""Bytes before the first part."""
ALIGNMENT: Final = 64


def aligned(size: int) -> int:
    """``size`` so that what follows is as arrays want to begin."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def body_size(sizes: Sequence[int]) -> int:
    """Bytes that parts of these sizes take after the header."""
    return sum(aligned(size) for size in sizes)


def block_size(sizes: Sequence[int]) -> int:
    """Bytes that parts of these sizes take in an arena."""
    return HEADER + body_size(sizes)
