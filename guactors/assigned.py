"""What the provider has assigned to this process: devices, and the placement group it works in.

Owns: that record, and what follows from it for tasks and actors that are made here. Must never:
choose anything (the provider does).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from guactors.accelerators import environment
from guactors.messages import Bind, Placing, Shape


class Assigned(Struct, frozen=True):
    """``devices``: ids of what it may use of each kind that is counted one by one. ``group``: its
    placement group, empty outside; ``capture``: what is made here goes in there as well."""

    devices: Mapping[str, Sequence[str]] = {}
    group: str = ""
    capture: bool = False


_assigned = Assigned()


def assigned() -> Assigned:
    """To this process; nothing in a driver."""
    return _assigned


def take_assignment(message: Bind) -> None:
    """Called once, when the worker is bound and before any code of its session is loaded."""
    global _assigned
    _assigned = Assigned(message.devices, message.group, message.capture)
    os.environ.update(environment(message.devices))


def placed(shape: Shape, options: Mapping[str, object]) -> Shape:
    """The shape of what is made here: in the placement group of who makes it, where that captures
    it and the ``options`` do not say otherwise."""
    mine = _assigned
    if not (mine.group and mine.capture) or options.get("scheduling_strategy") is not None:
        return shape
    before = shape.place or Placing()
    return replace(shape, place=replace(before, group=mine.group, capture=True))
