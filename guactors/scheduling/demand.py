"""Who waits for what, and whose turn it is.

Owns: demands, the queues of equal needs, and the order within a priority: first the caller that
holds the fewest leases, then of that caller's demands the one with the earliest deadline, or the
fewest leases, then whoever was served longest ago, then whoever asked first. Must never: know
providers.

Each queue keeps a heap of callers and, per caller, a heap of demands, so that a grant costs a
logarithm, not a walk over everybody who waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from guactors.messages import Shape
from guactors.scheduling.heap import DemandRank, Heap, Rank, Turn
from guactors.scheduling.placement import Need


@dataclass(eq=False, slots=True)
class Demand:
    """What a caller wants of one shape. For an actor: one place, ``key`` is the actor's id."""

    caller: str
    key: str
    need: Need
    shape: Shape
    count: int
    order: int
    is_actor: bool = False
    held: set[str] = field(default_factory=set)
    """Ids of its leases, granted or on their way (for an actor: its own id once placed)."""
    turn: int = 0
    failures: int = 0
    """Starts that failed, one after the other."""
    not_before: float = 0.0
    """Until then it pauses after a failed start; 0 when it does not."""
    given_up: bool = False
    infeasible: bool = False
    """Its caller was told that no provider could serve it."""
    prefer: dict[str, float] | None = None
    """Weights by provider id: where it would rather be, as for ``choose``."""
    unknown_until: float = 0.0
    """Until then a placement group that nobody knows may still become known."""
    queued: int = 0
    """``waiting`` as its queue knows it."""
    paused: bool = False
    """Its caller stands still."""
    preparing: set[str] = field(default_factory=set)
    """Those of ``held`` whose environment is being built: until it is there, more are no use."""
    due: float = math.inf
    """When the first of the calls that wait must have ended."""

    @property
    def waiting(self) -> int:
        """Places it could take now."""
        if self.given_up or self.not_before or self.preparing or self.paused:
            return 0
        return max(0, self.count - len(self.held))


class Queue:
    """Everybody with the same need."""

    __slots__ = (
        "_callers",
        "_demands",
        "_rank_of",
        "blocked",
        "blocked_since",
        "in_vain",
        "need",
        "spared_until",
        "stirred",
        "waiting",
    )  # fmt: skip

    def __init__(self, need: Need, rank_of: Callable[[str], Rank]) -> None:
        self.need = need
        self._rank_of = rank_of
        self.waiting = 0
        self.blocked = False
        """Inside a placement group: no room there when last tried."""
        self.blocked_since: float | None = None
        """Since when every try has failed."""
        self.in_vain = -math.inf
        """When leases to ask back for it were last looked for, and not found."""
        self.spared_until = -math.inf
        """Until then nobody is looked for who would give way for it."""
        self.stirred: dict[Queue, None] | None = None
        """Where it enters itself when its turn may have changed."""
        self._callers: Heap[str, Rank] = Heap()
        self._demands: dict[str, Heap[int, DemandRank]] = {}

    def __lt__(self, _other: Queue) -> bool:
        """Two have the same turn only where one's is out of date, of a demand that has moved to the
        other: then it does not matter which goes first."""
        return False

    def put(self, demand: Demand) -> None:
        """Enter it, or enter it again with a new rank."""
        own = self._demands.get(demand.caller)
        if own is None:
            own = self._demands[demand.caller] = Heap()
        own.put(demand.order, (demand.due, len(demand.held), demand.turn, demand.order))
        if self.stirred is not None:
            self.stirred[self] = None

    def drop(self, demand: Demand) -> None:
        """It waits no longer."""
        own = self._demands.get(demand.caller)
        if own is not None:
            own.drop(demand.order)
            if not own:
                del self._demands[demand.caller]
                self._callers.drop(demand.caller)
            if self.stirred is not None:
                self.stirred[self] = None

    def rank_caller(self, caller: str, rank: Rank) -> None:
        """The caller's rank may be better than before."""
        self._callers.put(caller, rank)
        if self.stirred is not None:
            self.stirred[self] = None

    def turn(self) -> Turn:
        """As ``peek``, of a queue in which somebody waits."""
        found = self.peek()
        assert found is not None
        return found

    def peek(self) -> Turn | None:
        """Ranks of the next caller and of its next demand."""
        while True:
            first = self._callers.peek()
            if first is None:
                return None
            rank, caller = first
            true = self._rank_of(caller)
            if rank == true:
                break
            # It was served since; that it has to wait longer is seen only here.
            self._callers.put(caller, true)
        found = self._demands[caller].peek()
        return None if found is None else (rank, found[0])

    def orders(self) -> list[int]:
        """Of every demand here."""
        return [order for heap in self._demands.values() for order in heap]

    def callers(self) -> int:
        """How many callers wait here."""
        return len(self._callers)

    def entries(self) -> int:
        """Heap entries, current and outdated."""
        return self._callers.entries() + sum(heap.entries() for heap in self._demands.values())


