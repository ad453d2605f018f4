"""Leases whose link broke: what is retried at once, and what waits for the cause.

Owns: the doubt between a broken link and the hub's word on it. Must never: charge a call that had
not started with its worker's death.
"""

from __future__ import annotations

from collections.abc import Iterator

from guactors.caller.demands import Lease
from guactors.caller.effects import Hangup, SendHub
from guactors.caller.endings import Endings
from guactors.caller.leases import LeaseBook
from guactors.caller.objects import ObjectTable
from guactors.caller.tasks import Task
from guactors.errors import (
    MEMORY_CAUSES,
    Death,
    OutOfMemory,
    PeerLost,
    PlacementGroupRemoved,
    Preempted,
    ProviderLost,
    TaskCancelled,
    WorkerDied,
)
from guactors.messages import ReturnLease

DOUBT = 2.0
"""Seconds a call on a broken link waits for the hub to say how its worker died."""


MOST_SPARED = 10
"""So often a call is tried again for want of memory before that is charged to its retries."""


class Doubt:
    """A lease of the demand ``key`` whose link broke, and the calls that wait for the cause.
    ``charged``: the one whose retries it cost."""

    __slots__ = ("charged", "key", "lease", "since", "tasks", "why")

    def __init__(
        self, lease: Lease, since: float, tasks: list[Task], why: str, charged: Task | None
    ) -> None:
        self.charged = charged
        self.key = lease.key
        self.lease = lease.id
        self.since = since
        self.tasks = tasks
        self.why = why


class Doubts:
    """All leases in doubt, by id."""

    def __init__(self, objects: ObjectTable, leases: LeaseBook, endings: Endings) -> None:
        self._objects = objects
        self._leases = leases
        self._endings = endings
        self._doubts: dict[str, Doubt] = {}

    def broke(self, lease: Lease, now: float, why: str = "") -> None:
        """Retry what may be retried at once; the rest waits for the cause. Of a lease that is to go
        back all does: it may have given way."""
        owed = self._leases.remove(lease)
        again: list[Task] = []
        charged = None
        if not lease.recalled:
            again, owed, charged = self._retried(owed)
        self._doubts[lease.id] = Doubt(lease, now, owed, why, charged)
        self._leases.requeue(self._leases.demands[lease.key], again, now)

    def lost(self, lease: str, death: Death, now: float) -> None:
        """The hub says that it is over, and why."""
        known = self._leases.by_id.get(lease)
        if known is not None:
            peer = known.target.peer
            if death.cause == "requeued":
                self._run_again(known.key, self._leases.remove(known), now)
            elif death.cause == "preempted":
                self._preempted(self._leases.remove(known), death)
            else:
                self.broke(known, now)
            self._objects.effects.append(Hangup(peer))
            self._objects.on_neighbour_lost(peer)
        self.resolve(lease, death, now)

    def _preempted(self, owed: list[Task], death: Death) -> None:
        """Calls of a lease that gave way for good."""
        for task in owed:
            self._endings.fail(task, Preempted(f"{task.name} was ended", death))

    def _run_again(self, key: str, owed: list[Task], now: float) -> None:
        """Calls of a lease that gave way begin anew elsewhere, at no charge: their owner wanted it
        so."""
        for task in owed:
            if task.cancelled:
                self._endings.fail(task, TaskCancelled(f"{task.name} was cancelled"))
            else:
                self._endings.begin_again(task)
        again = [task for task in owed if not task.cancelled]
        self._leases.requeue(self._leases.demands[key], again, now)

    def resolve(self, lease: str, death: Death, now: float) -> None:
        """The cause is known, or nobody will tell it."""
        doubt = self._doubts.pop(lease, None)
        if doubt is None:
            return
        self._objects.effects.append(SendHub(ReturnLease(lease, dead=True)))
        if death.cause == "requeued":
            if doubt.charged is not None:
                doubt.charged.retries += 1
            self._run_again(doubt.key, doubt.tasks, now)
            return
        if death.cause == "preempted":
            self._preempted(doubt.tasks, death)
            return
        again, doubtful, charged = self._retried(doubt.tasks)
        self._leases.requeue(self._leases.demands[doubt.key], again, now)
        if death.cause == "out_of_memory":
            self._spare(doubt.charged or charged)
        kind: type[PeerLost] = WorkerDied
        if death.cause == "provider_lost":
            kind = ProviderLost
        elif death.cause in MEMORY_CAUSES:
            kind = OutOfMemory
        for task in doubtful:
            if task.cancelled:
                self._endings.fail(task, TaskCancelled(f"{task.name} was cancelled"))
            elif death.cause == "group_removed":
                self._endings.fail(task, PlacementGroupRemoved(f"{task.name}: {death.detail}"))
            else:
                self._endings.fail(task, kind(f"the worker that ran {task.name} ended", death))

    def _retried(self, owed: list[Task]) -> tuple[list[Task], list[Task], Task | None]:
        """Of calls whose worker is gone, the one that ran first: those that are tried again, those
        that are not, and which of the first that costs a try."""
        again: list[Task] = []
        others: list[Task] = []
        charged = None
        for position, task in enumerate(owed):
            if task.retries == 0 or task.cancelled:
                others.append(task)
                continue
            if position == 0 and task.retries > 0:
                task.retries -= 1
                charged = task
            self._endings.begin_again(task)
            again.append(task)
        return again, others, charged

    @staticmethod
    def _spare(task: Task | None) -> None:
        """The machine had no memory left, which need not be the call's fault: tried again at no
        cost, but not for ever."""
        if task is not None and task.spared < MOST_SPARED:
            task.spared += 1
            task.retries += 1

    def tasks(self) -> list[Task]:
        """The calls that wait for the cause."""
        return [task for doubt in self._doubts.values() for task in doubt.tasks]

    def __iter__(self) -> Iterator[str]:
        return iter(self._doubts)

    def on_tick(self, now: float) -> None:
        """Settle what nobody explained in time."""
        for doubt in list(self._doubts.values()):
            if now - doubt.since >= DOUBT:
                death = Death("link_lost", doubt.why or "no word from the hub")
                self.resolve(doubt.lease, death, now)

    def next_wake(self) -> float | None:
        """When the oldest doubt is over."""
        return min((doubt.since + DOUBT for doubt in self._doubts.values()), default=None)
