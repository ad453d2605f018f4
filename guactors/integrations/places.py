"""How many calls the grid can run at a time.

Owns: the number, and asking for it again. Must never: keep anybody waiting for a hub that does not
answer, but at the start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import guactors as gu
from guactors.errors import GuactorsError

LOOK_AGAIN: Final = 1.0
"""Seconds after which whoever could use more asks whether the grid has grown."""


def places_for(options: Mapping[str, Any], default_cpus: float = 1.0) -> int:
    """How many calls with these options the grid can run at a time; at least 1."""
    wants = {"CPU": float(options.get("num_cpus", default_cpus))}
    wants["GPU"] = float(options.get("num_gpus", 0))
    wants.update(options.get("resources", {}))
    wants = {name: amount for name, amount in wants.items() if amount > 0}
    if not wants:
        wants = {"CPU": 1.0}
    count = 0
    for node in gu.nodes():
        if node["Alive"]:
            has = node["Resources"]
            count += min(int(has.get(name, 0.0) / amount) for name, amount in wants.items())
    return max(1, count)


def grid_here() -> str | None:
    """Which grid this process is on; None if it has left. Whoever outlives a grid asks before a
    call, which would start another."""
    return gu.get_runtime_context().get_job_id() if gu.is_initialized() else None


class Places:
    """``count``: how many calls with these options can run at a time, as far as we know."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self.count = places_for(options)
        self._grid = grid_here()
        self._looked = time.monotonic()
        self._looking = False

    def look_again(self, then: Callable[[], None] | None = None) -> None:
        """Ask, if that was some time ago; ``then`` is called, on another thread, when ``count`` is
        new. Returns at once."""
        if self._looking or time.monotonic() - self._looked < LOOK_AGAIN:
            return
        self._looking = True
        threading.Thread(
            target=self._look, args=(then,), name="guactors-places", daemon=True
        ).start()

    def _look(self, then: Callable[[], None] | None) -> None:
        try:
            if grid_here() == self._grid:
                self.count = places_for(self._options)
        except GuactorsError:
            return  # the hub is away, or the grid was left; what runs goes on with what there was
        finally:
            self._looked = time.monotonic()
            self._looking = False
        if then is not None:
            then()
