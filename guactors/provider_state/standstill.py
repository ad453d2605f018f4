"""Leases and actors of this machine that stand still for others, and who waits for that.

Owns: the way of a worker into standing still and out of it, and the jobs that must not begin before
others stand still. Must never: choose who is suspended (the hub does), or end one.

A newcomer does not wait for a worker that runs Python: it takes a few milliseconds to begin
itself. Such a worker is first told to Stand: it gives back what has not started, so that its
caller can have it done elsewhere, and says Stood; then its processes are stopped. One that does not
answer soon, because its code holds the interpreter, is stopped all the same. An actor is stopped at
once, for its calls can go nowhere else. Where programs run in an instance the worker suspends that,
and lives on.

The last order for a lease or actor counts, and every answer tells its number. While the hub is away
nobody could order one on; so one whose reason ends meanwhile goes on by itself.

While the machine's owner has it back all stands still, and nothing goes on, whoever says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from guactors.messages import GoOn, Resumed, Stand, Stood, Suspended
from guactors.provider_state.effects import Effect, HaltWorker, SendWorker
from guactors.provider_state.hub_line import HubLine
from guactors.provider_state.pool import Pool
from guactors.provider_state.workers import Hosting, Job, Leased, Worker, order_key

PATIENCE: Final = 0.01
"""Seconds that a worker has to give back what it has not started."""
OWNER: Final = "owner"
"""The reason of what stands still because the machine is not lent."""
INSTANCE_PATIENCE: Final = 10.0
"""Seconds that an instance has to stand still."""


class Still(Struct):
    """One lease or actor. ``number``: of the hub's order; ``due``: when its worker's time to answer
    ends, None once it stands still. ``reason``: the lease or actor for which it is."""

    worker: str
    number: int
    due: float | None
    reason: str = ""


class Held(Struct):
    """A job, and what must stand still before it begins."""

    job: Job
    missing: dict[str, int]


class Standstill:
    """Of one provider. Workers of ``pool``; the hub is told by ``line``."""

    def __init__(self, pool: Pool, line: HubLine) -> None:
        self._pool = pool
        self._line = line
        self._still: dict[str, Still] = {}
        self._closed = False
        """The machine is not lent."""
        self.held: dict[str, Held] = {}
        """By lease or actor."""
        self.refused: list[tuple[str, str]] = []
        """Of ``held``, those that cannot begin, each with the reason; whoever takes them refuses
        them."""

    # --- orders ---------------------------------------------------------------------------------

    def admit(self, job: Job, now: float) -> list[Effect]:
        """It may begin once all that it displaces stands still."""
        key = order_key(job.order)
        held = Held(job, {})
        effects: list[Effect] = []
        for word in job.order.displaces:
            effects += self.suspend(word.key, word.number, now, reason=key)
            if self._is_missing(word.key):
                held.missing[word.key] = word.number
        if held.missing:
            self.held[key] = held
        else:
            self._pool.pending[key] = job
        return effects

    def _is_missing(self, key: str) -> bool:
        """Whether it is to be waited for. A process can always be stopped, and soon is; an instance
        may refuse, and what is to end has all that it holds until it is gone."""
        worker = self._pool.find(key)
        if worker is None:
            return False
        still = self._still.get(key)
        return still is None or (still.due is not None and has_instance(worker))

    def suspend(self, key: str, number: int, now: float, reason: str = "") -> list[Effect]:
        """Make it stand still; one that does already has a new number, and says so."""
        worker = self._pool.find(key)
        if worker is None or worker.ending is not None:
            return []  # its end is told, or was
        known = self._still.get(key)
        if known is not None:
            known.number, known.reason = number, reason or known.reason
            return self._tell(key, known, now) if known.due is None else []
        state = worker.state
        if not isinstance(state, Leased | Hosting):
            return []  # it has not begun: it does so later
        still = self._still[key] = Still(worker.worker, number, now, reason)
        if has_instance(worker):
            still.due = now + INSTANCE_PATIENCE
        elif isinstance(state, Leased):
            still.due = now + PATIENCE
        else:
            return self._stop(key, still, now)
        return [SendWorker(worker.worker, Stand(number))]

    def close(self, now: float) -> list[Effect]:
        """The machine is not lent: all that runs stands still."""
        self._closed = True
        effects: list[Effect] = []
        for key in list(self._pool.serving):
            if key not in self._still:
                effects += self.suspend(key, 0, now, reason=OWNER)
        return effects

    def open(self, now: float) -> list[Effect]:
        """It is lent again; what stands still for its owner goes on when the hub says so, or where
        that is away."""
        self._closed = False
        return self.alone(now)

    def alone(self, now: float) -> list[Effect]:
        """Where there is no hub to say so, what stood still for the owner goes on by itself."""
        if self._line.up or self._closed:
            return []
        return self._release_for(OWNER, now)

    def resume(self, key: str, number: int, now: float) -> list[Effect]:
        """It may run, unless the machine has been taken back meanwhile; the hub will hear that."""
        if self._closed and key in self._still:
            self._still[key].reason = OWNER
            self._no_longer_missing(key)
            return []
        effects = self.release(key, now)
        self._no_longer_missing(key)
        return [*effects, *self._line.tell(Resumed(key, number), now)]

    def release(self, key: str, now: float) -> list[Effect]:
        """It runs, whoever wants what: its worker is to do something else."""
        still = self._still.pop(key, None)
        if still is None:
            return []
        worker = self._pool.workers[still.worker]
        effects: list[Effect] = []
        if worker.frozen:
            worker.frozen = False
            if worker.liveness is not None:
                worker.liveness.on_heard(now)
            effects.append(HaltWorker(still.worker, stop=False))
        return [*effects, SendWorker(still.worker, GoOn(still.number))]

    def withdraw(self, key: str) -> Job | None:
        """The job is not wanted any more."""
        held = self.held.pop(key, None)
        return held.job if held is not None else None

    # --- what happens ---------------------------------------------------------------------------

    def stood(self, worker: Worker, message: Stood, now: float) -> list[Effect]:
        """The worker has given back what it had, or its instance does not stand still."""
        order = worker.order
        key = order_key(order) if order is not None else ""
        still = self._still.get(key)
        if still is None or still.worker != worker.worker or still.due is None:
            return []
        if message.error:
            return self._fail(key, still, message.error, now)
        return self._stop(key, still, now)

    def _stop(self, key: str, still: Still, now: float) -> list[Effect]:
        still.due = None
        worker = self._pool.workers[still.worker]
        effects: list[Effect] = []
        if not has_instance(worker):
            worker.frozen = True
            effects.append(HaltWorker(still.worker, stop=True))
        effects += self._tell(key, still, now)
        self._no_longer_missing(key)
        return effects

    def _tell(self, key: str, still: Still, now: float) -> list[Effect]:
        return self._line.tell(Suspended(key, still.number), now)

    def _fail(self, key: str, still: Still, error: str, now: float) -> list[Effect]:
        effects = self.release(key, now)
        for other, held in self.held.items():
            if key in held.missing:
                self.refused.append((other, f"{key} does not stand still: {error}"))
        return [*effects, *self._line.tell(Suspended(key, still.number, error[:1000]), now)]

    def leave(self, key: str, now: float) -> list[Effect]:
        """The lease or actor is here no more, but its worker lives."""
        return [*self.release(key, now), *self.gone(key, now)]

    def gone(self, key: str, now: float) -> list[Effect]:
        """The lease or actor is here no more, and whatever stands still for it need not do so if
        the hub cannot be asked."""
        self._still.pop(key, None)
        self._no_longer_missing(key)
        if self._line.up:
            return []
        if self._closed:
            for still in self._still.values():
                still.reason = OWNER if still.reason == key else still.reason
            return []
        return self._release_for(key, now)

    def _release_for(self, reason: str, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for key in [key for key, still in self._still.items() if still.reason == reason]:
            effects += self.release(key, now)
        return effects

    def _no_longer_missing(self, key: str) -> None:
        for other, held in list(self.held.items()):
            if held.missing.pop(key, None) is not None and not held.missing:
                del self.held[other]
                self._pool.pending[other] = held.job

    def again(self) -> list[Suspended]:
        """Said after an Offer, which has no word for it."""
        return [
            Suspended(key, still.number) for key, still in self._still.items() if still.due is None
        ]

    # --- time -----------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Those whose time to answer is over."""
        effects: list[Effect] = []
        for key, still in list(self._still.items()):
            if still.due is None or now < still.due:
                continue
            if has_instance(self._pool.workers[still.worker]):
                error = f"its instance did not stand still within {INSTANCE_PATIENCE:g} s"
                effects += self._fail(key, still, error, now)
            else:
                effects += self._stop(key, still, now)
        return effects

    def next_wake(self, _now: float) -> float | None:
        """When tick has something to do."""
        return min((x.due for x in self._still.values() if x.due is not None), default=None)

    def jobs(self) -> Iterable[Job]:
        """Those that must not begin yet."""
        return (held.job for held in self.held.values())

    def check(self) -> list[str]:
        """What contradicts what; nothing, if all is well."""
        wrong = [
            f"{worker.worker} is stopped for nobody"
            for worker in self._pool.workers.values()
            if worker.frozen
            and worker.ending is None
            and worker.worker not in {x.worker for x in self._still.values()}
        ]
        for key, still in self._still.items():
            worker = self._pool.find(key)
            if worker is None or worker.worker != still.worker:
                wrong.append(f"{key} stands still but {still.worker} does not serve it")
        return wrong + [f"{key} waits for nobody" for key, x in self.held.items() if not x.missing]


def has_instance(worker: Worker) -> bool:
    """Whether what it serves runs in an instance that the worker keeps."""
    return worker.job is not None and worker.job.binding.runtime != "python"
