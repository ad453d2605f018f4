"""The state of the grid for programs: calls, actors, objects, workers, leases, with Ray's names.

Owns: the signatures. Must never: know where an answer comes from (``looking`` does).

::

    from guactors.util.state import list_tasks, summarize_tasks

    failed = list_tasks(filters=[("state", "=", "FAILED")], detail=True)
    print([(task.name, task.error_type) for task in failed])

Every function takes ``address`` (None: this process's session, else the grid of this machine) and
``timeout``, seconds for each page of an answer. What is listed is what may be seen: an app's own,
or for owners all. A record is a dict whose keys are attributes, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from guactors.errors import PeerLost, UsageError
from guactors.listing import Row, select
from guactors.looking import BRIEF, Ask, asker, client_asker, look, stacks
from guactors.looking import summarize_tasks as count_tasks
from guactors.messages import AskGrid, Filter, Grid, PeerInfo, Query
from guactors.refs import current_session

FilterTuple = tuple[str, str, Any]
"""``(column, "=" or "!=" or "~", value)``."""
DEFAULT_LIMIT = 100
NODE_COLUMNS = (
    "node_id", "node_name", "state", "node_ip", "resources_total", "resources_free", "labels",
    "workers", "leases", "actors", "resources_suspended",
)  # fmt: skip
BRIEF_NODE = 5
"""Columns, unless all are asked for."""


class State(dict[str, Any]):
    """A record: ``task["name"]`` or ``task.name``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no column {name!r}; there are {', '.join(self)}") from None


@contextmanager
def _line(address: str | None, timeout: float) -> Iterator[Ask]:
    session = current_session()
    if address is None and session is not None and not session.closed:
        yield asker(session, timeout)
        return
    from guactors.grid_client import GridClient

    with GridClient(address) as client:
        yield client_asker(client, timeout)


def _filters(given: Sequence[FilterTuple] | None) -> list[Filter]:
    found = []
    for one in given or ():
        if not isinstance(one, tuple | list) or len(one) != 3:
            raise UsageError(f"{one!r} is no filter; write it like ('state', '=', 'FAILED')")
        key, operator, value = one
        text = ("true" if value else "false") if isinstance(value, bool) else str(value)
        found.append(Filter(str(key), str(operator), text))
    return found


def list_rows(
    what: str,
    address: str | None = None,
    filters: Sequence[FilterTuple] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    sort: str = "",
) -> list[State]:
    """Any listing by its name. ``limit`` 0 is all. ``detail``: all columns. ``sort``: a column,
    with ``-`` before it the biggest first. ``raise_on_missing_output``: raise PeerLost when a
    process that should know did not answer, rather than leave its rows out."""
    with _line(address, timeout) as ask:
        seen = look(ask, what, _filters(filters), limit=limit, sort=sort)
    if seen.silent and raise_on_missing_output:
        raise PeerLost(f"{', '.join(seen.silent[:8])} did not answer; the list would have gaps")
    columns = () if detail else BRIEF.get(what, ())
    return [State(record) for record in seen.records(columns)]


def list_tasks(
    address: str | None = None,
    filters: Sequence[FilterTuple] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    sort: str = "",
) -> list[State]:
    """Calls of functions and methods: those under way, and the latest that have ended."""
    return list_rows(
        "tasks", address, filters, limit, timeout, detail, raise_on_missing_output, sort
    )


def list_actors(
    address: str | None = None,
    filters: Sequence[FilterTuple] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    sort: str = "",
) -> list[State]:
    """Live actors, and the latest dead."""
    return list_rows(
        "actors", address, filters, limit, timeout, detail, raise_on_missing_output, sort
    )


def list_objects(
    address: str | None = None,
    filters: Sequence[FilterTuple] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    sort: str = "",
) -> list[State]:
    """Objects, once for each process that holds them, and by what."""
    return list_rows(
        "objects", address, filters, limit, timeout, detail, raise_on_missing_output, sort
    )


def list_workers(
    address: str | None = None,
    filters: Sequence[FilterTuple] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    sort: str = "",
) -> list[State]:
    """Worker processes, and whom they work for."""
    return list_rows(
        "workers", address, filters, limit, timeout, detail, raise_on_missing_output, sort
    )


