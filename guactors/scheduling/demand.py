"""Who waits for what: all demands and all queues.

Owns: the books of demands, which queues there are, and what their ranks are made of. Must never:
know providers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from guactors.messages import Shape
from guactors.scheduling.aging import Aging
from guactors.scheduling.heap import Rank, Turn
from guactors.scheduling.placement import Need, Needs
from guactors.scheduling.queues import Demand, Queue
from guactors.scheduling.resources import Units
from guactors.scheduling.shares import ShareBook, currency


class DemandBook:
    """All demands and their queues."""

    def __init__(self) -> None:
        self.aging: Aging | None = None
        """None where nothing ages."""
        self.shares = ShareBook()
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
        """Of these, those whose rights or quota count: by principal, and by session."""
        self.inside: dict[str, dict[Need, Queue]] = {}
        """By placement group, of who waits for room inside."""
        self.stirred: dict[str, None] = {}
        """Groups that somebody new waits for, or that have more room."""
        self.stuck: dict[Need, Queue] = {}
        """Queues inside groups that found no room when last tried."""
        self._by_order: dict[int, Demand] = {}
        self._queues_of: dict[str, dict[Queue, int]] = {}
        """By caller, with the number of its demands there."""
        self._queues_with: dict[str, dict[Queue, int]] = {}
        """The same by session."""
        self._turn_of: dict[str, int] = {}
        self._order_of: dict[str, int] = {}
        self._held_of: dict[str, int] = {}
        self._counter = 0
        self._waiting = 0

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
        self, caller: str, key: str, need: Need, shape: Shape, count: int, *, session: str = "",
        is_actor: bool = False, others: Needs = (),
    ) -> Demand:  # fmt: skip
        """A new one."""
        self._counter += 1
        demand = Demand(caller, key, need, shape, count, self._counter, session, is_actor, others)
        self._by_caller.setdefault(caller, {})[key] = demand
        self._by_order[demand.order] = demand
        self._order_of.setdefault(caller, self._counter)
        self.shares.came(session, self._counter)
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

    def move(self, demand: Demand, needs: Needs, shape: Shape) -> None:
        """The same key now asks for something else."""
        count, demand.count = demand.count, 0
        self.refresh(demand)
        demand.need, demand.others = needs[0], needs[1:]
        demand.shape, demand.count = shape, count
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

    def find_queue(self, need: Need) -> Queue | None:
        """Of those who wait with this need, if there are any."""
        group = need.wish.group
        queues = self.queues if not group else self.inside.get(group, {})
        return queues.get(need)

    def level(self, demand: Demand) -> int:
        """The priority that it counts as, by how long the oldest of its queue has waited."""
        queue = self.find_queue(demand.need) if demand.queued else None
        return queue.level if queue is not None else demand.need.priority

    def refresh(self, demand: Demand) -> None:
        """Something about the demand has changed: bring its queue up to date."""
        waiting = demand.waiting
        self._refresh_in(demand.need, demand, waiting)
        for need in demand.others:
            self._refresh_in(need, demand, waiting)
        self._waiting += waiting - demand.queued
        demand.queued = waiting

    def _refresh_in(self, need: Need, demand: Demand, waiting: int) -> None:
        """One of the queues in which it waits."""
        group = need.wish.group
        queue = self.find_queue(need)
        if queue is None:
            if not waiting:
                return
            level_of = partial(self.shares.rank, by=currency(need.best or need.hold))
            queue = self.shelf(need)[need] = Queue(need, level_of, self._rank_of)
            if not group:
                self._opened(queue)
        if group and waiting:
            self.stirred[group] = None
        queue.waiting += waiting - demand.queued
        change = bool(waiting) - bool(demand.queued)
        if change:
            _count_queue(self._queues_of, demand.caller, queue, change)
            _count_queue(self._queues_with, demand.session, queue, change)
        if waiting:
            queue.put(demand)
            if change:
                queue.enter(demand)
                if self.aging is not None:
                    self.aging.begins(queue, demand)
        else:
            queue.drop(demand)
            if change and self.aging is not None:
                self.aging.ends(queue, demand)
            if not queue.waiting:
                queues = self.shelf(need)
                del queues[need]
                self.stuck.pop(need, None)
                if group and not queues:
                    del self.inside[group]
                    self.stirred.pop(group, None)
                if not group:
                    self._ended(queue)

    def _opened(self, queue: Queue) -> None:
        need = queue.need
        self.fresh[need] = queue
        for who in _whose(need):
            self._of_who.setdefault(who, {})[need] = queue

    def _ended(self, queue: Queue) -> None:
        need = queue.need
        self.fresh.pop(need, None)
        self.ended.append(queue)
        for who in _whose(need):
            own = self._of_who[who]
            del own[need]
            if not own:
                del self._of_who[who]

    def try_anew(self, who: str) -> None:
        """What hindered this principal or session may be gone, wherever there is room."""
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
        self.shares.served(demand.session, self._counter)
        if self.aging is not None and demand.queued:
            for need in demand.needs:
                queue = self.find_queue(need)
                assert queue is not None, f"{demand} waits in no queue"
                self.aging.begins(queue, demand)
        for queue in self._queues_with.get(demand.session, ()):
            if queue.stirred is not None:
                queue.stirred[queue] = None

    def use(self, session: str, units: Units, sign: int) -> None:
        """The session uses so much more, or less."""
        if not units:
            return
        self.shares.use(session, units, sign)
        for queue in self._queues_with.get(session, ()):
            if sign < 0:
                queue.rank_session(session)
            elif queue.stirred is not None:
                queue.stirred[queue] = None

    def entitle(self, session: str, share: float) -> None:
        """The session's share is this from now on."""
        if share != self.shares.share(session):
            self.shares.entitle(session, share)
            for queue in self._queues_with.get(session, ()):
                queue.rank_session(session)

    def set_held(self, session: str, caller: str, held: int) -> None:
        """The caller, of this session, now holds so many leases."""
        before = self._held_of.get(caller, 0)
        if held:
            self._held_of[caller] = held
        else:
            self._held_of.pop(caller, None)
        for queue in self._queues_of.get(caller, ()):
            if held < before:
                queue.rank_caller(session, caller)
            elif queue.stirred is not None:
                queue.stirred[queue] = None

    def forget(self, caller: str) -> None:
        """The caller is gone; its demands were removed."""
        self._turn_of.pop(caller, None)
        self._order_of.pop(caller, None)
        self._held_of.pop(caller, None)

    def _rank_of(self, caller: str) -> Rank:
        held, turn = self._held_of.get(caller, 0), self._turn_of.get(caller, 0)
        return held, turn, self._order_of.get(caller, 0)

    def next_turn(self, session: str, caller: str, need: Need, more: int = 0) -> Turn:
        """The ranks that they, and a demand made just now, would have if that had been served
        ``more`` times."""
        last = self._counter + 1
        turn = self._turn_of.get(caller, 0) if not more else last
        first = self.shares.rank_after(session, currency(need.best or need.hold), more, last)
        held = self._held_of.get(caller, 0) + more, turn, self._order_of.get(caller, last)
        return first, held, (math.inf, more, turn if more else 0, last)

    def head(self, queue: Queue) -> Demand:
        """The demand whose turn it is in a queue, which holds at least one."""
        ranks = queue.peek()
        assert ranks is not None, f"{queue.waiting} wait for {queue.need} but none can be served"
        return self._by_order[ranks[2][-1]]

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
        return self._waiting

    def check(self) -> None:
        """The queues hold just what waits."""
        expected: dict[Need, int] = {}
        for demand in self:
            assert demand.queued == demand.waiting, f"{demand} is not refreshed"
            for need in demand.needs if demand.waiting else ():
                expected[need] = expected.get(need, 0) + demand.waiting
        assert self._waiting == sum(demand.waiting for demand in self)
        found = {queue.need: queue.waiting for queue in self.every_queue()}
        assert found == expected, f"queues drifted: {found} != {expected}"
        for queue in self.every_queue():
            assert self.head(queue).waiting > 0
            if self.aging is not None:
                self.aging.check(queue)


def _count_queue(index: dict[str, dict[Queue, int]], key: str, queue: Queue, change: int) -> None:
    queues = index.setdefault(key, {})
    queues[queue] = queues.get(queue, 0) + change
    if not queues[queue]:
        del queues[queue]
    if not queues:
        del index[key]


def _whose(need: Need) -> list[str]:
    """The principal and the session whose quotas it counts under."""
    return [who for who in (need.who, need.bound.session if need.bound else "") if who]
