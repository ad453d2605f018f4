"""Whether a demand could ever be served, and telling its caller once if not.

Owns: when such a verdict may fall. Must never: withdraw a demand; a provider that joins later
serves it, and its caller decides whether to wait for one.
"""

from __future__ import annotations

from guactors.messages import DemandInfeasible
from guactors.scheduling.demand import Demand
from guactors.scheduling.desk import SETTLING, Desk
from guactors.scheduling.events import Decision
from guactors.scheduling.placement import explain, feasible
from guactors.security.rights import Verdict


class Judge:
    """Works on ``desk``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def judge(self, demand: Demand, now: float) -> None:
        """Tell the caller if no provider could ever serve the demand. Not while providers are still
        coming: after a restart of the hub, or between a provider's Hello and its Offer."""
        desk = self._desk
        if not demand.waiting or demand.infeasible or desk.candidates(demand.need):
            return
        later = self._everybody_here()
        if later > now:
            desk.agenda.put(later, lambda then: self._again(demand, then))
            return
        demand.infeasible = True
        if demand.caller not in desk.callers:
            return
        could = [slot for slot in desk.slots.values() if feasible(slot, demand.need)]
        denied = desk.permission.explain(demand.need, could, now)
        if denied is not None:
            self._deny(demand, denied)
        else:
            reason = explain(desk.slots.values(), demand.need)
            desk.say(demand.caller, DemandInfeasible(demand.key, reason))

    def _deny(self, demand: Demand, why: Verdict) -> None:
        need = demand.need
        what = need.image or need.runtime or "python"
        told = Decision(
            need.who, "submit", what, "refused", why.reason.value, why.detail, grant=why.serial
        )
        self._desk.audit(told)
        self._desk.say(demand.caller, DemandInfeasible(demand.key, why.detail, "PermissionDenied"))

    def _everybody_here(self) -> float:
        coming = [slot.joined + SETTLING for slot in self._desk.slots.values() if not slot.offered]
        return max([self._desk.settled_at(), *coming])

    def _again(self, demand: Demand, now: float) -> None:
        if self._desk.demands.find(demand.caller, demand.key) is demand:
            self.judge(demand, now)
