"""What has given way how often, and what keeps the same work from doing so again and again.

Owns: the past of work that gave way, the protection that grows with it, the latest such events, and
their counters. Must never: choose who gives way (``preemption`` does), or make it.

Who has given way is left alone for a while once it runs again: for twice as long as the last time
where that was lately, up to a bound, so that whoever needs its room waits for so long at the most.
Standing still loses nothing, so that protection is brief; where work is done again it is not.
The past of a lease that begins anew goes on in the next lease of its demand.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from guactors.scheduling.leases import Lease
    from guactors.scheduling.queues import Demand
    from guactors.scheduling.standing import Tenant

SUSPEND: Final = "suspend"
CALM: Final = 60.0
"""Seconds of running, beyond its protection, after which what was before does not count."""
GENTLE: Final = (0.005, 0.05)
"""The first protection of what stood still and the longest, in seconds."""
DEAR: Final = (1.0, 60.0)
"""The same of what began again."""
CYCLE: Final = 10
"""So often within CYCLE_WITHIN is a cycle."""
CYCLE_WITHIN: Final = 60.0
MOST_EVENTS: Final = 1000
PRIORITY: Final = "priority"
"""A reason to give way: work of a higher priority found no room."""
MAX_SUSPENDED: Final = "max_suspended"
"""Another one: it stood still for longer than its owner wants."""
CYCLES: Final = "cycles"


@dataclass(slots=True)
class Event:
    """Something gave way: ``what`` (a lease or actor of ``principal``, on ``provider``), how and
    why, to ``by`` (empty where that is not known) of the priority ``by_priority``. ``at``:
    monotonic seconds; ``times``: so often by then; ``cycle``: which is too often."""

    at: float
    what: str
    principal: str
    provider: str
    priority: int
    mode: str
    reason: str
    by_priority: int
    times: int = 0
    cycle: bool = False
    by: str = ""


@dataclass(slots=True)
class Past:
    """How often something gave way, and when it did ``last``. ``lately``: without having run for
    CALM in between. ``protection``: seconds for which it then runs."""

    last: Event
    times: int = 0
    lately: int = 0
    protection: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=CYCLE))

    def gave_way(self, event: Event, ran: float) -> None:
        """Once more, after having run for so many seconds."""
        self.last = event
        self.times += 1
        self.lately = 1 if ran >= self.protection + CALM else self.lately + 1
        first, most = GENTLE if event.mode == SUSPEND else DEAR
        self.protection = min(most, first * 2 ** min(self.lately - 1, 30))
        self.recent.append(event.at)
        event.times = self.times
        event.cycle = len(self.recent) == CYCLE and event.at - self.recent[0] <= CYCLE_WITHIN
        if event.cycle:
            self.recent.clear()


class Thrash:
    """Of one hub. ``events``: the latest; ``counts``: of all, as in messages.PeerInfo."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.counts: Counter[str] = Counter()

    def gave_way(self, tenant: Tenant, event: Event, since: float) -> None:
        """It is about to give way, having run since then."""
        if tenant.past is None:
            tenant.past = Past(event)
        tenant.past.gave_way(event, event.at - since)
        if event.mode != SUSPEND:
            tenant.displaced += 1  # who stands still is counted there
        self.counts.update(tally(event.mode, event.reason, event.cycle))
        self.events.append(event)

    def check(self, tenants: Iterable[Tenant], demands: Iterable[Demand]) -> None:
        """Each past is of one thing, and no protection is longer than promised."""
        pasts = [tenant.past for tenant in tenants if tenant.past is not None]
        pasts += [past for demand in demands for past in demand.pasts or ()]
        assert len({id(past) for past in pasts}) == len(pasts), "two have the same past"
        for past in pasts:
            assert 0 < past.protection <= DEAR[1], past
            assert 0 < past.lately <= past.times, past


def tally(mode: str, reason: str, cycle: bool) -> list[str]:
    """Names of the counters that go up."""
    return [f"{reason}/{mode}", *([CYCLES] if cycle else [])]


def bequeath(demand: Demand | None, lease: Lease) -> None:
    """The lease is over and will be replaced: its past goes on in the next of its demand."""
    past, lease.past = lease.past, None
    if demand is not None and past is not None:
        demand.pasts = [*(demand.pasts or ()), past]


def inherit(demand: Demand, lease: Lease) -> None:
    """A new lease of the demand: it replaces one that began anew, where there is such a one."""
    if demand.pasts:
        lease.past = demand.pasts.pop()
        lease.displaced = lease.past.times
