"""Owners of machines, who come back to them now and then and want them for themselves.

Owns: in which grids there are any, who comes when, and the judgement that nothing runs where one
is. Must never: take chance from the world's own, so that a grid without owners is what it was.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

from guactors.config import Lending
from guactors.idle.base import Reading
from guactors.provider_state.standstill import has_instance
from guactors.provider_state.workers import Hosting, Leased
from tests.sim.ledger import Violation

if TYPE_CHECKING:
    from tests.sim.provider import SimProvider
    from tests.sim.world import World

OWNED = 0.25
"""The share of grids in which machines have owners."""
WELL_KNOWN = 0.2
"""Seconds after which a machine has noticed its owner, and all on it stands still."""


class Owners:
    """Of the machines of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = Random(f"{world.seed} owners")
        self.any = self._rng.random() < OWNED
        self._here: dict[str, float] = {}
        """By machine, since when its owner is there."""
        self._leave_after = self._rng.choice((0.3, 600.0))

    def lending(self) -> Lending:
        """Of a machine."""
        if not self.any:
            return Lending()
        return Lending(
            sources=["command"], command=["x"], idle_after=0.2, busy_after=0.0, dwell=0.0,
            leave_after=self._leave_after,
        )  # fmt: skip

    def reading(self, name: str) -> dict[str, Reading]:
        """What the owner's command says there."""
        return {"command": Reading(busy=name in self._here, text="somebody is here")}

    def plan(self, names: list[str], span: float) -> float:
        """Draw who comes when; when the last one has left."""
        last = 0.0
        for name in names if self.any else ():
            at = self._rng.random() * 0.3
            for _ in range(self._rng.randint(0, 3)):
                stay = self._rng.choice((0.05, 0.3, 0.3, 1.0, 3.0))
                self._world.later(at, partial(self._comes, name))
                self._world.later(at + stay, partial(self._leaves, name))
                last = at + stay
                at = last + self._rng.random() * span
        return last

    def _comes(self, name: str) -> None:
        self._world.note(f"the owner of {name} comes")
        self._here[name] = self._world.clock.now

    def _leaves(self, name: str) -> None:
        since = self._here.pop(name)
        self._world.note(f"the owner of {name} leaves")
        provider = self._world.providers.get(name)
        if provider is None or provider.transport.dead:
            return
        if self._world.clock.now - max(since, provider.began) >= WELL_KNOWN:
            _judge(provider)


def _judge(provider: SimProvider) -> None:
    """Nothing of a lease or an actor runs there."""
    for worker in provider.core._pool.workers.values():
        if not isinstance(worker.state, Leased | Hosting) or worker.ending is not None:
            continue
        process = provider.workers.get(worker.worker)
        if process is not None and not (process.clock.stopped or has_instance(worker)):
            raise Violation(f"{worker.worker} runs on {provider.name} while its owner is there")