class DemandBook:
    """All demands and their queues."""

    def __init__(self) -> None:
        self._by_caller: dict[str, dict[str, Demand]] = {}
        self.queues: dict[Need, Queue] = {}
        """Of who waits for room on any provider."""
        self.fresh: dict[Need, Queue] = {}
        """Of these, those for which all providers are to be looked at."""
        self.ended: list[Queue] = []
        """Of these, those in which nobody waits any more, until somebody has taken note."""
        self.hopeless: dict[Demand, None] = {}
        """Those whose callers were told that nobody could serve them, and some for whom there is
        hope again."""
        self._of_who: dict[str, dict[Need, Queue]] = {}
        """Of these, those whose rights and quota count."""
        self.inside: dict[str, dict[Need, Queue]] = {}
        """By placement group, of who waits for room inside."""
        self.stirred: dict[str, None] = {}
        """Groups that somebody new waits for, or that have more room."""
        self.stuck: dict[Need, Queue] = {}
        """Queues inside groups that found no room when last tried."""
        self._by_order: dict[int, Demand] = {}
        self._queues_of: dict[str, dict[Queue, int]] = {}
        """By caller, with the number of its demands there."""
        self._turn_of: dict[str, int] = {}
        self._order_of: dict[str, int] = {}
        self._held_of: dict[str, int] = {}
        self._counter = 0

    def __iter__(self) -> Iterator[Demand]:
        return iter(list(self._by_order.values()))

    def find(self, caller: str, key: str) -> Demand | None:
        """The demand, if the caller has one of that key."""
        return self._by_caller.get(caller, {}).get(key)

    def of_caller(self, caller: str) -> list[Demand]:
        """All of one caller."""
        return list(self._by_caller.get(caller, {}).values())

    def count_of(self, caller: str) -> int:
        """How many it has."""
        return len(self._by_caller.get(caller, ()))

    def add(
        self, caller: str, key: str, need: Need, shape: Shape, count: int, *, is_actor: bool = False
    ) -> Demand:
        """A new one."""
        self._counter += 1
        demand = Demand(caller, key, need, shape, count, self._counter, is_actor)
        self._by_caller.setdefault(caller, {})[key] = demand
        self._by_order[demand.order] = demand
        self._order_of.setdefault(caller, self._counter)
        self.refresh(demand)
        return demand

    def remove(self, demand: Demand) -> None:
        """Nobody wants it any more."""
        demand.count = 0
        self.hopeless.pop(demand, None)
        self.refresh(demand)
        if self._by_order.pop(demand.order, None) is not None:
            own = self._by_caller[demand.caller]
            del own[demand.key]
            if not own:
                del self._by_caller[demand.caller]

    def move(self, demand: Demand, need: Need, shape: Shape) -> None:
        """The same key now asks for something else."""
        count, demand.count = demand.count, 0
        self.refresh(demand)
        demand.need, demand.shape, demand.count = need, shape, count
        self.refresh(demand)

    def stir(self, *groups: str) -> None:
        """Look again who can be served inside these groups."""
        for group in groups:
            if group in self.inside:
                self.stirred[group] = None

    def shelf(self, need: Need) -> dict[Need, Queue]:
        """The queues among which the need's is."""
        group = need.wish.group
        return self.inside.setdefault(group, {}) if group else self.queues

    def refresh(self, demand: Demand) -> None:
        """Something about the demand has changed: bring its queue up to date."""
        waiting = demand.waiting
        group = demand.need.wish.group
        queues = self.queues if not group else self.inside.get(group, {})
        queue = queues.get(demand.need)
        if queue is None:
            if not waiting:
                return
            queues = self.shelf(demand.need)
            queue = queues[demand.need] = Queue(demand.need, self._rank_of)
            if not group:
                self._opened(queue)
        if group and waiting:
            self.stirred[group] = None
        queue.waiting += waiting - demand.queued
        self._count_queue(demand.caller, queue, bool(waiting) - bool(demand.queued))
        demand.queued = waiting
        if waiting:
            queue.put(demand)
            self._rank(queue, demand.caller)
        else:
            queue.drop(demand)
            if not queue.waiting:
                del queues[demand.need]
                self.stuck.pop(demand.need, None)
                if group and not queues:
                    del self.inside[group]
                    self.stirred.pop(group, None)
                if not group:
                    self._ended(queue)

    def _opened(self, queue: Queue) -> None:
        need = queue.need
        self.fresh[need] = queue
        if need.who:
            self._of_who.setdefault(need.who, {})[need] = queue

    def _ended(self, queue: Queue) -> None:
        need = queue.need
        self.fresh.pop(need, None)
        self.ended.append(queue)
        if need.who:
            own = self._of_who[need.who]
            del own[need]
            if not own:
                del self._of_who[need.who]

    def try_anew(self, who: str) -> None:
        """What hindered this principal may be gone, wherever there is room."""
        self.fresh.update(self._of_who.get(who, {}))

    def pause(self, caller: str, paused: bool) -> None:
        """Its calls are to wait, or to wait no more."""
        for demand in self.of_caller(caller):
            if demand.paused != paused and not demand.is_actor:
                demand.paused = paused
                self.refresh(demand)

    def served(self, demand: Demand) -> None:
        """It was its turn."""
        self._counter += 1
        demand.turn = self._counter
        self._turn_of[demand.caller] = self._counter
        for queue in self._queues_of.get(demand.caller, ()):
            if queue.stirred is not None:
                queue.stirred[queue] = None

    def set_held(self, caller: str, held: int) -> None:
        """The caller now holds so many leases."""
        before = self._held_of.get(caller, 0)
        if held:
            self._held_of[caller] = held
        else:
            self._held_of.pop(caller, None)
        for queue in self._queues_of.get(caller, ()):
            if held < before:
                self._rank(queue, caller)
            elif queue.stirred is not None:
                queue.stirred[queue] = None

    def forget(self, caller: str) -> None:
        """The caller is gone; its demands were removed."""
        self._turn_of.pop(caller, None)
        self._order_of.pop(caller, None)
        self._held_of.pop(caller, None)

    def _rank(self, queue: Queue, caller: str) -> None:
        queue.rank_caller(caller, self._rank_of(caller))

    def _rank_of(self, caller: str) -> Rank:
        held, turn = self._held_of.get(caller, 0), self._turn_of.get(caller, 0)
        return held, turn, self._order_of.get(caller, 0)

    def next_turn(self, caller: str, more: int = 0) -> Turn:
        """The ranks that the caller, and a demand it had made just now, would have if that had
        been served ``more`` times."""
        last = self._counter + 1
        turn = self._turn_of.get(caller, 0) if not more else last
        first = self._held_of.get(caller, 0) + more, turn, self._order_of.get(caller, last)
        return first, (math.inf, more, turn if more else 0, last)

    def head(self, queue: Queue) -> Demand:
        """The demand whose turn it is in a queue, which holds at least one."""
        ranks = queue.peek()
        assert ranks is not None, f"{queue.waiting} wait for {queue.need} but none can be served"
        return self._by_order[ranks[1][-1]]

    def _count_queue(self, caller: str, queue: Queue, change: int) -> None:
        if not change:
            return
        queues = self._queues_of.setdefault(caller, {})
        queues[queue] = queues.get(queue, 0) + change
        if not queues[queue]:
            del queues[queue]
        if not queues:
            del self._queues_of[caller]

    def waiting_inside(self, group: str) -> list[Demand]:
        """Everybody who waits for room in this group."""
        queues = self.inside.get(group, {}).values()
        return [demand for queue in queues for demand in self.of_queue(queue)]

    def of_queue(self, queue: Queue) -> list[Demand]:
        """Everybody who waits there."""
        return [self._by_order[order] for order in queue.orders()]

    def every_queue(self) -> Iterator[Queue]:
        """Those of groups, too."""
        yield from self.queues.values()
        for queues in self.inside.values():
            yield from queues.values()

    def waiting(self) -> int:
        """Places wanted and not had."""
        return sum(queue.waiting for queue in self.every_queue())

    def check(self) -> None:
        """The queues hold just what waits."""
        expected: dict[Need, int] = {}
        for demand in self:
            assert demand.queued == demand.waiting, f"{demand} is not refreshed"
            if demand.waiting:
                expected[demand.need] = expected.get(demand.need, 0) + demand.waiting
        found = {queue.need: queue.waiting for queue in self.every_queue()}
        assert found == expected, f"queues drifted: {found} != {expected}"
        for queue in self.every_queue():
            assert self.head(queue).waiting > 0
