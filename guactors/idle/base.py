"""The port to whatever knows whether a machine is used by its owner.

Owns: the types. Must never: do anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct


class Reading(Struct, frozen=True):
    """What a source found. It says one of three things: ``quiet``, seconds since somebody used the
    machine; ``load``, how many processors' worth others than the grid use; or ``busy``, its own
    verdict. ``text``: what is being used, for people. ``fault``: why it could not tell; then the
    machine counts as used."""

    quiet: float | None = None
    load: float | None = None
    busy: bool | None = None
    text: str = ""
    fault: str = ""


class Ran(NamedTuple):
    """How a program ended: its exit status and what it printed."""

    status: int
    output: str


Run = Callable[[Sequence[str]], Ran]
"""Runs a program to its end, within a bounded time; raises OSError where that is not possible,
TimeoutError where it took too long."""


class IdleSource(Protocol):
    """Asked now and then, from one thread."""

    def read(self) -> Reading:
        """How things stand; blocks for a bounded time, and raises nothing."""
