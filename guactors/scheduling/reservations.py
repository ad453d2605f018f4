"""Reservations: room of a provider that is kept, from one time to another, for what names it.

Owns: their life: made, begun, ended; what is refused and why; what the next hub must know. Must
never: search for victims (``preemption`` does), or do what groups do already.

A reservation is a placement group of one bundle whose room is taken when its time has come. From
then on nothing else gets more of it. What runs there gives way to its priority by the same rules as
to any newcomer; what may not be made to keeps its place until it ends, and the reservation has the
rest meanwhile. At its end what runs in it goes on as ordinary work; only what waits for it fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Final

from msgspec.structs import replace

from guactors import messages as m
from guactors.ids import reservation_id
from guactors.scheduling.actor_rules import ActorRules
from guactors.scheduling.desk import Caller, Desk, sees
from guactors.scheduling.displacing import Displacing
from guactors.scheduling.events import WORKER, KeepReservations
from guactors.scheduling.group_rules import GroupRules
from guactors.scheduling.groups import PENDING, RESCHEDULING, Bundle, Group
from guactors.scheduling.placement import Need, Slot, bundle_need, explain
from guactors.scheduling.preemption import clearing
from guactors.scheduling.reserving import free_again, move_out, seize
from guactors.scheduling.resources import to_units

MOST: Final = 1000
LONGEST: Final = 366 * 86_400.0
"""Seconds that one may last."""
FARTHEST: Final = 10 * LONGEST
"""Seconds from now until which one may begin."""
LATE: Final = 60.0
"""Seconds in the past that still count as now: clocks differ."""
LOOK_AGAIN: Final = 60.0
"""Seconds until the clock on the wall is asked again: it may be set meanwhile."""
PRESS_AGAIN: Final = 1.0
"""Seconds until those who held its room in spite of all are looked at again."""
MOST_COMPARED: Final = 256
"""Providers that are compared when one begins."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


