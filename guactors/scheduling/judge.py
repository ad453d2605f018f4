"""Whether a demand could ever be served, and telling its caller once if not.

Owns: when such a verdict may fall. Must never: withdraw a demand; a provider that joins later
serves it, and its caller decides whether to wait for one.
"""

from __future__ import annotations

from guactors.ids import RESERVED
from guactors.messages import DemandInfeasible
from guactors.scheduling.desk import SETTLING, Desk, sees
from guactors.scheduling.events import Decision
from guactors.scheduling.groups import REMOVED, Group
from guactors.scheduling.placement import Need, explain, feasible
from guactors.scheduling.queues import Demand
from guactors.scheduling.resources import STEP
from guactors.security.rights import Verdict

OVERTAKEN = 2.0
"""Seconds for which a demand waits for the creation of the group that it overtook."""
GONE = "PlacementGroupRemoved"
NO_RESERVATION = "NoSuchReservation"


class Judge:
    """Works on ``desk``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def judge(self, demand: Demand, now: float) -> None:
        """Tell the caller if no provider could ever serve the demand. Not while providers are still
        coming: after a restart of the hub, or between a provider's Hello and its Offer."""
        desk = self._desk
        if demand.need.wish.group:
            self._judge_inside(demand, now)
            return
        if not demand.waiting or demand.infeasible:
            return
        excess = [desk.quotas.never(need) for need in demand.needs]
        if all(excess):
            self._give_up_hope(demand)
            if demand.caller in desk.callers:
                desk.say(demand.caller, DemandInfeasible(demand.key, str(excess[0])))
            return
        if any(map(desk.candidates, demand.needs)):
            return
        later = self._everybody_here()
        if later > now:
            desk.agenda.put(later, lambda then: self._again(demand, then))
            return
        self._give_up_hope(demand)
        if demand.caller not in desk.callers:
            return
        denied = [self._denied(need, now) for need in demand.needs]
        if denied[0] is not None and None not in denied:
            self._deny(demand, denied[0])
            return
        reasons = [
            why.detail if why is not None else explain(desk.slots.values(), need)
            for need, why in zip(demand.needs, denied, strict=True)
        ]
        text = "; nor: ".join(dict.fromkeys(reasons))
        desk.say(demand.caller, DemandInfeasible(demand.key, text))

    def _denied(self, need: Need, now: float) -> Verdict | None:
        could = [slot for slot in self._desk.slots.values() if feasible(slot, need)]
        return self._desk.permission.explain(need, could, now)

    def _judge_inside(self, demand: Demand, now: float) -> None:
        """Of a demand that is to be met inside a placement group: the group may be gone, or
        somebody else's; its creation may have been overtaken; or no bundle is big enough."""
        desk, need = self._desk, demand.need
        if demand.infeasible or not (demand.waiting or demand.given_up):
            return  # one that was given up is asked about again where the answer was lost
        group = desk.groups.live.get(need.wish.group) or desk.groups.gone.get(need.wish.group)
        caller = desk.callers.get(demand.caller)
        if group is not None and (caller is None or sees(caller, group)):
            if group.state != REMOVED:
                self._judge_bundles(demand, group, now)
                return
            if group.reservation is not None:
                text = f"the reservation {group.reservation.name} is over: {group.reason}"
                self._refuse(demand, text, NO_RESERVATION)
                return
            self._refuse(demand, f"its placement group {group.id} is gone: {group.reason}", GONE)
            return
        if need.wish.group.startswith(RESERVED):
            self._refuse(demand, _no_reservation(need.wish.group), NO_RESERVATION)
            return
        if not demand.unknown_until:
            demand.unknown_until = now + OVERTAKEN
        later = max(demand.unknown_until, desk.rejoined_at())
        if later > now:
            desk.agenda.put(later, lambda then: self._again(demand, then))
            return
        self._refuse(demand, _unknown(need.wish.group), GONE)

    def _judge_bundles(self, demand: Demand, group: Group, now: float) -> None:
        """Whether one of them could ever hold it, and on a provider where its caller may work."""
        bundles = [one for need in demand.needs for one in self._desk.bundles_for(need)]
        if not bundles:
            text = f"no bundle of {group.id} could hold it: it has {_bundles(group)}"
            self._refuse(demand, text, "Unschedulable")
            return
        slots = [bundle.slot for bundle in bundles if bundle.slot is not None]
        if len(slots) < len(bundles) or demand.caller not in self._desk.callers:
            return
        denied = self._desk.permission.explain(demand.need, slots, now)
        if denied is not None:
            self._give_up_hope(demand)
            self._deny(demand, denied)

    def lets_in(self, demand: Demand) -> bool:
        """Whether the group in which it is to be met is there for its caller; refuses it if not."""
        desk, id = self._desk, demand.need.wish.group
        group, caller = desk.groups.live.get(id), desk.callers.get(demand.caller)
        if group is None or caller is None or sees(caller, group):
            return True
        if group.reservation is not None:
            self._refuse(demand, _no_reservation(id), NO_RESERVATION)
        else:
            self._refuse(demand, _unknown(id), GONE)
        return False

    def _refuse(self, demand: Demand, why: str, kind: str) -> None:
        """Nothing that happens later could help."""
        demand.given_up = True
        self._give_up_hope(demand)
        self._desk.demands.refresh(demand)
        if demand.caller in self._desk.callers:
            self._desk.say(demand.caller, DemandInfeasible(demand.key, why, kind))

    def _give_up_hope(self, demand: Demand) -> None:
        demand.infeasible = True
        self._desk.demands.hopeless[demand] = None

    def _deny(self, demand: Demand, why: Verdict) -> None:
        need = demand.need
        what = need.image or need.runtime or "python"
        told = Decision(
            need.who, "submit", what, "refused", why.reason.value, why.detail, grant=why.serial
        )
        self._desk.audit(told)
        self._desk.say(demand.caller, DemandInfeasible(demand.key, why.detail, "PermissionDenied"))

    def _everybody_here(self) -> float:
        coming = [slot.joined + SETTLING for slot in self._desk.coming.values()]
        return max([self._desk.settled_at(), *coming])

    def _again(self, demand: Demand, now: float) -> None:
        if self._desk.demands.find(demand.caller, demand.key) is demand:
            self.judge(demand, now)


def _unknown(group: str) -> str:
    return f"no placement group {group} is known to this hub"


def _no_reservation(id: str) -> str:
    name = id.removeprefix(RESERVED)
    return f"no reservation {name!r} that you may use is to come or stands: gu list reservations"


def _bundles(group: Group) -> str:
    found = [
        "{" + ", ".join(f"{name}: {n / STEP:g}" for name, n in bundle.need.hold) + "}"
        for bundle in group.bundles[:8]
    ]
    return ", ".join(found)
