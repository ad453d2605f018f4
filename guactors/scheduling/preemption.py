"""Who gives way when something of a higher priority finds no room.

Owns: which leases and actors may be made to give way, the choice among them, and why none could.
Must never: change anything; ``displacing`` acts on a plan, and what ``planning`` and ``explaining``
show is the same.

What a list ``preemption`` says may be done with work, in this order; without a word it may be
suspended:

* ``suspend``: it stands still. Its processors are free, its memory and devices are not, and no work
  is lost.
* ``checkpoint``: an actor whose class can tell its state ends, and goes on with that where there is
  room; all that it held is free, and no work is lost. Of others the word means nothing.
* ``requeue``: it ends, and begins again where there is room; all that it held is free.
* ``stop``: it ends for good, and who waits for it is told.
* ``never``: nothing; it comes alone.

The first that helps is taken: where memory or a device is what is missing, suspending does not.

The choice is the provider where the highest of the victims' priorities is the lowest; then the one
where the least work is lost, no deadline is near, they have given way the least often, are the
fewest, and are the youngest. On one provider the lowest priority goes first; where a single victim
is enough it is the smallest that is; and who turns out to be needless in the end is spared again.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.company import speaks_of
from guactors.scheduling.desk import Desk
from guactors.scheduling.leases import Lease
from guactors.scheduling.placement import Need, Slot, welcomes
from guactors.scheduling.resources import yielded
from guactors.scheduling.seats import DEFAULT, MODES, SUSPEND, runs
from guactors.scheduling.standing import Tenant

GAP: Final = 10
"""A victim's priority is lower by so much at the least; below it priority orders, and no more."""
CHECKPOINT: Final = "checkpoint"
DUE_SOON: Final = 1.0
"""Seconds before its deadline from which work does not give way."""
MOST_LOOKED: Final = 64
"""Providers that are looked at for each priority of victims."""


class Spared(enum.StrEnum):
    """Why something does not give way; in the order in which it is looked at, so that the last of
    several is of what came nearest to it."""

    STANDS = "suspended"
    """It stands still already."""
    GAP = "gap"
    """Its priority is not lower by GAP."""
    NEVER = "never"
    """Its owner does not let it."""
    GROUP = "group"
    """It runs in a placement group."""
    IDLE = "idle"
    """It starts or waits, and takes no processor."""
    MIN_RUNTIME = "min_runtime"
    """It is to run for a while first."""
    STEADY = "could_not"
    """It could not be suspended a moment ago."""
    LATELY = "lately"
    """It has given way lately, and is to run for a while."""
    NEAR = "near"
    """Who asks is to be near it."""
    SERVES = "serves"
    """Others work for it."""
    DEADLINE = "deadline"
    """It must have ended so soon that to stand still would break that."""
    NOT_ALLOWED = "not_allowed"
    """No grant lets who asks push others aside in a way that would help."""
    NO_HELP = "no_help"
    """What it would free is not what is missing."""


class Victim(NamedTuple):
    """What gives way, how, and how much of each resource it thereby gives."""

    tenant: Tenant
    mode: str
    frees: dict[str, int]
    due: float = math.inf
    """When it must have ended."""

    @property
    def cost(self) -> int:
        """Work is lost, or none."""
        return 0 if self.mode in (SUSPEND, CHECKPOINT) else 1


class Plan(NamedTuple):
    """Where something of this need would start, and what would give way for it."""

    slot: Slot
    victims: tuple[Victim, ...]
    need: Need


class Survey(NamedTuple):
    """One provider, looked at for what could give way: what is missing there, by whom it could be
    given, and why the others do not."""

    short: dict[str, int]
    able: list[Victim]
    spared: list[tuple[Tenant, Spared]]

    @property
    def enough(self) -> bool:
        """Whether all that could give way would be enough."""
        return _enough(self.able, self.short)


