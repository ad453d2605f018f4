"""``explain`` and ``plan`` for those who ask: rows and answers.

Owns: the columns of explanations, which demands somebody may ask about, and the form of a plan's
answer. Must never: decide or find out anything (``explaining`` and ``planning`` do).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from guactors import messages as m
from guactors.errors import UsageError
from guactors.ids import demand_id
from guactors.listing import Listing, Row
from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.claims import Claims
from guactors.scheduling.desk import Caller, Desk
from guactors.scheduling.explaining import Miss, explain, running
from guactors.scheduling.naming import may_name, sees_peer
from guactors.scheduling.placement import lease_needs
from guactors.scheduling.planning import plan
from guactors.scheduling.preemption import Plan, Victim
from guactors.scheduling.queues import Demand
from guactors.scheduling.quotas import TASKS
from guactors.scheduling.resources import LIGHT, STEP, Units
from guactors.scheduling.standing import Tenant

EXPLANATIONS: Final = "explanations"
COLUMNS: Final = (
    "demand_id", "kind", "job_id", "priority", "waiting", "node_id", "node_name", "reason",
    "preemption", "detail", "asked", "free", "still", "counts_as",
)  # fmt: skip
MOST: Final = 64
"""Demands that are explained in one answer; of the others it is said how many they are."""
MOST_TEXT: Final = 2000


class Foresight:
    """Works on ``desk``; ``claims``: room kept for placement groups."""

    def __init__(self, desk: Desk, claims: Claims) -> None:
        self._desk = desk
        self._claims = claims

    # --- explanations ---------------------------------------------------------------------------

    def listing(self, caller: Caller, subject: str) -> Listing:
        """Of all that waits, or of the ``subject``: a session, or a demand, lease or actor, which
        may run as well. Raises UsageError where there is no such thing for the caller."""
        desk = self._desk
        waits = [x for x in desk.demands if _waits(x) and self._about(x, subject)]
        waits = [x for x in waits if sees_peer(desk, caller, x.caller)]
        runs = [x for x in self._tenants(subject) if may_name(desk, caller, x)]
        if subject and not (waits or runs or self._is_session(caller, subject)):
            raise UsageError(
                f"no session, demand, lease or actor {subject[:100]!r} of yours is known: "
                "gu explain shows all that waits"
            )
        rows = self._rows(caller, waits, runs)
        return Listing(COLUMNS, rows, max(0, len(waits) - MOST))

    def _about(self, demand: Demand, subject: str) -> bool:
        caller = self._desk.callers.get(demand.caller)
        session = caller.session if caller is not None else ""
        return subject in ("", session, id_of(demand))

    def _tenants(self, subject: str) -> list[Tenant]:
        """What has its place, of a demand, lease or actor."""
        if not subject:
            return []
        found = self._desk.tenant(subject)
        if found is not None:
            return [found] if found.slot is not None else []
        of = [x for x in self._desk.leases if demand_id(x.caller, x.key) == subject]
        return list(of)

    def _is_session(self, caller: Caller, subject: str) -> bool:
        return any(
            other.session == subject and sees_peer(self._desk, caller, other.peer)
            for other in self._desk.callers.values()
        )

    def _rows(self, caller: Caller, waits: list[Demand], runs: list[Tenant]) -> Iterator[Row]:
        for tenant in runs:
            if tenant.slot is not None:
                yield self._running(caller, tenant)
        desk = self._desk
        for demand in islice(waits, MOST):
            # Pages are asked for one by one: some may wait no longer.
            if desk.demands.find(demand.caller, demand.key) is demand and _waits(demand):
                for miss in explain(desk, self._claims.kept(), demand, caller, desk.now):
                    yield self._waiting(demand, miss)

    def _waiting(self, demand: Demand, miss: Miss) -> Row:
        owner = self._desk.callers.get(demand.caller)
        slot = miss.slot
        return (
            id_of(demand),
            "actor" if demand.is_actor else "lease",
            owner.session if owner is not None else None,
            demand.need.priority,
            demand.count - len(demand.held),
            slot.peer if slot is not None else None,
            slot.name if slot is not None else None,
            miss.why.value,
            miss.preemption or None,
            miss.detail[:MOST_TEXT],
            _cell(miss.asked),
            _cell(miss.free),
            _cell(miss.still),
            self._desk.demands.level(demand),
        )

    def _running(self, caller: Caller, tenant: Tenant) -> Row:
        word, detail = running(self._desk, caller, tenant, self._desk.now)
        actor = isinstance(tenant, ActorRecord)
        slot = tenant.slot
        assert slot is not None
        return (
            tenant.id if isinstance(tenant, ActorRecord) else demand_id(tenant.caller, tenant.key),
            "actor" if actor else "lease",
            tenant.spec.session if isinstance(tenant, ActorRecord) else tenant.session,
            tenant.need.priority,
            0, slot.peer, slot.name, word, None, detail, {}, {}, {}, tenant.need.priority,
        )  # fmt: skip

    # --- plans ----------------------------------------------------------------------------------

    def plan(self, caller: Caller, question: m.AskPlan) -> m.PlanIs:
        """The answer. Raises UsageError for what cannot be planned."""
        desk = self._desk
        bounded = desk.allowance.bounded
        needs = lease_needs(question.shape, caller.python, caller.who)
        needs = tuple(bounded(need, caller.session, TASKS) for need in needs)
        if needs[0].wish.group:
            raise UsageError(
                "what would run in a placement group cannot be planned: gu list placement-groups "
                "shows what each has"
            )
        outlook = plan(desk, self._claims.kept(), needs, question.count, caller, desk.now)
        return m.PlanIs(
            question.request,
            [self._place(caller, place, question.shape) for place in outlook.places],
            outlook.missing,
            [_miss_row(miss) for miss in outlook.misses],
            outlook.never[:MOST_TEXT],
        )

    def _place(self, caller: Caller, place: Plan, shape: m.Shape) -> m.PlannedPlace:
        victims = [self._victim(caller, victim) for victim in place.victims]
        takes = _amounts(place.need.hold) if shape.alternatives else {}
        return m.PlannedPlace(place.slot.peer, place.slot.name, victims, takes)

    def _victim(self, caller: Caller, victim: Victim) -> m.PlannedVictim:
        tenant = victim.tenant
        named = may_name(self._desk, caller, tenant)
        actor = isinstance(tenant, ActorRecord)
        return m.PlannedVictim(
            tenant.id if named else "",
            "actor" if actor else "lease",
            tenant.spec.class_name if named and isinstance(tenant, ActorRecord) else "",
            victim.mode,
            tenant.need.priority,
            _amounts(tuple(victim.frees.items())),
        )


def id_of(demand: Demand) -> str:
    """As in ``ids.demand_id``; an actor's demand has the actor's."""
    return demand.key if demand.is_actor else demand_id(demand.caller, demand.key)


def _waits(demand: Demand) -> bool:
    return demand.count > len(demand.held)


def _miss_row(miss: Miss) -> m.MissRow:
    slot = miss.slot
    return m.MissRow(
        slot.peer if slot is not None else "",
        slot.name if slot is not None else "",
        miss.why.value,
        miss.preemption,
        miss.detail[:MOST_TEXT],
        _amounts(miss.asked),
        _amounts(miss.free),
        _amounts(miss.still),
    )


def _amounts(steps: Units) -> dict[str, float]:
    return {name: amount / STEP for name, amount in steps if name != LIGHT}


def _cell(steps: Units) -> m.Cell:
    return dict(_amounts(steps))
