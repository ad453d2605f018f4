"""Whose lease is asked back when somebody else waits.

Owns: the choice of victims. Must never: take anything by force (a recalled worker finishes what it
runs), touch work of a higher priority than the one that waits, or ask for more than is waited for.
Preemption, which does use force, will be a neighbour of this module.

A lease is asked back from the caller that holds the most, as long as it holds at least two more
than the one that waits. A caller that has nothing at all also gets a turn from one that has a
single lease, once that has been held for a slice of time. The same holds between two demands of one
caller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from guactors.scheduling.demand import Demand, Queue
from guactors.scheduling.desk import Desk
from guactors.scheduling.leases import Lease, LeaseState
from guactors.scheduling.lines import SLICE
from guactors.scheduling.placement import Need, Slot, contends
from guactors.scheduling.recallable import Held

PATIENCE = 1.0
"""Seconds after which a recall that was not followed counts no longer, and another is tried."""
PAUSE = 0.01
"""Least seconds between two looks."""
LOOK_AGAIN = 0.1
"""Seconds until the next look while somebody waits."""
EFFORT = 5e-5
"""Seconds for which the next look is put off per thing that this one had to look at."""
MOST_AT_ONCE = 64
MOST_QUEUES = 256
"""Queues that one look goes through; the next one goes on with those that are left."""
MOST_SIFTED = 64
"""Callers that are looked at for one victim, those with the most, and as many of the others; they
all have their turn."""
MOST_OF_ONE = 16
"""Leases of one caller that are looked at; the next time others are."""
MOST_CHECKED = 256
"""Leases that are looked at for one victim."""
MOST_OLD = 64
"""Leases of which one may be old enough: of more one is taken to be."""
MOST_EFFORT = 1000
"""Things that one look goes through; the next one goes on where it stopped."""


class Victims:
    """Works on ``desk``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._passed = 0
        """Queues of which the last look did not see more."""
        self._effort = 0
        self._left = 0
        """Leases that may still be looked at for the present victim."""
        self._now = 0.0
        self._going: dict[str, int] = {}
        """How many leases each caller is giving back."""
        self._taken: set[str] = set()
        self._spare: dict[int, int] = {}
        """By priority, the most that a caller of leases of it has and is not giving back."""
        self._top: list[str] = []
        """Callers that hold the most."""

    def wanted(self) -> bool:
        """Whether there is somebody for whom nothing could be found."""
        return bool(self._desk.demands.queues or self._desk.demands.stuck)

    def pause(self) -> float:
        """Seconds until the next look if there is news."""
        return min(LOOK_AGAIN, PAUSE + EFFORT * self._effort)

    def look(self, now: float) -> list[tuple[Lease, Queue]]:
        """Leases to ask back now, each with the queue it is for."""
        desk, self._now, self._effort = self._desk, now, 0
        if not len(desk.leases):
            return []
        leases = desk.leases
        self._going, self._taken = dict(leases.recallable.going), set()
        self._spare.clear()
        self._top = [caller for caller, _ in islice(leases.holders.most_first(), MOST_SIFTED)]
        found: list[tuple[Lease, Queue]] = []
        for queue in self._next():
            underway = leases.recallable.coming(queue.need, now - PATIENCE)
            wanted = min(queue.waiting - underway, MOST_AT_ONCE - len(found))
            victims = list(islice(self._search(queue, underway), max(0, wanted)))
            found += [(victim, queue) for victim in victims]
            if len(victims) < wanted:
                queue.in_vain = now
        return found

    def _next(self) -> Iterator[Queue]:
        """Queues for which nothing could be found, highest priority first."""
        demands = self._desk.demands
        every: Iterable[Queue] = self._desk.lines.every()
        if demands.stuck:
            every = [*every, *demands.stuck.values()]
            every = sorted(every, key=lambda queue: -queue.need.priority)
        start, seen = self._passed, 0
        more = False
        for queue in islice(every, start, start + MOST_QUEUES):
            if self._effort > MOST_EFFORT:
                more = True
                break
            seen += 1
            if queue.waiting and self._now >= queue.in_vain + LOOK_AGAIN - PAUSE:
                yield queue
        self._effort += seen
        self._passed = start + seen if more or seen == MOST_QUEUES else 0

    def _search(self, queue: Queue, underway: int) -> Iterator[Lease]:
        """Leases for one queue after the other; each that is taken makes the next one dearer, so
        who was passed over for the first is passed over for the next."""
        desk, need = self._desk, queue.need
        demand = desk.demands.head(queue)
        callers = max(1, queue.callers())
        own = desk.leases.held(demand.caller) - self._going.get(demand.caller, 0)
        there = desk.candidates(need)
        if not self._hope(demand, there, need.priority, own + underway // callers):
            return
        levels = desk.leases.recallable.up_to(need.priority)
        if len(there) <= MOST_SIFTED:
            levels = _on(desk, there, need.priority)
            self._effort += sum(len(slot.leases) for slot in there)
        self._left = MOST_CHECKED
        for caller in self._sifted(levels):
            while self._left > 0:
                share = own + underway // callers
                lease = self._of_caller(caller, levels, there, demand, underway, share)
                if lease is None:
                    break
                self._taken.add(lease.id)
                self._going[caller] = self._going.get(caller, 0) + 1
                if caller == demand.caller:
                    own -= 1
                underway += 1
                yield lease

    def _of_caller(
        self, caller: str, levels: list[dict[str, Held]], there: Collection[Slot], demand: Demand,
        underway: int, share: int,
    ) -> Lease | None:  # fmt: skip
        """One of this caller's leases that may be asked back."""
        spare = self._desk.leases.held(caller) - self._going.get(caller, 0)
        even = caller != demand.caller and spare <= share + 1
        for held in levels:
            for other, leases in held.get(caller, {}).items():
                lower = other.priority < demand.need.priority
                if not (even and share > 0 and not lower) and contends(other, demand.need):
                    lease = self._of(leases, there, demand, underway, lower, even)
                    if lease is not None:
                        return lease
        return None

    def _hope(self, demand: Demand, there: Collection[Slot], priority: int, share: int) -> bool:
        """Whether there may be a lease that could be asked back: most often it is known without
        a search that there is none."""
        recallable = self._desk.leases.recallable
        if recallable.below(priority) and self._below(demand.need):
            return True
        if not recallable.any_of(priority):
            return False
        if (share <= 0 or not demand.held) and self._old(demand.need, there):
            return True
        own = self._desk.leases.held(demand.caller) - self._going.get(demand.caller, 0)
        return own > len(demand.held) + 1 or self._most_spare(priority) > share + 1

    def _old(self, need: Need, there: Collection[Slot]) -> bool:
        """Whether one of the same priority may be where the need may go for longer than a slice."""
        oldest = self._desk.leases.recallable.oldest(need.priority, MOST_OLD + 1)
        old = [lease.slot for lease in oldest if lease.since + SLICE <= self._now]
        return len(old) > MOST_OLD or any(slot in there for slot in old)

    def _below(self, need: Need) -> bool:
        """Whether a lease of a lower priority may be where the need may go."""
        if need.wish.group:
            return True
        kind = self._desk.index.kind(need, self._now)
        return self._desk.leases.recallable.below_on(kind, need.priority)

    def _most_spare(self, priority: int) -> int:
        spare = self._spare.get(priority)
        if spare is None:
            held = self._desk.leases.held
            callers = self._desk.leases.recallable.holders(priority)
            if len(callers) > MOST_SIFTED:
                callers = self._top
            self._effort += len(callers)
            spare = max((held(one) - self._going.get(one, 0) for one in callers), default=0)
            self._spare[priority] = spare
        return spare

    def _sifted(self, levels: list[dict[str, Held]]) -> Iterator[str]:
        """Those that hold the most first; where there are many, some of the others in turn."""
        for caller in self._top:
            for held in levels:
                if caller in held:
                    self._effort += 1
                    yield caller
                    break
        if len(self._top) < MOST_SIFTED:
            return
        for held in levels:
            for caller in list(islice(held, MOST_SIFTED)):
                self._effort += 1
                held[caller] = held.pop(caller)
                yield caller

    def _of(
        self, leases: dict[str, Lease], there: Collection[Slot], demand: Demand, underway: int,
        lower: bool, even: bool,
    ) -> Lease | None:  # fmt: skip
        """The first of one caller's leases that may be asked back."""
        some = list(islice(leases.values(), MOST_OF_ONE))
        self._effort += len(some)
        self._left -= len(some)
        for lease in some:
            if lease.slot not in there or lease.id in self._taken:
                continue
            if not _usable(lease, demand.need):
                continue
            if lower:
                return lease
            if lease.caller == demand.caller:
                if self._own_turn(demand, lease, underway):
                    return lease
            elif not even or lease.since + SLICE <= self._now:
                return lease
        if len(leases) > MOST_OF_ONE:
            for lease in some:
                leases[lease.id] = leases.pop(lease.id)
        return None

    def _own_turn(self, demand: Demand, lease: Lease, underway: int) -> bool:
        """Between two demands of the same caller."""
        if lease.key == demand.key:
            return False
        other = self._desk.demands.find(lease.caller, lease.key)
        have = len(demand.held) + underway
        theirs = 1
        if other is not None:
            theirs = len(other.held) - sum(id in other.held for id in self._taken)
        return theirs > have + 1 or (have == 0 and lease.since + SLICE <= self._now)


def _on(desk: Desk, slots: Collection[Slot], priority: int) -> list[dict[str, Held]]:
    """As ``Recallable.up_to``, of what is on these few providers."""
    found: dict[int, dict[str, Held]] = {}
    leases = [desk.leases.by_id[id] for slot in slots for id in slot.leases]
    for lease in sorted(leases, key=lambda lease: lease.since):
        if lease.recalled_at is None and lease.need.priority <= priority:
            held = found.setdefault(lease.need.priority, {}).setdefault(lease.caller, {})
            held.setdefault(lease.need, {})[lease.id] = lease
    return [found[level] for level in sorted(found)]


def _usable(lease: Lease, need: Need) -> bool:
    return lease.state is LeaseState.GRANTED and not lease.idle and _same_room(lease, need)


def _same_room(lease: Lease, need: Need) -> bool:
    """Whether both take from the same: from providers, or from the same bundles."""
    if lease.bundle is None:
        return not need.wish.group
    return lease.bundle.group.id == need.wish.group and need.wish.bundle in (-1, lease.bundle.index)
