"""The shell of the scheduler in the hub process.

Owns: nothing but its room, :class:`guactors.scheduling.state.SchedulerState`. Must never: decide.
"""

from __future__ import annotations

from guactors.actors import ActorRef
from guactors.config import Timing
from guactors.ids import fresh
from guactors.room_actor import RoomActor
from guactors.scheduling.state import SchedulerState


class SchedulerActor(RoomActor):
    """Demand, leases, placement, actors' lives."""

    def __init__(self, hub: ActorRef, timing: Timing) -> None:
        super().__init__()
        self.hub = hub
        self.room = SchedulerState(timing, fresh, self.context.now())
