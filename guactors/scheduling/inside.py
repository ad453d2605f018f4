"""Who waits for room inside a placement group, and which bundle serves it.

Owns: the choice of a bundle, and the turn of those who wait in one group. Must never: place a group
(``group_rules`` does), or look at a group for which nothing has changed.
"""

from __future__ import annotations

from guactors.scheduling.actor_rules import ActorRules
from guactors.scheduling.desk import Desk
from guactors.scheduling.groups import Bundle
from guactors.scheduling.judge import Judge
from guactors.scheduling.lease_rules import LeaseRules
from guactors.scheduling.placement import Need, feasible, welcomes
from guactors.scheduling.queues import Queue


class Inside:
    """Works on ``desk`` through the rules."""

    def __init__(self, desk: Desk, leases: LeaseRules, actors: ActorRules, judge: Judge) -> None:
        self._desk = desk
        self._judge = judge
        self._leases = leases
        self._actors = actors

    def serve(self, now: float) -> bool:
        """Serve whoever can be served in the groups that were stirred; whether somebody was left
        waiting."""
        stirred, left = self._desk.demands.stirred, False
        while stirred:
            group = next(iter(stirred))
            left = self._serve(group, now) or left
            stirred.pop(group, None)
        return left

    def _serve(self, group: str, now: float) -> bool:
        demands = self._desk.demands
        todo, left = list(demands.inside.get(group, {}).values()), False
        while todo:
            queue = min(todo, key=_turn)
            demand = demands.head(queue)
            if not self._judge.lets_in(demand):
                if not queue.waiting:
                    todo.remove(queue)
                continue
            bundle = self._bundle(queue.need, now)
            if bundle is None or bundle.slot is None:
                todo.remove(queue)
                queue.blocked = left = True
                queue.blocked_since = now if queue.blocked_since is None else queue.blocked_since
                demands.stuck[queue.need] = queue
                continue
            queue.blocked = False
            queue.blocked_since = None
            demands.stuck.pop(queue.need, None)
            rules = self._actors if demand.is_actor else self._leases
            rules.start(demand, queue.need, bundle.slot, now, bundle)
            if not queue.waiting:
                todo.remove(queue)
        return left

    def _bundle(self, need: Need, now: float) -> Bundle | None:
        """The emptiest that has room."""
        permission = self._desk.permission
        if not self._desk.allowance.within(need):
            return None
        best: Bundle | None = None
        best_rank = (0.0, 0)
        for bundle in self._desk.bundles_for(need):
            slot = bundle.slot
            if slot is None or not (slot.up and slot.open) or not bundle.has_room(need.hold):
                continue
            rank = (bundle.pool.load_with(need.hold), len(bundle.leases) + len(bundle.actors))
            if best is not None and rank >= best_rank:
                continue
            if not feasible(slot, need) or not welcomes(slot, need):
                continue
            if permission.permits(need, slot, now):
                best, best_rank = bundle, rank
        return best


def _turn(queue: Queue) -> tuple[int, object, int]:
    return -queue.level, queue.peek(), queue.need.variant
