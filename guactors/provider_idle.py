"""The provider's shell for what says whether the machine is used.

Owns: the sources, and the thread in which they are read. Must never: decide what follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from guactors.config import Lending
from guactors.idle import open_sources
from guactors.idle.base import Reading
from guactors.runtimes.brief import Brief


class ReadingsAre(Struct, frozen=True):
    """What came of a ReadIdle, by source."""

    readings: dict[str, Reading]


class IdleWatch:
    """``told`` gets a ReadingsAre for each effect, but for one that comes while the sources are
    being read. Raises UsageError for a source that there is not."""

    def __init__(self, lending: Lending, told: Callable[[object], None]) -> None:
        self._brief = Brief()
        self._sources = open_sources(lending, self._brief.run)
        self._told = told
        self._task: asyncio.Task[None] | None = None

    def carry_out(self) -> None:
        """Begin to read; the answer comes later."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        readings = await asyncio.to_thread(
            lambda: {name: source.read() for name, source in self._sources.items()}
        )
        self._told(ReadingsAre(readings))

    def close(self) -> None:
        """Nobody is told any more."""
        self._brief.close()
        if self._task is not None:
            self._task.cancel()
