"""Which of those that wait are worth a try now, and for whom a provider is kept.

Owns: the queues that wait for room on any provider, in lines of the same kind and priority; which
of them may have room since the last round; and which provider is kept free for whom. Must never:
place anything, or look at a line for which nothing has changed.

A line that was tried in vain has no room anywhere but on providers that are kept for others. So it
is tried again only on providers that have got more room since, and on those that were refused to
somebody, once in a while, for they may be kept no longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, ItemsView, Iterator, Mapping
from heapq import heapify, heappop, heapreplace
from itertools import count, islice

from guactors.scheduling.demand import DemandBook, Queue
from guactors.scheduling.heap import Heap, Turn
from guactors.scheduling.index import Index, Kind
from guactors.scheduling.keepers import Keepers
from guactors.scheduling.placement import Need, Slot, choose
from guactors.scheduling.standing import StandingBook

SLICE = 0.5
"""Seconds a lease is safe from a caller that has none, and a queue waits until it starves."""
FEW = 8
"""So many providers are compared one by one."""


class Line:
    """The queues of one kind and priority: where one finds no room, none does."""

    __slots__ = ("_first", "_turns", "dirty", "kind", "priority", "queues", "recalling")

    def __init__(self, kind: Kind, priority: int) -> None:
        self.kind = kind
        self.priority = priority
        self.queues: dict[Queue, None] = {}
        self.recalling: dict[Queue, None] = {}
        """Those for which leases were asked back since they were served."""
        self.dirty: dict[Queue, None] = {}
        """Those whose turn may have changed."""
        self._turns: Heap[Queue, Turn] = Heap()
        self._first: tuple[Turn, Queue] | None = None
        """As long as none is dirty."""

    def first(self) -> tuple[Turn, Queue]:
        """The queue whose turn it is."""
        if self._first is not None and not self.dirty:
            return self._first
        if len(self.queues) == 1:
            queue = next(iter(self.queues))
            found = queue.turn(), queue
        else:
            for queue in self.dirty or self.queues:
                self._turns.put(queue, queue.turn())
            first = self._turns.peek()
            assert first is not None
            found = first
        self.dirty.clear()
        self._first = found
        return found

    def drop(self, queue: Queue) -> None:
        """It waits no more."""
        del self.queues[queue]
        self._first = None
        self._turns.drop(queue)
        self.dirty.pop(queue, None)
        self.recalling.pop(queue, None)

    def starves(self, turn: Turn, now: float) -> bool:
        """Whether equals whose turn comes later must leave it a place as well: its first has had
        nothing for a while, or leases asked back for it would come in vain."""
        first, queue = self.first()
        since = queue.blocked_since
        if first < turn and first[0][0] == 0 and since is not None and now - since >= SLICE:
            return True
        return any(one.turn() < turn for one in self.recalling)


class Lines:
    """Over the queues of ``demands``."""

    def __init__(self, demands: DemandBook, index: Index, standing: StandingBook) -> None:
        self._demands = demands
        self._index = index
        self.standing = standing
        self._lines: dict[Kind, dict[int, Line]] = {}
        self._tops: dict[Kind, Line] = {}
        """Of these, the highest."""
        self._line_of: dict[Queue, Line] = {}
        self._refused: dict[Kind | None, dict[Slot, None]] = {}
        """Providers with room that somebody did not get because they are kept for others, by the
        kind of these, None for placement groups."""
        self._freed: dict[Slot, None] = {}
        """Of these, those that are kept for them no longer."""
        self._again = False
        self._changes = -1

    def try_again(self) -> None:
        """What was refused may be kept no longer: the next round looks."""
        self._again = bool(self._refused)

    def refuse(self, slot: Slot, keeper: Line | None) -> None:
        """Somebody does not get it, because it is kept for those of this line, or for a group."""
        self._refused.setdefault(None if keeper is None else keeper.kind, {})[slot] = None

    def _take_in(self, now: float) -> dict[Line, list[Queue]]:
        """Queues that came and went; returns those that were not tried yet, by line."""
        self.settle()
        fresh: dict[Line, list[Queue]] = {}
        for kind in self._lines if self._changes != self._index.changes() else ():
            self._index.refreshed(kind, now)
        self._changes = self._index.changes()
        for kind in self._index.anew:
            for line in self._lines.get(kind, {}).values():
                fresh[line] = []
        self._index.anew.clear()
        for queue in self._demands.fresh.values():
            kind = self._index.kind(queue.need, now)
            known = self._line_of.get(queue)
            if known is not None and known.kind is not kind:
                self._leave(queue)
                known = None
            line = known or self._enter(queue, kind)
            fresh.setdefault(line, []).append(queue)
        self._demands.fresh.clear()
        return fresh

    def settle(self) -> None:
        """Take out the queues that ended."""
        for queue in self._demands.ended:
            if queue in self._line_of:
                self._leave(queue)
        self._demands.ended.clear()

    def recalled(self, queue: Queue, recalled: bool) -> None:
        """Leases were asked back for it, or it was served."""
        line = self._line_of.get(queue)
        if line is None:
            return
        if recalled:
            line.recalling[queue] = None
        else:
            line.recalling.pop(queue, None)

    def nowhere(self, now: float) -> Iterator[Queue]:
        """Those that no provider could ever serve."""
        self.settle()
        for kind, lines in self._lines.items():
            if not self._index.refreshed(kind, now).candidates():
                for line in lines.values():
                    yield from list(line.queues)
        for queue in list(self._demands.fresh.values()):
            if not self._index.candidates(queue.need, now):
                yield queue

    def _enter(self, queue: Queue, kind: Kind) -> Line:
        lines = self._lines.setdefault(kind, {})
        priority = queue.need.priority
        line = lines.get(priority)
        if line is None:
            line = lines[priority] = Line(kind, priority)
            self._tops[kind] = lines[max(lines)]
        kind.idle = False
        self._line_of[queue] = line
        for other in line.queues if len(line.queues) == 1 else ():
            line.dirty[other] = None  # as long as it was alone nobody asked for its turn
        line.queues[queue] = line.dirty[queue] = None
        queue.stirred = line.dirty
        return line

    def _leave(self, queue: Queue) -> None:
        line = self._line_of.pop(queue)
        queue.stirred = None
        line.drop(queue)
        if line.queues:
            return
        if self._tops[line.kind] is line:
            # What was kept for it is free for others.
            self._freed.update(self._refused.pop(line.kind, {}))
        lines = self._lines[line.kind]
        del lines[line.priority]
        if lines:
            self._tops[line.kind] = lines[max(lines)]
        else:
            del self._lines[line.kind], self._tops[line.kind]
            line.kind.idle = True

    def round(
        self, roomier: Collection[Slot], kept: Callable[[], list[tuple[Need, Slot]]], now: float
    ) -> Round | None:
        """All that is to be tried now; None if nothing is."""
        if not (roomier or self._again or self._freed or self._news()):
            return None
        fresh = self._take_in(now)
        news = dict.fromkeys(roomier)
        news.update(self._freed)
        self._freed.clear()
        if self._again:
            for refused in self._refused.values():
                news.update(refused)
            self._refused.clear()
            self._again = False
        if not self._lines or not (fresh or news):
            return None
        found: dict[Kind, list[Slot]] = {}
        for slot in news:
            if not (slot.up and slot.open):
                continue
            fits = slot.pool.fits
            for kind in self._lines:
                if fits(kind.need.hold) and kind.admits(slot):
                    found.setdefault(kind, []).append(slot)
        if not fresh and not found:
            return None
        return Round(self, self._index, found, kept(), now, fresh)

    def _news(self) -> bool:
        demands, index = self._demands, self._index
        fresh = demands.fresh or demands.ended or index.anew
        return bool(fresh) or self._changes != index.changes()

    def at(self, kind: Kind) -> Mapping[int, Line]:
        """The lines of a kind, by priority."""
        return self._lines.get(kind, {})

    def tops(self) -> ItemsView[Kind, Line]:
        """By kind, its line of the highest priority."""
        return self._tops.items()

    def every(self) -> Iterator[Queue]:
        """All that wait, the highest priority first."""
        for line in self.down_to(-math.inf):
            yield from line.queues

    def down_to(self, least: float) -> Iterator[Line]:
        """Those of this priority and above, the highest first."""
        levels: dict[int, list[Line]] = {}
        for lines in self._lines.values():
            for priority, line in lines.items():
                if priority >= least:
                    levels.setdefault(priority, []).append(line)
        for priority in sorted(levels, reverse=True):
            yield from levels[priority]

    def check(self, now: float) -> None:
        """Every queue is in its line, and none waits in vain."""
        demands = self._demands
        queues = {*demands.queues.values()}
        refused = set(self._freed).union(*self._refused.values())
        assert queues - self._line_of.keys() <= {*demands.fresh.values()}, "a queue is in no line"
        assert self._line_of.keys() - queues <= {*demands.ended}, "a queue that ended has a line"
        assert self._tops == {kind: lines[max(lines)] for kind, lines in self._lines.items()}
        for queue, line in self._line_of.items():
            assert queue in line.queues
            assert self._lines[line.kind][line.priority] is line
            if queue in queues and queue.need not in demands.fresh and not queue.need.who:
                assert line.kind is self._index.kind(queue.need, now)
                found = self._index.choose(queue.need, now, refused.__contains__)
                assert found is None, f"{found!r} has room for {queue.need}"


class Round:
    """One pass over what is to be tried. ``news``: by kind, providers with room that it may not
    have had before; lines of ``fresh`` look at all. ``kept``: providers that others must not take
    from, each with the need it is kept for."""

    def __init__(
        self,
        lines: Lines,
        index: Index,
        news: dict[Kind, list[Slot]],
        kept: list[tuple[Need, Slot]],
        now: float,
        fresh: dict[Line, list[Queue]],
    ) -> None:
        self._lines = lines
        self._index = index
        self._now = now
        self._keepers = Keepers(lines, kept, now, index.is_nearest)
        self.news = news
        self.fresh = fresh

    def levels(self) -> Iterator[Level]:
        """The highest priority first."""
        levels: dict[int, dict[Line, None]] = {}
        for line in self.fresh:
            levels.setdefault(line.priority, {})[line] = None
        for kind in self.news:
            for priority, line in self._lines.at(kind).items():
                levels.setdefault(priority, {})[line] = None
        for priority in sorted(levels, reverse=True):
            lines = [line for line in levels[priority] if self.may_serve(line)]
            if lines:
                yield Level(self, lines)

    def may_serve(self, line: Line) -> bool:
        """Whether there may still be room for it, and somebody who wants it."""
        return bool(line.queues) and (line in self.fresh or line.kind in self.news)

    def taken(self, slot: Slot) -> None:
        """It has got less room, and queues may have ended."""
        self._lines.settle()
        self._keepers.forget()
        fits = slot.pool.fits
        for kind, slots in list(self.news.items()):
            if slot in slots and not fits(kind.need.hold):
                slots.remove(slot)
                if not slots:
                    del self.news[kind]

    def slot_for(
        self, line: Line, queue: Queue, turn: Turn, prefer: Mapping[str, float] | None
    ) -> Slot | None:
        """The provider for the queue's next."""

        standing = self._lines.standing

        def shut(slot: Slot) -> bool:
            if standing.keeps(slot.peer, queue.need):
                return True  # that it is kept no longer will be news
            if self._keepers.of(slot, queue.need, line.kind.names, turn) is None:
                return False
            self._lines.refuse(slot, self._keepers.last(slot))
            return True

        news = self.news.get(line.kind, [])
        if line in self.fresh or len(news) > FEW:
            return self._index.choose(queue.need, self._now, shut, prefer)
        free = [slot for slot in news if not shut(slot)]
        return choose(free, queue.need, (), prefer) if len(free) > 1 else next(iter(free), None)


