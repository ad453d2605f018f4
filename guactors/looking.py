"""Looking inside from the asker's side: whom to ask, page after page, and one answer of many.

Owns: the order of the questions, and the merging of what several processes tell. Must never: decide
what may be seen (the hub does), or drop a row without saying so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from guactors.errors import PeerLost, UsageError
from guactors.listing import Order, Row
from guactors.messages import AskSources, Cell, Filter, Inquire, Message, Page, Query, Sources

if TYPE_CHECKING:
    from guactors.grid_client import GridClient
    from guactors.session import Session

Ask = Callable[[Message], Message]
"""Sends a message that has a ``request``, which is filled in; returns the answer, or raises."""

BRIEF: Final[dict[str, tuple[str, ...]]] = {
    "tasks": (
        "task_id", "name", "state", "type", "job_id", "actor_id", "node_id", "worker_id",
        "attempt_number", "error_type",
    ),
    "objects": ("object_id", "object_size", "state", "where", "owner", "name", "references"),
    "actors": ("actor_id", "class_name", "state", "name", "job_id", "node_id", "worker_id"),
    "leases": (
        "lease_id", "state", "job_id", "node_id", "worker_id", "required_resources", "age_s",
    ),
    "workers": ("worker_id", "state", "pid", "node_name", "job_id", "actor_id", "class_name"),
    "placement-groups": (
        "placement_group_id", "state", "name", "creator_job_id", "strategy", "bundles", "node_ids",
    ),
    "reservations": (
        "name", "state", "start", "end", "required_resources", "priority", "node_id", "leases",
    ),
    "demand": ("required_resources", "waiting", "kind", "priority", "infeasible"),
    "providers": ("node_name", "state", "reason", "until", "leases", "actors", "suspended"),
}  # fmt: skip
"""The columns of a listing that are shown unless all are asked for; of others, all."""


TRIES: Final = 3
"""How often an answer is begun anew because somebody left in the middle of it."""


class Seen(NamedTuple):
    """``matched``: rows that passed, of which ``limit`` are in ``rows``. ``dropped``: calls that
    are counted and have no row any more. ``silent``: who should have known, and did not answer."""

    columns: Sequence[str]
    rows: list[Row]
    matched: int
    dropped: int
    silent: list[str]

    def records(self, columns: Sequence[str] = ()) -> list[dict[str, Cell]]:
        """The rows as dicts, of these columns or of all."""
        wanted = [name for name in columns if name in self.columns] or self.columns
        places = [self.columns.index(name) for name in wanted]
        return [dict(zip(wanted, (row[at] for at in places), strict=True)) for row in self.rows]


class _Tally:
    def __init__(self) -> None:
        self.columns: Sequence[str] = ()
        self.matched = 0
        self.dropped = 0
        self.silent: list[str] = []


def look(
    ask: Ask,
    what: str,
    filters: Sequence[Filter] = (),
    *,
    limit: int = 0,
    sort: str = "",
    subject: str = "",
    peer: str | None = None,
) -> Seen:
    """The listing ``what``. ``limit`` 0 is all; ``sort`` and ``subject`` as in Query; ``peer``: ask
    only this source. Raises UsageError for what is not there, PermissionDenied where nothing may be
    seen, and what ``ask`` raises."""
    if limit < 0:
        raise UsageError(f"limit={limit} is negative; 0 is all")
    query = Query(what, list(filters), limit, sort, subject=subject)
    if peer is not None:
        return _gather(ask, [peer], query, must=True)
    sources = _sources(ask, what)
    for _ in range(TRIES):
        seen = _gather(ask, sources, query)
        if not seen.silent:
            break
        sources = _sources(ask, what)
        if set(seen.silent) <= set(sources):
            break
        # Somebody has left, and the hub, which is asked first, knows now what it had to tell:
        # nothing is counted twice, or not at all.
    return seen


def _gather(ask: Ask, sources: Sequence[str], query: Query, *, must: bool = False) -> Seen:
    tally = _Tally()
    rows: list[Row] = []
    limit, sort = query.limit, query.sort
    for source in sources:
        try:
            for page in _pages(ask, source, query, tally):
                rows += page
                if limit and not sort:
                    del rows[limit:]
        except PeerLost:
            if must:
                raise
            tally.silent.append(source)
    if sort and tally.columns:
        rows = Order(tally.columns, sort).first(rows, limit)
    return Seen(tally.columns, rows, tally.matched, tally.dropped, tally.silent)


def _sources(ask: Ask, what: str) -> list[str]:
    answer = ask(AskSources(0, what))
    assert isinstance(answer, Sources), answer
    return [source.peer for source in answer.sources]


def _pages(ask: Ask, source: str, query: Query, tally: _Tally) -> Iterator[list[list[Cell]]]:
    cursor = matched = dropped = 0
    while True:
        answer = ask(Inquire(0, source, msgspec.structs.replace(query, cursor=cursor)))
        assert isinstance(answer, Page), answer
        page = answer.page
        tally.columns = page.columns
        tally.matched += page.matched - matched
        tally.dropped += page.dropped - dropped
        matched, dropped, cursor = page.matched, page.dropped, page.cursor
        yield page.rows
        if not cursor:
            return


def asker(session: Session, timeout: float = 30.0) -> Ask:
    """The way through a session; ``timeout``: seconds for each page."""

    def ask(message: Message) -> Message:
        answer: Message = session.ask(
            lambda request: msgspec.structs.replace(message, request=request), timeout
        )
        return answer

    return ask


def client_asker(client: GridClient, timeout: float = 30.0) -> Ask:
    """The way through a line of a tool."""
    return lambda message: client.ask(message, timeout)


# --- what is put together of several listings -----------------------------------------------------


def summarize_tasks(ask: Ask) -> tuple[dict[str, dict[str, int]], list[str]]:
    """By function or method: how many calls are in which state, exactly; and who did not answer.
    States without calls are left out."""
    seen = look(ask, "task-summary")
    found: dict[str, dict[str, int]] = {}
    for row in seen.rows:
        counts = found.setdefault(str(row[0]), {})
        for state, count in zip(seen.columns[2:], row[2:], strict=True):
            if isinstance(count, int) and count:
                counts[state] = counts.get(state, 0) + count
    return found, seen.silent


def find_workers(ask: Ask, which: str = "") -> list[dict[str, Any]]:
    """Workers by worker id, actor id, actor name or class, or process id; all that are at work
    without ``which``. Raises UsageError when there is none."""
    workers = look(ask, "workers").records()
    if not which:
        return [one for one in workers if one["job_id"]]
    named = look(ask, "actors", [Filter("name", "=", which), Filter("state", "!=", "DEAD")])
    meant = {which, *(str(actor["actor_id"]) for actor in named.records())}
    keys = ("worker_id", "actor_id", "class_name", "pid")
    found = [one for one in workers if any(str(one[key]) in meant for key in keys)]
    if not found:
        raise UsageError(
            f"no worker, actor or process {which!r} that you may look at; gu list workers shows "
            "those there are"
        )
    return found


def stacks(ask: Ask, which: str = "", *, native: bool = False) -> list[dict[str, Any]]:
    """What the threads of these workers (as in ``find_workers``) are at: one record a thread, with
    ``worker_id``, ``pid``, ``node_name``, ``by`` (how it was found out) and ``stack``. ``native``:
    with the frames of C code, by py-spy on the provider. Raises UsageError and PeerLost."""
    what = "native-stack" if native else "stack"
    found: list[dict[str, Any]] = []
    for worker in find_workers(ask, which):
        seen = look(ask, what, subject=worker["worker_id"], peer=worker["node_id"])
        found += seen.records()
    return found


def trace_rows(ask: Ask, session: str = "") -> list[dict[str, Cell]]:
    """The calls that have run, of one session or of all that may be seen."""
    filters = [Filter("job_id", "=", session)] if session else []
    return [row for row in look(ask, "tasks", filters).records() if row["start_time_ms"]]
