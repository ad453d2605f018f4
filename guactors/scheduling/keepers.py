"""For whom a provider is kept from others.

Owns: that question, as one round asks it. Must never: change who waits, or what is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from guactors.scheduling.heap import Turn
from guactors.scheduling.index import Kind
from guactors.scheduling.placement import Need, Slot, contends

if TYPE_CHECKING:
    from guactors.scheduling.lines import Line, Lines


class Keepers:
    """Who keeps providers from others: ``kept`` as in Round; ``is_nearest`` as in Index."""

    def __init__(
        self,
        lines: Lines,
        kept: list[tuple[Need, Slot]],
        now: float,
        is_nearest: Callable[[Kind, Slot], bool],
    ) -> None:
        self._lines = lines
        self._kept = kept
        self._now = now
        self._is_nearest = is_nearest
        self._near: dict[tuple[Slot, Kind], bool] = {}
        """Whether that provider is the one nearest to having room for that kind."""
        self._waiting: dict[Slot, Line] = {}
        """Whom a provider was found to be kept for: mostly that is whom from the next, too."""

    def forget(self) -> None:
        """Some provider has got less room."""
        self._near.clear()
        self._waiting.clear()

    def of(self, slot: Slot, need: Need, names: frozenset[str], turn: Turn) -> int | None:
        """The priority, the need's own at the least, for which the slot is kept from the need, that
        asks for the resources ``names`` and has this turn; None if it is not."""
        if any(s is slot and contends(n, need) for n, s in self._kept):
            return need.priority
        if self._lines.standing.keeps(slot.peer, need):
            return need.priority
        return self._waits(slot, need.priority, names, turn)

    def last(self, slot: Slot) -> Line | None:
        """For whom it was last found to be kept, of those who wait."""
        return self._waiting.get(slot)

    def _waits(self, slot: Slot, level: int, names: frozenset[str], turn: Turn) -> int | None:
        """That of somebody who waits with a higher priority, or of an equal whose turn comes first
        and who starves."""
        known, near = self._waiting.get(slot), self._near
        if known is not None and known.priority > level and not names.isdisjoint(known.kind.names):
            return known.priority
        for kind, line in self._lines.tops():
            top = line.priority
            if top < level or names.isdisjoint(kind.names):
                continue
            found = near.get((slot, kind))
            if found is False or (top == level and not line.starves(turn, self._now)):
                continue
            if found is None:
                found = near[slot, kind] = self._is_nearest(kind, slot)
            if found:
                self._waiting[slot] = line
                return top
        return None
