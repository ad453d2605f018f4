"""``gu list``, ``gu summary``, ``gu timeline``, ``gu stack``: looking inside.

Owns: which columns people see, and the words for what is not shown. Must never: decide what may be
seen (the hub does), or change anything in the grid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from guactors import trace
from guactors.cli.authority import Key, open_hub, printable, table
from guactors.cli.console import fail, note, print_json, size
from guactors.cli.options import Address, AsJson
from guactors.listing import parse_filter, text_of
from guactors.looking import BRIEF, Seen, client_asker, look, stacks, summarize_tasks, trace_rows
from guactors.messages import Cell

KNOWN = (
    "tasks", "actors", "objects", "leases", "placement-groups", "providers", "workers", "sessions",
    "demand", "preemptions", "reservations",
)  # fmt: skip
LIMIT = 100
SUBJECTS = ("tasks",)

Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter", "-f", metavar="COLUMN=VALUE",
        help="Also COLUMN!=VALUE, and COLUMN~PART; may be repeated: a row must pass all.",
    ),
]  # fmt: skip


def list_rows(
    what: Annotated[str, typer.Argument(help=f"One of {', '.join(KNOWN)}.")],
    filters: Filters = None,
    limit: Annotated[int, typer.Option(min=0, help="Rows at the most; 0: all.")] = LIMIT,
    sort: Annotated[str, typer.Option(metavar="COLUMN", help="-COLUMN: the biggest first.")] = "",
    detail: Annotated[bool, typer.Option("--detail", help="All columns.")] = False,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List calls, actors, objects, leases, workers, sessions: yours, or as the owner all."""
    tests = [parse_filter(text) for text in filters or ()]
    with open_hub(address, key) as client:
        seen = look(client_asker(client), what, tests, limit=limit, sort=sort)
    columns = () if detail else BRIEF.get(what, ())
    if as_json:
        print_json(seen.records(columns))
    else:
        _print(seen, columns)
    _say_what_is_missing(seen, what)


def _print(seen: Seen, columns: Sequence[str]) -> None:
    shown = [name for name in columns if name in seen.columns] or list(seen.columns)
    records = seen.records(shown)
    numbers = {name for one in records for name, value in one.items() if isinstance(value, float)}
    heads = [f"{'>' if name in numbers else ''}{_head(name)}" for name in shown]
    table(heads, ([_cell(name, value) for name, value in one.items()] for one in records))


def _head(name: str) -> str:
    return name.removesuffix("_ms").replace("_", " ").upper()


def _cell(name: str, value: Cell) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, int | float) and name.endswith("_time_ms"):
        moment = datetime.fromtimestamp(value / 1e3, UTC).astimezone()
        return moment.strftime("%H:%M:%S.%f")[:-3]
    if name == "until" and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).astimezone().strftime("%a %d %b %H:%M")
    if name == "object_size" and isinstance(value, int):
        return size(value)
    return text_of(value)


def _say_what_is_missing(seen: Seen, what: str) -> None:
    """On stderr, so that --json stays JSON."""
    if seen.matched > len(seen.rows):
        note(f"{len(seen.rows)} of {seen.matched} rows are shown: --limit 0 shows all")
    if seen.dropped:
        note(
            f"{seen.dropped} older {what} have ended and are counted only: gu summary tasks shows "
            "exact counts"
        )
    _say_who_is_silent(seen.silent)


def _say_who_is_silent(silent: Sequence[str]) -> None:
    if silent:
        note(f"{len(silent)} processes did not answer: {', '.join(silent[:4])}")


def summary(
    what: Annotated[str, typer.Argument(help="tasks")] = "tasks",
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Count calls by function and state; exact, however many there are."""
    if what not in SUBJECTS:
        raise typer.BadParameter(f"there is no summary of {what!r}; there is one of tasks")
    with open_hub(address, key) as client:
        counts, silent = summarize_tasks(client_asker(client))
    total = sum(sum(states.values()) for states in counts.values())
    if as_json:
        print_json({"total_tasks": total, "summary": counts})
    else:
        states = sorted({state for row in counts.values() for state in row})
        table(
            ("FUNCTION", ">TOTAL", *(f">{state}" for state in states)),
            (
                (name, sum(row.values()), *(row.get(state, 0) for state in states))
                for name, row in sorted(counts.items(), key=lambda item: -sum(item[1].values()))
            ),
        )
    _say_who_is_silent(silent)


def timeline(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file; - is the standard output.")
    ] = Path("timeline.json"),
    session: Annotated[str, typer.Option(help="Only of this session.", show_default="all")] = "",
    address: Address = None,
    key: Key = None,
) -> None:
    """Write what ran when as a trace, for ui.perfetto.dev or chrome://tracing."""
    with open_hub(address, key) as client:
        events = trace.events(trace_rows(client_asker(client), session))
    text = json.dumps(events)
    if str(out) == "-":
        typer.echo(text)
        return
    out.write_text(text, encoding="utf-8")
    note(f"{sum(event['ph'] == 'X' for event in events)} calls are in {out}")


def stack(
    which: Annotated[
        str,
        typer.Argument(
            metavar="[WORKER|ACTOR|PID]",
            show_default="all that work for a session",
            help="A worker's id, an actor's id, name or class, or a process id.",
        ),
    ] = "",
    native: Annotated[
        bool, typer.Option("--native", help="With the frames of C code, by py-spy on the provider.")
    ] = False,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what the threads of a worker are at."""
    with open_hub(address, key) as client:
        found = stacks(client_asker(client), which, native=native)
    if as_json:
        print_json(found)
        return
    if not found:
        fail("no worker of yours has a session")
    last = ""
    for one in found:
        if one["worker_id"] != last:
            last = one["worker_id"]
            typer.echo(f"worker {last}, pid {one['pid']} on {one['node_name']} (by {one['by']})")
        for line in str(one["stack"]).splitlines():
            typer.echo(f"  {printable(line)}")
        typer.echo("")
