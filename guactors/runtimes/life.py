"""The life of an instance: what may be asked of it when, and when its time is up.

Owns: the states and the moves between them, the clock of its wall limit, the limit of its disk.
Must never: read a clock, touch a process, or know which adapter there is.

::

    CREATED ──start──> RUNNING <──resume── PAUSED
                          │  └────pause────>│
                          └──────save───────┴──> SAVED     (its driver is of no more use)
    any ──> ENDED, with a reason, once
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

from guactors.errors import InstanceLost, UsageError
from guactors.messages import Limits

LOOK: Final = 0.5
"""Seconds between two looks at the disk of an instance that has a limit of it."""
_MIB: Final = 2.0**20


class State(StrEnum):
    """Of an instance."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    SAVED = "saved"
    ENDED = "ended"


_ALLOWED: Final[dict[str, tuple[State, ...]]] = {
    "start": (State.CREATED,),
    "exec": (State.RUNNING,),
    "put": (State.CREATED, State.RUNNING),
    "get": (State.CREATED, State.RUNNING),
    "pause": (State.RUNNING, State.PAUSED),
    "resume": (State.RUNNING, State.PAUSED),
    "save": (State.RUNNING, State.PAUSED),
    "stats": (State.CREATED, State.RUNNING, State.PAUSED),
}
_INSTEAD: Final = {
    State.CREATED: "start it first",
    State.RUNNING: "it runs already",
    State.PAUSED: "resume it first",
    State.SAVED: "restore it first",
}


class End(Struct, frozen=True):
    """It is to end now: ``reason`` as in ``Exit``."""

    reason: str
    detail: str


class Life:
    """Of one instance. Times are monotonic seconds; the wall limit counts while it runs, not while
    it is paused."""

    def __init__(self, instance: str, limits: Limits) -> None:
        self._instance = instance
        self._limits = limits
        self.state = State.CREATED
        self.end: End | None = None
        self._used = 0.0
        self._since: float | None = None

    def check(self, asked: str) -> None:
        """Raise UsageError where that cannot be asked now, InstanceLost where it never can be."""
        if self.state is State.ENDED:
            end = self.end or End("", "")
            why = end.detail or "it was closed"
            raise InstanceLost(f"the instance {self._instance} has ended: {why}")
        if self.state not in _ALLOWED[asked]:
            raise UsageError(
                f"the instance {self._instance} is {self.state.value}, so it cannot {asked}: "
                f"{_INSTEAD[self.state]}"
            )

    def move(self, state: State, now: float) -> None:
        """It is in that state from ``now`` on; an instance that has ended stays so."""
        if self.state is State.ENDED:
            return
        if self._since is not None:
            self._used += now - self._since
        self._since = now if state is State.RUNNING else None
        self.state = state

    def finish(self, end: End, now: float) -> bool:
        """It ends for this reason, if for none before: whether that is news."""
        if self.state is State.ENDED:
            return False
        self.move(State.ENDED, now)
        self.end = end
        return True

    def running_for(self, now: float) -> float:
        """Seconds that it has run, without its pauses."""
        return self._used + (now - self._since if self._since is not None else 0.0)

    def overdue(self, now: float, disk: int | None) -> End | None:
        """Why it must end now, if it must. ``disk``: bytes it has written, None if nobody knows."""
        wall, most = self._limits.wall, self._limits.disk
        if wall and self.state is State.RUNNING and self.running_for(now) >= wall:
            return End("wall_limit", f"it ran for its wall limit of {wall:g} s")
        if most and disk is not None and disk > most:
            used = f"{disk / _MIB:.1f} MiB"
            return End(
                "disk_limit",
                f"it has written {used}, and its disk limit is {most / _MIB:.1f} MiB: allow more "
                'with limits={"disk": ...}',
            )
        return None

    def next_look(self, now: float) -> float | None:
        """Seconds until ``overdue`` may have news, None for never."""
        if self.state is not State.RUNNING:
            return None
        waits = []
        if self._limits.wall:
            waits.append(max(0.0, self._limits.wall - self.running_for(now)))
        if self._limits.disk:
            waits.append(LOOK)
        return min(waits, default=None)
