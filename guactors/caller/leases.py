"""Stateless tasks: how much to ask the hub for, and which lease runs what.

Owns: one demand per shape, its queue, its leases, and the measured service time of functions from
which pipelining depth and demand follow. Must never: touch actors, or keep a clock.

Depth: an unknown function goes out one call at a time; a known one fills about :data:`IN_FLIGHT`
seconds of a worker's time. Short calls are thereby batched, long ones never queue behind each other
while another lease is free; what was sent too early is taken back, and what got behind a call that
takes its time waits for another lease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from math import ceil

from guactors.caller.deadlines import joined, left, moved, parted, put_back, put_in
from guactors.caller.demands import Demand, Lease
from guactors.caller.effects import Dial, Effect, Hangup, Hurry, SendHub, SendPeer
from guactors.caller.objects import ObjectTable
from guactors.caller.targets import Target
from guactors.caller.tasks import Task
from guactors.messages import (
    Bounced,
    Define,
    Halted,
    LeaseGranted,
    ReturnLease,
    SetDemand,
    Standing,
    TakeBack,
)

IN_FLIGHT = 0.005
"""Seconds of work on the wire per lease."""
PREFETCH_BELOW = 0.05
"""Functions shorter than this keep one call waiting behind the running one."""
DEEPEST = 256
WORTH_A_LEASE = 0.010
"""Seconds of queued work that justify asking for one lease more."""
MOST_DEMAND = 10_000
LOOKED_AT = 16
"""Calls at the head of a queue whose values say where more leases should be."""
MOST_NEAR = 8
"""Providers that are named to the hub."""
TAKE_BACK_AFTER = 0.010
"""A call may wait so long behind another before a dry lease takes it over."""
BRIEF = 0.003
"""Seconds that a lease stays without work while others stand still for it."""
OVERDUE = 2 * PREFETCH_BELOW
"""Seconds without an answer after which calls do not wait behind the one that runs."""


class LeaseBook:
    """All demands and leases of one caller."""

    def __init__(self, objects: ObjectTable, blobs: dict[bytes, Define], linger: float) -> None:
        self.objects = objects
        self.blobs = blobs
        self.linger = linger
        self.demands: dict[str, Demand] = {}
        self.by_peer: dict[str, Lease] = {}
        self.by_id: dict[str, Lease] = {}
        self.service: dict[bytes, float] = {}
        self.dirty: list[Target] = []
        self.now: Callable[[], float] = lambda: 0.0
        """Of the present event."""
        self.linked: set[str] = set()
        """Workers without a lease whose link stays for what they keep for us, or we for them: to
        dial one again would end that."""
        self.on_left: Callable[[list[Task]], None] = lambda tasks: None
        """Told of calls that are no longer with a lease that stands still."""
        self.gather: Callable[[Task, str], bool] = lambda task, peer: True
        """Has brought here what a call depends on and a neighbour cannot reach."""

    @property
    def effects(self) -> list[Effect]:
        return self.objects.effects

    # --- events -----------------------------------------------------------------------------

    def submit(self, demand: Demand, task: Task, now: float) -> None:
        """A task whose dependencies are there."""
        if not task.due:
            demand.queue.append(task)
            self.dispatch(demand, now)
            return
        put_in(demand.queue, task)
        self.dispatch(demand, now)
        self._tell(demand, demand.told)

    def requeue(self, demand: Demand, tasks: list[Task], now: float) -> None:
        """Tasks that did not run after all, to the front, in their order."""
        put_back(demand.queue, tasks)
        self.dispatch(demand, now)

    def on_granted(self, message: LeaseGranted, now: float) -> None:
        """A lease; one that nobody needs any more goes straight back."""
        demand = self.demands.get(message.key)
        if demand is None or message.lease in self.by_id:
            if demand is None:
                self.effects.append(SendHub(ReturnLease(message.lease)))
            return
        demand.infeasible_since = 0.0
        target = Target(message.worker, message.endpoints, message.provider, message.taken)
        self.objects.places.meet(target.peer, message.endpoints, message.provider)
        linger = min(BRIEF, self.linger) if message.brief else self.linger
        lease = Lease(message.lease, demand.key, target, now, linger)
        demand.leases[lease.id] = lease
        self.by_id[lease.id] = lease
        self.by_peer[target.peer] = lease
        if target.peer in self.linked:
            self.linked.discard(target.peer)
        else:
            self.effects.append(Dial(target.peer, message.endpoints))
        self._list(demand, lease)
        self.dispatch(demand, now)

    def on_recalled(self, lease: Lease, now: float) -> None:
        """Others wait: take no more, get back what has not started, return it when it is empty."""
        lease.recalled = True
        if lease.target.in_flight:
            self._take_back(lease, len(lease.target.in_flight))
        else:
            self.give_back(lease)

    def on_replied(self, lease: Lease, now: float) -> None:
        """Calls were answered; refill the worker."""
        target = lease.target
        demand = self.demands[lease.key]
        lease.slow = False
        if not target.in_flight:
            lease.idle_since = now
            if lease.recalled or lease.standing is not None:
                self.give_back(lease)
                return
            if lease.linger < self.linger and not demand.queue:
                self.effects.append(Hurry(now + lease.linger))
        if lease.due:
            self.effects.extend(parted(lease, now))
        self._list(demand, lease)
        if demand.queue:
            self.dispatch(demand, now)
        elif not target.in_flight:
            self._help_others(demand, now)

    def measure(self, fn: bytes, seconds: float) -> None:
        """One more observation of a function's service time."""
        old = self.service.get(fn)
        self.service[fn] = seconds if old is None else old + 0.3 * (seconds - old)

    def on_suspended(self, lease: Lease, standing: Standing | None) -> None:
        """Its worker stands still, or, with None, runs again. With nothing to do it goes back."""
        lease.standing = standing
        if standing is not None and not lease.target.in_flight:
            self.give_back(lease)

    def on_bounced(self, lease: Lease, message: Bounced, now: float) -> list[Task]:
        """Unstarted calls came back; they go to the front of the queue. Returns the cancelled ones
        among them, which nobody runs any more. Of a worker that is retiring the lease goes back
        with its last answer."""
        target, demand = lease.target, self.demands[lease.key]
        lease.recalled = lease.recalled or message.retiring
        lease.taking_back = False
        target.blocked = target.blocked or message.blocked
        if message.halt:
            self.effects.extend(target.flush())
            self.effects.append(SendPeer(target.peer, Halted()))
        back = [target.in_flight.pop(id) for id in message.calls if id in target.in_flight]
        back.sort(key=lambda task: task.id)
        for task in back:
            task.peer = ""
        if lease.standing is not None:
            self.on_left(back)
        cancelled = [task for task in back if task.cancelled]
        if lease.due:
            lease.due_said = 0.0  # this is rare enough to be told at once
            self.effects.extend(parted(lease, now))
        if not target.in_flight:
            lease.idle_since, lease.slow = now, False
            if lease.recalled or lease.standing is not None or message.halt:
                self.give_back(lease)
            else:
                self._list(demand, lease)
        self.requeue(demand, [t for t in back if not t.cancelled], now)
        return cancelled

    def on_unblocked(self, lease: Lease, now: float) -> None:
        lease.target.blocked = False
        demand = self.demands[lease.key]
        self._list(demand, lease)
        self.dispatch(demand, now)

    def remove(self, lease: Lease) -> list[Task]:
        """The lease is over; what it still owed."""
        demand = self.demands[lease.key]
        demand.leases.pop(lease.id, None)
        self.by_id.pop(lease.id, None)
        self.by_peer.pop(lease.target.peer, None)
        if lease.listed:
            demand.ready.remove(lease)
            lease.listed = False
        lease.target.lost = True
        owed = sorted(lease.target.in_flight.values(), key=lambda task: task.id)
        lease.target.in_flight.clear()
        lease.target.outbox.clear()
        lease.target.buffers.clear()
        if lease.standing is not None:
            self.on_left(owed)
        return owed

    def give_back(self, lease: Lease, *, dead: bool = False) -> None:
        """Return an empty (or dead) lease to the hub. The link stays while loans cross it."""
        peer = lease.target.peer
        self.remove(lease)
        demand = self.demands[lease.key]
        # Before the lease goes back: else it would be granted again at once.
        self._tell(demand, len(demand.leases) + (1 if demand.queue else 0))
        self.effects.append(SendHub(ReturnLease(lease.id, dead)))
        if self.objects.lends_to(peer) or self.objects.borrows_from(peer):
            self.linked.add(peer)
        else:
            self.effects.append(Hangup(peer))

    def wants_less(self, demand: Demand) -> None:
        """Calls were taken out of its queue: what nobody waits for is not asked for."""
        self._tell(demand, demand.told if demand.queue else len(demand.leases))

    def on_tick(self, now: float) -> None:
        """Return leases that lingered long enough; rebalance; update demand."""
        for demand in self.demands.values():
            if not demand.queue:
                for lease in list(demand.leases.values()):
                    if not lease.target.in_flight and now - lease.idle_since >= lease.linger:
                        self.give_back(lease)
            if not demand.queue and any(not x.target.in_flight for x in demand.leases.values()):
                self._help_others(demand, now)
            for lease in demand.leases.values():
                if _overdue(lease, now):
                    lease.slow = True
                    self._take_back(lease, len(lease.target.in_flight) - 1)

    def next_wake(self, now: float) -> float | None:
        """When the next idle lease is due, or None."""
        wakes = []
        for demand in self.demands.values():
            busy = idle = False
            for lease in demand.leases.values():
                if len(lease.target.in_flight) > 1:
                    busy = True
                    if not (lease.taking_back or lease.slow or lease.target.blocked):
                        wakes.append(lease.moved_at() + OVERDUE)
                elif not (lease.target.in_flight or demand.queue):
                    # Else it is blocked, and what waits goes there when it is that no more.
                    idle = True
                    wakes.append(lease.idle_since + lease.linger)
            if busy and idle:
                wakes.append(now + TAKE_BACK_AFTER)
        return min(wakes, default=None)

    # --- dispatch ---------------------------------------------------------------------------

    def depth(self, fn: bytes) -> int:
        """Calls of ``fn`` one worker may hold at a time."""
        code = self.blobs.get(fn)
        if code is not None and code.max_calls:
            return min(code.max_calls, self._depth(fn))
        return self._depth(fn)

    def _depth(self, fn: bytes) -> int:
        service = self.service.get(fn)
        if service is None:
            return 1
        if service * DEEPEST <= IN_FLIGHT:
            return DEEPEST
        return max(2 if service < PREFETCH_BELOW else 1, int(IN_FLIGHT / service))

    def clear(self) -> None:
        """Calls wait no more, for the session ends."""
        for demand in self.demands.values():
            demand.queue.clear()
        for lease in self.by_peer.values():
            lease.target.in_flight.clear()

    def dispatch(self, demand: Demand, now: float) -> None:
        """Send what fits, share it evenly over the leases with room, and tell the hub of the
        rest."""
        queue, ready = demand.queue, demand.ready
        while queue and ready:
            if ready[0].target.in_flight:
                # The next one's turn. One that is idle again keeps its turn: its caches are warm.
                ready.rotate(-1)
            lease = ready[0]
            target = lease.target
            # A task whose worker died goes out alone, so that the next death names the culprit.
            depth = 1 if queue[0].attempt else self.depth(queue[0].fn)
            room = depth - len(target.in_flight)
            if room <= 0 or lease.recalled or target.blocked or self._takes_time(lease):
                ready.popleft()
                lease.listed = False
                continue
            if len(ready) > 1:
                room = min(room, max(1, len(queue) // len(ready)))
            if not target.outbox:
                self.dirty.append(target)
            for _ in range(min(room, len(queue))):
                task = queue.popleft()
                if task.deps and not self._can_go(task, demand, lease, now):
                    continue
                target.add(task, self.objects, self.blobs, now)
                if task.due or lease.due:
                    self.effects.extend(joined(lease, task, now))
            if not target.in_flight:
                ready.rotate(-1)  # what it got waits for values of other machines
        if queue:
            service = self.service.get(queue[0].fn)
            waiting = len(queue)
            worth = waiting if service is None else ceil(waiting * service / WORTH_A_LEASE)
            extra = max(1, min(waiting, worth))  # a coarse clock measures zero
            if extra > 1 or not demand.leases or self._stuck(demand):
                self._tell(demand, min(len(demand.leases) + extra, MOST_DEMAND))

    def _takes_time(self, lease: Lease) -> bool:
        """Whether it runs a call that nothing is to wait behind: a long one, or one of which nobody
        knows how long it is."""
        flight = lease.target.in_flight
        return lease.slow or (len(flight) == 1 and self.depth(next(iter(flight.values())).fn) == 1)

    def _can_go(self, task: Task, demand: Demand, lease: Lease, now: float) -> bool:
        """Whether a call with values on other machines may go to this lease. If one of those
        machines has a lease with room, the call goes there; if none has, the values come here
        first."""
        objects = self.objects
        if objects.all_here:
            return True
        if all(objects.within_reach(id, lease.target.peer) for id in task.deps):
            return True
        for other in demand.ready:
            if other is lease or other.recalled or other.target.blocked or self._takes_time(other):
                continue
            if len(other.target.in_flight) >= self.depth(task.fn):
                continue
            if all(objects.within_reach(id, other.target.peer) for id in task.deps):
                if not other.target.outbox:
                    self.dirty.append(other.target)
                other.target.add(task, objects, self.blobs, now)
                if task.due or other.due:
                    self.effects.extend(joined(other, task, now))
                return False
        self.gather(task, lease.target.peer)
        return False

    def _stuck(self, demand: Demand) -> bool:
        """Whether no lease will take more for a while."""
        return all(
            lease.target.blocked or lease.recalled or len(lease.target.in_flight) > 0
            for lease in demand.leases.values()
        )

    def _tell(self, demand: Demand, count: int) -> None:
        """Tell the hub the number of leases wanted, held ones included, when it is news: less than
        before is, when nothing waits or half would do; another deadline is, too."""
        if (
            count > demand.told
            or (count < demand.told and (not demand.queue or 2 * count < demand.told))
            or (demand.queue and moved(demand.due, demand.queue[0].due))
        ):
            demand.told = count
            self.effects.append(SendHub(self.told(demand)))

    def told(self, demand: Demand) -> SetDemand:
        """What the hub is to know of it."""
        demand.due = demand.queue[0].due if demand.queue else 0.0
        seconds = left(demand.due, self.now())
        return SetDemand(demand.key, demand.shape, demand.told, self._near(demand), seconds)

    def due(self) -> list[Lease]:
        """Those of which the hub was told when they are due."""
        return [lease for lease in self.by_id.values() if lease.due]

    def _near(self, demand: Demand) -> list[str]:
        """Providers whose machines have what the next calls need, the most of it first."""
        objects = self.objects
        if objects.all_here:
            return []
        sizes: Counter[str] = Counter()
        for task in islice(demand.queue, LOOKED_AT):
            for id in task.deps:
                objects.places.weigh(objects.entries[id], sizes)
        return [provider for provider, _ in sizes.most_common(MOST_NEAR)]

    def _list(self, demand: Demand, lease: Lease) -> None:
        if not lease.listed and not lease.recalled and not lease.target.blocked:
            lease.listed = True
            demand.ready.append(lease)

    def _help_others(self, demand: Demand, now: float) -> None:
        """A lease ran dry: take unstarted calls back from one that has had them for long."""
        for lease in demand.leases.values():
            flight = lease.target.in_flight
            if len(flight) < 2 or lease.taking_back or lease.target.blocked:
                continue
            last = next(reversed(flight.values()))
            if now - max(last.sent_at, lease.target.last_reply) >= TAKE_BACK_AFTER:
                self._take_back(lease, len(flight) // 2)

    def check(self) -> None:
        """Invariants, for tests and the simulation."""
        for peer, lease in self.by_peer.items():
            assert lease.target.peer == peer
            assert self.by_id[lease.id] is lease
            for task in lease.target.in_flight.values():
                assert task.peer == peer, task
        for demand in self.demands.values():
            for task in demand.queue:
                assert task.unmet == 0, task
            for lease in demand.leases.values() if demand.queue else ():
                shut = lease.recalled or lease.target.blocked or lease.target.in_flight
                assert shut or lease.listed, f"{lease.id} has nothing to do, and calls wait"

    def _take_back(self, lease: Lease, count: int) -> None:
        lease.taking_back = True
        for effect in lease.target.flush():
            self.effects.append(effect)
        self.effects.append(SendPeer(lease.target.peer, TakeBack(count)))


def _overdue(lease: Lease, now: float) -> bool:
    """Whether calls have waited for too long behind the one that it runs."""
    if lease.taking_back or lease.slow or lease.target.blocked:
        return False
    return len(lease.target.in_flight) > 1 and now - lease.moved_at() >= OVERDUE