class Reservations:
    """Works on ``desk``; ``known``: what the hub before this one had kept."""

    def __init__(
        self,
        desk: Desk,
        groups: GroupRules,
        actors: ActorRules,
        displacing: Displacing,
        known: Iterable[m.ReservationSpec] = (),
    ) -> None:
        self._desk = desk
        self._groups = groups
        self._actors = actors
        self._displacing = displacing
        groups.seize = self._seize
        for spec in known:
            self._add(spec, desk.now)

    # --- callers --------------------------------------------------------------------------------

    def reserve(self, caller: Caller, message: m.Reserve, now: float) -> None:
        """Somebody wants room to be kept. Told again, after a lost answer, it is the same one."""
        desk = self._desk
        spec = replace(message.reservation, principal=caller.principal, home="")
        kind, why = self._refusal(caller, spec, now)
        if why:
            desk.say(caller.peer, m.Fault(kind, why, message.request))
            return
        if self._find(spec.name) is None:
            self._add(spec, now)
            self._keep()
        desk.say(caller.peer, m.Done(message.request))

    def unreserve(self, caller: Caller, message: m.Unreserve, now: float) -> None:
        """It is needed no more."""
        group = self._find(message.name)
        if group is None or not sees(caller, group):
            text = f"no reservation {message.name!r} is to come or stands: gu list reservations"
            self._desk.say(caller.peer, m.Fault("NoSuchReservation", text, message.request))
        elif not _may(caller):
            self._desk.say(caller.peer, m.Fault("PermissionDenied", _OWNERS, message.request))
        else:
            self._end(group, f"it was removed by {caller.peer}", now)
            self._desk.say(caller.peer, m.Done(message.request))

    def _refusal(self, caller: Caller, spec: m.ReservationSpec, now: float) -> tuple[str, str]:
        """The name of the error, and why; both empty where it may be."""
        if not _may(caller):
            return "PermissionDenied", _OWNERS
        wrong = wrong_with(spec, self._desk.wall(now))
        if wrong:
            return "UsageError", wrong
        known = self._find(spec.name)
        if known is not None and known.reservation is not None:
            if replace(known.reservation, home="") == spec:
                return "", ""
            return "NameTaken", f"name: there is a reservation {spec.name!r} already"
        if sum(1 for group in self._desk.groups if group.reservation) >= MOST:
            return "UsageError", f"there are {MOST} reservations already: remove some"
        need = _need(spec)
        if not self._desk.candidates(need):
            return "Unschedulable", explain(self._desk.slots.values(), need)
        return "", ""

    def _find(self, name: str) -> Group | None:
        return self._desk.groups.live.get(reservation_id(name))

    # --- time -----------------------------------------------------------------------------------

    def _add(self, spec: m.ReservationSpec, now: float) -> None:
        desk, id = self._desk, reservation_id(spec.name)
        desk.groups.gone.pop(id, None)
        about = m.GroupSpec(
            id, "", "", [spec.resources], "PACK", spec.name, detached=True,
            principal=spec.principal,
        )  # fmt: skip
        group = Group(about, desk.groups.number(), reservation=spec, begun=False)
        group.bundles.append(Bundle(group, 0, _need(spec), home=spec.home))
        group.state = RESCHEDULING if spec.home else PENDING
        desk.groups.add(group)
        self._look(group, now)

    def _look(self, group: Group, now: float) -> None:
        """Whether its time has come, or is over."""
        spec, desk = group.reservation, self._desk
        if spec is None or desk.groups.live.get(group.id) is not group:
            return
        wall = desk.wall(now)
        if wall >= spec.end:
            self._end(group, "its time is over", now)
            return
        if wall >= spec.start and not group.begun:
            group.begun = True
            desk.groups.wait(group)
            if spec.home:
                later = max(now, desk.rejoined_at())
                desk.agenda.put(later, lambda _: desk.groups.look_again())
        left = (spec.end if group.begun else spec.start) - wall
        self._later(min(left, LOOK_AGAIN), self._look, group, now)

    def _later(
        self, seconds: float, what: Callable[[Group, float], None], group: Group, now: float
    ) -> None:
        self._desk.agenda.put(now + seconds, lambda then: what(group, then))

    def _keep(self) -> None:
        specs = [group.reservation for group in self._desk.groups if group.reservation is not None]
        self._desk.out.append(KeepReservations(specs))

    # --- room -----------------------------------------------------------------------------------

    def _seize(self, group: Group, now: float) -> bool:
        """Take its room, on the provider where the least is missing then; whether there is one."""
        desk, spec, bundle = self._desk, group.reservation, group.bundles[0]
        assert spec is not None
        self._groups.go_home(bundle)
        if bundle.slot is None:
            if bundle.home and now < desk.rejoined_at():
                return False
            slot = self._best(bundle.need, now)
            if slot is None:
                return False
            seize(desk, bundle, slot)
        assert bundle.slot is not None
        group.reservation = replace(spec, home=bundle.slot.peer)
        self._keep()
        desk.bereft += desk.demands.waiting_inside(group.id)
        self._press(group, now)
        return True

    def _best(self, need: Need, now: float) -> Slot | None:
        best: Slot | None = None
        best_rank: tuple[float, ...] = ()
        able = (slot for slot in self._desk.candidates(need) if slot.up and slot.open)
        for slot, _ in zip(able, range(MOST_COMPARED), strict=False):
            victims, missing = clearing(self._desk, slot, need, now)
            hold = dict(need.hold)
            share = max((missing[name] / hold[name] for name in missing), default=0.0)
            load = slot.pool.load_with(need.hold)
            rank = (share, sum(x.cost for x in victims), len(victims), load, slot.order)
            if best is None or rank < best_rank:
                best, best_rank = slot, rank
        return best

    def _press(self, group: Group, now: float) -> None:
        """Have others give way for it; who may not now may later."""
        bundle = group.bundles[0] if group.bundles else None
        if bundle is None or bundle.slot is None or not bundle.slot.pool.shortage():
            return
        self._displacing.clear(bundle.slot, bundle.need, group.id, now)
        if bundle.slot.pool.shortage():
            self._later(PRESS_AGAIN, self._press, group, now)

    def _end(self, group: Group, reason: str, now: float) -> None:
        """What runs in it goes on beside others, as far as nobody stands still for it who would
        have pushed it aside."""
        desk = self._desk
        waiting = desk.demands.waiting_inside(group.id)
        for bundle in group.bundles:
            slot = bundle.slot
            for lease in sorted(bundle.leases):
                move_out(desk, desk.leases.by_id[lease])
            for actor in sorted(bundle.actors):
                move_out(desk, desk.actors.live[actor])
            free_again(desk, bundle)
            if slot is not None:
                self._displacing.reclaim(slot, now)
        self._groups.bury(group, reason)
        for demand in waiting:
            if demand.is_actor:
                death = m.DeathReport("group_removed", f"its reservation is over: {reason}"[:4000])
                self._actors.finish(desk.actors.live[demand.key], death)
            else:
                desk.bereft.append(demand)
        self._keep()


def wrong_with(spec: m.ReservationSpec, wall: float) -> str:
    """What is impossible about it, at this time on the wall; empty where nothing is."""
    if not _NAME.fullmatch(spec.name):
        return f"name={spec.name!r}: 1 to 48 letters, digits, dots, dashes or underscores"
    if not to_units(spec.resources):
        return "resources: it asks for nothing"
    if not -(2**31) <= spec.priority < 2**31:
        return f"priority={spec.priority} is beyond what a priority can be"
    if not math.isfinite(spec.start) or not spec.start <= wall + FARTHEST:
        return f"start={spec.start:g}: it takes a time within ten years"
    if spec.start < wall - LATE:
        return f"start={spec.start:g}: that was {wall - spec.start:.0f} s ago"
    if not math.isfinite(spec.end) or spec.end <= max(spec.start, wall):
        return f"end={spec.end:g}: it takes a time after its start"
    if spec.end - spec.start > LONGEST:
        return f"end={spec.end:g}: a reservation lasts at most {LONGEST / 86_400:.0f} days"
    return ""


_OWNERS: Final = "only who may do everything (an owner, or this machine's user) makes reservations"


def _may(caller: Caller) -> bool:
    return caller.standing.rights.everything and caller.standing.kind != WORKER


def _need(spec: m.ReservationSpec) -> Need:
    """Its owner may do everything, so nobody's quota counts."""
    made = bundle_need(to_units(spec.resources), spec.labels, "", "")
    return made._replace(priority=spec.priority, provider=spec.provider)
