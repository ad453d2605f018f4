"""Room that is kept for somebody who waits, and from whom.

Owns: on which provider room is kept for a queue that found none, when equals must leave it a place
as well, and what of that a newcomer would meet. Must never: change anything.

Something big would never find room among small things if all that comes free went to them at once.
"""

from __future__ import annotations

from guactors.scheduling.demand import Queue, Rank
from guactors.scheduling.desk import Desk
from guactors.scheduling.leases import Lease
from guactors.scheduling.placement import Need, Slot
from guactors.scheduling.recall import SLICE
from guactors.scheduling.resources import yielded
from guactors.scheduling.standing import Tenant

Kept = list[tuple[Need, Slot]]
"""Providers on which room is kept, each with the need that it is kept for."""
Turn = tuple[Rank, Rank]
"""Of a queue within its priority: ranks of its next caller and of that one's next demand."""


def turn_of(queue: Queue) -> Turn:
    """Of a queue in which somebody waits."""
    ranks = queue.peek()
    assert ranks is not None, f"nobody waits for {queue.need}"
    return ranks


def starves(queue: Queue, now: float) -> bool:
    """Whether equals must leave it a place: its head has nothing and has waited for a while, or
    leases asked back for it would come in vain."""
    since = now if queue.blocked_since is None else queue.blocked_since
    return queue.recalling or (turn_of(queue)[0][0] == 0 and now - since >= SLICE)


def to_keep(desk: Desk, need: Need) -> Slot | None:
    """The provider that is nearest to having room for the need."""
    there = [slot for slot in desk.candidates(need) if slot.up]
    return min(there, key=lambda slot: (slot.pool.load_with(need.hold), slot.order), default=None)


def to_go_on(tenant: Tenant) -> Need:
    """What one that stands still needs to run again, on its own provider."""
    blocked = isinstance(tenant, Lease) and tenant.blocked
    return tenant.need._replace(hold=() if blocked else yielded(tenant.need.hold))


def kept_from(desk: Desk, claimed: Kept, need: Need, turn: Turn, now: float) -> Kept:
    """What a newcomer of this need and turn would find kept for others, if nothing but it had
    changed since everybody was last served; ``claimed``: for placement groups."""
    kept = list(claimed)
    for tenant in desk.standing:
        slot = tenant.slot
        if tenant.need.priority >= need.priority and slot is not None and slot.up:
            kept.append((to_go_on(tenant), slot))
    for queue in desk.demands.queues.values():
        equal = queue.need.priority == need.priority
        before = equal and starves(queue, now) and turn_of(queue) < turn
        if queue.need.priority > need.priority or (before and queue.need != need):
            best = to_keep(desk, queue.need)
            if best is not None:
                kept.append((queue.need, best))
    return kept