def make_plan(desk: Desk, need: Need, now: float, *, caller: str = "") -> Plan | None:
    """The best way to make room for the need, asked for by ``caller``; None where there is none.
    Of very many providers where somebody could, some are looked at, others the next time."""
    if need.wish.group:
        return None
    for priority in desk.seats.levels(need.priority - GAP):
        best: Plan | None = None
        best_rank: tuple[float, ...] = ()
        for slot in desk.giving_way(need, priority, MOST_LOOKED):
            if not (slot.up and slot.open) or not welcomes(slot, need):
                continue
            victims = _victims(desk, slot, need, caller, priority, now)
            if victims:
                rank = (*_rank(victims), slot.order)
                if best is None or rank < best_rank:
                    best, best_rank = Plan(slot, tuple(victims), need), rank
        if best is not None:
            return best
    return None


def _rank(victims: list[Victim]) -> tuple[float, ...]:
    return (
        sum(x.cost for x in victims),
        -min(x.due for x in victims),
        max(x.tenant.displaced for x in victims),
        len(victims),
        -min(since(x.tenant) for x in victims),
    )


def since(tenant: Tenant) -> float:
    """When it began to run, or ran again."""
    return tenant.alive_since if isinstance(tenant, ActorRecord) else tenant.since


def spared(desk: Desk, tenant: Tenant, need: Need, caller: str, now: float) -> Spared | None:
    """Why it does not give way for the need; None where it may be made to."""
    own = tenant.need
    if tenant.suspension is not None:
        return Spared.STANDS
    if own.priority > need.priority - GAP:
        return Spared.GAP
    if not set(own.preemption or DEFAULT) & set(MODES):
        return Spared.NEVER
    if tenant.bundle is not None:
        return Spared.GROUP
    if not runs(tenant):
        return Spared.IDLE
    if now < since(tenant) + own.min_runtime:
        return Spared.MIN_RUNTIME
    if now < tenant.steady:
        return Spared.STEADY
    if tenant.past is not None and now < since(tenant) + tenant.past.protection:
        return Spared.LATELY
    if _is_sought(own, need):
        return Spared.NEAR
    peer = desk.caller_at.get(tenant.worker, "")
    if peer and (peer == caller or desk.leases.of_caller(peer)):
        return Spared.SERVES
    if due(desk, tenant) < now + DUE_SOON:
        return Spared.DEADLINE
    return None


def _is_sought(own: Need, need: Need) -> bool:
    if own.company is None or need.company is None or own.who != need.who:
        return False
    return speaks_of(need.company.near, own.company)


def due(desk: Desk, tenant: Tenant) -> float:
    """When it must have ended; infinite where there is no such time to come. Of the calls of actors
    the hub knows nothing."""
    found = tenant.due if isinstance(tenant, Lease) else math.inf
    return found if found > desk.now else math.inf


def _victims(
    desk: Desk, slot: Slot, need: Need, caller: str, most: int, now: float
) -> list[Victim]:
    """On this provider, of a priority up to ``most``: none where all that could give way would not
    be enough."""
    short = _short(slot, need)
    if not short:
        return []
    allowed = _allowed(desk, slot, need, now)
    able = []
    for tenant in map(desk.tenant, desk.seats.on(slot, most)):
        if tenant is not None and spared(desk, tenant, need, caller, now) is None:
            victim = _as_victim(tenant, short, allowed)
            if victim is not None:
                able.append(victim._replace(due=due(desk, tenant)))
    return _needed(_choose(able, short), short) if _enough(able, short) else []


def _short(slot: Slot, need: Need) -> dict[str, int]:
    """How much of what is missing there."""
    total, used = slot.pool.total, slot.pool.used
    left = ((name, amount - total.get(name, 0) + used.get(name, 0)) for name, amount in need.hold)
    return {name: amount for name, amount in left if amount > 0}


def _allowed(desk: Desk, slot: Slot, need: Need, now: float) -> Sequence[str]:
    """The ways in which others may be pushed aside there."""
    if not need.who:
        return MODES
    return [mode for mode in MODES if desk.permission.may_displace(need, slot, mode, now)]


