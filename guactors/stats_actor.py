"""The shell of the statistics in the hub process.

Owns: nothing but its room, :class:`guactors.stats_state.StatsState`. Must never: ask a provider.
"""

from __future__ import annotations

from guactors.actors import ActorRef
from guactors.room_actor import RoomActor
from guactors.stats_state import StatsState


class StatsActor(RoomActor):
    """The latest samples of every provider."""

    def __init__(self, hub: ActorRef) -> None:
        super().__init__()
        self.hub = hub
        self.room = StatsState()
