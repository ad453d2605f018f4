"""``gu explain``, ``gu plan``: why something waits, and what would run where.

Owns: the options, and which of them a wrong value is of. Must never: change anything in the grid.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from guactors.cli.authority import Key, open_hub, printable
from guactors.cli.console import print_json
from guactors.cli.options import Address, AsJson, parse_pairs, parse_size
from guactors.errors import UnknownOption
from guactors.foresight import MOST_PLANNED, ask_plan, ask_why, shape_for
from guactors.looking import client_asker

Many = list[str] | None


def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[DEMAND|LEASE|ACTOR]", show_default="all that waits",
            help="One of those, as gu explain, gu list leases and gu list actors name them.",
        ),
    ] = "",
    session: Annotated[str, typer.Option(help="All that waits in this session.")] = "",
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show why work waits, a reason for each provider: yours, or as the owner all."""
    if what and session:
        raise typer.BadParameter("--session: give it, or the name of a demand, not both")
    with open_hub(address, key) as client:
        found = ask_why(client_asker(client), what or session)
    if as_json:
        print_json(found.rows)
    else:
        _print(str(found))


def plan(
    cpus: Annotated[float, typer.Option(help="Processors, for each.")] = 1.0,
    gpus: Annotated[float, typer.Option(help="GPUs, for each.")] = 0.0,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="As 2GiB, or bytes.")] = "0",
    resource: Annotated[Many, typer.Option(metavar="NAME=AMOUNT", help="May be repeated.")] = None,
    priority: Annotated[int, typer.Option(help="Bigger goes first.")] = 0,
    label: Annotated[
        Many, typer.Option(metavar="NAME=VALUE", help="What the provider must have; repeatable.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Only this one, by id or name.")] = None,
    runtime: Annotated[str | None, typer.Option(help="As gu runtime list names it.")] = None,
    image: Annotated[str | None, typer.Option(help="Its id, as gu image list shows it.")] = None,
    count: Annotated[int, typer.Option(min=1, max=MOST_PLANNED, help="How many of it.")] = 1,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what would run where, and who would be suspended for it. Nothing is started."""
    options: dict[str, Any] = {}
    given: list[tuple[str, str, Any]] = [
        ("--cpus", "num_cpus", cpus),
        ("--gpus", "num_gpus", gpus),
        ("--memory", "memory", _size(memory)),
        ("--resource", "resources", _amounts(resource or [])),
        ("--priority", "priority", priority),
        ("--label", "label_selector", parse_pairs(label or [], "--label")),
        ("--provider", "provider", provider),
        ("--runtime", "runtime", runtime),
        ("--image", "image", image),
    ]
    for flag, name, value in given:
        try:
            shape_for({name: value})
        except UnknownOption as error:
            raise typer.BadParameter(f"{flag}: {error}") from None
        options[name] = value
    shape = shape_for(options)
    with open_hub(address, key) as client:
        found = ask_plan(client_asker(client), shape, count)
    if as_json:
        print_json(found.record())
    else:
        _print(str(found))


def _print(text: str) -> None:
    for line in text.splitlines():
        typer.echo(printable(line))


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"--memory: {error}") from None


def _amounts(texts: list[str]) -> dict[str, float]:
    found = {}
    for name, text in parse_pairs(texts, "--resource").items():
        try:
            found[name] = float(text)
        except ValueError:
            raise typer.BadParameter(f"--resource {name}: {text!r} is no number") from None
    return found
