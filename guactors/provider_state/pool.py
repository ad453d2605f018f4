"""All workers of one provider, and the orders that wait for one.

Owns: who is free for whom, how many processes to start and when, which idle ones are too many or
too old. Must never: send or say anything; ``core`` asks, and turns the answers into effects.

Rules. A session's idle worker takes its session's next lease with the same runtime, image and
signers (the last used first, its imports are still in the caches). Everybody else gets an unbound
worker; actors always do, because they must not meet what earlier tasks left in the process.
``warm`` unbound ones are kept ready, more while actors follow each other fast (``churn``); a
replacement is started a moment after one was taken, so that the fork does not compete with the
first call.
"""

from __future__ import annotations

from collections import Counter

from guactors.errors import InternalError
from guactors.messages import StartActor, StartLease
from guactors.provider_state.churn import Churn
from guactors.provider_state.workers import (
    Binding,
    Fresh,
    Hosting,
    Idle,
    Job,
    Leased,
    Preparing,
    Spent,
    Starting,
    Unbound,
    Worker,
    order_key,
)

START_TIMEOUT = 30.0
"""Seconds from the order to start a process until it must have said WorkerReady."""
IDLE_LIMIT = 60.0
"""Seconds a worker stays idle before it is let go."""
WARM_PAUSE = 0.02
"""Seconds between taking a warm worker and starting the next."""
MOST_WARM = 4
"""Workers kept ready while actors follow each other fast, where ``warm`` is not more."""
FIRST_RETRY, LAST_RETRY = 0.5, 30.0
"""Bounds of the pause after a warm worker failed to start; it doubles."""


