"""What runs here, seen again in the light of rights that have changed.

Owns: what becomes of work whose right is gone, and the count of what somebody holds. Must never:
judge (``permits`` does) or look at work that nothing has changed for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from guactors.provider_state.effects import Effect
from guactors.provider_state.gate import Gate
from guactors.provider_state.permits import Permits, work_of
from guactors.provider_state.pool import Pool
from guactors.provider_state.watch import Watch
from guactors.provider_state.workers import (
    Idle,
    Leased,
    Order,
    Worker,
    order_session,
    order_shape,
)
from guactors.security.rights import Usage

STOP, FINISH = "stop", "finish"
"""What a revocation says of what runs; any word but ``finish`` stops it."""
PAUSE = 0.5
"""Seconds between a warrant that gives less and its consequences for what runs: the revocation
behind it may come after it, and says whether that may finish."""
IDLE_PATIENCE = 5.0
"""Seconds that an idle worker has to end by itself."""


class Review:
    """``wall`` turns monotonic seconds into epoch seconds."""

    def __init__(
        self,
        pool: Pool,
        gate: Gate,
        permits: Permits,
        watch: Watch,
        wall: Callable[[float], float],
    ) -> None:
        self._pool = pool
        self._gate = gate
        self._permits = permits
        self._watch = watch
        self._wall = wall
        self._due: dict[str, float] = {}

    def warranted(self, session: str, now: float) -> None:
        """What the session may has changed, nobody has said yet why. What has not begun is judged
        anew at once."""
        self._due.setdefault(session, now + PAUSE)
        self._back_to_gate({session}, now)

    def revoked(self, sessions: Collection[str], running: str, now: float) -> list[Effect]:
        """What these sessions may has changed by a revocation: end what they may do no more, or
        where ``running`` is FINISH, let it come to its end."""
        sessions = {*sessions, *self._due}
        self._due.clear()
        return self._rejudge_all(sessions, running, now)

    def tick(self, now: float) -> list[Effect]:
        """See PAUSE."""
        sessions = {session for session, due in self._due.items() if now >= due}
        for session in sessions:
            del self._due[session]
        return self._rejudge_all(sessions, STOP, now) if sessions else []

    def next_wake(self, _now: float) -> float | None:
        """When tick has something to do."""
        return min(self._due.values(), default=None)

    def _rejudge_all(self, sessions: Collection[str], running: str, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for worker in list(self._pool.workers.values()):
            if worker.session in sessions and worker.ending is None:
                effects += self._rejudge(worker, running, now)
        self._back_to_gate(sessions, now)
        return effects

    def _back_to_gate(self, sessions: Collection[str], now: float) -> None:
        """From there they may come back, perhaps bound to other signers."""
        for key, job in list(self._pool.pending.items()):
            if job.binding.session in sessions:
                del self._pool.pending[key]
                self._gate.arrive(job.order, now)

    def _rejudge(self, worker: Worker, running: str, now: float) -> list[Effect]:
        job = worker.job
        if job is None:
            return []
        if isinstance(worker.state, Idle):
            # What the session left in it may still be at work.
            if running == FINISH:
                return let_go(self._watch, worker, now)
            return self._watch.kill(worker, "revoked")
        binding = job.binding
        if worker.order is None or self._permits.still(
            binding.session, self._gate.work(job), binding.signers, job.admitted, self._wall(now)
        ):
            return []
        if running == FINISH and worker.bound:
            worker.spared = True
            return []
        return self._watch.kill(worker, "revoked", "the right to it was taken back")


def let_go(watch: Watch, worker: Worker, now: float) -> list[Effect]:
    """End an idle worker whose session may do nothing more."""
    return watch.dismiss(worker, "revoked", now, IDLE_PATIENCE, graceful=True)


def holdings(pool: Pool, permits: Permits, session: str) -> Usage:
    """What the principal of the session holds here, under all its sessions."""
    if not permits.limited(session):
        return Usage()
    whose = permits.principal(session)
    cpu = memory = gpu = instances = 0
    for order, blocked in _admitted(pool):
        if permits.principal(order_session(order)) == whose:
            work = work_of(order_shape(order))
            # The hub gives away the CPU of who waits in get().
            cpu += 0 if blocked else work.cpu
            memory += work.memory
            gpu += work.gpu
            instances += 1
    return Usage(cpu=cpu, memory=memory, gpu=gpu, instances=instances)


def _admitted(pool: Pool) -> Iterator[tuple[Order, bool]]:
    """All orders that count, and whether their task waits."""
    for worker in pool.workers.values():
        if worker.order is not None:
            yield worker.order, isinstance(worker.state, Leased) and worker.state.blocked
    for job in pool.pending.values():
        yield job.order, False
