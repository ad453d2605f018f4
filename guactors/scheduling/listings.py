"""What the scheduler can tell to those who look inside: actors, leases, demand, placement groups,
providers.

Owns: the columns of these listings, and :data:`LISTINGS`, in which every listing of the scheduler
has its line. Must never: change anything, or show a caller what is not its principal's.

Columns have Ray's names where Ray has one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Final

from msgspec.structs import replace

from guactors import messages as m
from guactors.errors import UsageError
from guactors.listing import Listing, Row, Snapshots
from guactors.scheduling.actors import MOST_DEAD, ActorRecord
from guactors.scheduling.claims import Claims
from guactors.scheduling.desk import Caller, Desk, sees
from guactors.scheduling.events import GridAsked, SessionsAsked
from guactors.scheduling.foresight import EXPLANATIONS, Foresight
from guactors.scheduling.groups import Group
from guactors.scheduling.leases import Lease
from guactors.scheduling.naming import sees_all, sees_peer
from guactors.scheduling.placement import Need, Slot
from guactors.scheduling.queues import Demand
from guactors.scheduling.resources import LIGHT, STEP, Units
from guactors.scheduling.standing import Tenant, stands

SUSPENSION_COLUMNS: Final = (
    "suspended_by", "suspended_time_ms", "suspended_reason", "preempted", "preempted_by",
    "preempted_reason", "displaced",
)  # fmt: skip
"""Since when (ms of the epoch) and for whom it stands still; how often it has given way, the last
time to whom and why; and who gave way for it."""
ACTOR_COLUMNS: Final = (
    "actor_id", "class_name", "state", "name", "ray_namespace", "job_id", "owner", "node_id",
    "worker_id", "num_restarts", "is_detached", "required_resources", "death_cause",
    *SUSPENSION_COLUMNS,
)  # fmt: skip
LEASE_COLUMNS: Final = (
    "lease_id", "state", "job_id", "caller_id", "node_id", "worker_id", "required_resources",
    "priority", "blocked", "recalled", "age_s", *SUSPENSION_COLUMNS,
)  # fmt: skip
DEMAND_COLUMNS: Final = (
    "required_resources", "waiting", "kind", "priority", "labels", "runtime", "image", "callers",
    "infeasible", "counts_as",
)  # fmt: skip
PREEMPTION_COLUMNS: Final = (
    "event_time_ms", "event", "what", "priority", "mode", "reason", "by", "by_priority", "node_id",
    "times",
)  # fmt: skip
GROUP_COLUMNS: Final = (
    "placement_group_id", "state", "name", "ray_namespace", "creator_job_id", "strategy", "bundles",
    "node_ids", "is_detached", "reason",
)  # fmt: skip
USE_COLUMNS: Final = ("share", "using", "quota")
"""Of sessions, behind the columns that the hub knows."""
RESERVATION_COLUMNS: Final = (
    "name", "state", "start", "end", "required_resources", "priority", "node_id", "provider",
    "labels", "leases", "actors", "owner", "allow",
)  # fmt: skip
PROVIDER_COLUMNS: Final = (
    "node_id", "node_name", "state", "reason", "until", "leases", "actors", "suspended",
    "resources", "labels",
)  # fmt: skip
SUSPENDED: Final = "SUSPENDED"
MOST_TEXT: Final = 1000
"""Characters of a cell."""
_STATES: Final = {
    "pending": "PENDING_CREATION", "alive": "ALIVE", "restarting": "RESTARTING", "dead": "DEAD",
}  # fmt: skip


class Listings:
    """Works on ``desk``."""

    def __init__(self, desk: Desk, claims: Claims) -> None:
        self._desk = desk
        self._foresight = Foresight(desk, claims)
        self._snapshots = Snapshots()

    def grid(self, event: GridAsked, actors: list[m.ActorInfo]) -> None:
        """Answer with who is there, and what each has and holds."""
        desk = self._desk
        info = replace(
            event.info,
            peers=[self._peer_row(row) for row in event.info.peers],
            leases=len(desk.leases),
            waiting=desk.demands.waiting(),
            actors=actors,
            preemptions=dict(desk.thrash.counts),
        )
        desk.say(event.peer, m.Grid(event.request, info))

    def _peer_row(self, row: m.PeerInfo) -> m.PeerInfo:
        desk = self._desk
        slot = desk.slots.get(row.peer)
        if slot is None:
            leases = desk.leases.of_caller(row.peer)
            return replace(row, leases=len(leases)) if leases else row
        return replace(
            row,
            total=slot.pool.amounts(),
            free=slot.pool.free() if slot.up and not slot.closed else {},
            leases=len(slot.leases),
            actors=len(slot.actors),
            labels=slot.labels,
            suspended=desk.standing.held(row.peer),
            availability=slot.closed or m.Availability(until=slot.lent_until),
        )

    def answer(self, caller: Caller, message: m.Inquire | m.AskPlan) -> None:
        """Say the page or plan that was asked for, or what is wrong with the question."""
        answer: m.Message
        try:
            if isinstance(message, m.AskPlan):
                answer = self._foresight.plan(caller, message)
            else:
                answer = m.Page(message.request, self._page(caller, message.query))
        except UsageError as error:
            answer = m.Fault("UsageError", str(error), message.request)
        self._desk.say(caller.peer, answer)

    def sessions(self, event: SessionsAsked) -> None:
        """The hub's rows of sessions, each with what it may use and does."""
        shares, quotas = self._desk.demands.shares, self._desk.quotas

        def row(known: Row) -> Row:
            session = str(known[0])
            used = sorted(shares.used(session).items())
            quota: m.Cell = dict(quotas.of(session))
            return (*known, shares.share(session), _resources(tuple(used)), quota)

        def make(_: m.Query) -> Listing:
            return Listing((*event.columns, *USE_COLUMNS), map(row, event.rows))

        asked = event.question
        try:
            page = self._snapshots.page(event.peer, asked.query, make)
            answer: m.Message = m.Page(asked.request, page)
        except UsageError as error:
            answer = m.Fault("UsageError", str(error), asked.request)
        self._desk.say(event.peer, answer)

    def _page(self, caller: Caller, asked: m.Query) -> m.RowPage:
        def make(query: m.Query) -> Listing:
            if query.what == EXPLANATIONS:
                return self._foresight.listing(caller, query.subject)
            maker = LISTINGS.get(query.what)
            if maker is None:
                raise UsageError(
                    f"the hub lists no {query.what!r}; there are {', '.join(sorted(NAMES))}"
                )
            return maker(self._desk, caller)

        return self._snapshots.page(caller.peer, asked, make)

    def caller_left(self, peer: str) -> None:
        """It reads no further."""
        self._snapshots.forget(peer)