def survey(
    desk: Desk, slot: Slot, need: Need, caller: str, now: float,
    short: dict[str, int] | None = None,
) -> Survey:  # fmt: skip
    """Who on this provider could give way for the need, and why the others do not. ``short``: how
    much is missing there; without a word what is not free."""
    found = Survey(_short(slot, need) if short is None else short, [], [])
    if not found.short:
        return found
    allowed = _allowed(desk, slot, need, now)
    for tenant in _tenants(desk, slot):
        why = spared(desk, tenant, need, caller, now)
        if why is None:
            victim = _as_victim(tenant, found.short, allowed)
            if victim is not None:
                found.able.append(victim._replace(due=due(desk, tenant)))
                continue
            helps = _as_victim(tenant, found.short, MODES) is not None
            why = Spared.NOT_ALLOWED if helps else Spared.NO_HELP
        found.spared.append((tenant, why))
    return found


def clearing(
    desk: Desk, slot: Slot, need: Need, now: float, short: dict[str, int] | None = None
) -> tuple[list[Victim], dict[str, int]]:
    """Who gives way for the need as far as that goes, and what is missing even then; ``short`` as
    in ``survey``."""
    found = survey(desk, slot, need, "", now, short=short)
    # The order to take a state goes out with one to start, and nothing starts here.
    allowed = [mode for mode in _allowed(desk, slot, need, now) if mode != CHECKPOINT]
    able = [
        other._replace(due=victim.due)
        for victim in found.able
        if (other := _as_victim(victim.tenant, found.short, allowed)) is not None
    ]
    victims = _needed(_choose(able, found.short), found.short)
    missing = {
        name: amount - sum(victim.frees.get(name, 0) for victim in victims)
        for name, amount in found.short.items()
    }
    return victims, {name: amount for name, amount in missing.items() if amount > 0}


def _tenants(desk: Desk, slot: Slot) -> Iterable[Tenant]:
    for lease in sorted(slot.leases):
        yield desk.leases.by_id[lease]
    for actor in sorted(slot.actors):
        yield desk.actors.live[actor]


def _as_victim(tenant: Tenant, short: dict[str, int], allowed: Collection[str]) -> Victim | None:
    """By the first of its owner's ways that frees all that is missing and that it has; None where
    there is none."""
    held = dict(tenant.need.hold)
    wanted = {name for name in short if name in held}
    for mode in tenant.need.preemption or DEFAULT:
        if mode == CHECKPOINT and not _has_state(tenant):
            continue
        frees = dict(yielded(tenant.need.hold)) if mode == SUSPEND else held
        if mode in allowed and wanted and wanted <= frees.keys():
            return Victim(tenant, mode, {name: frees[name] for name in wanted})
    return None


def _has_state(tenant: Tenant) -> bool:
    """Whether its state can be taken, as far as is known."""
    return isinstance(tenant, ActorRecord) and tenant.spec.checkpoints and not tenant.unsavable


def _enough(victims: Collection[Victim], short: dict[str, int]) -> bool:
    return all(
        sum(x.frees.get(name, 0) for x in victims) >= amount for name, amount in short.items()
    )


def _choose(able: list[Victim], short: dict[str, int]) -> list[Victim]:
    """Enough of them, the cheapest first; maybe more than enough."""
    chosen: list[Victim] = []
    left = dict(short)
    for priority in sorted({x.tenant.need.priority for x in able}):
        level = [x for x in able if x.tenant.need.priority == priority]
        level.sort(key=_dearness)
        while level and any(amount > 0 for amount in left.values()):
            enough = [x for x in level if _enough([x], left)]
            victim = min(enough, key=lambda x: (x.cost, -x.due, _size(x))) if enough else level[0]
            level.remove(victim)
            if any(victim.frees.get(name) for name, amount in left.items() if amount > 0):
                chosen.append(victim)
                left = {name: n - victim.frees.get(name, 0) for name, n in left.items()}
    return chosen


def _needed(chosen: list[Victim], short: dict[str, int]) -> list[Victim]:
    """Without those that are not needed after all, the dearest first."""
    for victim in sorted(chosen, key=lambda x: (-x.tenant.need.priority, since(x.tenant))):
        others = [x for x in chosen if x is not victim]
        if _enough(others, short):
            chosen = others
    return chosen


def _dearness(victim: Victim) -> tuple[int, float, int, float, str]:
    tenant = victim.tenant
    return victim.cost, -victim.due, tenant.displaced, -since(tenant), tenant.id


def _size(victim: Victim) -> int:
    return sum(victim.frees.values())
