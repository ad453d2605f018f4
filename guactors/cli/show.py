"""``gu status``, ``gu peers``, ``gu inf``: what there is and how busy it is.

Owns: which facts are shown. Must never: change anything in the grid.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, cast

import typer

from guactors import inf as inf_words
from guactors.cli.authority import Key, open_hub, printable
from guactors.cli.console import USAGE, amount, fail, plain, print_json, print_table, size, span
from guactors.cli.options import Address, AsJson
from guactors.listing import text_of
from guactors.looking import client_asker, look
from guactors.messages import Cell, GridInfo, PeerInfo

MOST_DEMAND = 5
"""Kinds of waiting work that are shown."""


def status(address: Address = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show the grid: hub, resources, load and actors."""
    with open_hub(address, key) as client:
        grid = client.grid()
        shown = client.address.shown
        demand = look(client_asker(client), "demand", sort="-waiting").records()
    if as_json:
        print_json({**cast("dict[str, object]", plain(grid)), "demand": demand})
        return
    roles = Counter(peer.role for peer in grid.peers if peer.state != "lost")
    typer.echo(f"hub        {grid.hub} at {shown}, version {grid.version}, up {span(grid.uptime)}")
    typer.echo(f"peers      {_count(roles['provider'], 'provider')}, {_callers(roles)}")
    for name, (free, total) in sorted(_resources(grid).items()):
        typer.echo(f"{name:<10} {amount(name, free)} of {amount(name, total)} free")
    typer.echo(f"work       {_count(grid.leases, 'lease')}, {grid.waiting} waiting")
    for row in demand[:MOST_DEMAND]:
        hopeless = ", which no provider has" if row["infeasible"] else ""
        typer.echo(f"  {row['waiting']} waiting for {row['kind']}s of {_needs(row)}{hopeless}")
    if len(demand) > MOST_DEMAND:
        typer.echo(f"  and {len(demand) - MOST_DEMAND} kinds more: gu list demand")
    states = Counter(actor.state for actor in grid.actors)
    listed = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    typer.echo(f"actors     {listed or 'none'}")
    typer.echo(f"sessions   {grid.sessions}")
    if grid.protocol_faults:
        typer.echo(f"faults     {grid.protocol_faults} messages were not ours")


def peers(address: Address = None, key: Key = None, as_json: AsJson = False) -> None:
    """List every process that is linked to the hub."""
    with open_hub(address, key) as client:
        found = [peer for peer in client.grid().peers if peer.peer != client.peer]
    if as_json:
        print_json(found)
        return
    columns = (
        *("NAME", "ROLE", "STATE", ">CPU FREE", ">MEMORY FREE", ">WORKERS", ">LEASES"),
        *(">ACTORS", ">HEARD", "PEER", ">PID", "LABELS"),
    )
    order = {"hub": 0, "provider": 1}
    print_table(
        columns,
        (_row(peer) for peer in sorted(found, key=lambda p: (order.get(p.role, 2), p.name))),
    )


def inf(
    peer: Annotated[str, typer.Argument(help="A provider, by name or id.")],
    topic: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(inf_words.TOPICS)}; default: all.")
    ] = None,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show a provider's machine: processor, memory, storage, operating system (GiB)."""
    if topic is not None and topic not in inf_words.TOPICS:
        fail(f"no topic {topic!r}; there are {', '.join(inf_words.TOPICS)}", USAGE)
    with open_hub(address, key) as client:
        answer = client.info(peer)
    wanted = [topic] if topic else list(inf_words.TOPICS)
    answers = {name: inf_words.facts(answer.info, name) for name in wanted}
    if as_json:
        print_json(answers[topic] if topic else answers)
        return
    print_table(
        ("TOPIC", "FIELD", "VALUE"),
        (
            (name, field, _shown(value))
            for name, found in answers.items()
            for field, value in found.items()
        ),
    )


def _row(peer: PeerInfo) -> tuple[object, ...]:
    provider = peer.role == "provider"
    total, free = peer.total, peer.free
    return (
        peer.name or "-",
        peer.role,
        "not lent" if peer.state == "up" and not peer.availability.lent else peer.state,
        f"{free.get('CPU', 0):g}/{total.get('CPU', 0):g}" if provider else "-",
        f"{size(free.get('memory', 0))}" if provider else "-",
        peer.workers if provider else "-",
        peer.leases,
        peer.actors,
        span(peer.last_heard) + " ago",
        peer.peer,
        peer.pid,
        " ".join(f"{key}={value}" for key, value in sorted(peer.labels.items())) or "-",
    )


def _resources(grid: GridInfo) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for peer in grid.peers:
        if peer.role != "provider" or peer.state == "lost":
            continue
        for name, total in peer.total.items():
            free, whole = found.get(name, (0.0, 0.0))
            found[name] = (free + peer.free.get(name, 0.0), whole + total)
    return found


def _needs(row: dict[str, Cell]) -> str:
    """What places are waited for, on one line."""
    parts = [text_of(row["required_resources"]) or "nothing", text_of(row["labels"])]
    parts += [f"image {row['image']}" if row["image"] else ""]
    parts += [f"priority {row['priority']}" if row["priority"] else ""]
    return printable(" ".join(part for part in parts if part))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _callers(roles: Counter[str]) -> str:
    # One caller is this command itself.
    return _count(max(0, roles["caller"] + roles["worker"] - 1), "caller")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
