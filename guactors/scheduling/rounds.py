"""The round that serves who waits: groups, what is inside them, what stands still, and the queues.

Owns: the order of these, and that the highest priority is served first. Must never: choose a
provider (``lines`` does) or a victim (``preemption`` does).
"""

from __future__ import annotations

from guactors.scheduling import closing
from guactors.scheduling.actor_rules import ActorRules
from guactors.scheduling.aging import highest
from guactors.scheduling.claims import Claims
from guactors.scheduling.desk import Desk
from guactors.scheduling.displacing import Displacing
from guactors.scheduling.group_rules import GroupRules
from guactors.scheduling.inside import Inside
from guactors.scheduling.lease_rules import LeaseRules
from guactors.scheduling.lines import Level
from guactors.scheduling.queues import Queue


class Rounds:
    """Works on ``desk``, by the rules of leases, actors and groups."""

    def __init__(
        self, desk: Desk, leases: LeaseRules, actors: ActorRules, groups: GroupRules,
        inside: Inside, claims: Claims, displacing: Displacing,
    ) -> None:  # fmt: skip
        self._desk = desk
        self._leases = leases
        self._actors = actors
        self._groups = groups
        self._inside = inside
        self._claims = claims
        self._displacing = displacing
        self.news = False
        """Somebody has begun to wait since this was last taken note of."""

    def place(self, now: float) -> list[Queue]:
        """Returns queues that found no room just now."""
        tight = self._place_once(now)
        altered = self._desk.neighbours.altered
        while altered:
            for slot in altered:
                # What came or went there is what others want to be near to, or apart from.
                if self._desk.slots.get(slot.peer) is slot:
                    closing.open_again(self._desk, slot)
                    self._desk.seats.eased(slot)
            altered.clear()
            tight += self._place_once(now)
        return tight

    def _place_once(self, now: float) -> list[Queue]:
        desk, tight = self._desk, list[Queue]()
        if desk.groups.fresh or (desk.roomier and desk.groups.waiting):
            self._groups.place(now)
        if desk.demands.stirred and self._inside.serve(now):
            self.news = True
        roomier, desk.roomier = desk.roomier, {}
        tries = desk.lines.round(roomier.values(), self._claims.kept, now)
        if tries is None and not roomier:
            return tight
        stood = self._displacing.stood_on(roomier.values())
        back = sorted(stood)
        for level in tries.levels() if tries is not None else ():
            while tries is not None and back and self._returns_at(back[-1]) >= level.priority:
                for slot in self._displacing.bring_back(stood[back.pop()], now):
                    tries.taken(slot)
            tight += self._place_level(level, now)
        while back:
            self._displacing.bring_back(stood[back.pop()], now)
        if tries is not None:
            self.news = self.news or bool(desk.demands.queues)
        return tight

    def _returns_at(self, priority: int) -> int:
        """What stands still comes back before its equals, however long these have waited."""
        return highest(priority) if self._desk.demands.aging is not None else priority

    def _place_level(self, level: Level, now: float) -> list[Queue]:
        """Serve the queues of one priority in turn; returns those that found no room."""
        desk, tight = self._desk, list[Queue]()
        while (queue := level.next()) is not None:
            allowed = desk.allowance.within(queue.need)
            demand = desk.demands.head(queue)
            slot = level.choose(queue, demand.prefer) if allowed else None
            if slot is None:
                tight += level.stuck()
                continue
            queue.blocked_since = None
            desk.lines.recalled(queue, False)
            rules = self._actors if demand.is_actor else self._leases
            rules.start(demand, queue.need, slot, now)
            level.placed(queue, slot)
        level.conclude(now)
        return tight
