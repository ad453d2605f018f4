"""Placement groups of one root caller: made, worked in, removed; and what must hold of them.

Owns: the groups of a driver. Must never: decide when; the plan does.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from guactors.caller.groups import RemoteGroup
from guactors.messages import GroupSpec, Placing, Shape
from guactors.scheduling.bundles import STRATEGIES
from guactors.scheduling.groups import CREATED, REMOVED
from tests.sim.ledger import Violation

if TYPE_CHECKING:
    from tests.sim.caller import SimCaller
    from tests.sim.world import World

READY = b"ready"
ROOM = "room"
"""What only groups, and what runs in them, take: a group that stays must not starve tasks."""
ROOM_EACH = 6.0
"""Of one provider."""


@dataclass
class Plan:
    """``seconds`` after which it is removed, 0: it stays."""

    bundles: list[dict[str, float]]
    strategy: str
    seconds: float
    detached: bool


def draw(rng: Random) -> Plan:
    """One group. Only those that are removed soon take CPUs, which tasks wait for."""
    seconds = rng.choice((0.0, 0.1, 0.5, 2.0))
    detached = not seconds and rng.random() < 0.15
    bundles = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        bundle = {ROOM: float(rng.choice((1, 1, 2)))}
        if seconds and rng.random() < 0.6:
            bundle["CPU"] = rng.choice((0.5, 1.0))
        bundles.append(bundle)
    return Plan(bundles, rng.choice(STRATEGIES), seconds, detached)


class Groups:
    """Of ``caller``."""

    def __init__(self, world: World, caller: SimCaller) -> None:
        self.made: list[RemoteGroup] = []
        self.detached: set[str] = set()
        self._world = world
        self._caller = caller
        self._removed: set[str] = set()

    def make(self, plan: Plan) -> None:
        """Ask for it, and wait for it to be ready."""
        world, caller = self._world, self._caller
        spec = GroupSpec(
            world.fresh("group"), caller.session, caller.peer, plan.bundles, plan.strategy,
            detached=plan.detached, priority=5 if plan.seconds == 0.1 else 0,
        )  # fmt: skip
        book = caller.core.groups
        group = book.create(spec)
        self.made.append(group)
        if plan.detached:
            self.detached.add(group.id)
        ready = book.when_ready(group, READY)
        caller.kick()
        caller.when_there(ready, lambda id: self._ready(group, id))
        if plan.seconds:
            world.later(plan.seconds, lambda: self.remove(group))

    def _ready(self, group: RemoteGroup, id: int) -> None:
        entry = self._caller.core.objects.entries[id]
        if entry.error:
            self.check_end(group)
        elif entry.data != READY:
            raise Violation(f"{group} is ready with {entry.data!r}")
        self._caller.drop([id])

    def remove(self, group: RemoteGroup) -> None:
        """It is wanted no more."""
        caller = self._caller
        if group.state == REMOVED or caller.closed or caller.transport.dead:
            return
        self._removed.add(group.id)
        caller.core.groups.remove(group.id)
        caller.kick()

    def shape(self, index: int, bundle: int, *, actor: bool) -> tuple[RemoteGroup, Shape]:
        """What a task or actor asks for inside: of tasks, one at a time fits in the smallest
        bundle; actors take nothing, or tasks would wait for them for ever."""
        group = self.made[index % len(self.made)]
        assert group.spec is not None
        bundle = bundle if bundle < len(group.spec.bundles) else -1
        resources = {} if actor else {"CPU": 0.0, ROOM: 1.0}
        return group, Shape(resources, place=Placing(group=group.id, bundle=bundle))

    def remove_half(self) -> None:
        """Every second one, and those without room; the rest ends by itself."""
        for group in self.made[1::2]:
            self.remove(group)
        self.remove_roomless()

    def remove_roomless(self) -> None:
        """What is in there waits rightly for a provider that may never come."""
        for group in self.made:
            if group.state != CREATED:
                self.remove(group)

    def check_end(self, group: RemoteGroup) -> None:
        """Nobody's group ends unless somebody ends it."""
        keys = self._world.keys
        denied = keys is not None and keys.may_fail(self._caller.session)
        # Who was silent for too long comes back to a hub that took it for lost.
        ended = denied or group.id in self._removed or "session is over" in group.reason
        if group.state == REMOVED and not ended:
            raise Violation(f"{group} has ended and nobody removed it: {group.reason}")

    def check(self) -> None:
        """Of all."""
        for group in self.made:
            self.check_end(group)
