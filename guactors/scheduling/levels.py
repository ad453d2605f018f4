"""On which providers there is something of a priority, and where that is news for whom.

Owns: the count of it by provider, the log of providers where there is more of it, and what each
kind of need has seen of that log. Must never: know what is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from guactors.scheduling.placement import Slot
from guactors.scheduling.ranking import Log

if TYPE_CHECKING:
    from guactors.scheduling.index import Kind


class Seen:
    """What one kind knows of a level: up to which line it has read the log, of which of its lists
    of candidates, and the providers that could do then."""

    __slots__ = ("epoch", "line", "slots")

    def __init__(self) -> None:
        self.line = self.epoch = -1
        self.slots: dict[Slot, None] = {}


class Level:
    """One priority; made anew when there was nothing of it."""

    __slots__ = ("_log", "slots")

    def __init__(self) -> None:
        self.slots: dict[Slot, int] = {}
        """With how many of it are there."""
        self._log = Log()

    def put(self, slot: Slot) -> None:
        """One more."""
        self.slots[slot] = self.slots.get(slot, 0) + 1
        self.eased(slot)

    def drop(self, slot: Slot) -> None:
        """One less."""
        self.slots[slot] -= 1
        if not self.slots[slot]:
            del self.slots[slot]

    def eased(self, slot: Slot) -> None:
        """It may do for somebody for whom it could not."""
        self._log.put(slot, 2 * len(self.slots) + 1024)

    def seen(self, kind: Kind, could: Callable[[Slot], bool]) -> dict[Slot, None]:
        """Candidates of the kind, which is up to date, where there is something of this level and
        that ``could`` do; and some that could, but do no longer."""
        seen = kind.seen_of.get(self)
        if seen is None:
            for other in [level for level in kind.seen_of if not level.slots]:
                del kind.seen_of[other]
            seen = kind.seen_of[self] = Seen()
        if seen.line == self._log.end and seen.epoch == kind.epoch:
            return seen.slots
        there = kind.candidates()
        fresh: Iterable[Slot] | None = None
        if seen.epoch == kind.epoch and self._log.end - seen.line < len(self.slots):
            fresh = self._log.since(seen.line)
        if fresh is None:
            seen.slots.clear()
            fresh = there if len(there) < len(self.slots) else self.slots
        seen.line, seen.epoch = self._log.end, kind.epoch
        for slot in fresh:
            if slot in self.slots and slot in there and could(slot):
                seen.slots[slot] = None
        return seen.slots

    def some(self, kind: Kind, could: Callable[[Slot], bool], most: int) -> list[Slot]:
        """Of :meth:`seen` those that still could; where there are more than ``most``, others each
        time."""
        slots, there, found = self.seen(kind, could), kind.candidates(), list[Slot]()
        for slot in list(slots):
            if len(found) == most:
                break
            del slots[slot]
            if slot in self.slots and slot in there and could(slot):
                found.append(slot)
        slots.update(dict.fromkeys(found))
        return found