def _actors(desk: Desk, caller: Caller) -> Listing:
    known = chain(list(desk.actors), desk.actors.recent_dead(MOST_DEAD))
    return Listing(ACTOR_COLUMNS, (_actor(desk, one) for one in known if sees(caller, one)))


def _actor(desk: Desk, record: ActorRecord) -> Row:
    spec, death = record.spec, record.death
    return (
        record.id,
        spec.class_name,
        SUSPENDED if stands(record) else _STATES.get(record.state, record.state),
        spec.name or None,
        spec.namespace,
        spec.session,
        spec.owner,
        record.slot.peer if record.slot is not None else None,
        record.worker or None,
        record.incarnation,
        spec.detached,
        dict(spec.shape.resources),
        None if death is None else f"{death.cause}: {death.detail}".rstrip(": ")[:MOST_TEXT],
        *_suspension(desk, record),
    )


def _leases(desk: Desk, caller: Caller) -> Listing:
    return Listing(
        LEASE_COLUMNS,
        (_lease(desk, one) for one in list(desk.leases) if sees_peer(desk, caller, one.caller)),
    )


def _lease(desk: Desk, lease: Lease) -> Row:
    return (
        lease.id,
        SUSPENDED if stands(lease) else lease.state.name,
        lease.session,
        lease.caller,
        lease.slot.peer,
        lease.worker or None,
        _resources(lease.need.hold),
        lease.need.priority,
        lease.blocked,
        lease.recalled_at is not None,
        round(max(0.0, desk.now - lease.since), 3),
        *_suspension(desk, lease),
    )


def _suspension(desk: Desk, tenant: Tenant) -> Row:
    found, past = tenant.suspension, tenant.past
    now: Row = (None, None, None)
    if found is not None and stands(tenant):
        word = found.word(desk.wall)
        now = (word.by or None, round(word.since * 1e3, 3), word.reason)
    before: Row = (tenant.displaced, None, None)
    if past is not None:
        last = past.last
        before = (tenant.displaced, last.by or None, f"{last.reason}: {last.mode}")
    return (*now, *before, ", ".join(tenant.displaces)[:MOST_TEXT] or None)


def _resources(hold: Units) -> m.Cell:
    return {name: amount / STEP for name, amount in hold if name != LIGHT}


