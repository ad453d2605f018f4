"""Leases and actors on this machine: from the hub's order to the report of the end.

Owns: what is said to the hub and to workers about leases and actors. Must never: pick a worker
(``pool`` does) or decide by time when one is to end (``watch`` does).
"""

from __future__ import annotations

from guactors.errors import Death
from guactors.messages import (
    ActorEnded,
    ActorLoaded,
    ActorReport,
    ActorStarted,
    Bind,
    DeathReport,
    LeaseEnded,
    LeaseReport,
    LeaseStarted,
    LoadActor,
    StartActor,
    StartLease,
    StopActor,
    StopLease,
    WorkerBlocked,
    WorkerResumed,
)
from guactors.provider_state.effects import Effect, SendWorker
from guactors.provider_state.hub_line import HubLine
from guactors.provider_state.pool import Pool, order_session
from guactors.provider_state.watch import Watch
from guactors.provider_state.workers import (
    Hosting,
    Leased,
    Order,
    Starting,
    Worker,
    known_cause,
    report,
)

GRACEFUL_PATIENCE = 30.0
"""Seconds a gracefully stopped actor has for its queued calls."""
FAILED_PATIENCE = 2.0
"""Seconds a worker whose constructor raised has to end by itself."""
OVERTAKEN = 5.0
"""Seconds for which a StopActor or EndSession is held against a StartActor that it overtook."""
MOST_REMEMBERED = 1000


class Latest:
    """A bounded memory: key -> (time, word), oldest forgotten first."""

    def __init__(self) -> None:
        self._items: dict[str, tuple[float, str]] = {}

    def add(self, key: str, word: str, now: float) -> None:
        """Remember ``word`` for ``key``."""
        self._items.pop(key, None)
        self._items[key] = now, word
        if len(self._items) > MOST_REMEMBERED:
            del self._items[next(iter(self._items))]

    def discard(self, key: str) -> None:
        """Forget it."""
        self._items.pop(key, None)

    def within(self, key: str, seconds: float, now: float) -> str | None:
        """The word, if it is not older than ``seconds``."""
        time, word = self._items.get(key, (now - seconds - 1, ""))
        return word if now - time <= seconds else None


