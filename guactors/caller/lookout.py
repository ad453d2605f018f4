"""What one process can tell of its calls and objects to those who look inside.

Owns: the columns of the listings ``tasks``, ``task-summary`` and ``objects``. Must never: change
anything, open a value, or decide who may look (the hub does).

Columns have Ray's names where Ray has one. Times are milliseconds of the epoch. A call's states::

    PENDING_ARGS_AVAIL       waits for an argument
    PENDING_NODE_ASSIGNMENT  waits for a worker
    SUBMITTED_TO_WORKER      waits at its worker, behind another
    SUSPENDED                has begun and stands still for others
    RUNNING                  runs (of an actor whose concurrency is unknown here: is there)
    FINISHED, FAILED, CANCELLED
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final

from guactors.caller.actors import RemoteActor
from guactors.caller.away import Away
from guactors.caller.entries import Entry
from guactors.caller.task_log import FAILED, OTHERS, Ended, outcome, unfold
from guactors.caller.tasks import Task
from guactors.errors import UsageError
from guactors.listing import Listing, Row, Snapshots
from guactors.messages import Cell, Findings, Inquiry, Query, RowPage, Standing, TallyRow

if TYPE_CHECKING:
    from guactors.caller.core import CallerCore

WAITS_FOR_ARGUMENTS: Final = "PENDING_ARGS_AVAIL"
WAITS_FOR_WORKER: Final = "PENDING_NODE_ASSIGNMENT"
SENT: Final = "SUBMITTED_TO_WORKER"
RUNNING: Final = "RUNNING"
SUSPENDED: Final = "SUSPENDED"
OUTCOMES: Final = ("FINISHED", "FAILED", "CANCELLED")
STATES: Final = (WAITS_FOR_ARGUMENTS, WAITS_FOR_WORKER, SENT, SUSPENDED, RUNNING, *OUTCOMES)

TASK_COLUMNS: Final = (
    "task_id", "name", "state", "type", "func_or_class_name", "job_id", "caller_id", "actor_id",
    "parent_task_id", "node_id", "worker_id", "attempt_number", "error_type", "required_resources",
    "creation_time_ms", "sent_time_ms", "start_time_ms", "end_time_ms", "duration_ms",
    "suspended_by", "suspended_time_ms", "suspended_reason",
)  # fmt: skip
SUMMARY_COLUMNS: Final = ("func_or_class_name", "total", *STATES)
OBJECT_COLUMNS: Final = (
    "object_id", "object_size", "state", "where", "owner", "caller_id", "job_id", "name",
    "references", "local_references", "lent_references", "contained_references", "task_references",
)  # fmt: skip

MOST_TALLIED: Final = 1000
"""Names in one tally; what is beyond is counted together."""

Places = list[tuple[str, list[Task]]]
"""Calls under way, by state."""


def object_id(owner: str, number: int) -> str:
    """The grid-wide name of an object, and of the call that makes it: as ``ObjectRef.hex``."""
    return f"{owner.partition('-')[2]}{number:016x}"


class Lookout:
    """``link_owner`` turns a link of this worker into the caller that dialled it: a call's parent
    is known by its link. Without one, parents are unknown."""

    def __init__(self, core: CallerCore, session: str, *, root: bool = False) -> None:
        self.link_owner: Callable[[str], str] = lambda _: ""
        self._root = root
        self._core = core
        self._session = session
        self._snapshots = Snapshots()
        self._makers: dict[str, Callable[[float], Listing]] = {
            "tasks": self._tasks,
            "task-summary": self._summary,
            "objects": self._objects,
        }

    def answer(self, inquiry: Inquiry, clock: float) -> Findings:
        """The answer to a question. ``clock``: what turns our seconds into those of the epoch."""

        def make(query: Query) -> Listing:
            maker = self._makers.get(query.what)
            if maker is None:
                known = ", ".join(sorted(self._makers))
                raise UsageError(f"a caller lists no {query.what!r}; there are {known}")
            return maker(clock)

        try:
            page = self._snapshots.page(inquiry.asker, inquiry.query, make)
        except UsageError as error:
            return Findings(inquiry.number, RowPage([], []), "UsageError", str(error))
        return Findings(inquiry.number, page)

    # --- calls ----------------------------------------------------------------------------------

    def under_way(self) -> Places:
        """Calls that have not ended, by state; those whose end is known but that their worker has
        not let go are left out."""
        core = self._core
        places: Places = []
        for demand in core.leases.demands.values():
            places.append((WAITS_FOR_WORKER, list(demand.queue)))
        for lease in core.leases.by_peer.values():
            sent = list(lease.target.in_flight.values())
            places += [(_at_work(lease.standing), sent[:1]), (SENT, sent[1:])]
        for actor in core.actors.actors.values():
            places.append((WAITS_FOR_ARGUMENTS, list(actor.parked.values())))
            if actor.queue:
                queue = list(actor.queue)
                places.append((WAITS_FOR_ARGUMENTS, [task for task in queue if task.unmet]))
                places.append((WAITS_FOR_WORKER, [task for task in queue if not task.unmet]))
            if actor.target is not None and actor.target.in_flight:
                sent = list(actor.target.in_flight.values())
                most = actor.concurrency or len(sent)
                places += [(_at_work(actor.standing), sent[:most]), (SENT, sent[most:])]
        places.append((SENT, core.doubts.tasks()))
        waiting = {
            task.id: task
            for entry in core.objects.entries.values()
            for task in entry.dependents or ()
            if not isinstance(task.home, RemoteActor)
        }
        places.append((WAITS_FOR_ARGUMENTS, list(waiting.values())))
        return [
            (state, [task for task in tasks if task.events and not task.fault])
            for state, tasks in places
            if tasks
        ]

    def _tasks(self, clock: float) -> Listing:
        batches = self._core.log.batches()
        places = self.under_way()
        ended = (self._ended(one, clock) for batch in batches for one in unfold(batch))
        live = (self._live(task, state, clock) for state, tasks in places for task in tasks)
        return Listing(TASK_COLUMNS, chain(live, ended), self._core.log.dropped)

    def _live(self, task: Task, state: str, clock: float) -> Row:
        sent = _ms(task.sent_at + clock) if task.peer else None
        times = (_ms(task.made + clock), sent, None, None, None)
        standing = self._core.standing.why(task) if state == SUSPENDED else None
        return (*self._row(task, state, times), *_why(standing))

    def _ended(self, one: Ended, clock: float) -> Row:
        task, ended = one.task, one.ended + clock
        sent = task.sent_at + clock if task.peer else None
        began, ran = _within(one, sent if sent is not None else ended, ended)
        times = (
            _ms(task.made + clock),
            None if sent is None else _ms(sent),
            None if began is None else _ms(began),
            _ms(ended if began is None else began + ran),
            None if began is None else round(ran * 1e3, 6),
        )
        return (*self._row(task, OUTCOMES[outcome(task)], times), *_why(None))

    def _row(self, task: Task, state: str, times: Sequence[float | None]) -> Row:
        home = task.home
        actor = home if isinstance(home, RemoteActor) else None
        needs: Cell = None if actor is not None else dict(home.shape.resources)
        return (
            object_id(self._core.me, task.id),
            task.name,
            state,
            "NORMAL_TASK" if actor is None else "ACTOR_TASK",
            self._function(task),
            self._session,
            self._core.me,
            None if actor is None else actor.id,
            self._parent(task),
            self._node(task.peer),
            task.peer or None,
            task.attempt,
            task.fault or None,
            needs,
            *times,
        )

    def _function(self, task: Task) -> str:
        if isinstance(task.home, RemoteActor):
            return f"{task.home.name}.{task.method}"
        known = self._core.blobs.get(task.fn)
        return known.name if known is not None else task.name

    def _parent(self, task: Task) -> str | None:
        if not isinstance(task.parent, tuple):
            return None
        link, number = task.parent
        owner = self.link_owner(link)
        return object_id(owner, number) if owner else None

    def _node(self, peer: str) -> str | None:
        if not peer:
            return None
        lease = self._core.leases.by_peer.get(peer)
        if lease is not None:
            return lease.target.provider or None
        actor = self._core.actors.by_peer.get(peer)
        if actor is not None and actor.target is not None:
            return actor.target.provider or None
        return self._core.log.places.get(peer) or None

    def _summary(self, _clock: float) -> Listing:
        """One row a name, exact: what was dropped from the records is in the counts."""
        rows: dict[str, list[int]] = {}
        for state, tasks in self.under_way():
            at = STATES.index(state)
            for name, count in Counter([task.name for task in tasks]).items():
                rows.setdefault(name, [0] * len(STATES))[at] += count
        first = len(STATES) - len(OUTCOMES)
        for name, counts in self._core.log.counts().items():
            rows.setdefault(name, [0] * len(STATES))[first:] = counts
        return Listing(
            SUMMARY_COLUMNS, [(name, sum(row), *row) for name, row in sorted(rows.items())]
        )

    def tally(self) -> list[TallyRow]:
        """All calls as they will have ended if this process ends now; nothing at all of the root,
        whose end is that of the session."""
        if self._root:
            return []
        counts = self._core.log.counts()
        for _, tasks in self.under_way():
            for task in tasks:
                counts.setdefault(task.name, [0, 0, 0])[FAILED] += 1
        most = sorted(counts.items(), key=lambda item: -sum(item[1]))
        rows = [TallyRow(name, *row) for name, row in most[: MOST_TALLIED - 1]]
        others = [
            sum(column) for column in zip(*(row for _, row in most[len(rows) :]), strict=True)
        ]
        return rows + ([TallyRow(OTHERS, *others)] if others else [])

    # --- objects --------------------------------------------------------------------------------

    def _objects(self, _clock: float) -> Listing:
        objects = self._core.objects
        entries = list(objects.entries.values())
        lent = objects.lent()
        contained = Counter(id for entry in entries for id in entry.contains or ())
        tasks = (task for _, tasks in self.under_way() for task in tasks)
        needed = Counter(id for task in tasks for id in (*task.deps, *task.lent))
        return Listing(
            OBJECT_COLUMNS,
            (self._object(entry, lent, contained, needed) for entry in entries),
        )

    def _object(
        self, entry: Entry, lent: Counter[int], contained: Counter[int], needed: Counter[int]
    ) -> Row:
        core, origin, id = self._core, entry.origin, entry.id
        owner, number = (core.me, id) if origin is None else (origin.owner, origin.object)
        others = lent[id] + contained[id] + needed[id]
        return (
            object_id(owner, number),
            size_of(entry),
            state_of(entry),
            place_of(entry),
            owner,
            core.me,
            self._session,
            entry.task.name if entry.task is not None else None,
            entry.holds,
            max(0, entry.holds - others),
            lent[id],
            contained[id],
            needed[id],
        )


def _at_work(standing: Standing | None) -> str:
    return RUNNING if standing is None else SUSPENDED


def _why(standing: Standing | None) -> Row:
    if standing is None:
        return None, None, None
    return standing.by or None, _ms(standing.since), standing.reason


def size_of(entry: Entry) -> int | None:
    """Bytes of its value, None while it is nowhere."""
    if entry.data is None:
        return None
    if not isinstance(entry.data, bytes):
        return entry.data.size
    return len(entry.data) + sum(_length(buffer) for buffer in entry.buffers)


def state_of(entry: Entry) -> str:
    """PENDING, READY, FAILED; BORROWED while it is with its lender only."""
    if entry.data is not None:
        return "FAILED" if entry.error else "READY"
    return "PENDING" if entry.origin is None else "BORROWED"


def place_of(entry: Entry) -> str | None:
    """Where its value is: ``inline`` in this process, in the ``store`` of its machine, or
    ``spilled`` to disk, or ``elsewhere``; None while it is nowhere."""
    if entry.data is None:
        return None
    if isinstance(entry.data, Away):
        return "elsewhere"
    if isinstance(entry.data, bytes):
        return "inline"
    return "spilled" if entry.data.word.arena.startswith("d-") else "store"


def _length(buffer: bytes | memoryview) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _within(one: Ended, sent: float, ended: float) -> tuple[float | None, float]:
    """When the call began, in epoch seconds of this process, and how long it ran: its worker's
    clock may be ahead or behind, but a call runs after it was sent and before it was answered."""
    if not one.began:
        return None, 0.0
    span = ended - sent
    ran = one.ran if 0.0 <= one.ran <= span else span
    began = min(one.began, ended - ran)
    if not began >= sent:
        began = sent
    return began, ran
