"""``gu session``: who works in the grid at this time, and the end of it.

Owns: the commands. Must never: open a session (programs do).
"""

from __future__ import annotations

from typing import Annotated

import typer

from guactors.cli import authority
from guactors.cli.authority import Key, ask, open_hub
from guactors.cli.console import note, print_json, span
from guactors.cli.options import Address, AsJson
from guactors.errors import UsageError
from guactors.grid_client import GridClient
from guactors.messages import AskSessions, CloseSession, Done, SessionList, SessionRow
from guactors.security.canonical import shown
from guactors.security.grants import short_name

app = typer.Typer(no_args_is_help=True, help="Sessions: list, show, delete.")

Session = Annotated[
    str, typer.Argument(metavar="ID", help="As gu session list shows it, or its beginning.")
]


@app.command("list")
def list_(address: Address = None, key: Key = None, as_json: AsJson = False) -> None:
    """List the sessions: as an administrator all, else one's own."""
    with open_hub(address, key) as client:
        rows = _rows(client)
    if as_json:
        print_json(rows)
        return
    authority.table(
        ("SESSION", "WHOSE", "NAME", ">CALLERS", ">AGE"),
        (
            (row.session, short_name(row.principal), row.name or "-", row.callers, span(row.age))
            for row in sorted(rows, key=lambda row: -row.age)
        ),
    )


@app.command()
def show(
    session: Session, address: Address = None, key: Key = None, as_json: AsJson = False
) -> None:
    """Show one session."""
    with open_hub(address, key) as client:
        row = _one(_rows(client), session)
    if as_json:
        print_json(row)
        return
    facts = (
        ("session", row.session),
        ("whose", row.principal),
        ("name", row.name or "-"),
        ("callers", row.callers),
        ("age", span(row.age)),
    )
    authority.table(("FIELD", "VALUE"), facts)


@app.command()
def delete(session: Session, address: Address = None, key: Key = None) -> None:
    """End a session: its work is stopped, its actors end, and its callers are told."""
    with open_hub(address, key) as client:
        row = _one(_rows(client), session)
        done = ask(client, CloseSession(0, row.session), Done)
    note(done.text or f"the session {row.session} is over")


def _rows(client: GridClient) -> list[SessionRow]:
    return ask(client, AskSessions(0), SessionList).sessions


def _one(rows: list[SessionRow], given: str) -> SessionRow:
    """The session that ``given`` means. Raises UsageError where that is none or several."""
    exact = [row for row in rows if row.session == given]
    found = exact or [row for row in rows if given and row.session.startswith(given)]
    if not found:
        raise UsageError(
            f"there is no session {shown(given)!r}: gu session list shows those there are"
        )
    if len(found) > 1:
        names = ", ".join(row.session for row in found[:4])
        raise UsageError(f"{len(found)} sessions begin with {shown(given)!r}: {names}")
    return found[0]
