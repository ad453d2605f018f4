"""Small obedient peers for the bench: a caller and a provider that keep their own books, so that a
test can ask in the end whether the hub's books agree with theirs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from guactors import messages as m
from tests.unit.hub.bench import Bench, death, endpoint


@dataclass(eq=False)
class ModelCaller:
    """Holds what it is granted, returns what is asked back."""

    bench: Bench
    peer: str
    session: str
    root: bool
    demands: dict[str, tuple[m.Shape, int]] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    """Lease to demand."""
    actors: dict[str, m.ActorUpdate | None] = field(default_factory=dict)
    up: bool = False

    def join(self) -> None:
        self.bench.trays[self.peer] = []
        self.bench.caller(self.peer, self.session, root=self.root)
        self.up = True
        self.bench.say(self.peer, m.HeldLeases(sorted(self.held)))
        for key in self.demands:
            self.tell(key)
        for actor in self.actors:
            self.bench.say(self.peer, m.WatchActor(actor))

    def leave(self) -> None:
        """Its link breaks: what was on its way to it is lost."""
        self.up = False
        self.bench.trays[self.peer] = []
        self.bench.break_link(self.peer)

    def die(self) -> None:
        self.bench.say(self.peer, m.Goodbye())
        self.bench.trays[self.peer] = []
        self.demands.clear()
        self.held.clear()
        self.actors.clear()
        self.up = False

    def tell(self, key: str) -> None:
        shape, count = self.demands[key]
        if self.up:
            self.bench.say(self.peer, m.SetDemand(key, shape, count))

    def give_back(self, lease: str) -> None:
        key = self.held.pop(lease)
        if self.up:
            self.bench.say(self.peer, m.ReturnLease(lease))
        if key in self.demands:
            shape, count = self.demands[key]
            self.demands[key] = shape, max(0, count - 1)
            self.tell(key)

    def listen(self) -> bool:
        """Take one message."""
        tray = self.bench.trays.get(self.peer, [])
        if not self.up or not tray:
            return False
        match tray.pop(0):
            case m.LeaseGranted(key, lease):
                self.held[lease] = key
            case m.LeaseRecalled(lease) if lease in self.held:
                self.held.pop(lease)
                self.bench.say(self.peer, m.ReturnLease(lease))
            case m.LeaseLost(lease):
                self.held.pop(lease, None)
            case m.ActorUpdate() as update:
                self.actors[update.actor] = update
            case m.Ping(number):
                self.bench.say(self.peer, m.Pong(number))
        return True


@dataclass(eq=False)
class ModelProvider:
    """Starts what it is told to, lists it in its Offer, remembers deaths while it is away."""

    bench: Bench
    peer: str
    cpus: float
    pending: deque[m.StartLease] = field(default_factory=deque)
    leases: dict[str, m.StartLease] = field(default_factory=dict)
    actors: dict[str, m.StartActor] = field(default_factory=dict)
    loading: set[str] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)
    deaths: list[m.Message] = field(default_factory=list)
    still: dict[str, int] = field(default_factory=dict)
    """What stands still, with the number of its suspension."""
    stubborn: bool = False
    """Nothing here can be suspended."""
    closed: bool = False
    """Its owner has the machine back."""
    up: bool = False

    def join(self) -> None:
        self.bench.trays[self.peer] = []
        leases = [
            m.LeaseReport(x.lease, x.session, x.caller, x.shape, f"w-{x.lease}", [endpoint("w")])
            for x in self.leases.values()
        ]
        actors = [
            m.ActorReport(
                x.spec,
                x.incarnation,
                "w",
                [] if name in self.loading else [endpoint("w")],
                x.payload,
            )
            for name, x in self.actors.items()
        ]
        self.bench.provider(
            self.peer, self.cpus, leases=leases, actors=actors, availability=self.availability()
        )
        self.up = True
        deaths, self.deaths = self.deaths, []
        self.bench.say(self.peer, *deaths, *(m.WorkerBlocked(x) for x in sorted(self.blocked)))
        self.bench.say(self.peer, *(m.Suspended(x, self.still[x]) for x in sorted(self.still)))

    def availability(self) -> m.Availability:
        return m.Availability(False, "it is used", 0.0, 1.0) if self.closed else m.Availability()

    def lend(self, *, lent: bool) -> None:
        """The owner comes, and all here stands still at once; or he leaves."""
        if self.closed is not lent:
            return
        self.closed = not lent
        if not lent:
            self.still.update({key: self.still.get(key, 0) for key in (*self.leases, *self.actors)})
        self.tell(m.AvailabilityIs(self.availability()))
        self.turn_away()

    def turn_away(self) -> None:
        """What has not begun goes elsewhere."""
        while self.closed and self.pending:
            self.tell(m.LeaseEnded(self.pending.popleft().lease, death("not_lent")))
        for actor in sorted(self.loading) if self.closed else ():
            self.end_actor(actor, "not_lent")

    def leave(self) -> None:
        """Its link breaks: what was on its way is lost, what had no worker yet is given back."""
        self.up = False
        self.bench.trays[self.peer] = []
        self.bench.break_link(self.peer)
        for order in self.pending:
            self.deaths.append(m.LeaseEnded(order.lease, death("link_lost")))
        self.pending.clear()

    def die(self) -> None:
        self.bench.say(self.peer, m.Goodbye())
        self.bench.trays[self.peer] = []
        self.up = False
        for book in (
            self.pending,
            self.leases,
            self.actors,
            self.loading,
            self.blocked,
            self.deaths,
            self.still,
        ):
            book.clear()

    def tell(self, message: m.Message) -> None:
        if self.up:
            self.bench.say(self.peer, message)
        elif isinstance(message, m.LeaseEnded | m.ActorEnded):
            self.deaths.append(message)

    def bind(self, *, fails: bool = False) -> bool:
        """Give the first waiting lease, or the first loading actor, its worker."""
        if self.pending:
            order = self.pending.popleft()
            if not self._displace(order.displaces):
                self.tell(m.LeaseEnded(order.lease, death("not_displaced")))
            elif fails:
                self.tell(m.LeaseEnded(order.lease, death("start_failed")))
            else:
                self.leases[order.lease] = order
                self.tell(m.LeaseStarted(order.lease, f"w-{order.lease}", [endpoint("w")]))
            return True
        if self.loading:
            actor = min(self.loading)
            if not self._displace(self.actors[actor].displaces):
                self.end_actor(actor, "not_displaced")
                return True
            self.loading.discard(actor)
            self.tell(m.ActorStarted(actor, self.actors[actor].incarnation, "w", [endpoint("w")]))
            return True
        return False

    def _displace(self, displaces: list[m.Displaced]) -> bool:
        """Whether all of them stand still, or are gone."""
        there = [word for word in displaces if word.key in (*self.leases, *self.actors)]
        for word in there:
            self.suspend(word.key, word.number)
        return not (there and self.stubborn)

    def suspend(self, key: str, number: int) -> None:
        if self.stubborn:
            self.tell(m.Suspended(key, number, "it cannot stand still"))
        elif key in self.leases or key in self.actors:
            self.still[key] = number
            self.tell(m.Suspended(key, number))

    def end_lease(self, lease: str, cause: str) -> None:
        if self.leases.pop(lease, None) is not None:
            self.blocked.discard(lease)
            self.still.pop(lease, None)
            self.tell(m.LeaseEnded(lease, death(cause)))

    def end_actor(self, actor: str, cause: str) -> None:
        order = self.actors.pop(actor, None)
        if order is not None:
            self.loading.discard(actor)
            self.still.pop(actor, None)
            self.tell(m.ActorEnded(actor, order.incarnation, death(cause)))

    def block(self, lease: str) -> None:
        if lease in self.blocked:
            self.blocked.discard(lease)
            self.tell(m.WorkerResumed(lease))
        else:
            self.blocked.add(lease)
            self.tell(m.WorkerBlocked(lease))

    def listen(self) -> bool:
        """Take one message."""
        tray = self.bench.trays.get(self.peer, [])
        if not self.up or not tray:
            return False
        match tray.pop(0):
            case m.StartLease() as order:
                self.pending.append(order)
                self.turn_away()
            case m.StopLease(lease, kill):
                self._stop_lease(lease, kill)
            case m.Suspend(key, number):
                self.suspend(key, number)
            case m.Resume(key, number):
                self._resume(key, number)
            case m.StartActor() as order:
                mine = self.actors.get(order.spec.actor)
                if mine is None or mine.incarnation < order.incarnation:
                    self.actors[order.spec.actor] = order
                    self.loading.add(order.spec.actor)
                    self.turn_away()
            case m.StopActor(actor, cause):
                self.end_actor(actor, cause)
            case m.EndSession(session):
                self._end_session(session)
            case m.Ping(number):
                self.tell(m.Pong(number))
        return True

    def _resume(self, key: str, number: int) -> None:
        if self.closed:
            return
        self.still.pop(key, None)
        for waiting in (*self.pending, *(self.actors[x] for x in self.loading)):
            waiting.displaces[:] = [
                x for x in waiting.displaces if (x.key, x.number) != (key, number)
            ]
        self.tell(m.Resumed(key, number))

    def _stop_lease(self, lease: str, kill: bool) -> None:
        waiting = [order for order in self.pending if order.lease == lease]
        for order in waiting:
            self.pending.remove(order)
        if kill:
            self.end_lease(lease, "killed")
        self.leases.pop(lease, None)
        self.blocked.discard(lease)
        self.still.pop(lease, None)

    def _end_session(self, session: str) -> None:
        for order in [x for x in self.pending if x.session == session]:
            self.pending.remove(order)
        for lease in [x.lease for x in self.leases.values() if x.session == session]:
            self.end_lease(lease, "session_ended")
        for actor in [a for a, x in self.actors.items() if x.spec.session == session]:
            if not self.actors[actor].spec.detached:
                self.end_actor(actor, "session_ended")
