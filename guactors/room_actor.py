"""The dull shell around a thinking room: receive, think, pass the effects on, set one alarm.

Owns: the alarm. Must never: look into an event or an effect.
"""

from __future__ import annotations

import math
import time
from typing import Any

from guactors.actors import Actor, ActorRef, Priority
from guactors.actors.actor import Timer
from guactors.scheduling.events import Effect, Event, Room


class Tick:
    """The alarm rings."""


TICK = Tick()


def epoch_seconds(_now: float) -> float:
    """What the rooms' ``now`` is on the wall. The clock is asked each time, because it may be set
    while the hub runs, and grants end by the right one."""
    return time.time()


class RoomActor(Actor):
    """``room`` gets events and ticks; ``hub`` gets its effects as lists, in order. Subclasses set
    both. An error in a room is a bug that nothing here could mend, so it ends the hub process,
    which is started again and learns everything anew from its peers."""

    room: Room
    hub: ActorRef

    def __init__(self) -> None:
        self._alarm: Timer | None = None
        self._alarm_at = math.inf

    def on_start(self) -> None:
        """A room may have something to wait for from the beginning."""
        self.set_alarm(self.context.now())

    def receive(self, message: Any) -> None:
        """An event, or the alarm."""
        now = self.context.now()
        self.carry(self.think(message, now), now)
        self.set_alarm(now)

    def think(self, message: Event | Tick, now: float) -> list[Effect]:
        """One event into the room."""
        if isinstance(message, Tick):
            self._alarm, self._alarm_at = None, math.inf
            return self.room.on_tick(now)
        return self.room.handle(message, now)

    def carry(self, effects: list[Effect], _now: float) -> None:
        """Give the effects to who knows the routes."""
        if effects:
            self.hub.tell(effects, priority=Priority.HIGH)

    def set_alarm(self, now: float) -> None:
        """Ring when the room wants to be woken; an alarm that is early enough already stays."""
        wake = self.room.next_wake(now)
        if wake is None or wake >= self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = wake
        self._alarm = self.context.schedule(max(0.0, wake - now), TICK, priority=Priority.HIGH)
