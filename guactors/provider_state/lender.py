"""The machine is lent, or its owner has it back: what runs here and who is told.

Owns: what follows from a change of the state. Must never: decide about that (``availability``
does), or what becomes of work for longer than the moment (the hub does, once it has heard).

The owner comes first: all that runs here stands still at once, without a word from the hub, which
may be away. What has not begun is turned away, and the hub finds another place for it. When the
machine is lent again, the hub lets them go on; where it is away, they go on by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from guactors.config import Lending
from guactors.idle.base import Reading
from guactors.messages import Availability, AvailabilityIs
from guactors.provider_state.availability import AvailabilityPolicy, State
from guactors.provider_state.effects import Effect, Note, ReadIdle
from guactors.provider_state.hub_line import HubLine
from guactors.provider_state.standstill import Standstill


class Lender:
    """``wall`` turns monotonic into epoch seconds. Raises UsageError for a bad ``lending``."""

    def __init__(
        self,
        lending: Lending,
        line: HubLine,
        standstill: Standstill,
        wall: Callable[[float], float],
    ) -> None:
        self._policy = AvailabilityPolicy(lending)
        self._leave_after = lending.leave_after
        self._line = line
        self._standstill = standstill
        self._wall = wall

    @property
    def why_not(self) -> str:
        """Why the machine is not lent now; nothing where it is."""
        state = self._policy.state
        return "" if state is None else state.reason

    def word(self, now: float) -> Availability:
        """For the hub, of now."""
        state = self._policy.state or State(lent=True)
        if state.lent:
            return Availability(until=state.until)
        left = max(0.0, state.since + self._leave_after - now)
        return Availability(False, state.reason, state.until, left)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        effects: list[Effect] = []
        if self._policy.wants_reading(now):
            effects.append(ReadIdle())
        if self._policy.tick(now, self._wall(now)):
            effects += self._changed(now)
        return effects

    def on_readings(self, readings: Mapping[str, Reading], now: float) -> list[Effect]:
        """What ReadIdle brought."""
        if self._policy.on_readings(readings, now, self._wall(now)):
            return self._changed(now)
        return []

    def next_wake(self, now: float) -> float | None:
        """When tick has something to do."""
        return self._policy.next_wake(now, self._wall(now))

    def _changed(self, now: float) -> list[Effect]:
        why = self.why_not
        text = f"this machine is not lent: {why}" if why else "this machine is lent"
        effects: list[Effect] = [Note("info", text)]
        # The hub must have heard before any answer to orders that do not fit any more.
        effects += self._line.tell(AvailabilityIs(self.word(now)), now)
        if why:
            return effects + self._standstill.close(now)
        return effects + self._standstill.open(now)
