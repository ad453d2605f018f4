"""When enough of many values are ready: asked again and again while they come.

Owns: how far all are ready, so that each look goes on where the last one ended. Must never: wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Enough:
    """Whether ``count`` of ``ids`` are ready; what was ``ready`` once stays so."""

    def __init__(self, ids: Sequence[int], count: int, ready: Callable[[int], bool]) -> None:
        self._ids = ids
        self._count = count
        self._ready = ready
        self._all_to = 0
        """So many from the front are all ready."""

    def __call__(self) -> bool:
        ids, ready, most = self._ids, self._ready, len(self._ids)
        at = self._all_to
        while at < most and ready(ids[at]):
            at += 1
        self._all_to = at
        found, missing = at, 0
        while found < self._count and missing <= most - self._count:
            if at == most:
                return False
            if ready(ids[at]):
                found += 1
            else:
                missing += 1
            at += 1
        return found >= self._count
