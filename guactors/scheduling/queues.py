"""Whose turn it is of those who wait for the same.

Owns: demands, the queue of equal needs, and the order in it: first the session that uses least of
what it is entitled to (see ``shares``), then that session's caller that holds the fewest leases,
then of that caller's demands the one that is due first, or has the fewest; each time whoever was
served longest ago, then whoever asked first. Must never: know providers, or one queue of another.

A queue keeps a heap of sessions, per session one of callers and per caller one of demands, so that
a grant costs a logarithm, not a walk over everybody who waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from guactors.messages import Shape
from guactors.scheduling.heap import DemandRank, Heap, Rank, Turn
from guactors.scheduling.placement import Need, Needs
from guactors.scheduling.thrash import Past


@dataclass(eq=False, slots=True)
class Demand:
    """What a caller wants of one shape. For an actor: one place, ``key`` is the actor's id."""

    caller: str
    key: str
    need: Need
    shape: Shape
    count: int
    order: int
    session: str = ""
    is_actor: bool = False
    others: Needs = ()
    """Needs that would do as well, where there is no room for ``need``; the best first."""
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
    pasts: list[Past] | None = None
    """Of its leases that began anew and are not there again, see ``thrash``."""

    @property
    def needs(self) -> Needs:
        """All that would do."""
        return (self.need, *self.others)

    def asks_for(self, need: Need) -> bool:
        """Whether the need is one of them, as a provider reports it, which knows of no quotas."""
        return need._replace(bound=None) in [one._replace(bound=None) for one in self.needs]

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
        "_level_of",
        "_rank_of",
        "_sessions",
        "blocked",
        "blocked_since",
        "in_vain",
        "level",
        "need",
        "since",
        "spared_until",
        "stirred",
        "waiting",
    )  # fmt: skip

    def __init__(
        self, need: Need, level_of: Callable[[str], Rank], rank_of: Callable[[str], Rank]
    ) -> None:
        self.need = need
        self._level_of = level_of
        self._rank_of = rank_of
        self.level = need.priority
        """Its priority, and more where it has aged."""
        self.since: dict[Demand, float] = {}
        """Where there is aging: since when each has waited, the oldest first."""
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
        self._sessions: Heap[str, Rank] = Heap()
        self._callers: dict[str, Heap[str, Rank]] = {}
        """By session."""
        self._demands: dict[str, Heap[int, DemandRank]] = {}
        """By caller."""

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
                callers = self._callers[demand.session]
                callers.drop(demand.caller)
                if not callers:
                    del self._callers[demand.session]
                    self._sessions.drop(demand.session)
            if self.stirred is not None:
                self.stirred[self] = None

    def enter(self, demand: Demand) -> None:
        """It waits from now on: its session and its caller have a rank here."""
        session = demand.session
        callers = self._callers.get(session)
        if callers is None:
            if len(self._callers) == 1:
                (other,) = self._callers  # as long as it was alone nobody asked for its rank
                self._sessions.put(other, self._level_of(other))
            callers = self._callers[session] = Heap()
        callers.put(demand.caller, self._rank_of(demand.caller))
        self.rank_session(session)

    def rank_session(self, session: str) -> None:
        """Its rank may be better than before."""
        if len(self._callers) > 1:
            self._sessions.put(session, self._level_of(session))
        if self.stirred is not None:
            self.stirred[self] = None

    def rank_caller(self, session: str, caller: str) -> None:
        """Its rank may be better than before."""
        self._callers[session].put(caller, self._rank_of(caller))
        if self.stirred is not None:
            self.stirred[self] = None

    def turn(self) -> Turn:
        """As ``peek``, of a queue in which somebody waits."""
        found = self.peek()
        assert found is not None
        return found

    def peek(self) -> Turn | None:
        """Ranks of the next session, of its next caller and of that one's next demand."""
        if len(self._callers) == 1:
            (session,) = self._callers
            rank = self._level_of(session)
        else:
            first = _first(self._sessions, self._level_of)
            if first is None:
                return None
            rank, session = first
        caller = _first(self._callers[session], self._rank_of)
        if caller is None:
            return None
        demand = self._demands[caller[1]].peek()
        return None if demand is None else (rank, caller[0], demand[0])

    def orders(self) -> list[int]:
        """Of every demand here."""
        return [order for heap in self._demands.values() for order in heap]

    def callers(self) -> int:
        """How many callers wait here."""
        return sum(len(callers) for callers in self._callers.values())

    def sessions(self) -> int:
        """How many sessions wait here."""
        return len(self._callers)

    def entries(self) -> int:
        """Heap entries, current and outdated."""
        callers = sum(heap.entries() for heap in self._callers.values())
        demands = sum(heap.entries() for heap in self._demands.values())
        return self._sessions.entries() + callers + demands


def _first(heap: Heap[str, Rank], rank_of: Callable[[str], Rank]) -> tuple[Rank, str] | None:
    """The one whose turn it is. That one was served since, and has to wait longer, is seen only
    here."""
    while (first := heap.peek()) is not None:
        true = rank_of(first[1])
        if first[0] == true:
            return first
        heap.put(first[1], true)
    return None
