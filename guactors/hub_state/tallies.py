"""How the calls of workers that have left had ended.

Owns: the counts, by session and name, while the session lasts. Must never: keep a call, or more
names of a session than :data:`MOST_NAMES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from guactors.messages import TallyRow

MOST_NAMES: Final = 10_000
"""Of one session; calls of further ones are counted together."""
OTHERS: Final = "(others)"


class Tallies:
    """By session: names with how many finished, failed, were cancelled."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, list[int]]] = {}

    def add(self, session: str, rows: Iterable[TallyRow]) -> None:
        """What a worker of the session said when it left."""
        counts = self._counts.setdefault(session, {})
        for row in rows:
            name = row.name if row.name in counts or len(counts) < MOST_NAMES else OTHERS
            known = counts.setdefault(name, [0, 0, 0])
            for at, more in enumerate((row.finished, row.failed, row.cancelled)):
                known[at] += more

    def forget(self, session: str) -> None:
        """It is over."""
        self._counts.pop(session, None)

    def of(self, sessions: Sequence[str]) -> dict[str, list[int]]:
        """The sum over these sessions, by name."""
        found: dict[str, list[int]] = {}
        for session in sessions:
            for name, counts in self._counts.get(session, {}).items():
                known = found.setdefault(name, [0, 0, 0])
                for at, more in enumerate(counts):
                    known[at] += more
        return found
