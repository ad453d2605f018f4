"""Whether the owner of a machine uses it. :func:`open_sources` is the door.

Owns: the names of the sources. Must never: decide what follows from what one found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from guactors.config import Lending
from guactors.errors import UsageError
from guactors.idle.base import IdleSource, Run
from guactors.idle.command import OwnCommand
from guactors.idle.input import Input
from guactors.idle.load import Load
from guactors.idle.power import Power

SOURCES: Final[dict[str, Callable[[Lending, Run], IdleSource]]] = {
    "input": lambda _, run: Input(run),
    "load": lambda _, run: Load(),
    "power": lambda _, run: Power(),
    "command": lambda lending, run: OwnCommand(lending.command, run),
}
"""By name."""


def open_sources(lending: Lending, run: Run) -> dict[str, IdleSource]:
    """Those that the owner wants asked. ``run``: how programs are run. Raises UsageError for a name
    that there is not."""
    for name in lending.sources:
        if name not in SOURCES:
            known = ", ".join(SOURCES)
            raise UsageError(f"idle_source: there is no source {name!r}, there are {known}")
    return {name: SOURCES[name](lending, run) for name in lending.sources}
