"""Why something waits: of each provider one reason, with the numbers.

Owns: the reasons, and the sentences for people. Must never: change anything, decide anything (it
asks the functions that do), or name to a caller what is not its principal's.

A reason is a single value, the first that keeps the provider from taking it. Where that is room,
``preemption`` says why nobody gives way there.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from guactors.scheduling import placement
from guactors.scheduling.desk import Caller, Desk
from guactors.scheduling.groups import Bundle
from guactors.scheduling.keepers import Keepers
from guactors.scheduling.naming import named, names, time_text
from guactors.scheduling.obstacles import reserved, unwelcome
from guactors.scheduling.placement import (
    Misfit,
    Need,
    Slot,
    choose,
    contends,
    misfit,
    welcomes,
    written,
)
from guactors.scheduling.preemption import DUE_SOON, GAP, Spared, Survey, since, survey
from guactors.scheduling.queues import Demand
from guactors.scheduling.resources import LIGHT, STEP, Pool, Units
from guactors.scheduling.standing import Tenant
from guactors.security.rights import Reason


class Why(enum.StrEnum):
    """Why a provider does not take something; in the order in which it is looked at."""

    NO_PROVIDER = "no_provider"
    """There is none in the grid."""
    GROUP = "group"
    """Its placement group is not there, or has no bundle that could hold it."""
    OTHER_PROVIDER = Misfit.PROVIDER.value
    PYTHON = Misfit.PYTHON.value
    RUNTIME = Misfit.RUNTIME.value
    LABELS = Misfit.LABELS.value
    TOO_SMALL = Misfit.TOO_SMALL.value
    REFUSED = "refused"
    """The provider itself has said no: its owner's policy, or an image that it cannot take."""
    NOT_ALLOWED = "not_allowed"
    """No grant of its principal allows it there."""
    PREFERRED = "preferred"
    """It rather waits for the provider that it prefers."""
    SILENT = "silent"
    """The provider does not answer at the moment."""
    JOINING = "joining"
    """The provider has not told yet what runs there."""
    CLOSED = "closed"
    """The machine's owner does not lend it now."""
    CALLER_STANDS = "caller_suspended"
    """Who asks stands still."""
    PREPARING = "preparing"
    """Its environment is being built first."""
    RETRY_LATER = "retry_later"
    """A start has failed, and is tried again after a pause."""
    GIVEN_UP = "given_up"
    """Too many starts have failed, or it was told that it cannot be."""
    QUOTA = "quota"
    APART = "apart"
    """Work is there from which it is to be apart, or which is to be apart from it; or none is there
    that it is to be near to."""
    SHORT = "short"
    """What it needs is taken."""
    RESERVED = "reserved"
    """Its room is that of a reservation; or the time of the one it names has not come."""
    BEHIND = "behind"
    """There is room, kept for work of a higher priority."""
    KEPT = "kept"
    """There is room, kept for others whose turn comes first."""
    NOTHING = "nothing"
    """It could start there; its turn has not come yet."""


class NoVictim(enum.StrEnum):
    """Of a provider as a whole, where ``Spared`` is of one thing that runs there."""

    NOBODY = "nobody"
    """Nothing runs there."""
    NOT_ENOUGH = "not_enough"
    """All that may be made to give way would free too little."""
    POSSIBLE = "possible"
    """It can be done, and is about to be."""


class Miss(NamedTuple):
    """A provider (None where there is none to speak of) and why it does not take something.
    Amounts, in steps, of what is short: asked, free, and held by what stands still."""

    slot: Slot | None
    why: Why
    detail: str
    preemption: str = ""
    asked: Units = ()
    free: Units = ()
    still: Units = ()


class Question(NamedTuple):
    """What is asked about: a need of the caller ``of``, as ``viewer`` may see it. ``keeper``: the
    priority for which a provider is kept from it; ``hold_up``: what keeps it from all. ``level``:
    the priority that it counts as (``aging``)."""

    need: Need
    level: int
    of: str
    viewer: Caller
    keeper: Callable[[Slot], int | None]
    hold_up: tuple[Why, str] | None = None


Kept = list[tuple[Need, Slot]]


