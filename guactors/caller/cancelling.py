"""Ending calls early: cancel, force, and time-outs.

Owns: the deadlines of calls. Must never: touch a call that is settled.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from guactors.caller.actors import RemoteActor
from guactors.caller.deadlines import missed
from guactors.caller.demands import Lease
from guactors.caller.effects import SendHub, SendPeer
from guactors.caller.endings import Endings
from guactors.caller.leases import LeaseBook
from guactors.caller.objects import ObjectTable
from guactors.caller.targets import Target
from guactors.caller.tasks import Task
from guactors.errors import CallTimeout, Death, TaskCancelled, TaskKilled, WorkerDied
from guactors.messages import CancelCall, ReturnLease


class Cancelling:
    """``find_target`` gives the worker that a peer id stands for; ``make_way`` is told of a call
    that was taken out of a queue."""

    def __init__(
        self,
        objects: ObjectTable,
        leases: LeaseBook,
        endings: Endings,
        find_target: Callable[[str], Target | None],
        make_way: Callable[[Task], None],
    ) -> None:
        self._objects = objects
        self._leases = leases
        self._endings = endings
        self._find_target = find_target
        self._make_way = make_way
        self._deadlines: list[tuple[float, int]] = []

    def watch(self, task: Task) -> None:
        """The task has a time-out, a deadline, or both."""
        for at in (task.deadline, task.due):
            if at:
                heapq.heappush(self._deadlines, (at, task.id))

    def on_tick(self, now: float) -> None:
        """Time out what is due."""
        while self._deadlines and self._deadlines[0][0] <= now:
            due, id = heapq.heappop(self._deadlines)
            entry = self._objects.entries.get(id)
            if entry is None or entry.task is None or entry.data is not None:
                continue
            task = entry.task
            stopped = task.stillness is not None and task.stillness.since > 0
            missed = 0 < task.due <= due
            # A stopped time-out is said again when its clock goes on.
            if missed or (not stopped and task.deadline <= due):
                self._time_out(task, now)

    def next_wake(self) -> float | None:
        """The next deadline."""
        return self._deadlines[0][0] if self._deadlines else None

    def cancel(self, id: int, now: float, *, force: bool = False, recursive: bool = True) -> None:
        """End the call that makes this object, if it is still under way."""
        entry = self._objects.entries.get(id)
        task = entry.task if entry is not None else None
        if task is None or self._endings.settled(task):
            return
        error = TaskCancelled(f"{task.name or task.method} was cancelled")
        if self._withdraw(task, error):
            return
        task.cancelled = True
        lease = self._leases.by_peer.get(task.peer)
        if force and lease is not None:
            killed = TaskKilled(str(error), Death("killed", "cancel(force=True)"))
            self._endings.fail(task, killed, finish=False)
            self._abandon(lease, now)
        else:
            self._cancel_on_wire(task, recursive=recursive)

    def _cancel_on_wire(self, task: Task, *, timeout: bool = False, recursive: bool = True) -> None:
        message = CancelCall(task.id, timeout, recursive)
        self._objects.effects.append(SendPeer(task.peer, message))

    def _abandon(self, lease: Lease, now: float) -> None:
        """Have the worker killed; what else it held starts again elsewhere, uncharged, unless it
        may have run already and must not run twice."""
        again = []
        for task in self._leases.remove(lease):
            if task.cancelled:
                self._endings.fail(task, TaskCancelled(f"{task.name} was cancelled"))
            elif task.retries == 0:
                text = f"the worker of {task.name} was ended by cancel(force=True) of another call"
                self._endings.fail(task, WorkerDied(text, Death("killed")))
            else:
                task.attempt += 1
                task.peer = ""
                again.append(task)
        self._objects.effects.append(SendHub(ReturnLease(lease.id, dead=True)))
        self._leases.requeue(self._leases.demands[lease.key], again, now)

    def _withdraw(self, task: Task, error: Exception) -> bool:
        """End a call that waits on this side; False when it is on the wire."""
        if not self._unqueue(task):
            return False
        self._endings.fail(task, error)
        if type(task.home) is not RemoteActor:
            self._leases.wants_less(task.home)
        return True

    def _unqueue(self, task: Task) -> bool:
        """Take a call out of wherever it waits on this side; False when it is on the wire."""
        home = task.home
        if task.peer:
            target = self._find_target(task.peer)
            return target is not None and target.forget(task, self._objects)
        if type(home) is RemoteActor:
            if home.unqueue(task):
                self._make_way(task)
        elif task in home.queue:
            home.queue.remove(task)
        return True

    def cancel_children(self, parent: object, now: float) -> None:
        """Cancel every unfinished call that was made by the call ``parent``."""
        for entry in list(self._objects.entries.values()):
            if entry.task is not None and entry.task.parent == parent:
                self.cancel(entry.id, now)

    def _time_out(self, task: Task, now: float) -> None:
        lease = self._leases.by_peer.get(task.peer)
        error = CallTimeout(f"{task.name or task.method} did not finish within its timeout")
        if task.due and task.due <= now:
            error = missed(task, lease, now)
        if self._withdraw(task, error):
            return
        task.cancelled = True
        self._cancel_on_wire(task, timeout=True)
        self._endings.fail(task, error, finish=False)
        if lease is not None and lease.standing is not None and _in_vain(lease):
            self._abandon(lease, now)


def _in_vain(lease: Lease) -> bool:
    """Whether nobody waits any more for what it has."""
    return all(task.cancelled for task in lease.target.in_flight.values())
