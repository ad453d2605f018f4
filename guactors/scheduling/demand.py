"""Who waits for what, and whose turn it is.

Owns: demands, the queues of equal needs, and the order within a priority: first the caller that
holds the fewest leases, then that caller's demand with the fewest, then whoever was served longest
ago, then whoever asked first. Must never: know providers.

Each queue keeps a heap of callers and, per caller, a heap of demands, so that a grant costs a
logarithm, not a walk over everybody who waits.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from guactors.messages import Shape
from guactors.scheduling.placement import Need

T = TypeVar("T", str, int)
Rank = tuple[int, int, int]
"""(held, last turn, order of arrival)."""


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

    @property
    def waiting(self) -> int:
        """Places it could take now."""
        if self.given_up or self.not_before or self.preparing or self.paused:
            return 0
        return max(0, self.count - len(self.held))


class _Heap(Generic[T]):
    """Items by rank, where an item's newest rank counts: a heap with entries that are skipped when
    they are out of date, and swept when they are many."""

    __slots__ = ("_entries", "_ranks")

    def __init__(self) -> None:
        self._entries: list[tuple[Rank, T]] = []
        self._ranks: dict[T, Rank] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def __iter__(self) -> Iterator[T]:
        return iter(self._ranks)

    def entries(self) -> int:
        """With those that are out of date."""
        return len(self._entries)

    def put(self, item: T, rank: Rank) -> None:
        """Enter it, or change its rank."""
        if self._ranks.get(item) == rank:
            return
        self._ranks[item] = rank
        heapq.heappush(self._entries, (rank, item))
        if len(self._entries) > 2 * len(self._ranks) + 64:
            self._entries = [(rank, item) for item, rank in self._ranks.items()]
            heapq.heapify(self._entries)

    def drop(self, item: T) -> None:
        """It is here no longer."""
        self._ranks.pop(item, None)

    def peek(self) -> tuple[Rank, T] | None:
        """The item of the lowest rank."""
        while self._entries:
            rank, item = self._entries[0]
            if self._ranks.get(item) == rank:
                return rank, item
            heapq.heappop(self._entries)
        return None


class Queue:
    """Everybody with the same need."""

    __slots__ = (
        "_callers", "_demands", "blocked", "blocked_since", "hindered", "need", "recalling",
        "waiting",
    )  # fmt: skip

    def __init__(self, need: Need) -> None:
        self.need = need
        self.waiting = 0
        self.blocked = False
        """No room anywhere when last tried; true until some provider has more."""
        self.hindered = False
        """When last tried, room was kept for others; that may end though nobody has more."""
        self.blocked_since: float | None = None
        """Since when every try has failed."""
        self.recalling = False
        """Leases were asked back for it since."""
        self._callers: _Heap[str] = _Heap()
        self._demands: dict[str, _Heap[int]] = {}

    def put(self, demand: Demand) -> None:
        """Enter it, or enter it again with a new rank."""
        own = self._demands.get(demand.caller)
        if own is None:
            own = self._demands[demand.caller] = _Heap()
        own.put(demand.order, (len(demand.held), demand.turn, demand.order))

    def drop(self, demand: Demand) -> None:
        """It waits no longer."""
        own = self._demands.get(demand.caller)
        if own is not None:
            own.drop(demand.order)
            if not own:
                del self._demands[demand.caller]
                self._callers.drop(demand.caller)

    def rank_caller(self, caller: str, rank: Rank) -> None:
        """The caller's rank may have changed."""
        self._callers.put(caller, rank)

    def peek(self) -> tuple[Rank, Rank] | None:
        """Ranks of the next caller and of its next demand."""
        first = self._callers.peek()
        if first is None:
            return None
        rank, caller = first
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
        self.inside: dict[str, dict[Need, Queue]] = {}
        """By placement group, of who waits for room inside."""
        self.stirred: dict[str, None] = {}
        """Groups that somebody new waits for, or that have more room."""
        self.stuck: dict[Need, Queue] = {}
        """Queues inside groups that found no room when last tried."""
        self._by_order: dict[int, Demand] = {}
        self._needs_of: dict[str, dict[Need, int]] = {}
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
            queue = queues[demand.need] = Queue(demand.need)
        if group and waiting:
            self.stirred[group] = None
        queue.waiting += waiting - demand.queued
        self._count_need(demand, bool(waiting) - bool(demand.queued))
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

    def served(self, demand: Demand) -> None:
        """It was its turn."""
        self._counter += 1
        demand.turn = self._counter
        self._turn_of[demand.caller] = self._counter

    def set_held(self, caller: str, held: int) -> None:
        """The caller now holds so many leases."""
        if held:
            self._held_of[caller] = held
        else:
            self._held_of.pop(caller, None)
        for need in self._needs_of.get(caller, ()):
            self._rank(self.shelf(need)[need], caller)

    def forget(self, caller: str) -> None:
        """The caller is gone; its demands were removed."""
        self._turn_of.pop(caller, None)
        self._order_of.pop(caller, None)
        self._held_of.pop(caller, None)

    def _rank(self, queue: Queue, caller: str) -> None:
        held, turn = self._held_of.get(caller, 0), self._turn_of.get(caller, 0)
        queue.rank_caller(caller, (held, turn, self._order_of.get(caller, 0)))

    def next_turn(self, caller: str, more: int = 0) -> tuple[Rank, Rank]:
        """The ranks that the caller, and a demand it had made just now, would have if that had
        been served ``more`` times."""
        last = self._counter + 1
        turn = self._turn_of.get(caller, 0) if not more else last
        first = self._held_of.get(caller, 0) + more, turn, self._order_of.get(caller, last)
        return first, (more, turn if more else 0, last)

    def head(self, queue: Queue) -> Demand:
        """The demand whose turn it is in a queue, which holds at least one."""
        ranks = queue.peek()
        assert ranks is not None, f"{queue.waiting} wait for {queue.need} but none can be served"
        return self._by_order[ranks[1][2]]

    def _count_need(self, demand: Demand, change: int) -> None:
        if not change:
            return
        needs = self._needs_of.setdefault(demand.caller, {})
        needs[demand.need] = needs.get(demand.need, 0) + change
        if not needs[demand.need]:
            del needs[demand.need]
        if not needs:
            del self._needs_of[demand.caller]

    def waiting_inside(self, group: str) -> list[Demand]:
        """Everybody who waits for room in this group."""
        queues = self.inside.get(group, {}).values()
        return [self._by_order[order] for queue in queues for order in queue.orders()]

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