def explain(desk: Desk, claimed: Kept, demand: Demand, viewer: Caller, now: float) -> list[Miss]:
    """Why the demand waits, a provider a row. ``claimed``: room kept for placement groups."""
    desk.lines.settle()
    keepers = Keepers(desk.lines, claimed, now, desk.index.is_nearest)
    questions = [_question(desk, keepers, demand, need, viewer) for need in demand.needs]
    if demand.need.wish.group:
        return [one for question in questions for one in _in_group(desk, question, now)]
    return misses(desk, questions, now)


def _question(desk: Desk, keepers: Keepers, demand: Demand, need: Need, viewer: Caller) -> Question:
    demands = desk.demands
    queue = demands.shelf(need).get(need) if demand.waiting else None
    if queue is not None:
        turn, level = queue.turn(), queue.level
    else:
        turn, level = demands.next_turn(demand.session, demand.caller, need), need.priority
    names = frozenset(name for name, _ in need.hold)

    def keeper(slot: Slot) -> int | None:
        return keepers.of(slot, need, level, names, turn)

    return Question(need, level, demand.caller, viewer, keeper, _hold_up(demand))


def misses(desk: Desk, questions: Sequence[Question], now: float) -> list[Miss]:
    """Each provider's reason, for each of the alternatives."""
    slots = list(desk.slots.values())
    if not slots:
        return [Miss(None, Why.NO_PROVIDER, placement.explain((), questions[0].need))]
    if len(questions) == 1:
        return [miss(desk, slot, questions[0], now) for slot in slots]
    return [_as_one_of(miss(desk, slot, one, now), one.need) for slot in slots for one in questions]


def _as_one_of(miss: Miss, need: Need) -> Miss:
    """It says of which alternative it speaks."""
    asked = ", ".join(_amount(name, amount) for name, amount in need.hold)
    return miss._replace(detail=f"with {asked}: {miss.detail}")


def miss(desk: Desk, slot: Slot, question: Question, now: float) -> Miss:
    """Why this provider does not take it."""
    need = question.need
    barred = _barred(desk, slot, question, now)
    if barred is not None:
        return barred
    if choose([slot], need) is None:
        kept = reserved(slot, need)
        if kept:
            return Miss(slot, Why.RESERVED, kept)
        return _short(desk, slot, question, now)
    keeper = question.keeper(slot)
    if keeper is not None:
        return _kept(desk, slot, question, keeper)
    return Miss(slot, Why.NOTHING, "it has room, and its turn comes next")


def _barred(desk: Desk, slot: Slot, question: Question, now: float) -> Miss | None:
    """What keeps it from there however much room there is."""
    need = question.need
    wrong = misfit(slot, need)
    if wrong is not None:
        return _misfit(slot, need, wrong)
    why = _closed_to(desk, slot, question, now)
    if why is not None:
        return Miss(slot, *why)
    if not welcomes(slot, need):
        return Miss(slot, Why.APART, unwelcome(desk, slot, need, question.viewer))
    return None


def _hold_up(demand: Demand) -> tuple[Why, str] | None:
    """What keeps the demand from every provider."""
    if demand.paused:
        return Why.CALLER_STANDS, "who asks for it stands still itself"
    if demand.preparing:
        return Why.PREPARING, "its environment is being built"
    if demand.given_up:
        return Why.GIVEN_UP, "its caller was told that it cannot be done, and has not asked again"
    if demand.not_before:
        return Why.RETRY_LATER, f"{demand.failures} starts have failed: it is tried again soon"
    return None


def _misfit(slot: Slot, need: Need, wrong: Misfit) -> Miss:
    asked: dict[str, int] = {}
    free: dict[str, int] = {}
    match wrong:
        case Misfit.PROVIDER:
            text = f"it is to run on {need.provider}"
        case Misfit.PYTHON:
            text = f"it needs Python {need.python}, this one has {slot.python}"
        case Misfit.RUNTIME:
            there = ", ".join(sorted(name or "python" for name in slot.runtimes))
            text = f"it needs the runtime {need.runtime}, this one has {there}"
        case Misfit.LABELS:
            text = "it has no label " + ", nor ".join(
                map(written, (need.labels, *need.wish.fallback))
            )
        case Misfit.TOO_SMALL:
            total = slot.pool.total
            asked = {name: n for name, n in (*need.hold, *need.total) if total.get(name, 0) < n}
            free = {
                name: max(0, total.get(name, 0) - slot.pool.used.get(name, 0)) for name in asked
            }
            text = ", ".join(
                f"asked {_amount(name, n)}, all there is is {total.get(name, 0) / STEP:g}"
                for name, n in asked.items()
            )
    return Miss(slot, Why(wrong.value), text, "", tuple(asked.items()), tuple(free.items()))


