"""How much somebody may have beside what it has: by its principal's grants, by its session's quota.

Owns: what both say together, and who looks again when something comes back. Must never: count
(``permission`` and ``quotas`` do), or look at room.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from guactors.scheduling.groups import Group
from guactors.scheduling.placement import Need
from guactors.scheduling.queues import Demand
from guactors.scheduling.quotas import ACTORS, TASKS, count_running

if TYPE_CHECKING:
    from guactors.scheduling.desk import Desk


class Allowance:
    """Works on ``desk``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def running(self, session: str) -> dict[str, int]:
        """How many tasks and actors of the session run, counted anew."""
        leases = (lease for lease in self._desk.leases if lease.session == session)
        return count_running(leases, self._desk.actors.of_session(session))

    def bounded(self, need: Need, session: str, kind: str) -> Need:
        """The need of a task or actor of this session, which may have a quota."""
        bound = self._desk.quotas.bound(session, kind)
        return need if need.bound == bound else need._replace(bound=bound)

    def bind(self, session: str, quota: Mapping[str, float]) -> list[Demand]:
        """The session's quota from now on; the demands of it, where that is another."""
        desk, found = self._desk, list[Demand]()
        if desk.quotas.of(session) == quota:
            return found
        desk.quotas.bind(session, quota, self.running(session))
        for demand in list(desk.demands):
            if demand.session == session:
                kind = ACTORS if demand.is_actor else TASKS
                needs = tuple(self.bounded(need, session, kind) for need in demand.needs)
                desk.demands.move(demand, needs, demand.shape)
                found.append(demand)
        return found

    def within(self, need: Need) -> bool:
        """Whether its principal and its session may have this beside what they have."""
        desk = self._desk
        return desk.permission.within_quota(need, desk.now) and desk.quotas.excess(need) is None

    def group_within(self, group: Group) -> bool:
        """The same of all bundles that have no room yet."""
        desk, needs = self._desk, [bundle.need for bundle in group.unplaced()]
        within = desk.permission.all_within(needs, desk.now)
        return within and desk.quotas.excess_of(group.spec.session, needs) is None

    def freed(self, who: str) -> None:
        """The quota of this principal or session may have been what others waited for, wherever
        there is room."""
        if not who:
            return
        desk = self._desk
        desk.demands.try_anew(who)
        desk.groups.look_again()
        desk.demands.stir(*desk.demands.inside)
