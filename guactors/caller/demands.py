"""What is asked of the hub for tasks of one shape, and what it gave: the records.

Owns: their fields. Must never: decide anything (``leases`` does).
"""

from __future__ import annotations

from collections import deque

from guactors.caller.targets import Target
from guactors.caller.tasks import Task
from guactors.messages import Shape, Standing


class Lease:
    """A worker that runs our tasks of one shape. ``slow``: what it runs takes so long that nothing
    is sent behind it. ``linger``: seconds that it stays without work. ``standing``: why it stands
    still, while it does. ``due``: when the first of what it runs must have ended, as the hub was
    told at ``due_said``."""

    __slots__ = (
        "due", "due_said", "id", "idle_since", "key", "linger", "listed", "recalled", "slow",
        "standing", "taking_back", "target",
    )  # fmt: skip

    def __init__(self, id: str, key: str, target: Target, now: float, linger: float) -> None:
        self.id = id
        self.key = key
        self.target = target
        self.idle_since = now
        self.recalled = False
        self.slow = False
        self.listed = False
        self.taking_back = False
        self.linger = linger
        self.standing: Standing | None = None
        self.due = 0.0
        self.due_said = 0.0

    def moved_at(self) -> float:
        """When it last answered, or got the call that it runs; called while it runs one."""
        first = next(iter(self.target.in_flight.values()))
        return max(first.sent_at, self.target.last_reply)


class Demand:
    """The queue of one shape, the leases that drain it, and what the hub was told last: the number
    of leases, and when the first in the queue is ``due``."""

    __slots__ = (
        "due", "infeasible_since", "key", "leases", "queue", "ready", "reason", "shape",
        "told",
    )  # fmt: skip

    def __init__(self, key: str, shape: Shape) -> None:
        self.key = key
        self.shape = shape
        self.queue: deque[Task] = deque()
        self.leases: dict[str, Lease] = {}
        self.ready: deque[Lease] = deque()
        self.told = 0
        self.due = 0.0
        self.infeasible_since = 0.0
        self.reason = ""