def _closed_to(desk: Desk, slot: Slot, question: Question, now: float) -> tuple[Why, str] | None:
    """What keeps it from a provider that could do it, before room is asked for."""
    need, permission = question.need, desk.permission
    if not permission.permits(need, slot, now):
        verdict = permission.judge(need, slot, now)
        own = verdict.reason is Reason.LOCAL_POLICY
        text = verdict.detail or "nobody knows yet whose it is"
        return (Why.REFUSED if own else Why.NOT_ALLOWED), text
    if not need.wish.group and slot not in desk.candidates(need):
        return Why.PREFERRED, f"it waits for {need.wish.prefer}, which could do it"
    if not slot.up:
        return Why.SILENT, "it does not answer at the moment"
    if not slot.offered:
        return Why.JOINING, "it has not told yet what runs there"
    if slot.closed is not None:
        return Why.CLOSED, f"its owner does not lend it now: {slot.closed.reason}"
    if question.hold_up is not None:
        return question.hold_up
    if not permission.within_quota(need, now):
        return Why.QUOTA, "its principal holds as much as its grants allow"
    excess = desk.quotas.excess(need)
    if excess is not None:
        return Why.QUOTA, str(excess)
    return None


# --- no room --------------------------------------------------------------------------------------


def _short(desk: Desk, slot: Slot, question: Question, now: float) -> Miss:
    need = question.need
    tenants = [x for x in map(desk.tenant, sorted({*slot.leases, *slot.actors})) if x is not None]
    outside = [tenant for tenant in tenants if tenant.bundle is None]
    found = _missing(desk, slot, slot.pool, outside, question)
    looked = survey(desk, slot, need, question.of, now)
    preemption, text = _no_victim(desk, question, looked, now)
    ahead = _ahead(desk, question)
    return found._replace(
        preemption=preemption, detail="; ".join(filter(None, (found.detail, text, ahead)))
    )


def _missing(
    desk: Desk, slot: Slot, pool: Pool, tenants: Iterable[Tenant], question: Question
) -> Miss:
    """The numbers of what is short."""
    standing = [tenant for tenant in tenants if tenant.suspension is not None]
    asked: list[tuple[str, int]] = []
    free: list[tuple[str, int]] = []
    still: list[tuple[str, int]] = []
    parts = []
    for name, amount in question.need.hold:
        left = max(0, pool.total.get(name, 0) - pool.used.get(name, 0))
        if left >= amount:
            continue
        holders = [tenant for tenant in standing if _of(name, tenant.taken())]
        held = sum(_of(name, tenant.taken()) for tenant in holders)
        asked.append((name, amount))
        free.append((name, left))
        still.append((name, held))
        whole = pool.total.get(name, 0)
        text = f"asked {_amount(name, amount)}, free {left / STEP:g} of {whole / STEP:g}"
        if holders:
            who = names(desk, question.viewer, holders)
            text += f", {held / STEP:g} held by {who}, suspended"
        parts.append(text)
    return Miss(slot, Why.SHORT, ", ".join(parts), "", tuple(asked), tuple(free), tuple(still))


def _of(name: str, units: Units) -> int:
    return dict(units).get(name, 0)


def _amount(name: str, amount: int) -> str:
    return f"{amount / STEP:g} {'places for what needs nothing' if name == LIGHT else name}"


def _no_victim(desk: Desk, question: Question, looked: Survey, now: float) -> tuple[str, str]:
    """Why nobody there gives way."""
    if looked.short and looked.enough:
        who = names(desk, question.viewer, [victim.tenant for victim in looked.able])
        return NoVictim.POSSIBLE.value, f"{who} may be made to give way"
    why: dict[Spared, list[Tenant]] = {}
    for tenant, spared in looked.spared:
        why.setdefault(spared, []).append(tenant)
    parts = [
        f"{names(desk, question.viewer, tenants)}: {_words(spared, tenants, question.need, now)}"
        for spared, tenants in sorted(why.items(), key=lambda item: -_ORDER[item[0]])
    ]
    text = "; ".join(parts)
    if looked.able:
        who = names(desk, question.viewer, [victim.tenant for victim in looked.able])
        text = "; ".join([f"it would not be enough if {who} gave way", *parts])
        return NoVictim.NOT_ENOUGH.value, text
    if not why:
        return NoVictim.NOBODY.value, "nobody is there who could give way"
    return max(why, key=lambda spared: _ORDER[spared]).value, f"nobody gives way: {text}"


