"""Demands that no provider could meet: how long they wait for one that could.

Owns: the waiting and its end in Unschedulable, or at once in an error of AT_ONCE. Must never: judge
feasibility or rights (the hub does).
"""

from __future__ import annotations

import pickle

from guactors.caller.actors import ActorBook
from guactors.caller.demands import Demand
from guactors.caller.effects import SendHub
from guactors.caller.endings import Endings
from guactors.caller.leases import LeaseBook
from guactors.caller.objects import ObjectTable
from guactors.errors import (
    ActorUnschedulable,
    GuactorsError,
    NoSuchReservation,
    PermissionDenied,
    PlacementGroupRemoved,
    RuntimeEnvSetupError,
    TaskUnschedulable,
)
from guactors.messages import KillActor, SetDemand

FINAL: dict[str, type[GuactorsError]] = {
    kind.__name__: kind
    for kind in (PermissionDenied, PlacementGroupRemoved, NoSuchReservation, RuntimeEnvSetupError)
}
"""What no provider that joins later would change."""


class Patience:
    """``seconds``: how long; a provider may join meanwhile."""

    def __init__(
        self,
        objects: ObjectTable,
        leases: LeaseBook,
        actors: ActorBook,
        endings: Endings,
        seconds: float,
    ) -> None:
        self.seconds = seconds
        self._objects = objects
        self._leases = leases
        self._actors = actors
        self._endings = endings
        self._hopeless_actors: dict[str, tuple[float, str]] = {}

    def on_infeasible(self, key: str, reason: str, kind: str, now: float) -> None:
        """The hub says that no provider it has could ever do it, or (``kind``) that it may not
        be done or has failed, for which no provider is worth waiting."""
        final = FINAL.get(kind)
        demand = self._leases.demands.get(key)
        if demand is not None and final is not None:
            demand.reason = reason
            self._give_up(demand, final)
        elif demand is not None:
            demand.infeasible_since, demand.reason = now, reason
        elif key in self._actors.actors and final is not None:
            self._give_up_actor(key, final, reason)
        elif key in self._actors.actors:
            self._hopeless_actors[key] = (now, reason)

    def on_hope(self, actor: str) -> None:
        """There is news of the actor after all."""
        self._hopeless_actors.pop(actor, None)

    def on_tick(self, now: float) -> None:
        """Give up what waited long enough."""
        for demand in self._leases.demands.values():
            since = demand.infeasible_since
            if since and not demand.leases and now - since >= self.seconds:
                self._give_up(demand, TaskUnschedulable)
        for id, (since, reason) in list(self._hopeless_actors.items()):
            if now - since >= self.seconds:
                del self._hopeless_actors[id]
                self._give_up_actor(id, ActorUnschedulable, reason)

    def _give_up(self, demand: Demand, kind: type[GuactorsError]) -> None:
        demand.infeasible_since = 0.0
        if not (demand.told or demand.queue):
            return  # it is about what was given up already
        demand.told = 0
        self._objects.effects.append(SendHub(SetDemand(demand.key, demand.shape, 0)))
        while demand.queue:
            task = demand.queue.popleft()
            self._endings.fail(task, kind(f"{task.name}: {demand.reason}"))

    def _give_up_actor(self, id: str, kind: type[GuactorsError], reason: str) -> None:
        actor = self._actors.actors[id]
        actor.state = "dead"
        actor.error = pickle.dumps(kind(f"actor {actor.name}: {reason}"), 5)
        self._actors.end(id, KillActor(id))
        for task in actor.take_waiting():
            self._actors.refuse(actor, task)
            self._endings.end_stream(task)
            self._endings.finish(task)

    def next_wake(self) -> float | None:
        """When the next one is given up."""
        wakes = [since + self.seconds for since, _ in self._hopeless_actors.values()]
        wakes += [
            demand.infeasible_since + self.seconds
            for demand in self._leases.demands.values()
            if demand.infeasible_since and not demand.leases
        ]
        return min(wakes, default=None)
