"""That a provider serves, told once; or that it never will.

Owns: when that is. Must never: start a worker.
"""

from __future__ import annotations

from guactors.provider_state.effects import Effect, GiveUp, Ready
from guactors.provider_state.hub_line import HubLine
from guactors.provider_state.pool import Pool

HOPELESS = 3
"""So many failed starts before the first good one, and the provider gives up."""


class Readiness:
    """``warm``: whether it is to have workers before anybody asks for one."""

    def __init__(self, pool: Pool, line: HubLine, *, warm: bool) -> None:
        self._pool = pool
        self._line = line
        self._warm = warm
        self._told = False
        self.worker_was_ready = False

    def tell(self, last_failure: str) -> list[Effect]:
        """Once: that we serve, or that no worker of ours ever comes up."""
        if self._told:
            return []
        if not self.worker_was_ready and self._pool.failures >= HOPELESS:
            self._told = True
            return [GiveUp("WorkerDied", f"no worker comes up: {last_failure}")]
        if not self._line.welcome or (self._warm and not self.worker_was_ready):
            return []
        self._told = True
        return [Ready()]