_ORDER: Final = {spared: number for number, spared in enumerate(Spared)}


def _words(spared: Spared, tenants: list[Tenant], need: Need, now: float) -> str:
    """A sentence of why these do not give way."""
    match spared:
        case Spared.GAP:
            return f"priority not lower by {GAP} than {need.priority}"
        case Spared.MIN_RUNTIME:
            left = min(since(x) + x.need.min_runtime - now for x in tenants)
            return f"to run longer first, by {left:.1f} s"
        case Spared.LATELY:
            left = min(since(x) + x.past.protection - now for x in tenants if x.past is not None)
            return f"to run longer first, by {left:.2f} s, for it has given way lately"
    return _SENTENCES[spared]


_SENTENCES: Final = {
    Spared.STANDS: "suspended already",
    Spared.NEVER: "never to give way",
    Spared.GROUP: "in a placement group",
    Spared.IDLE: "starting or waiting, and taking no processor",
    Spared.STEADY: "could not be suspended a moment ago",
    Spared.NEAR: "what it is to be near to",
    Spared.SERVES: "others work for it",
    Spared.DEADLINE: f"to have ended within {DUE_SOON:g} s",
    Spared.NOT_ALLOWED: "no grant allows to push it aside in a way that would help",
    Spared.NO_HELP: "would not free what is missing",
}


def _ahead(desk: Desk, question: Question) -> str:
    """Who waits before it for the same, in words."""
    before = sum(
        queue.waiting for queue in desk.demands.queues.values()
        if queue.level > question.level and contends(queue.need, question.need)
    )  # fmt: skip
    return f"behind {before} of higher priority" if before else ""


def _kept(desk: Desk, slot: Slot, question: Question, keeper: int) -> Miss:
    if keeper > question.level:
        text = f"its room is kept for work of priority {keeper}"
        ahead = _ahead(desk, question)
        return Miss(slot, Why.BEHIND, f"{text}; {ahead}" if ahead else text)
    return Miss(slot, Why.KEPT, "its room is kept for others whose turn comes first")


# --- in a placement group -------------------------------------------------------------------------


def _in_group(desk: Desk, question: Question, now: float) -> list[Miss]:
    need = question.need
    group = desk.groups.live.get(need.wish.group)
    bundles = desk.bundles_for(need)
    if group is None or not bundles:
        what = "is not there" if group is None else "has no bundle that could hold it"
        return [Miss(None, Why.GROUP, f"its placement group {need.wish.group} {what}")]
    return [_bundle(desk, bundle, question, now) for bundle in bundles]


def _bundle(desk: Desk, bundle: Bundle, question: Question, now: float) -> Miss:
    slot, need = bundle.slot, question.need
    spec = bundle.group.reservation
    if spec is not None and not bundle.group.begun:
        text = f"the reservation {spec.name} begins at {time_text(spec.start)}"
        return Miss(None, Why.RESERVED, text)
    if slot is None:
        return Miss(None, Why.GROUP, f"bundle {bundle.index} waits for room itself")
    barred = _barred(desk, slot, question, now)
    if barred is not None:
        return barred
    if bundle.has_room(need.hold):
        return Miss(slot, Why.NOTHING, f"bundle {bundle.index} has room, and its turn comes next")
    inside = map(desk.tenant, sorted({*bundle.leases, *bundle.actors}))
    found = _missing(desk, slot, bundle.pool, [x for x in inside if x is not None], question)
    return found._replace(detail=f"bundle {bundle.index}: {found.detail}")


def running(desk: Desk, viewer: Caller, tenant: Tenant, now: float) -> tuple[str, str]:
    """How something that has its place fares: a word, and a sentence."""
    found = tenant.suspension
    if found is not None:
        by = desk.tenant(found.by)
        why = f"for {named(desk, viewer, by)}" if by is not None else found.reason
        text = f"{tenant.id} has stood still for {now - found.since:.1f} s"
        return "suspended", f"{text}, {why}" if found.closed else f"{text} {why}"
    if not tenant.worker:
        return "starting", f"{tenant.id} starts there"
    return "running", f"{tenant.id} runs there, in {tenant.worker}"