def _demand(desk: Desk, caller: Caller) -> Listing:
    """Places that are wanted and not had, by what they need."""
    found: dict[tuple[bool, Need], list[Demand]] = {}
    for demand in desk.demands:
        if demand.waiting and sees_peer(desk, caller, demand.caller):
            found.setdefault((demand.is_actor, demand.need), []).append(demand)
    rows = [
        (*_demand_row(is_actor, need, wanted), desk.demands.level(wanted[0]))
        for (is_actor, need), wanted in found.items()
    ]
    return Listing(DEMAND_COLUMNS, rows)


def _demand_row(is_actor: bool, need: Need, wanted: list[Demand]) -> Row:
    return (
        _resources(need.total),
        sum(demand.waiting for demand in wanted),
        "actor" if is_actor else "lease",
        need.priority,
        dict(need.labels),
        need.runtime or "python",
        need.image or None,
        len({demand.caller for demand in wanted}),
        any(demand.infeasible for demand in wanted),
    )


def _preemptions(desk: Desk, caller: Caller) -> Listing:
    """What gave way lately, and cycles in which the same did so again and again."""
    return Listing(
        PREEMPTION_COLUMNS,
        (
            (
                round(desk.wall(one.at) * 1e3, 3), "cycle" if one.cycle else "preempted",
                one.what, one.priority, one.mode, one.reason, one.by or None, one.by_priority,
                one.provider or None, one.times,
            )
            for one in reversed(desk.thrash.events)
            if sees_all(caller) or one.principal == caller.principal
        ),
    )  # fmt: skip


def _groups(desk: Desk, caller: Caller) -> Listing:
    known = chain(list(desk.groups.live.values()), list(desk.groups.gone.values()))
    return Listing(GROUP_COLUMNS, (_group(one) for one in known if sees(caller, one)))


def _group(group: Group) -> Row:
    spec = group.spec
    bundles = (
        "{" + ", ".join(f"{name}: {amount:g}" for name, amount in sorted(one.items())) + "}"
        for one in spec.bundles
    )
    return (
        group.id,
        group.state.upper(),
        spec.name or None,
        spec.namespace,
        spec.session,
        spec.strategy,
        ", ".join(bundles)[:MOST_TEXT],
        ", ".join(home or "-" for home in group.homes())[:MOST_TEXT] or None,
        spec.detached,
        group.reason[:MOST_TEXT] or None,
    )


def _reservations(desk: Desk, caller: Caller) -> Listing:
    return Listing(
        RESERVATION_COLUMNS,
        (
            _reservation(group, group.reservation)
            for group in sorted(desk.groups, key=lambda one: one.id)
            if group.reservation is not None and sees(caller, group)
        ),
    )


def _reservation(group: Group, spec: m.ReservationSpec) -> Row:
    bundle = group.bundles[0]
    state = "standing" if bundle.slot is not None else "looking for room"
    return (
        spec.name,
        state if group.begun else "to come",
        spec.start,
        spec.end,
        dict(spec.resources),
        spec.priority,
        bundle.slot.peer if bundle.slot is not None else None,
        spec.provider or None,
        dict(spec.labels),
        len(bundle.leases),
        len(bundle.actors),
        spec.principal,
        ", ".join(spec.allow)[:MOST_TEXT] or None,
    )


def _providers(desk: Desk, _caller: Caller) -> Listing:
    return Listing(PROVIDER_COLUMNS, [_provider(desk, slot) for slot in desk.slots.values()])


def _provider(desk: Desk, slot: Slot) -> Row:
    """``until`` in epoch seconds."""
    closed = slot.closed
    state = "JOINING" if not slot.offered else "LENT" if closed is None else "NOT_LENT"
    until = slot.lent_until if closed is None else closed.until
    return (
        slot.peer,
        slot.name,
        state if slot.up else "SILENT",
        closed.reason[:MOST_TEXT] if closed is not None else None,
        until or None,
        len(slot.leases),
        len(slot.actors),
        len(desk.standing.on(slot.peer)),
        dict(slot.pool.amounts()),
        dict(slot.labels),
    )


LISTINGS: Final[dict[str, Callable[[Desk, Caller], Listing]]] = {
    "actors": _actors,
    "demand": _demand,
    "leases": _leases,
    "placement-groups": _groups,
    "preemptions": _preemptions,
    "reservations": _reservations,
    "providers": _providers,
}
"""By name; a new listing of the scheduler is a line here."""
NAMES: Final = LISTINGS.keys() | {EXPLANATIONS}