class Orders:
    """``provider``: its name, as death reports carry it."""

    def __init__(self, provider: str, pool: Pool, watch: Watch, line: HubLine) -> None:
        self._provider = provider
        self._pool = pool
        self._watch = watch
        self._line = line
        self.last_failure = ""
        """Why the last worker that did not come up did not."""
        self._stopped = Latest()
        self._had = Latest()
        self._closed = Latest()

    # --- beginnings -----------------------------------------------------------------------------

    def start_lease(self, order: StartLease, now: float) -> list[Effect]:
        """A worker for this lease; told again when the hub asks again."""
        self._closed.discard(order.session)
        worker = self._pool.find(order.lease)
        if worker is not None:
            return self._line.tell(LeaseStarted(order.lease, worker.worker, worker.endpoints), now)
        self._pool.pending.setdefault(order.lease, order)
        return []

    def start_actor(self, order: StartActor, now: float) -> list[Effect]:
        """A worker for this actor, unless its end was said before its beginning arrived."""
        spec = order.spec
        cause = self._stopped.within(spec.actor, OVERTAKEN, now)
        if cause is None and not spec.detached:
            cause = self._closed.within(spec.session, OVERTAKEN, now)
        if cause is not None:
            self._stopped.discard(spec.actor)
            return self._refuse(order, cause, "ended before it began", now)
        effects: list[Effect] = []
        worker = self._pool.find(spec.actor)
        if worker is not None and isinstance(worker.state, Hosting):
            if order.incarnation <= worker.state.order.incarnation:
                return self._announce(worker, worker.state, now)
            self._pool.disown(worker)
            effects += self._watch.kill(worker, "killed", "a newer incarnation replaces it")
        waiting = self._pool.pending.get(spec.actor)
        if not isinstance(waiting, StartActor) or waiting.incarnation < order.incarnation:
            self._pool.pending[spec.actor] = order
        return effects

    def _announce(self, worker: Worker, state: Hosting, now: float) -> list[Effect]:
        if not state.alive:
            return []
        order = state.order
        return self._line.tell(
            ActorStarted(order.spec.actor, order.incarnation, worker.worker, worker.endpoints), now
        )

    def serve(self, now: float) -> list[Effect]:
        """Bind free workers to waiting orders."""
        effects: list[Effect] = []
        for order, worker, first in self._pool.match(now):
            if first:
                effects.append(SendWorker(worker.worker, _bind(order)))
            if isinstance(order, StartLease):
                started = LeaseStarted(order.lease, worker.worker, worker.endpoints)
                effects += self._line.tell(started, now)
            else:
                load = LoadActor(order.spec, order.incarnation, order.payload)
                effects.append(SendWorker(worker.worker, load))
        return effects

    def loaded(self, worker: Worker, message: ActorLoaded, now: float) -> list[Effect]:
        """The constructor returned, or raised."""
        state = worker.state
        if not isinstance(state, Hosting) or state.order.spec.actor != message.actor:
            return []
        if not message.error:
            alive = Hosting(state.order, alive=True)
            worker.move(alive)
            return self._announce(worker, alive, now)
        death = DeathReport(
            cause="creation_failed",
            detail=f"the constructor of {state.order.spec.class_name} raised",
            worker=worker.worker,
            provider=self._provider,
        )
        ended = ActorEnded(message.actor, state.order.incarnation, death, message.error)
        self._had.add(message.actor, "", now)
        self._pool.to_spent(worker)
        return [
            *self._line.tell(ended, now),
            *self._watch.dismiss(worker, "creation_failed", now, FAILED_PATIENCE, graceful=False),
        ]

    def blocked(self, worker: Worker, blocked: bool, now: float) -> list[Effect]:
        """The lease's task waits in get(), or goes on."""
        state = worker.state
        if not isinstance(state, Leased) or state.blocked == blocked:
            return []
        worker.move(Leased(state.order, blocked))
        word = WorkerBlocked if blocked else WorkerResumed
        return self._line.tell(word(state.order.lease), now)

    # --- ends that the hub orders ---------------------------------------------------------------

    def stop_lease(self, message: StopLease, now: float) -> list[Effect]:
        """Keep the worker for its session, or kill it; LeaseEnded only follows a kill."""
        waiting = self._pool.pending.pop(message.lease, None)
        if waiting is not None:
            return (
                self._refuse(waiting, "killed", "stopped while it waited", now)
                if message.kill
                else []
            )
        worker = self._pool.find(message.lease)
        if worker is None:
            return []
        if message.kill:
            return self._watch.kill(worker, "killed", "the lease was ended")
        if worker.ending is None:
            self._pool.to_idle(worker, now)
        return []

    def stop_actor(self, message: StopActor, now: float) -> list[Effect]:
        """After its queued calls, or at once. ActorEnded follows."""
        cause, detail = known_cause(message.cause, "killed")
        waiting = self._pool.pending.pop(message.actor, None)
        if waiting is not None:
            return self._refuse(waiting, cause, detail or "stopped while it waited", now)
        worker = self._pool.find(message.actor)
        if worker is None:
            if self._had.within(message.actor, OVERTAKEN, now) is None:
                self._stopped.add(message.actor, cause, now)
            return []
        if message.graceful:
            return self._watch.dismiss(worker, cause, now, GRACEFUL_PATIENCE, graceful=True)
        return self._watch.kill(worker, cause, detail)

    def end_session(self, session: str, now: float) -> list[Effect]:
        """Everything of it but its detached actors."""
        self._closed.add(session, "session_ended", now)
        effects: list[Effect] = []
        for key, order in list(self._pool.pending.items()):
            if order_session(order) == session and not _detached(order):
                del self._pool.pending[key]
                effects += self._refuse(order, "session_ended", "", now)
        for worker in self._pool.of_session(session):
            if worker.order is None or not _detached(worker.order):
                effects += self._watch.kill(worker, "session_ended")
        return effects

    # --- ends that happen -----------------------------------------------------------------------

    def ended(self, worker: Worker, death: Death, now: float) -> list[Effect]:
        """A process is gone: whoever it served is told once."""
        told = report(worker, death, self._provider)
        order = worker.order
        never_ready = isinstance(worker.state, Starting)
        self._pool.forget(worker)
        if never_ready:
            self.last_failure = f"{told.detail} {told.stderr_tail}".strip() or told.cause
            order = self._pool.start_failed(now)
        return [] if order is None else self._end(order, told, now)

    def give_back(self, now: float) -> list[Effect]:
        """The line is down: leases that still wait for a worker are not ours any more."""
        effects: list[Effect] = []
        for key, order in list(self._pool.pending.items()):
            if isinstance(order, StartLease):
                del self._pool.pending[key]
                effects += self._refuse(order, "link_lost", "it had no worker yet", now)
        return effects

    def _refuse(self, order: Order, cause: str, detail: str, now: float) -> list[Effect]:
        return self._end(order, DeathReport(cause, detail, provider=self._provider), now)

    def _end(self, order: Order, death: DeathReport, now: float) -> list[Effect]:
        if isinstance(order, StartLease):
            return self._line.tell(LeaseEnded(order.lease, death), now)
        self._had.add(order.spec.actor, "", now)
        return self._line.tell(ActorEnded(order.spec.actor, order.incarnation, death), now)

    # --- inventory ------------------------------------------------------------------------------

    def lease_reports(self) -> list[LeaseReport]:
        """Every lease that has a worker which is not being killed."""
        return [
            LeaseReport(
                worker.state.order.lease,
                worker.state.order.session,
                worker.state.order.caller,
                worker.state.order.shape,
                worker.worker,
                worker.endpoints,
            )
            for worker in self._pool.workers.values()
            if isinstance(worker.state, Leased) and not _dying(worker)
        ]

    def blocked_leases(self) -> list[WorkerBlocked]:
        """Said again after an Offer, which has no word for it."""
        return [
            WorkerBlocked(worker.state.order.lease)
            for worker in self._pool.workers.values()
            if isinstance(worker.state, Leased) and worker.state.blocked and not _dying(worker)
        ]

    def actor_reports(self) -> list[ActorReport]:
        """Every actor, with no endpoints until its constructor has returned."""
        reports = [
            _actor_report(worker.state.order, worker, alive=worker.state.alive)
            for worker in self._pool.workers.values()
            if isinstance(worker.state, Hosting) and not _dying(worker)
        ]
        waiting = self._pool.pending.values()
        return reports + [
            _actor_report(order, None, alive=False)
            for order in waiting
            if isinstance(order, StartActor)
        ]


def _actor_report(order: StartActor, worker: Worker | None, *, alive: bool) -> ActorReport:
    return ActorReport(
        order.spec,
        order.incarnation,
        worker.worker if worker else "",
        worker.endpoints if worker and alive else [],
        order.payload,
    )


def _dying(worker: Worker) -> bool:
    return worker.ending is not None and worker.ending.kill_at is None


def _detached(order: Order) -> bool:
    return isinstance(order, StartActor) and order.spec.detached


def _bind(order: Order) -> Bind:
    if isinstance(order, StartLease):
        return Bind(order.session, order.namespace, order.lease)
    return Bind(order.spec.session, order.spec.namespace)