class Pool:
    """``warm``: unbound workers to keep; ``cpus`` bounds idle workers and simultaneous starts."""

    def __init__(self, warm: int, cpus: float, fresh: Fresh) -> None:
        self.warm = warm
        self.most_idle = max(2, int(2 * cpus))
        self.most_starting = max(4, int(2 * cpus))
        self.churn = Churn(warm, min(MOST_WARM, self.most_starting))
        self.workers: dict[str, Worker] = {}
        self.pending: dict[str, Job] = {}
        self.serving: dict[str, str] = {}
        """Lease or actor id -> its worker's id."""
        self._fresh = fresh
        self._unbound: dict[str, dict[str, None]] = {}
        """By interpreter."""
        self._idle: dict[Binding, dict[str, None]] = {}
        self._starting: dict[str, None] = {}
        self._warm_at = 0.0
        self.failures = 0
        """Failed starts since the last good one."""

    # --- who is there ---------------------------------------------------------------------------

    def find(self, key: str) -> Worker | None:
        """The worker that serves this lease or actor."""
        worker = self.serving.get(key)
        return None if worker is None else self.workers[worker]

    def of_session(self, session: str) -> list[Worker]:
        """Every worker bound to the session."""
        return [worker for worker in self.workers.values() if worker.session == session]

    def _ready_or_coming(self) -> int:
        """Unbound workers of the provider's own interpreter, with those that start."""
        starting = sum(not self.workers[name].python for name in self._starting)
        return len(self._unbound.get("", ())) + starting

    def unbound(self) -> int:
        """How many wait for any session."""
        return sum(map(len, self._unbound.values()))

    # --- starting -------------------------------------------------------------------------------

    def to_start(self, now: float) -> list[str]:
        """Ids of the workers to start now; they count as starting from here on."""
        wanted = Counter(job.binding.python for job in self.pending.values())
        if now >= self._warm_at:
            wanted[""] += self.churn.keep(now)
        if not wanted:
            return []
        coming = Counter(self.workers[name].python for name in self._starting)
        started: list[str] = []
        for python, count in wanted.items():
            missing = count - len(self._unbound.get(python, ())) - coming[python]
            for _ in range(min(missing, self.most_starting - len(self._starting))):
                worker = self._fresh("worker")
                self.workers[worker] = Worker(worker, Starting(now), python)
                self._starting[worker] = None
                started.append(worker)
        return started

    def ready(self, worker: Worker, now: float) -> None:
        """It said WorkerReady for the first time."""
        worker.move(Unbound(now))
        del self._starting[worker.worker]
        self._unbound.setdefault(worker.python, {})[worker.worker] = None
        if not worker.python:
            self.failures = 0

    def start_failed(self, now: float, python: str = "") -> Job | None:
        """A process of this interpreter did not come up: the job that must be answered for it, if
        any waits. Without one, the next warm start waits longer each time."""
        if not python:
            pause = min(LAST_RETRY, FIRST_RETRY * 2.0**self.failures)
            self.failures = min(self.failures + 1, 16)
            self._warm_at = now + pause
        for key, job in self.pending.items():
            if job.binding.python == python:
                return self.pending.pop(key)
        return None

    # --- matching -------------------------------------------------------------------------------

    def match(self, now: float) -> list[tuple[Worker, bool]]:
        """Give free workers to pending jobs, first come first served; each is taken from here on
        and holds its job. The second part is true where the worker has no session before: then it
        must be bound, or where the job has an image, prepared."""
        taken: list[tuple[Worker, bool]] = []
        if not self.pending or not (self._unbound or self._idle):
            return taken
        for key, job in list(self.pending.items()):
            worker = self._take(job)
            if worker is None:
                continue
            del self.pending[key]
            self.serving[key] = worker.worker
            first = worker.job is None
            worker.job = job
            if first and job.binding.image:
                worker.move(Preparing(job.order))
            else:
                self.employ(worker, job)
            taken.append((worker, first))
            if isinstance(job.order, StartActor):
                self.churn.took(now)
        if taken and not self.churn.brisk(now):
            self._warm_at = max(self._warm_at, now + WARM_PAUSE)
        return taken

    @staticmethod
    def employ(worker: Worker, job: Job) -> None:
        """It begins with its job."""
        order = job.order
        worker.move(Leased(order) if isinstance(order, StartLease) else Hosting(order))

    def _take(self, job: Job) -> Worker | None:
        idle = self._idle.get(job.binding) if isinstance(job.order, StartLease) else None
        if idle:
            name, _ = idle.popitem()
            if not idle:
                del self._idle[job.binding]
        elif unbound := self._unbound.get(job.binding.python):
            name = next(iter(unbound))
            self._unfree_unbound(self.workers[name])
        else:
            return None
        return self.workers[name]

    def to_idle(self, worker: Worker, now: float) -> None:
        """Its lease is over; it waits for the session's next."""
        self.disown(worker)
        worker.move(Idle(now))
        if worker.job is not None:
            self._idle.setdefault(worker.job.binding, {})[worker.worker] = None

    def idle_again(self, worker: Worker, now: float) -> None:
        """It was to leave, and stays."""
        if isinstance(worker.state, Idle) and worker.job is not None:
            worker.state = Idle(now)
            self._idle.setdefault(worker.job.binding, {})[worker.worker] = None

    def to_spent(self, worker: Worker) -> None:
        """Whatever it was, it is now only to end."""
        self.disown(worker)
        self._unfree(worker)
        worker.move(Spent())

    def disown(self, worker: Worker) -> None:
        """Its lease or actor is looked up here no longer (the worker's state stays)."""
        order = worker.order
        if order is not None and self.serving.get(order_key(order)) == worker.worker:
            del self.serving[order_key(order)]

    def unavailable(self, worker: Worker) -> None:
        """Its end is decided: nobody may be given it, though it still counts as what it is."""
        self._unfree(worker)

    def forget(self, worker: Worker) -> None:
        """Its process is gone."""
        self.disown(worker)
        self._unfree(worker)
        del self.workers[worker.worker]

    def _unfree(self, worker: Worker) -> None:
        self._starting.pop(worker.worker, None)
        self._unfree_unbound(worker)
        binding = worker.job.binding if worker.job is not None else None
        idle = self._idle.get(binding) if binding is not None else None
        if binding is not None and idle is not None and worker.worker in idle:
            del idle[worker.worker]
            if not idle:
                del self._idle[binding]

    def _unfree_unbound(self, worker: Worker) -> None:
        names = self._unbound.get(worker.python)
        if names is not None:
            names.pop(worker.worker, None)
            if not names:
                del self._unbound[worker.python]

    # --- time -----------------------------------------------------------------------------------

    def start_overdue(self, now: float) -> list[Worker]:
        """Those that did not become ready in time."""
        return [
            worker
            for worker in map(self.workers.__getitem__, self._starting)
            if isinstance(worker.state, Starting) and now >= worker.state.since + START_TIMEOUT
        ]

    def surplus(self, now: float) -> list[Worker]:
        """Free workers to let go: idle too long, or the longest idle of too many. Those that keep
        what others need are not among them."""
        idle = self._idle_and_unused()
        idle.sort(key=_since)
        many = idle[: max(0, len(idle) - self.most_idle)]
        old = [worker for worker in idle[len(many) :] if now >= _since(worker) + IDLE_LIMIT]
        return (
            many + old + [worker for worker in self._spare() if now >= _since(worker) + IDLE_LIMIT]
        )

    def _idle_and_unused(self) -> list[Worker]:
        idle = (self.workers[name] for names in self._idle.values() for name in names)
        return [worker for worker in idle if not worker.keeps]

    def _spare(self) -> list[Worker]:
        """Unbound workers beyond ``warm``, and all with an interpreter of their own: orders that
        were withdrawn leave them behind."""
        found = []
        for python, names in self._unbound.items():
            kept = 0 if python else self.warm
            found += [self.workers[name] for name in list(names)[: max(0, len(names) - kept)]]
        return found

    def next_wake(self, now: float) -> float | None:
        """When to_start, start_overdue or surplus may have news."""
        times = [_since(self.workers[name]) + START_TIMEOUT for name in self._starting]
        times += [_since(worker) + IDLE_LIMIT for worker in self._idle_and_unused()]
        times += [_since(worker) + IDLE_LIMIT for worker in self._spare()]
        if now < self._warm_at and self._ready_or_coming() < self.churn.keep(now):
            times.append(self._warm_at)
        return min(times, default=None)

    # --- tests ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise InternalError if the books do not agree with each other."""
        idle = {name for names in self._idle.values() for name in names}
        unbound = {name for names in self._unbound.values() for name in names}
        for group, state in ((self._starting, Starting), (unbound, Unbound), (idle, Idle)):
            for name in group:
                worker = self.workers.get(name)
                if worker is None or not isinstance(worker.state, state) or worker.ending:
                    raise InternalError(f"{name} is booked as {state.__name__} but is {worker}")
        for key, name in self.serving.items():
            order = self.workers[name].order
            if order is None or order_key(order) != key:
                raise InternalError(f"{name} is booked for {key} but works for {order}")
            if key in self.pending:
                raise InternalError(f"{key} both waits and is served by {name}")
        for worker in self.workers.values():
            taken = worker.bound or isinstance(worker.state, Preparing)
            if taken != (worker.job is not None) and not isinstance(worker.state, Spent):
                raise InternalError(f"{worker} and its job {worker.job} do not agree")
            if worker.job is not None and worker.order not in (None, worker.job.order):
                raise InternalError(f"{worker} works for another order than its job's")
            free = isinstance(worker.state, Unbound) and not worker.ending
            if free and worker.worker not in unbound:
                raise InternalError(f"{worker.worker} is free but nobody knows")
        if not all(self._idle.values()):
            raise InternalError("an empty set of idle workers was kept")


def _since(worker: Worker) -> float:
    if isinstance(worker.state, Starting | Unbound | Idle):
        return worker.state.since
    raise InternalError(f"{worker} has no age")
