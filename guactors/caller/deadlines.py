"""Calls that must have ended by a certain time: their order, and what is said of a late one.

Owns: the order of deadlines inside one caller (the earliest goes first, before what has none), when
the hub is to hear of one, and the words of DeadlineMissed. Must never: end a call (``cancelling``
does), or look at a clock.

Only calls of one caller overtake each other by their deadlines, so that nobody gets ahead of others
by naming one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Final

from guactors.caller.actors import RemoteActor
from guactors.caller.effects import Effect, SendHub
from guactors.caller.tasks import Task
from guactors.errors import DeadlineMissed
from guactors.messages import LeaseDue

if TYPE_CHECKING:
    from guactors.caller.demands import Demand, Lease

STEP: Final = 0.1
"""Seconds by which a deadline must have moved before the hub is told of it again."""


def _due(task: Task) -> float:
    return task.due or inf


def put_in(queue: deque[Task], task: Task) -> None:
    """Behind all that must end before it, or at the same time."""
    queue.insert(bisect_right(queue, _due(task), key=_due), task)


def put_back(queue: deque[Task], tasks: list[Task]) -> None:
    """What was taken out, in its order, before what must end at the same time."""
    if (queue and queue[0].due) or any(task.due for task in tasks):
        for task in reversed(tasks):
            queue.insert(bisect_left(queue, _due(task), key=_due), task)
    else:
        queue.extendleft(reversed(tasks))


def moved(before: float, now: float) -> bool:
    """Whether the hub is to hear of this time, where it knows the other (0 for none)."""
    return bool(before) != bool(now) or abs(now - before) >= STEP


def left(due: float, now: float) -> float:
    """Seconds until then, as they go over the wire."""
    return max(due - now, 1e-3) if due else 0.0


def missed(task: Task, lease: Lease | None, now: float) -> DeadlineMissed:
    """The error of a call whose deadline has passed; ``lease``: the one that it was sent to."""
    late, name = max(0.0, now - task.due), task.name or task.method
    where = _where(task, lease, now)
    text = (
        f"{name} had {task.due - task.made:.3g} s to end in, which were over {late:.3f} s ago: "
        f"{where}; give it more time, a higher priority, or more room"
    )
    return DeadlineMissed(text, late, where)


def _where(task: Task, lease: Lease | None, now: float) -> str:
    home = task.home
    if task.peer and lease is not None and lease.standing is not None:
        return f"its worker {task.peer} on {lease.target.provider} stands still, " + (
            lease.standing.reason or "for others"
        )
    if task.peer:
        return f"it was sent to {task.peer} {now - task.sent_at:.3f} s ago and has not answered"
    if task.unmet:
        return f"it waited for {task.unmet} of its arguments"
    if type(home) is RemoteActor:
        ahead = _ahead(home.queue, task)
        return f"it waited for the actor {home.id}, which is {home.state}, behind {ahead} calls"
    return _for_worker(home, task)


def _for_worker(demand: Demand, task: Task) -> str:
    amounts = demand.shape.resources
    wanted = ", ".join(f"{amount:g} {name}" for name, amount in sorted(amounts.items()))
    text = (
        f"it waited for a worker with {wanted or 'nothing'}, behind {_ahead(demand.queue, task)} "
        f"calls; {len(demand.leases)} workers are there"
    )
    return f"{text}; {demand.reason}" if demand.infeasible_since else text


def _ahead(queue: Iterable[Task], task: Task) -> int:
    """Calls that are before it in the line."""
    count = 0
    for other in queue:
        if other is task:
            break
        count += 1
    return count


def joined(lease: Lease, task: Task, now: float) -> list[Effect]:
    """The task went to the lease, which may be due sooner by it: what the hub is told."""
    if len(lease.target.in_flight) == 1 or (task.due and not now < lease.due <= task.due):
        return _now_due(lease, task.due, now)
    return []


def parted(lease: Lease, now: float) -> list[Effect]:
    """Some of its tasks went, and others are still there, which may be due later."""
    if not lease.target.in_flight:
        return []
    dues = (task.due for task in lease.target.in_flight.values() if task.due)
    return _now_due(lease, min(dues, default=0.0), now)


def _now_due(lease: Lease, due: float, now: float) -> list[Effect]:
    """The hub hears what is news; that there is no deadline any more it need not hear at once."""
    if not moved(lease.due, due) or not (due or now - lease.due_said >= STEP):
        return []
    lease.due, lease.due_said = due, now
    return [SendHub(LeaseDue(lease.id, left(due, now)))]
