"""``gu reserve``, ``gu reservations``, ``gu unreserve``: room that is kept for a time.

Owns: the options, and which of them a wrong value is of. Must never: judge what may be reserved
(the hub does).
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from guactors.cli.authority import Key, open_hub, parse_moment, parse_span, table
from guactors.cli.console import note, print_json
from guactors.cli.options import Address, AsJson, parse_pairs, parse_size
from guactors.errors import UnknownOption
from guactors.listing import text_of
from guactors.looking import client_asker
from guactors.messages import Cell
from guactors.reservations import ask_end, ask_room, ask_rows, spec_of

Many = list[str] | None
_COLUMNS = ("name", "state", "start", "end", "required_resources", "priority", "node_id", "leases")
_TIMES = ("start", "end")


def reserve(
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="As 90m, 8h or 2d.")],
    start: Annotated[
        str, typer.Option("--from", metavar="DATE|TIME", help='As "2030-12-01 22:00", or in 2h.')
    ] = "0s",
    name: Annotated[str, typer.Option(help="By which work names it; one is made up.")] = "",
    cpus: Annotated[float, typer.Option(help="Processors.")] = 1.0,
    gpus: Annotated[float, typer.Option(help="GPUs.")] = 0.0,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="As 2GiB, or bytes.")] = "0",
    on: Annotated[str | None, typer.Option(help="Only this provider, by id or name.")] = None,
    label: Annotated[
        Many, typer.Option(metavar="NAME=VALUE", help="What the provider must have; repeatable.")
    ] = None,
    priority: Annotated[int, typer.Option(help="What is lower by 10 gives way to it.")] = 0,
    allow: Annotated[
        Many, typer.Option(metavar="KEY", help="Who else may use it, * for all; repeatable.")
    ] = None,
    address: Address = None,
    key: Key = None,
) -> None:  # fmt: skip
    """Keep room on a provider, from one time to another, for work that names it."""
    now = time.time()
    begins = _named("--from", lambda: parse_moment(start, now))
    seconds = _named("--for", lambda: parse_span(length))
    options: dict[str, Any] = {
        "num_cpus": cpus, "num_gpus": gpus,
        "memory": _named("--memory", lambda: parse_size(memory)),
        "provider": on, "label_selector": parse_pairs(label or [], "--label"), "priority": priority,
    }  # fmt: skip
    made = name or f"r-{secrets.token_hex(4)}"
    try:
        spec = spec_of(made, begins, seconds, options, allow or [])
    except UnknownOption as error:
        raise typer.BadParameter(str(error)) from None
    with open_hub(address, key) as client:
        ask_room(client_asker(client), spec)
    typer.echo(made)


def reservations(address: Address = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show the reservations that are to come or stand."""
    with open_hub(address, key) as client:
        rows = ask_rows(client_asker(client))
    if as_json:
        print_json(rows)
    elif rows:
        table([name.upper() for name in _COLUMNS], [_cells(row) for row in rows])
    else:
        note("there are no reservations")


def unreserve(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As gu reservations shows it.")],
    address: Address = None,
    key: Key = None,
) -> None:
    """End a reservation; what runs in it goes on as other work does."""
    with open_hub(address, key) as client:
        ask_end(client_asker(client), name)


def _cells(row: dict[str, Cell]) -> list[str]:
    found = []
    for name in _COLUMNS:
        cell = row[name]
        if name in _TIMES and isinstance(cell, float | int):
            found.append(
                datetime.fromtimestamp(cell, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            )
        else:
            found.append(text_of(cell) or "-")
    return found


def _named(option: str, parse: Any) -> Any:
    try:
        return parse()
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{option}: {error}") from None
