"""What a provider can tell of its workers to those who look inside.

Owns: the columns of the listings ``workers``, ``stack`` and ``native-stack``, and the stack dumps
under way. Must never: show a worker to who may not hear of its session.

A worker is asked for its stack, and where its interpreter does not come to answer, told by a signal
to write it down.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from guactors.config import ProviderConfig
from guactors.errors import UsageError
from guactors.listing import Listing, Row, Snapshots
from guactors.messages import (
    AskStack,
    Cell,
    Findings,
    Inquiry,
    Message,
    RowPage,
    StackIs,
    StartLease,
)
from guactors.provider_state.effects import Effect, SendHub, SendWorker, TakeStack
from guactors.provider_state.pool import Pool
from guactors.provider_state.workers import Leased, Worker

PATIENCE: Final = 1.0
"""Seconds a worker has to answer by itself."""
LAST: Final = 15.0
"""Seconds after which whoever asked is told that nothing came."""
MOST_DUMPS: Final = 32
WORKER_COLUMNS: Final = (
    "worker_id", "state", "pid", "node_id", "node_name", "job_id", "lease_id", "actor_id",
    "class_name", "blocked",
)  # fmt: skip
STACK_COLUMNS: Final = ("worker_id", "pid", "node_name", "by", "stack")


class Dump(Struct):
    """A stack dump under way. ``told``: the signal was asked for."""

    inquiry: Inquiry
    worker: str
    since: float
    told: bool = False


class Lookout:
    """Works on ``pool``."""

    def __init__(self, config: ProviderConfig, pool: Pool) -> None:
        self._config = config
        self._pool = pool
        self._snapshots = Snapshots()
        self._dumps: dict[int, Dump] = {}

    def on_inquiry(self, message: Inquiry, now: float) -> list[Effect]:
        """A question that the hub passed on."""
        try:
            if message.query.what in ("stack", "native-stack"):
                return self._begin(message, now)
            query = message.query
            page = self._snapshots.page(message.asker, query, lambda _: self._list(message))
        except UsageError as error:
            return [_fault(message, "UsageError", str(error))]
        return [SendHub(Findings(message.number, page))]

    def _list(self, message: Inquiry) -> Listing:
        what = message.query.what
        if what != "workers":
            raise UsageError(f"a provider lists no {what!r}; there are workers and stack")
        workers = [one for one in self._pool.workers.values() if _visible(one, message)]
        return Listing(WORKER_COLUMNS, [self._row(one) for one in workers])

    def _row(self, worker: Worker) -> Row:
        order = worker.order
        lease = order.lease if isinstance(order, StartLease) else None
        spec = None if order is None or isinstance(order, StartLease) else order.spec
        state = worker.state
        return (
            worker.worker,
            "ENDING" if worker.ending is not None else type(state).__name__.upper(),
            worker.pid,
            self._config.provider,
            self._config.name,
            worker.session or None,
            lease,
            spec.actor if spec is not None else None,
            spec.class_name if spec is not None else None,
            isinstance(state, Leased) and state.blocked,
        )

    # --- stacks ---------------------------------------------------------------------------------

    def _begin(self, message: Inquiry, now: float) -> list[Effect]:
        name = message.query.subject
        worker = self._pool.workers.get(name)
        if worker is None or not worker.pid or not _visible(worker, message):
            raise UsageError(f"no worker {name!r} of yours is on {self._config.name}")
        if len(self._dumps) >= MOST_DUMPS:
            raise UsageError(f"{self._config.name} takes {MOST_DUMPS} dumps already: ask again")
        native = message.query.what == "native-stack"
        self._dumps[message.number] = Dump(message, name, now, told=native)
        if native:
            return [TakeStack(name, worker.pid, message.number, native=True)]
        return [SendWorker(name, AskStack(message.number))]

    def on_stack(self, worker: str, message: StackIs) -> list[Effect]:
        """A worker's own answer."""
        dump = self._dumps.get(message.number)
        if dump is None or dump.worker != worker:
            return []
        return self._done(message.number, message.threads, "itself")

    def on_taken(self, number: int, threads: list[str], by: str, fault: str) -> list[Effect]:
        """What TakeStack brought; with a ``fault``, why it brought nothing."""
        dump = self._dumps.get(number)
        if dump is None:
            return []
        if fault:
            del self._dumps[number]
            return [_fault(dump.inquiry, "UsageError", fault)]
        return self._done(number, threads, by) if threads else []

    def _done(self, number: int, threads: list[str], by: str) -> list[Effect]:
        dump = self._dumps.pop(number)
        worker = self._pool.workers.get(dump.worker)
        pid: Cell = worker.pid if worker is not None else None
        rows: list[list[Cell]] = [
            [dump.worker, pid, self._config.name, by, thread] for thread in threads
        ]
        return [SendHub(Findings(number, RowPage(list(STACK_COLUMNS), rows, 0, len(rows))))]

    def on_ended(self, worker: str) -> list[Effect]:
        """A worker is gone."""
        numbers = [number for number, dump in self._dumps.items() if dump.worker == worker]
        text = f"worker {worker} ended before it could be looked at"
        return [_fault(self._dumps.pop(n).inquiry, "WorkerDied", text) for n in numbers]

    # --- time -----------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """The second way to a dump, and the end of patience."""
        effects: list[Effect] = []
        for number, dump in list(self._dumps.items()):
            worker = self._pool.workers.get(dump.worker)
            if now - dump.since >= LAST:
                del self._dumps[number]
                text = f"worker {dump.worker} shows no stack: its process may be stopped"
                effects.append(_fault(dump.inquiry, "WorkerDied", text))
            elif not dump.told and now - dump.since >= PATIENCE and worker is not None:
                dump.told = True
                effects.append(TakeStack(worker.worker, worker.pid, number))
        return effects

    def next_wake(self, _now: float) -> float | None:
        """When ``tick`` has something to do."""
        return min(
            (dump.since + (LAST if dump.told else PATIENCE) for dump in self._dumps.values()),
            default=None,
        )


def _visible(worker: Worker, message: Inquiry) -> bool:
    if message.sessions is None:
        return True
    return bool(worker.session) and worker.session in message.sessions


def _fault(inquiry: Inquiry, kind: str, detail: str) -> Effect:
    answer: Message = Findings(inquiry.number, RowPage([], []), kind, detail)
    return SendHub(answer)
