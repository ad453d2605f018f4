"""Who gives way when something of a higher priority finds no room.

Owns: which leases and actors may be made to give way, the choice among them, and why none could.
Must never: change anything; ``displacing`` acts on a plan, and ``plan`` and ``explain`` of the
outside show the same one.

What gives way stands still (``suspend``): its processors are free, its memory and its devices are
not, and no work is lost. So it helps only where processors are what is missing. Its owner's list
``preemption`` says what may be done with it; without a word it may be suspended, and ``never``
spares it.

The choice is the provider where the highest of the victims' priorities is the lowest; then the one
where they have given way the least often, are the fewest, and are the youngest. On one provider the
lowest priority goes first; where a single victim is enough it is the smallest that is; and who
turns out to be needless in the end is spared again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.desk import Desk
from guactors.scheduling.leases import LeaseState
from guactors.scheduling.placement import Need, Slot
from guactors.scheduling.resources import Units, yielded
from guactors.scheduling.standing import Tenant

GAP = 10
"""A victim's priority is lower by so much at the least; below it priority orders, and no more."""
DEFAULT = ("suspend",)
"""What may be done with work whose owner said nothing."""
_NOTHING: Units = ()


class Plan(NamedTuple):
    """Where something would start, and what would stand still for it."""

    slot: Slot
    victims: tuple[Tenant, ...]


class Spared(NamedTuple):
    """Why something that runs does not give way."""

    tenant: Tenant
    why: str


def make_plan(
    desk: Desk, need: Need, now: float, *, caller: str = "", closed: Collection[str] = ()
) -> Plan | None:
    """The best way to make room for the need, asked for by ``caller``; None where there is none.
    ``closed``: providers on which room is kept for others."""
    best: Plan | None = None
    best_rank: tuple[float, ...] = ()
    for slot in desk.candidates(need) if not need.wish.group else ():
        if not (slot.up and slot.offered) or slot.peer in closed:
            continue
        victims = _victims(desk, slot, need, caller, now)
        if victims is None:
            continue
        rank = (
            max(x.need.priority for x in victims),
            max(x.displaced for x in victims),
            len(victims),
            -min(since(x) for x in victims),
            slot.order,
        )
        if best is None or rank < best_rank:
            best, best_rank = Plan(slot, tuple(victims)), rank
    return best


def since(tenant: Tenant) -> float:
    """When it began to run, or ran again."""
    return tenant.alive_since if isinstance(tenant, ActorRecord) else tenant.since


def spared(desk: Desk, tenant: Tenant, need: Need, caller: str, now: float) -> str:
    """Why it does not give way for the need; empty where it may be made to."""
    own = tenant.need
    if tenant.suspension is not None:
        return "it stands still already"
    if own.priority > need.priority - GAP:
        return f"its priority {own.priority} is not lower by {GAP} than {need.priority}"
    if "suspend" not in (own.preemption or DEFAULT):
        return "its owner does not let it be suspended"
    if tenant.bundle is not None:
        return "it runs in a placement group"
    if not _runs(tenant):
        return "it starts or waits, and takes no processor"
    if now < since(tenant) + own.min_runtime:
        return f"it is to run for {own.min_runtime:g} s first"
    if now < tenant.steady:
        return "it could not be suspended a moment ago"
    peer = desk.caller_at.get(tenant.worker, "")
    if peer and (peer == caller or desk.leases.of_caller(peer)):
        return "others work for it"
    return ""


def _runs(tenant: Tenant) -> bool:
    if isinstance(tenant, ActorRecord):
        return tenant.state == "alive" and not tenant.stopping
    return tenant.state is LeaseState.GRANTED and not tenant.blocked


def _victims(desk: Desk, slot: Slot, need: Need, caller: str, now: float) -> list[Tenant] | None:
    """On this provider: None where all that could give way would not be enough."""
    short = {
        name: amount - slot.pool.total.get(name, 0) + slot.pool.used.get(name, 0)
        for name, amount in need.hold
    }
    short = {name: amount for name, amount in short.items() if amount > 0}
    if not short or not short.keys() <= dict(yielded(need.hold)).keys():
        return None
    able = [x for x in _tenants(desk, slot) if not spared(desk, x, need, caller, now)]
    if any(sum(_frees(x, name) for x in able) < amount for name, amount in short.items()):
        return None
    return _needed(_choose(able, short), short)


def _tenants(desk: Desk, slot: Slot) -> Iterable[Tenant]:
    for lease in sorted(slot.leases):
        yield desk.leases.by_id[lease]
    for actor in sorted(slot.actors):
        yield desk.actors.live[actor]


def _frees(tenant: Tenant, name: str) -> int:
    """How much of this it would give up."""
    return dict(yielded(tenant.need.hold)).get(name, 0)


def _choose(able: list[Tenant], short: dict[str, int]) -> list[Tenant]:
    """Enough of them, the cheapest first; maybe more than enough."""
    chosen: list[Tenant] = []
    left = dict(short)
    for priority in sorted({x.need.priority for x in able}):
        level = [x for x in able if x.need.priority == priority]
        level.sort(key=lambda x: (x.displaced, -since(x), x.id))
        while level and any(amount > 0 for amount in left.values()):
            enough = [x for x in level if _covers(x, left)]
            victim = min(enough, key=lambda x: (_size(x), x.displaced)) if enough else level[0]
            level.remove(victim)
            if any(_frees(victim, name) for name, amount in left.items() if amount > 0):
                chosen.append(victim)
                left = {name: amount - _frees(victim, name) for name, amount in left.items()}
    return chosen


def _needed(chosen: list[Tenant], short: dict[str, int]) -> list[Tenant]:
    """Without those that are not needed after all, the dearest first."""
    for victim in sorted(chosen, key=lambda x: (-x.need.priority, since(x), x.id)):
        others = [x for x in chosen if x is not victim]
        if all(sum(_frees(x, name) for x in others) >= amount for name, amount in short.items()):
            chosen = others
    return chosen


def _covers(tenant: Tenant, left: dict[str, int]) -> bool:
    return all(_frees(tenant, name) >= amount for name, amount in left.items())


def _size(tenant: Tenant) -> int:
    return sum(amount for _, amount in yielded(tenant.need.hold))