def list_placement_groups(
    address: str | None = None,
    filters: Sequence[FilterTuple] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    sort: str = "",
) -> list[State]:
    """Placement groups. Raises UsageError where the hub has no such listing."""
    return list_rows(
        "placement-groups", address, filters, limit, timeout, detail, raise_on_missing_output, sort
    )


def list_nodes(
    address: str | None = None,
    filters: Sequence[FilterTuple] | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,  # noqa: ARG001
    sort: str = "",
) -> list[State]:
    """Providers. The hub knows them all, so that ``raise_on_missing_output`` changes nothing."""
    with _line(address, timeout) as ask:
        answer = ask(AskGrid(0))
    assert isinstance(answer, Grid), answer
    rows = [_node(peer) for peer in answer.info.peers if peer.role == "provider"]
    query = Query("nodes", _filters(filters), limit, sort)
    found = select(NODE_COLUMNS, rows, query)
    shown = len(NODE_COLUMNS) if detail else BRIEF_NODE
    return [State(zip(NODE_COLUMNS[:shown], row[:shown], strict=True)) for row in found]


def _node(peer: PeerInfo) -> Row:
    return (
        peer.peer,
        peer.name,
        "DEAD" if peer.state == "lost" else "ALIVE",
        peer.address,
        dict(peer.total),
        dict(peer.free),
        dict(peer.labels),
        peer.workers,
        peer.leases,
        peer.actors,
        dict(peer.suspended),
    )


def get_node(id: str, address: str | None = None, timeout: float = 30) -> State | None:
    """The provider of this id, None where nobody knows it any more."""
    found = list_nodes(address, [("node_id", "=", id)], 1, timeout, detail=True)
    return found[0] if found else None


def _one(what: str, key: str, id: str, address: str | None, timeout: float) -> State | None:
    found = list_rows(what, address, [(key, "=", id)], 1, timeout, detail=True)
    return found[0] if found else None


def get_task(id: str, address: str | None = None, timeout: float = 30) -> State | None:
    """The call of this id (``ref.task_id()``), None where nobody knows it any more."""
    return _one("tasks", "task_id", id, address, timeout)


def get_actor(id: str, address: str | None = None, timeout: float = 30) -> State | None:
    """The actor of this id, None where nobody knows it any more."""
    return _one("actors", "actor_id", id, address, timeout)


def get_objects(id: str, address: str | None = None, timeout: float = 30) -> list[State]:
    """The object of this id (``ref.hex()``) in each process that holds it."""
    return list_rows("objects", address, [("object_id", "=", id)], 0, timeout, detail=True)


def get_worker(id: str, address: str | None = None, timeout: float = 30) -> State | None:
    """The worker of this id, None when it has ended."""
    return _one("workers", "worker_id", id, address, timeout)


def summarize_tasks(
    address: str | None = None, timeout: float = 30, raise_on_missing_output: bool = True
) -> dict[str, Any]:
    """How many calls of each function or method are in which state. Exact, however many there are:
    what has no record any more is counted."""
    with _line(address, timeout) as ask:
        counts, silent = count_tasks(ask)
    if silent and raise_on_missing_output:
        raise PeerLost(f"{', '.join(silent[:8])} did not answer; the counts would have gaps")
    summary = {
        name: {"func_or_class_name": name, "state_counts": states}
        for name, states in counts.items()
    }
    total = sum(sum(states.values()) for states in counts.values())
    return {"cluster": {"summary": summary, "total_tasks": total, "summary_by": "func_name"}}


def get_stacks(
    which: str = "", address: str | None = None, timeout: float = 30, *, native: bool = False
) -> list[State]:
    """What the threads of a worker are at: ``which`` is a worker id, an actor's id, name or class,
    or a process id; empty for all workers that have a session. One record a thread. ``native``:
    with the frames of C code, where the provider has py-spy."""
    with _line(address, timeout) as ask:
        return [State(record) for record in stacks(ask, which, native=native)]
