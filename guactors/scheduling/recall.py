"""Whose lease is asked back when somebody else waits.

Owns: the choice of victims. Must never: take anything by force (a recalled worker finishes what it
runs), touch work of a higher priority than the one that waits, or ask for more than is waited for.
Preemption, which does use force, will be a neighbour of this module.

A lease is asked back from the caller that holds the most, as long as it holds at least two more
than the one that waits. A caller that has nothing at all also gets a turn from one that has a
single lease, once that has been held for a slice of time. The same holds between two demands of one
caller.
"""

from __future__ import annotations

from guactors.scheduling.demand import Demand, Queue
from guactors.scheduling.desk import Desk
from guactors.scheduling.leases import Lease, LeaseState
from guactors.scheduling.placement import Need, contends

SLICE = 0.5
"""Seconds a lease is safe from a caller that has none."""
PATIENCE = 1.0
"""Seconds after which a recall that was not followed counts no longer, and another is tried."""
PAUSE = 0.01
"""Least seconds between two looks."""
LOOK_AGAIN = 0.1
"""Seconds until the next look while somebody waits."""
MOST_AT_ONCE = 64


def wanting(desk: Desk) -> list[Queue]:
    """Queues for which nothing could be found, highest priority first."""
    queues = [q for q in desk.demands.queues.values() if q.blocked and q.waiting]
    queues += desk.demands.stuck.values()
    return sorted(queues, key=lambda queue: -queue.need.priority)


def victims(desk: Desk, now: float) -> list[tuple[Lease, Queue]]:
    """Leases to ask back now, each with the queue it is for."""
    queues = wanting(desk)
    if not queues or not len(desk.leases):
        return []
    recalled = [x for x in desk.leases if x.recalled_at is not None]
    going: dict[str, int] = {}
    coming: dict[object, int] = {}
    for lease in recalled:
        going[lease.caller] = going.get(lease.caller, 0) + 1
        if lease.recalled_at is not None and lease.recalled_at > now - PATIENCE:
            coming[lease.recalled_for] = coming.get(lease.recalled_for, 0) + 1
    found: list[tuple[Lease, Queue]] = []
    taken: set[str] = set()
    for queue in queues:
        underway = coming.get(queue.need, 0)
        while underway < queue.waiting and len(found) < MOST_AT_ONCE:
            victim = _victim(desk, queue, underway, going, taken, now)
            if victim is None:
                break
            taken.add(victim.id)
            going[victim.caller] = going.get(victim.caller, 0) + 1
            underway += 1
            found.append((victim, queue))
    return found


def _victim(
    desk: Desk, queue: Queue, underway: int, going: dict[str, int], taken: set[str], now: float
) -> Lease | None:
    demand = desk.demands.head(queue)
    waiter = demand.caller
    share = desk.leases.held(waiter) - going.get(waiter, 0) + underway // max(1, queue.callers())
    for holder in desk.leases.holders():
        spare = desk.leases.held(holder) - going.get(holder, 0)
        for lease in desk.leases.of_caller(holder):
            if lease.id in taken or not _usable(desk, lease, queue):
                continue
            if lease.need.priority < queue.need.priority:
                return lease
            if holder == waiter:
                if _own_turn(desk, demand, lease, underway, taken, now):
                    return lease
            elif spare > share + 1 or (share <= 0 and lease.since + SLICE <= now):
                return lease
    return None


def _usable(desk: Desk, lease: Lease, queue: Queue) -> bool:
    return (
        lease.state is LeaseState.GRANTED
        and lease.recalled_at is None
        and not lease.idle
        and _same_room(lease, queue.need)
        and lease.need.priority <= queue.need.priority
        and contends(lease.need, queue.need)
        and lease.slot in desk.candidates(queue.need)
    )


def _same_room(lease: Lease, need: Need) -> bool:
    """Whether both take from the same: from providers, or from the same bundles."""
    if lease.bundle is None:
        return not need.wish.group
    return lease.bundle.group.id == need.wish.group and need.wish.bundle in (-1, lease.bundle.index)


def _own_turn(
    desk: Desk, demand: Demand, lease: Lease, underway: int, taken: set[str], now: float
) -> bool:
    """Between two demands of the same caller."""
    if lease.key == demand.key:
        return False
    other = desk.demands.find(lease.caller, lease.key)
    have = len(demand.held) + underway
    theirs = len(other.held - taken) if other is not None else 1
    return theirs > have + 1 or (have == 0 and lease.since + SLICE <= now)
