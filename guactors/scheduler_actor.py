"""The shell of the scheduler in the hub process.

Owns: nothing but its room, :class:`guactors.scheduling.state.SchedulerState`. Must never: decide.
"""

from __future__ import annotations

from guactors.actors import ActorRef
from guactors.config import HubConfig
from guactors.ids import fresh
from guactors.room_actor import RoomActor, epoch_seconds
from guactors.scheduling.state import SchedulerState
from guactors.security.marks import marker_of


class SchedulerActor(RoomActor):
    """Demand, leases, placement, actors' lives."""

    def __init__(self, hub: ActorRef, config: HubConfig) -> None:
        super().__init__()
        self.hub = hub
        mark = marker_of(config.seal.secret)
        self.room = SchedulerState(
            config.timing, fresh, self.context.now(), wall=epoch_seconds, mark=mark
        )
