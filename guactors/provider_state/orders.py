"""Leases and actors on this machine: from the hub's order to the report of the end.

Owns: what is said to the hub and to workers about leases and actors. Must never: pick a worker
(``pool`` does) or decide by time when one is to end (``watch`` does).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from types import UnionType

from guactors.errors import Death, InternalError
from guactors.messages import (
    ActorEnded,
    ActorLoaded,
    ActorReport,
    ActorStarted,
    DeathReport,
    EndSession,
    InstanceGone,
    LeaseStarted,
    Retiring,
    StartActor,
    StartLease,
    StopActor,
    StopLease,
    WorkerBlocked,
    WorkerResumed,
)
from guactors.provider_state import inventory
from guactors.provider_state.binder import Binder
from guactors.provider_state.devices import DeviceBook
from guactors.provider_state.effects import Effect, RemoveRoot
from guactors.provider_state.endings import Endings
from guactors.provider_state.envs import Envs
from guactors.provider_state.gate import Gate, Refused, Undecided
from guactors.provider_state.hub_line import HubLine
from guactors.provider_state.latest import Latest
from guactors.provider_state.permits import Permits
from guactors.provider_state.pool import Pool
from guactors.provider_state.review import holdings, let_go
from guactors.provider_state.shelf import GONE, Shelf
from guactors.provider_state.standstill import Standstill
from guactors.provider_state.watch import Watch
from guactors.provider_state.workers import (
    Hosting,
    Idle,
    Leased,
    Order,
    Preparing,
    Starting,
    Worker,
    known_cause,
    order_key,
    order_session,
    order_shape,
    report,
)

GRACEFUL_PATIENCE = 30.0
"""Seconds a gracefully stopped actor has for its queued calls."""
RETIRE_PATIENCE = 5.0
"""Seconds a worker that takes no more calls has to end by itself."""
FAILED_PATIENCE = 2.0
"""Seconds a worker whose constructor raised has to end by itself."""
DEVICE_PATIENCE = 2.0
"""Seconds a worker that had a device has to end by itself when its lease is over."""
OVERTAKEN = 5.0
"""Seconds for which a StopActor or EndSession is held against a StartActor that it overtook."""


class Orders:
    """``provider``: its name, as death reports carry it. ``wall`` turns monotonic seconds into
    epoch seconds."""

    def __init__(
        self,
        provider: str,
        pool: Pool,
        watch: Watch,
        line: HubLine,
        permits: Permits,
        shelf: Shelf,
        envs: Envs,
        devices: DeviceBook,
        wall: Callable[[float], float],
        runtimes: Collection[str] = (),
    ) -> None:
        self._provider = provider
        self._pool = pool
        self._watch = watch
        self._line = line
        self._permits = permits
        self._shelf = shelf
        self._envs = envs
        self._preparing: set[str] = set()
        """Leases whose room the hub was told to give away meanwhile."""
        self.gate = Gate(permits, shelf, envs, partial(holdings, pool, permits), wall, runtimes)
        self._devices = devices
        self.binder = Binder(pool, line, permits, devices)
        self.standstill = Standstill(pool, line)
        self.endings = Endings(provider, line, permits, devices, self.binder)
        self.last_failure = ""
        """Why the last worker that did not come up did not."""
        self._stopped = Latest()
        self._closed = Latest()

    # --- beginnings -----------------------------------------------------------------------------

    def start_lease(self, order: StartLease, now: float) -> list[Effect]:
        """A worker for this lease; told again when the hub asks again."""
        self._closed.discard(order.session)
        worker = self._pool.find(order.lease)
        if worker is not None and isinstance(worker.state, Leased):
            return self._line.tell(LeaseStarted(order.lease, worker.worker, worker.endpoints), now)
        if worker is None and self._waiting(order.lease) is None:
            self.gate.arrive(order, now)
        return []

    def start_actor(self, order: StartActor, now: float) -> list[Effect]:
        """A worker for this actor, unless its end was said before its beginning arrived."""
        spec = order.spec
        cause = self._stopped.within(spec.actor, OVERTAKEN, now)
        if cause is None and not spec.detached:
            cause = self._closed.within(spec.session, OVERTAKEN, now)
        if cause is not None:
            self._stopped.discard(spec.actor)
            return self.endings.refuse(order, cause, "ended before it began", now)
        effects: list[Effect] = []
        worker = self._pool.find(spec.actor)
        if worker is not None and isinstance(worker.order, StartActor):
            if order.incarnation <= worker.order.incarnation:
                return self._announce(worker, now)
            effects += self.standstill.gone(spec.actor, now)
            self._pool.disown(worker)
            effects += self._watch.kill(worker, "killed", "a newer incarnation replaces it")
        waiting = self._waiting(spec.actor)
        if not isinstance(waiting, StartActor) or waiting.incarnation < order.incarnation:
            self._withdraw(spec.actor)
            self.gate.arrive(order, now)
        return effects

    def _announce(self, worker: Worker, now: float) -> list[Effect]:
        state = worker.state
        if not isinstance(state, Hosting) or not state.alive:
            return []
        order = state.order
        return self._line.tell(
            ActorStarted(order.spec.actor, order.incarnation, worker.worker, worker.endpoints), now
        )

    def admit(self, now: float) -> list[Effect]:
        """Judge those that wait at the gate, as far as that is possible."""
        effects: list[Effect] = []
        for key, waiting in list(self.gate.waiting.items()):
            outcome = self.gate.consider(waiting, now, fetch=self._line.up)
            if isinstance(outcome, Undecided):
                effects += outcome.effects
                if outcome.preparing and isinstance(waiting.order, StartLease):
                    effects += self._set_preparing(key, True, now)
                continue
            effects += self._set_preparing(key, False, now)
            if isinstance(outcome, Refused):
                self.gate.withdraw(key)
                effects += self.endings.deny(waiting.order, outcome, now)
                continue
            job = self._devices.equip(outcome)
            if job is not None:
                self.gate.withdraw(key)
                effects += self.standstill.admit(job, now)
        return effects + self._not_displaced(now)

    def _not_displaced(self, now: float) -> list[Effect]:
        """Those that wait for what does not stand still."""
        effects: list[Effect] = []
        refused, self.standstill.refused = self.standstill.refused, []
        for key, why in refused:
            order = self._withdraw(key)
            if order is not None:
                effects += self.endings.refuse(order, "not_displaced", why, now)
        return effects

    def _set_preparing(self, lease: str, preparing: bool, now: float) -> list[Effect]:
        """Its environment is being built, or is there: once for each."""
        if preparing == (lease in self._preparing):
            return []
        if preparing:
            self._preparing.add(lease)
            return self._line.tell(WorkerBlocked(lease), now)
        self._preparing.discard(lease)
        return self._line.tell(WorkerResumed(lease), now)

    def not_admitted(self) -> int:
        """Orders that wait for a judgement, or for others to stand still."""
        return len(self.gate.waiting) + len(self.standstill.held)

    def used_parts(self) -> set[str]:
        """Of environments, by what runs or waits."""
        jobs = [job for worker in self._pool.workers.values() if (job := worker.job) is not None]
        jobs += [*self._pool.pending.values(), *self.standstill.jobs()]
        found = {part for job in jobs for part in job.parts}
        for parts in self.gate.parts.values():
            found.update(parts)
        return found

    def _waiting(self, key: str) -> Order | None:
        """The order of this lease or actor that has no worker yet."""
        at_gate, job = self.gate.waiting.get(key), self._pool.pending.get(key)
        held = self.standstill.held.get(key)
        if at_gate is not None:
            return at_gate.order
        if held is not None:
            return held.job.order
        return job.order if job is not None else None

    def _withdraw(self, key: str) -> Order | None:
        """Take back the order of this lease or actor, if it has no worker yet."""
        self._preparing.discard(key)
        self._devices.release(key)
        job = self._pool.pending.pop(key, None) or self.standstill.withdraw(key)
        return job.order if job is not None else self.gate.withdraw(key)

    def _unserved(self) -> list[Order]:
        """All orders that have no worker yet."""
        jobs = [job.order for job in (*self._pool.pending.values(), *self.standstill.jobs())]
        return jobs + [waiting.order for waiting in self.gate.waiting.values()]

    def root_ready(self, worker: Worker, root: str, now: float) -> list[Effect]:
        """The image of the worker that was taken is unpacked at ``root``."""
        if not isinstance(worker.state, Preparing) or worker.ending is not None:
            return []
        return self.binder.root_ready(worker, root, now)

    def root_failed(self, worker: Worker, reason: str, detail: str, now: float) -> list[Effect]:
        """The image cannot be unpacked; ``reason`` as in a failure of the shelf."""
        order = worker.order
        if not isinstance(worker.state, Preparing) or order is None:
            return []
        # Whatever is wrong with what is here: for the next order it is fetched, and judged, anew.
        self._shelf.forget(order_shape(order).image)
        if reason == GONE:
            effects = self._abandon(worker, "start_failed", now)
            self.gate.arrive(order, now)
            return effects
        refused = Refused("start_failed" if reason == "failed" else "refused", reason, detail)
        effects = self._abandon(worker, "start_failed", now)
        return effects + self.endings.deny(order, refused, now)

    def _abandon(self, worker: Worker, cause: str, now: float) -> list[Effect]:
        """End a worker that has not begun; nobody is told."""
        order = worker.order
        effects = self.standstill.leave(order_key(order), now) if order is not None else []
        self._pool.to_spent(worker)
        return effects + self._watch.kill(worker, cause)

    def loaded(self, worker: Worker, message: ActorLoaded, now: float) -> list[Effect]:
        """The constructor returned, or raised."""
        state = worker.state
        if not isinstance(state, Hosting) or state.order.spec.actor != message.actor:
            return []
        if not message.error:
            worker.move(Hosting(state.order, alive=True))
            return self._announce(worker, now)
        death = DeathReport(
            cause="creation_failed",
            detail=f"the constructor of {state.order.spec.class_name} raised",
            worker=worker.worker,
            provider=self._provider,
        )
        ended = ActorEnded(message.actor, state.order.incarnation, death, message.error)
        self.endings.had.add(message.actor, str(state.order.incarnation), now)
        effects = self.standstill.leave(message.actor, now)
        self._pool.to_spent(worker)
        return [
            *effects,
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
        waiting = self._withdraw(message.lease)
        if waiting is not None:
            return (
                self.endings.refuse(waiting, "killed", "stopped while it waited", now)
                if message.kill
                else []
            )
        worker = self._pool.find(message.lease)
        if worker is None:
            return []
        if message.kill and message.grace and isinstance(worker.state, Leased):
            cause, detail = known_cause(message.cause, "killed")
            effects = self.standstill.release(message.lease, now)
            return effects + self._watch.ask_to_end(worker, cause, detail, now, message.grace)
        if message.kill:
            return self._watch.kill(worker, "killed", "the lease was ended")
        if worker.ending is not None:
            return []
        if isinstance(worker.state, Preparing):
            return self._abandon(worker, "released", now)
        effects = self.standstill.leave(message.lease, now)
        self._pool.to_idle(worker, now)
        if worker.retiring:
            return effects + self._retire(worker, now)
        if worker.job is not None and worker.job.binding.has_device:
            # As long as it lives, what it left on the device stays there.
            effects += self._watch.dismiss(worker, "released", now, DEVICE_PATIENCE, graceful=True)
            return effects
        return effects + (let_go(self._watch, worker, now) if worker.spared else [])

    def retiring(self, worker: Worker, why: Retiring | InstanceGone, now: float) -> list[Effect]:
        """It takes no more calls: let it go, or let its lease end first. Or it can take none."""
        if isinstance(why, InstanceGone):
            cause, _ = known_cause(why.cause, "exited")
            return self._watch.kill(worker, cause, why.detail)
        worker.retiring = True
        return self._retire(worker, now) if isinstance(worker.state, Idle) else []

    def _retire(self, worker: Worker, now: float) -> list[Effect]:
        return self._watch.dismiss(worker, "released", now, RETIRE_PATIENCE, graceful=True)

    def stop_actor(self, message: StopActor, now: float) -> list[Effect]:
        """After its queued calls, or at once. ActorEnded follows."""
        cause, detail = known_cause(message.cause, "killed")
        waiting = self._withdraw(message.actor)
        if waiting is not None:
            return self.endings.refuse(waiting, cause, detail or "stopped while it waited", now)
        worker = self._pool.find(message.actor)
        if worker is None:
            had = self.endings.had.within(message.actor, OVERTAKEN, now)
            if had is None or message.incarnation > int(had):
                self._stopped.add(message.actor, cause, now)
            return []
        if message.graceful:
            effects = self.standstill.release(message.actor, now)
            return effects + self._watch.dismiss(
                worker, cause, now, GRACEFUL_PATIENCE, graceful=True
            )
        if message.grace and isinstance(worker.state, Hosting):
            effects = self.standstill.release(message.actor, now)
            return effects + self._watch.ask_to_end(worker, cause, detail, now, message.grace)
        return self._watch.kill(worker, cause, detail)

    def end_session(self, message: EndSession, now: float) -> list[Effect]:
        """Everything of it, but its detached actors unless they are meant too."""
        session = message.session
        self._closed.add(session, "session_ended", now)
        effects: list[Effect] = []
        for order in self._unserved():
            if order_session(order) == session and not self._outlives(order, message):
                self._withdraw(order_key(order))
                effects += self.endings.refuse(order, "session_ended", "", now)
        for worker in self._pool.of_session(session):
            if worker.order is None or not self._outlives(worker.order, message):
                effects += self._watch.kill(worker, "session_ended")
        return effects

    @staticmethod
    def _outlives(order: Order, message: EndSession) -> bool:
        return isinstance(order, StartActor) and order.spec.detached and not message.detached

    # --- ends that happen -----------------------------------------------------------------------

    def ended(self, worker: Worker, death: Death, now: float) -> list[Effect]:
        """A process is gone: whoever it served is told once."""
        told = report(worker, death, self._provider)
        order = worker.order
        effects: list[Effect] = []
        if order is not None:
            effects += self.standstill.gone(order_key(order), now)
        if worker.job is not None and worker.job.binding.image:
            effects.append(RemoveRoot(worker.worker, worker.job.binding.image))
        self._devices.release(worker.worker)
        never_ready = isinstance(worker.state, Starting)
        self._pool.forget(worker)
        if never_ready:
            self.last_failure = f"{told.detail} {told.stderr_tail}".strip() or told.cause
            if worker.python and told.cause in ("start_failed", "exited"):
                told = self.endings.no_interpreter(told, worker.python, self.last_failure)
            job = self._pool.start_failed(now, worker.python)
            order = job.order if job is not None else None
        return effects if order is None else effects + self.endings.end(order, told, now)

    def give_back(self, now: float) -> list[Effect]:
        """The line is down: leases that still wait for a worker are not ours any more."""
        effects = self.standstill.alone(now)
        return effects + self._give_back(StartLease, "link_lost", "it had no worker yet", now)

    def turn_away(self, why: str, now: float) -> list[Effect]:
        """The machine is not lent, ``why``: whatever still waits for a worker goes elsewhere."""
        return self._give_back(StartLease | StartActor, "not_lent", why, now)

    def _give_back(
        self, kind: type[StartLease] | UnionType, cause: str, detail: str, now: float
    ) -> list[Effect]:
        effects: list[Effect] = []
        for order in self._unserved():
            if isinstance(order, kind):
                self._withdraw(order_key(order))
                effects += self.endings.refuse(order, cause, detail, now)
        for worker in list(self._pool.workers.values()):
            if not isinstance(worker.state, Preparing) or worker.ending is not None:
                continue
            if isinstance(order := worker.state.order, kind):
                effects += self._abandon(worker, "released", now)
                effects += self.endings.refuse(order, cause, detail, now)
        return effects

    # --- inventory ------------------------------------------------------------------------------

    def actor_reports(self) -> list[ActorReport]:
        """Every actor, also those that have no worker yet."""
        return inventory.actor_reports(self._pool, self._unserved(), self._permits)

    def check(self) -> None:
        """Raise InternalError if an order is in two places, or runs without a warrant."""
        self._devices.check()
        for wrong in self.standstill.check():
            raise InternalError(wrong)
        for key in self.gate.waiting:
            if key in self._pool.pending or key in self._pool.serving:
                raise InternalError(f"{key} was let in and waits at the gate as well")
        for worker in self._pool.workers.values():
            if worker.session and not self._permits.knows(worker.session):
                raise InternalError(f"{worker.worker} works for a session without a warrant")
