"""The shell of the scheduler in the hub process.

Owns: its room, :class:`guactors.scheduling.state.SchedulerState`, and the file of its reservations.
Must never: decide, or let an answer out before what it is about is safe on the disk.
"""

from __future__ import annotations

from guactors.actors import ActorRef
from guactors.config import HubConfig
from guactors.ids import fresh
from guactors.reservation_file import ReservationFile
from guactors.room_actor import RoomActor, epoch_seconds
from guactors.scheduling.events import Effect, KeepReservations
from guactors.scheduling.state import SchedulerState
from guactors.security.marks import marker_of


class SchedulerActor(RoomActor):
    """Demand, leases, placement, actors' lives."""

    def __init__(self, hub: ActorRef, config: HubConfig) -> None:
        super().__init__()
        self.hub = hub
        mark = marker_of(config.seal.secret)
        self._file = ReservationFile(config.data)
        self.room = SchedulerState(
            config.timing, fresh, self.context.now(), wall=epoch_seconds, mark=mark,
            reservations=self._file.load(),
        )  # fmt: skip

    def carry(self, effects: list[Effect], now: float) -> None:
        """Write down what is to be kept, then let the others go."""
        kept = [effect for effect in effects if isinstance(effect, KeepReservations)]
        if kept:
            self._file.keep(kept[-1].reservations)
            effects = [effect for effect in effects if not isinstance(effect, KeepReservations)]
        super().carry(effects, now)
