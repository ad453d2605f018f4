"""``gu audit``: what was decided, by whom and why; and whether the log of it is whole.

Owns: how entries are asked for and shown. Must never: write to the log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import typer

from guactors.cli import authority
from guactors.cli.authority import (
    Key,
    ask,
    date,
    is_whole,
    known_keys,
    open_hub,
    parse_moment,
    pick_key,
)
from guactors.cli.console import note, print_json, print_lines
from guactors.cli.options import Address, AsJson
from guactors.errors import PermissionDenied, UsageError
from guactors.grid_client import GridClient
from guactors.home import home
from guactors.messages import AskAudit, AuditLines
from guactors.security.audit import GENESIS, AuditBroken, Entry, Head
from guactors.security.canonical import shown
from guactors.security.grants import short_name
from guactors.security.keys import parse_public

app = typer.Typer(
    invoke_without_command=True, help="The audit log: every decision, and whether it is whole."
)

LOOK_EVERY: Final = 1.0
"""Seconds between two looks for what is new."""
WITHIN: Final = 120.0
"""Seconds for an answer: a filter that matches little has the hub read the whole log."""
PAGE: Final = 1000
"""Entries of one question; a hub may answer with fewer."""

_COLUMNS: Final = ("#", "TIME", "WHO", "ACTION", "DECISION", "REASON", "OBJECT", "WHERE", "DETAIL")
_HEAD: Final = re.compile(r"([0-9]{1,15}):([0-9a-f]{64})", re.ASCII)
_KEY: Final = re.compile(r"gu_[a-z]+_[a-z2-7]{63}", re.ASCII)
_decoder: Final = msgspec.json.Decoder(Entry)

Decision = Literal["allowed", "refused"]


@app.callback()
def audit(
    context: typer.Context,
    who: Annotated[str, typer.Option(metavar="KEY|NAME", help="Whose doing it was.")] = "",
    action: Annotated[str, typer.Option(help="Such as submit, approve, revoke.")] = "",
    decision: Annotated[Decision | None, typer.Option()] = None,
    reason: Annotated[str, typer.Option(help="Such as no_grant, quota, expired.")] = "",
    since: Annotated[str | None, typer.Option(metavar="1h|DATE")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", help="Go on, with what is new.")] = False,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest entries of the hub's audit log, oldest first."""
    if context.invoked_subcommand is not None:
        return
    start = parse_moment(since, time.time(), ago=True) if since else 0.0
    with open_hub(address, key) as client:
        question = AskAudit(
            0, who=_principal(client, who), action=action, decision=decision or "", reason=reason,
            since=max(start, 0.0),
        )  # fmt: skip
        entries = _newest(client, question, limit)
        if not follow:
            _print(entries, as_json=as_json)
            return
        for entry in entries:
            _print_line(entry, as_json=as_json)
        for entry in _coming(client, question, entries[-1].number if entries else _end(client)):
            _print_line(entry, as_json=as_json)


def _principal(client: GridClient, given: str) -> str:
    """How the log names whom a person means; a word that is no key's is taken as it is."""
    if not given:
        return ""
    if is_whole(given):
        return parse_public(given).text
    try:
        rows = known_keys(client)
    except PermissionDenied:
        return given
    named = any(row.name == given for row in rows) or given.startswith("gu_")
    return pick_key(given, rows).text if named else given


def _newest(client: GridClient, question: AskAudit, limit: int) -> list[Entry]:
    """The last ``limit`` entries there are, oldest first."""
    found: list[Entry] = []
    after = 0
    while len(found) < limit:
        wanted = min(limit - len(found), PAGE)
        page = msgspec.structs.replace(question, after=after, limit=wanted, newest=True)
        lines = ask(client, page, AuditLines, WITHIN).lines
        if not lines:
            break
        entries = sorted(map(_entry, lines), key=lambda entry: -entry.number)
        found += entries
        after = entries[-1].number
        if after <= 1:
            break
    return found[::-1]


def _end(client: GridClient) -> int:
    """The number of the log's last entry."""
    lines = ask(client, AskAudit(0, limit=1), AuditLines, WITHIN).lines
    return _entry(lines[0]).number if lines else 0


def _coming(client: GridClient, question: AskAudit, after: int) -> Iterator[Entry]:
    """What is new after entry number ``after``, for ever."""
    while True:
        page = msgspec.structs.replace(question, after=after, limit=PAGE, newest=False)
        lines = ask(client, page, AuditLines, WITHIN).lines
        for line in lines:
            entry = _entry(line)
            after = max(after, entry.number)
            yield entry
        if not lines:
            time.sleep(LOOK_EVERY)


def _entry(line: str) -> Entry:
    try:
        return _decoder.decode(line.encode())
    except (msgspec.MsgspecError, UnicodeError) as fault:
        raise UsageError(f"the hub's audit log has an unknown form: {shown(str(fault))}") from None


def _print(entries: list[Entry], *, as_json: bool) -> None:
    if as_json:
        print_json(entries)
        return
    print_lines(_COLUMNS, [_row(entry) for entry in entries])


def _print_line(entry: Entry, *, as_json: bool) -> None:
    """One entry by itself: JSON on one line, or its fields."""
    if as_json:
        typer.echo(msgspec.json.encode(entry).decode())
    else:
        typer.echo("  ".join(_row(entry)))


def _row(entry: Entry) -> list[str]:
    cells = (
        str(entry.number),
        date(entry.time / 1000),
        _who(entry.who) or "-",
        entry.action,
        entry.decision,
        entry.reason,
        *(_KEY.sub(_short, text) or "-" for text in (entry.object, entry.where, entry.detail)),
    )
    return [authority.printable(cell) for cell in cells]


def _short(match: re.Match[str]) -> str:
    return short_name(match[0])


def _who(text: str) -> str:
    return short_name(text) if text.startswith("gu_") else text


# --- the whole log -------------------------------------------------------------------------------


@app.command()
def verify(
    file: Annotated[
        Path | None, typer.Option("--file", show_default="that of this user's hub")
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER:HASH", help="The end of what comes before, where it was archived."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every line of an audit log in files of this machine. Prints the end of its chain,
    NUMBER:HASH: note it elsewhere, for what is cut off at the end does not show by itself."""
    from guactors.security.audit_reader import log_files

    path = file if file is not None else _usual_file()
    if not log_files(path):
        raise UsageError(f"there is no audit log {path}: give --file, as the hub has it")
    head = _verified(path, _head(after))
    if as_json:
        print_json(head)
        return
    typer.echo(f"{head.number}:{head.hash}")
    note(f"{path}: {head.number} entries, each as it was written")


def _verified(path: Path, start: Head) -> Head:
    from guactors.security.audit_reader import verify_log

    try:
        return verify_log(path, start)
    except AuditBroken as broken:
        if broken.fault != "torn":
            raise
        # Perhaps the hub was about to write it.
        return verify_log(path, start)


def _usual_file() -> Path:
    from guactors.gatekeeper_actor import AUDIT_FILE

    return home() / "hub" / AUDIT_FILE


def _head(text: str | None) -> Head:
    if text is None:
        return GENESIS
    match = _HEAD.fullmatch(text)
    if match is None:
        raise typer.BadParameter("--after takes NUMBER:HASH, as gu audit verify printed it")
    return Head(int(match[1]), match[2])
