"""Reservations in a plan: who makes them, and what works in them.

Owns: what is drawn, and the order to the hub. Must never: decide when; the plan does.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from guactors.ids import reservation_id
from guactors.messages import Placing, ReservationSpec, Reserve, Shape, Unreserve

if TYPE_CHECKING:
    from tests.sim.world import World

NAMES = ("dawn", "dusk")
"""Few, so that they are taken, made again, and unknown."""


@dataclass
class Plan:
    """``seconds`` until it begins, and how long it stands. ``removed``: no more is wanted of it."""

    name: str
    cpus: float
    delay: float
    seconds: float
    priority: int
    removed: bool


def draw(rng: Random) -> Plan:
    """One reservation, or the end of one."""
    return Plan(
        rng.choice(NAMES), rng.choice((0.5, 1.0, 2.0)), rng.choice((0.0, 0.2, 1.0)),
        rng.choice((0.3, 1.0, 3.0)), rng.choice((0, 10, 30)), rng.random() < 0.2,
    )  # fmt: skip


def order(world: World, plan: Plan) -> None:
    """The owner of the hub says so; a hub that is away does not hear it."""
    if world.hub is None:
        return
    if plan.removed:
        world.hub.order(Unreserve(1, plan.name))
        return
    start = world.wall(world.clock.now) + plan.delay
    spec = ReservationSpec(
        plan.name, {"CPU": plan.cpus}, start, start + plan.seconds, plan.priority, allow=["*"]
    )
    world.hub.order(Reserve(1, spec))


def shape(name: str) -> Shape:
    """What a task asks for inside."""
    return Shape({"CPU": 0.5}, place=Placing(group=reservation_id(name)))
