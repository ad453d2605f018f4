"""When the machine runs out of memory: whose end costs least.

Owns: the threshold, how often it is looked at, the choice. Must never: measure, or end two workers
where one may do.

Who is chosen: of the workers that hold a share worth having (a tenth of what the largest holds),
those first for whom nobody waits, then leases, whose tasks are tried again, then actors that
restart, then those that do not; among equals the newest, which has done least. After an end the
next look waits until that worker is gone and the kernel has had a moment to count.
"""

from __future__ import annotations

from msgspec import Struct

from guactors.provider_state.effects import Effect, MeasureMemory, Note
from guactors.provider_state.pool import Pool
from guactors.provider_state.watch import Watch
from guactors.provider_state.workers import Hosting, Idle, Leased, Worker

PERIOD = 0.25
"""Seconds between two looks, while somebody works here."""
PAUSE = 1.0
"""Seconds from an end until the next one."""
SHARE = 0.1
_GIB = float(2**30)
_MIB = float(2**20)


class Memory(Struct, frozen=True):
    """A look. ``used`` and ``total``: bytes of the machine, or of what the provider may use of it;
    ``workers``: bytes that each holds for itself alone, measured only above the threshold."""

    used: int
    total: int
    workers: dict[str, int] = {}


class MemoryWatch:
    """``threshold``: the share of memory above which somebody is ended; 0 or 1: nobody ever is."""

    def __init__(self, provider: str, threshold: float, pool: Pool, watch: Watch) -> None:
        self._provider = provider
        self._threshold = threshold if 0 < threshold < 1 else 0.0
        self._pool = pool
        self._watch = watch
        self._next = 0.0
        self._ended = ""

    def tick(self, now: float) -> list[Effect]:
        """Ask for a look, if it is time."""
        if not self._threshold or now < self._next or not (pids := self._pids()):
            return []
        self._next = now + PERIOD
        return [MeasureMemory(pids, self._threshold)]

    def next_wake(self, now: float) -> float | None:
        """When to look."""
        if not self._threshold or not any(
            isinstance(worker.state, Leased | Hosting) for worker in self._pool.workers.values()
        ):
            return None
        return max(now, self._next)

    def on_memory(self, memory: Memory, now: float) -> list[Effect]:
        """End somebody, if there is too little left."""
        if memory.used <= self._threshold * memory.total or self._ended in self._pool.workers:
            return []
        chosen = self._choose(memory.workers)
        if chosen is None:
            return []
        self._ended = chosen.worker
        self._next = now + PAUSE
        detail = self._detail(chosen, memory)
        idle = isinstance(chosen.state, Idle)
        note = Note("warning", f"worker {chosen.worker} is ended for memory: {detail}")
        return [note, *self._watch.kill(chosen, "released" if idle else "out_of_memory", detail)]

    def _pids(self) -> dict[str, int]:
        return {
            worker.worker: worker.pid
            for worker in self._pool.workers.values()
            if worker.pid and worker.bound and worker.ending is None
        }

    def _choose(self, held: dict[str, int]) -> Worker | None:
        least = SHARE * max(held.values(), default=0)
        workers = self._pool.workers
        candidates = [
            workers[name]
            for name, size in held.items()
            if size >= least and name in workers and workers[name].ending is None
            and workers[name].bound
        ]  # fmt: skip
        return min(candidates, key=_cost, default=None)

    def _detail(self, chosen: Worker, memory: Memory) -> str:
        held = memory.workers
        largest = max(held, key=held.__getitem__)
        most = "it held most"
        if largest != chosen.worker:
            who = self._pool.workers.get(largest)
            name = _name(who) if who is not None else largest
            most = f"most is held by {name}: {held[largest] / _MIB:.0f} MiB"
        return (
            f"{self._provider} had {memory.used / _GIB:.2f} of {memory.total / _GIB:.2f} GiB of "
            f"memory in use, more than {self._threshold:.0%}; {_name(chosen)} held "
            f"{held[chosen.worker] / _MIB:.0f} MiB and costs least to end ({most}). Reserve what "
            "it needs with memory=, hold it with limits=, or run fewer at a time with num_cpus="
        )


def _cost(worker: Worker) -> tuple[int, float]:
    newest = -worker.job.admitted if worker.job is not None else 0.0
    match worker.state:
        case Idle():
            return 0, newest
        case Hosting(order):
            return (2 if order.spec.max_restarts else 3), newest
        case _:
            return 1, newest


def _name(worker: Worker) -> str:
    if isinstance(worker.state, Hosting):
        return f"the actor {worker.state.order.spec.class_name} (worker {worker.worker})"
    return f"worker {worker.worker}"
