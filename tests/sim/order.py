"""Whether the hub keeps its order: what has aged as far as it can is passed by nobody who counts
less; and how often anything gave way.

Owns: these counts, and the violations of the bound of aging. Must never: influence the run.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from guactors.hub_core import Effect
from guactors.messages import Resume, StartActor, StartLease
from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.aging import highest
from guactors.scheduling.desk import Desk
from guactors.scheduling.events import Send
from guactors.scheduling.placement import Need, Slot, welcomes
from guactors.scheduling.queues import Queue
from guactors.scheduling.quotas import ACTORS
from guactors.scheduling.standing import Tenant
from tests.sim.ledger import Violation

EARLY = 1e-9
_FIELDS = {
    "suspend": "suspended", "requeue": "requeued", "stop": "stopped", "checkpoint": "checkpointed",
}  # fmt: skip


@dataclass
class Tally:
    """What happened in one run or in many. ``overdue``: seconds, the longest that anything waited
    beyond the time from which on only a higher ten, or its equals, may pass it."""

    seeds: int = 0
    runs: int = 0
    settled: int = 0
    suspended: int = 0
    resumed: int = 0
    requeued: int = 0
    stopped: int = 0
    checkpointed: int = 0
    aged: int = 0
    ripe: int = 0
    overdue: float = 0.0

    @property
    def cycles(self) -> int:
        """Something gave way, and went on or ended."""
        return self.resumed + self.requeued + self.stopped + self.checkpointed

    def add(self, other: Tally) -> None:
        """Those of another run."""
        for field in fields(self):
            mine, its = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, max(mine, its) if field.name == "overdue" else mine + its)


class Waiting(NamedTuple):
    """A queue before an event, with the start of its oldest."""

    queue: Queue
    since: float


class Order:
    """Looks at a hub before and after each event. ``step``: of aging, 0 for none."""

    def __init__(self, tally: Tally, step: float) -> None:
        self._tally = tally
        self._step = step
        self._before: dict[Need, Waiting] = {}
        self._seated: set[str] = set()
        """Actors that had room before: an order to start one waits for the data lane of its
        provider."""

    def before(self, desk: Desk) -> None:
        """An event is about to be handled."""
        if self._step:
            self._seated = {key for key, one in desk.actors.live.items() if one.slot is not None}
            self._before = {
                queue.need: Waiting(queue, next(iter(queue.since.values())))
                for queue in desk.demands.queues.values()
            }

    def after(self, desk: Desk, effects: list[Effect], now: float) -> None:
        """What came of it."""
        for effect in effects:
            message = effect.message if isinstance(effect, Send) else None
            if isinstance(message, Resume):
                self._tally.resumed += 1
            elif isinstance(message, StartLease | StartActor):
                for one in message.displaces:
                    field = _FIELDS[one.mode]
                    setattr(self._tally, field, getattr(self._tally, field) + 1)
                if self._step and not message.displaces:
                    key = message.lease if isinstance(message, StartLease) else message.spec.actor
                    if key not in self._seated:
                        self._placed(desk, desk.tenant(key), now)

    def _placed(self, desk: Desk, tenant: Tenant | None, now: float) -> None:
        """Something was given room: nobody who counts more than it, as much as it ever can, could
        have had that."""
        if tenant is None or tenant.slot is None or tenant.bundle is not None:
            return
        asked = tenant.need
        if isinstance(tenant, ActorRecord):
            asked = desk.allowance.bounded(asked, tenant.spec.session, ACTORS)
        level = self._level(asked, now)
        self._tally.aged += level > tenant.need.priority
        for need, (queue, since) in self._before.items():
            top = highest(need.priority)
            if now < since + (top - need.priority) * self._step or top <= level:
                continue
            waits = desk.demands.queues.get(need) is queue and since in queue.since.values()
            if waits and self._fits(desk, tenant.slot, tenant, need):
                raise Violation(
                    f"{need} has waited {now - since:.3f} s, counts as {top}, and was passed by "
                    f"{tenant.need} that counts as {level}"
                )

    def _level(self, need: Need, now: float) -> int:
        """What the need counted as; it was served, and is young again."""
        waited = self._before.get(need)
        if waited is None:
            return need.priority
        since = waited.since
        ripe = since + (highest(need.priority) - need.priority) * self._step
        if now > ripe:
            self._tally.ripe += 1
            self._tally.overdue = max(self._tally.overdue, now - ripe)
        steps = int((now - since) / self._step + EARLY)
        return min(need.priority + steps, highest(need.priority))

    @staticmethod
    def _fits(desk: Desk, slot: Slot, tenant: Tenant, need: Need) -> bool:
        """Whether the need could have had the room instead, for all that is known from outside."""
        asked, had = dict(need.hold), dict(tenant.taken())
        if not asked or not asked.keys() <= had.keys():
            return False  # the provider may be kept from it for somebody who does not want this
        if desk.groups.waiting or desk.standing.on(slot.peer) or not desk.allowance.within(need):
            return False
        total, used = slot.pool.total, slot.pool.used
        fits = all(total.get(x, 0) - used.get(x, 0) + had[x] >= n for x, n in asked.items())
        open_to = slot.up and slot.open and welcomes(slot, need)
        return fits and open_to and slot in desk.candidates(need)
