"""Calls as a trace: what ran when, in the JSON format of Chrome's trace viewer and of Perfetto.

Owns: the translation. Pure. Must never: fetch or write anything.

A provider is a process of the trace, a worker one of its threads, a call a complete event (``X``);
an arrow (``s`` to ``f``) leads from a call to each call it made. Times are microseconds of the
epoch. Calls that run at once in one worker (threaded and async actors) overlap, which the format
allows only if they nest: they get rows of their own beside the worker's first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from guactors.messages import Cell

Event = dict[str, Any]
_ARGUMENTS: Final = (
    "task_id", "state", "type", "job_id", "caller_id", "actor_id", "parent_task_id",
    "attempt_number", "error_type", "creation_time_ms", "sent_time_ms",
)  # fmt: skip
COLOURS: Final = {"FAILED": "terrible", "CANCELLED": "grey"}


def events(rows: Iterable[Mapping[str, Cell]]) -> list[Event]:
    """Trace events of task records (``util.state.list_tasks`` with all columns) that have a start
    and an end; others are left out."""
    ran = sorted(
        (row for row in rows if row["start_time_ms"] and row["end_time_ms"]),
        key=lambda row: (_micro(row["start_time_ms"]), -_micro(row["end_time_ms"])),
    )
    places = _Places()
    found: list[Event] = []
    starts: dict[Cell, Event] = {}
    for row in ran:
        event = _complete(row, places)
        starts[row["task_id"]] = event
        found.append(event)
    return [*places.names(), *found, *_arrows(ran, starts)]


def _micro(cell: Cell) -> float:
    assert isinstance(cell, int | float), cell
    return cell * 1e3


def _complete(row: Mapping[str, Cell], places: _Places) -> Event:
    start, end = _micro(row["start_time_ms"]), _micro(row["end_time_ms"])
    pid, tid = places.of(str(row["node_id"] or "?"), str(row["worker_id"] or "?"), start, end)
    event: Event = {
        "name": row["name"],
        "cat": "actor" if row["actor_id"] else "task",
        "ph": "X",
        "ts": start,
        "dur": end - start,
        "pid": pid,
        "tid": tid,
        "args": {name: row[name] for name in _ARGUMENTS if row.get(name) is not None},
    }
    colour = COLOURS.get(str(row["state"]))
    return event if colour is None else {**event, "cname": colour}


def _arrows(rows: Iterable[Mapping[str, Cell]], starts: Mapping[Cell, Event]) -> list[Event]:
    found: list[Event] = []
    for number, row in enumerate(rows, 1):
        parent, child = starts.get(row["parent_task_id"]), starts[row["task_id"]]
        if parent is None or row["parent_task_id"] is None or child["ts"] < parent["ts"]:
            continue  # what began before its parent shows that two clocks disagree
        # An arrow leaves from within its call: at the submission, as far as the clocks agree.
        made = _micro(row["creation_time_ms"])
        at = min(max(made, parent["ts"]), parent["ts"] + parent["dur"], child["ts"])
        common = {"name": "call", "cat": "call", "id": number}
        here = {"ph": "s", "pid": parent["pid"], "tid": parent["tid"], "ts": at}
        there = {"ph": "f", "bp": "e", "pid": child["pid"], "tid": child["tid"], "ts": child["ts"]}
        found += [{**common, **here}, {**common, **there}]
    return found


class _Places:
    """Numbers for providers, workers, and the further rows of workers that do several things."""

    def __init__(self) -> None:
        self._providers: dict[str, int] = {}
        self._rows: dict[tuple[str, str], list[tuple[int, list[float]]]] = {}
        self._last = 0

    def of(self, provider: str, worker: str, start: float, end: float) -> tuple[int, int]:
        """The process and thread of a call; calls must come in the order in which they start."""
        pid = self._providers.setdefault(provider, len(self._providers) + 1)
        rows = self._rows.setdefault((provider, worker), [])
        for tid, open_until in rows:
            while open_until and open_until[-1] <= start:
                open_until.pop()
            if not open_until or end <= open_until[-1]:
                open_until.append(end)
                return pid, tid
        self._last += 1
        rows.append((self._last, [end]))
        return pid, self._last

    def names(self) -> list[Event]:
        """The metadata by which a viewer names the rows."""
        found = [
            _named("process_name", pid, 0, f"provider {provider}")
            for provider, pid in self._providers.items()
        ]
        for (provider, worker), rows in self._rows.items():
            for at, (tid, _) in enumerate(rows):
                name = f"worker {worker}" if not at else f"worker {worker} ({at + 1})"
                found.append(_named("thread_name", self._providers[provider], tid, name))
        return found


def _named(kind: str, pid: int, tid: int, name: str) -> Event:
    return {"name": kind, "ph": "M", "ts": 0, "pid": pid, "tid": tid, "args": {"name": name}}