class Level:
    """The lines of one priority that are to be tried, in turn."""

    def __init__(self, tries: Round, lines: list[Line]) -> None:
        self._tries = tries
        self._touched = {queue: None for line in lines for queue in tries.fresh.get(line, ())}
        self._numbers = count()
        self._heap = [(line.first()[0], next(self._numbers), line) for line in lines]
        heapify(self._heap)
        self._turn: Turn = self._heap[0][0]
        self.priority = lines[0].priority

    def next(self) -> Queue | None:
        """The queue whose turn it is, of those that may have room."""
        while self._heap:
            before, _, line = self._heap[0]
            if not self._tries.may_serve(line):
                heappop(self._heap)
                continue
            self._turn, queue = line.first()
            if self._turn == before:
                return queue
            # Who was served meanwhile has its turn later.
            heapreplace(self._heap, (self._turn, next(self._numbers), line))
        return None

    def choose(self, queue: Queue, prefer: Mapping[str, float] | None) -> Slot | None:
        """The provider for the next of ``queue``, which :meth:`next` gave."""
        return self._tries.slot_for(self._heap[0][2], queue, self._turn, prefer)

    def stuck(self) -> list[Queue]:
        """There was none, so there is none for its whole line: its queues, or some of them."""
        line = heappop(self._heap)[2]
        return list(islice(line.queues, FEW))

    def placed(self, queue: Queue, slot: Slot) -> None:
        """It has got one more place."""
        self._touched[queue] = None
        self._tries.taken(slot)

    def conclude(self, now: float) -> None:
        """Whoever still waits has found no room."""
        for queue in self._touched:
            if queue.waiting and queue.blocked_since is None:
                queue.blocked_since = now
