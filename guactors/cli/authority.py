"""What the commands about keys, grants, sessions and the audit log share.

Owns: the way to a hub with a key of this user, which key a person means, and how passphrases and
times are read. Must never: decide who may do what (the hub does), or show a secret.
"""

from __future__ import annotations

import enum
import os
import re
import sys
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from guactors.cli.console import print_table
from guactors.errors import UsageError
from guactors.grid_client import GridClient
from guactors.grid_file import AUTO, read_grid_file
from guactors.join import JoinAddress, parse_join
from guactors.messages import AskKeys, KeyList, KeyRow, Message
from guactors.security.canonical import shown
from guactors.security.key_files import (
    KEY_VARIABLE,
    PASSPHRASE_VARIABLE,
    Listed,
    list_keys,
    load_key,
    read_head,
)
from guactors.security.keys import Kind, PublicKey, parse_public
from guactors.security.succession import open_succession

LOCAL: Final = "local"
"""The state of a key that is in a file of this user; a hub may not know it."""

REVOKED: Final = "revoked"

Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="NAME|PATH",
        help="The key file to come with: an owner's, or an app's that may administer.",
        show_default="GU_KEY, or the owner's key, if it is here",
    ),
]


class Running(enum.StrEnum):
    """What becomes of work that a revoked right had allowed."""

    STOP = "stop"
    FINISH = "finish"


AsRunning = Annotated[
    Running, typer.Option("--running", help="What becomes of work that is under way.")
]
Why = Annotated[str, typer.Option("--reason", help="For the audit log, and for whom it concerns.")]

Answer = TypeVar("Answer", bound=Message)

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhdw])", re.ASCII)
_WHOLE: Final = 40
"""Characters after the prefix from which on a text is meant as a whole key."""
_CANDIDATES: Final = 4
"""Keys that an error names."""


# --- the hub -------------------------------------------------------------------------------------


def open_hub(address: str | None, key: str | None = None) -> GridClient:
    """A line to the hub, to be used in a ``with``. ``key``: as ``--key`` gives it; where neither it
    nor ``GU_KEY`` is given, the owner key of that hub is used, if this user has it, else what any
    other program would use."""
    if key is not None:
        return hub_as(address, key_file(key, (Kind.OWNER, Kind.APP)))
    if os.environ.get(KEY_VARIABLE):
        return GridClient(address)
    join = join_of(address)
    owner = _key_of(join.owner) if join else None
    # The user of the grid of this machine needs no key, so is not asked for a passphrase.
    if owner is None or (owner.encrypted and is_auto(address)):
        return GridClient(address)
    return hub_as(address, owner.path)


def hub_as(address: str | None, path: Path, passphrase: Passphrase | None = None) -> GridClient:
    """A line to the hub with the key of a file; ``passphrase``: where it was asked for already."""
    passphrase = passphrase or Passphrase(path)
    if passphrase.given is None:
        load_key(path, ask=passphrase)
    if passphrase.given is None or os.environ.get(PASSPHRASE_VARIABLE):
        return GridClient(address, key=str(path))
    # The client asks nobody. This process starts no others, which would inherit it.
    os.environ[PASSPHRASE_VARIABLE] = passphrase.given
    try:
        return GridClient(address, key=str(path))
    finally:
        del os.environ[PASSPHRASE_VARIABLE]


def ask(
    client: GridClient, question: Message, form: type[Answer], timeout: float | None = None
) -> Answer:
    """The hub's answer, which is a ``form``. ``timeout`` in seconds, None for the client's own."""
    answer = client.ask(question, timeout)
    assert isinstance(answer, form), answer
    return answer


def known_keys(client: GridClient) -> list[KeyRow]:
    """The keys that the hub knows."""
    return ask(client, AskKeys(request=0), KeyList).keys


def join_of(address: str | None) -> JoinAddress | None:
    """The parts of the join address that ``address`` is or stands for; nobody is asked. None when
    it stands for the grid of this machine, and none was ever recorded."""
    if address and not is_auto(address):
        return parse_join(address)
    grid = read_grid_file()
    return None if grid is None else parse_join(grid.address)


def _key_of(owner: str) -> Listed | None:
    """The file here of this owner's key, or of the one that followed it."""
    for listed in list_keys():
        if listed.public == owner:
            return listed
        if listed.public and listed.kind is Kind.OWNER:
            statements = read_head(listed.path).succession
            if any(open_succession(statement)[0].text == owner for statement in statements):
                return listed
    return None


def is_auto(address: str | None) -> bool:
    """Whether it stands for the grid of this machine."""
    return not address or address == AUTO


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """As ``print_table``, for texts that strangers may have chosen: what a terminal would obey is
    escaped, and what rich would take for markup is not."""
    print_table(columns, ([printable(str(cell)) for cell in row] for row in rows))


def printable(text: str) -> str:
    """``text`` on one line, with escapes for what a terminal would obey or not show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- which key -----------------------------------------------------------------------------------


def key_file(given: str | None, kinds: Collection[Kind]) -> Path:
    """The key file that a person means by name or path; without either, the only one of ``kinds``
    there is. Raises UsageError when it is none or several."""
    if given is not None:
        _refuse_secret(given)
    listed = [one for one in list_keys() if one.kind in kinds and given in {None, one.name}]
    if given is not None and not listed:
        return _key_path(given, kinds)
    if len(listed) == 1:
        return listed[0].path
    if not listed:
        raise UsageError(f"there is no {_names(kinds)}key here: gu key new makes one")
    files = ", ".join(str(one.path) for one in listed[:_CANDIDATES])
    what = f"{given!r} names {len(listed)}" if given else f"there are {len(listed)}"
    raise UsageError(f"{what} keys: give the path of one of {files}")


def _key_path(given: str, kinds: Collection[Kind]) -> Path:
    path = Path(os.path.expanduser(given))
    if not given or not os.path.lexists(path):
        raise UsageError(
            f"no {_names(kinds)}key here is named {shown(given)!r}: gu key list shows those there "
            "are; a path to a key file will do as well"
        )
    kind = read_head(path).kind
    if kind not in kinds:
        raise UsageError(f"{path} holds a key of kind {kind.value}, not {_names(kinds).rstrip()}")
    return path


def _names(kinds: Collection[Kind]) -> str:
    """Before the word key."""
    return "" if len(kinds) == len(Kind) else " or ".join(kind.value for kind in kinds) + " "


def local_keys(kinds: Collection[Kind] = tuple(Kind)) -> list[KeyRow]:
    """The keys of this user's files, in the form in which a hub lists those it knows."""
    return [
        KeyRow(entry.public, entry.kind.value, entry.name, LOCAL, read_head(entry.path).created)
        for entry in list_keys()
        if entry.public and entry.kind in kinds
    ]


def pick_key(given: str, rows: Iterable[KeyRow], kind: Kind | None = None) -> PublicKey:
    """The key that ``given`` means: a whole key, known or not; or the name, the short form or the
    beginning of exactly one of ``rows``, of a revoked one only where it is no other's. Raises
    UsageError that names the candidates."""
    if is_whole(given):
        return parse_public(given, kind)
    meant = {row.key: row for row in rows if _means(given, row, kind)}
    alive = [row for row in meant.values() if row.state != REVOKED]
    found = sorted(alive or meant.values(), key=_by_key)
    what = f"{kind.value} key" if kind else "key"
    if not found:
        raise UsageError(
            f"no {what} is known as {shown(given)!r}: gu key list --hub shows those the hub knows; "
            "or give the whole key"
        )
    if len(found) > 1:
        names = [f"{row.key} ({row.name or 'no name'}, {row.state})" for row in found]
        more = f" and {len(found) - _CANDIDATES} more" if len(found) > _CANDIDATES else ""
        raise UsageError(
            f"{shown(given)!r} may mean {', '.join(names[:_CANDIDATES])}{more}: give the whole key"
        )
    return parse_public(found[0].key)


def is_whole(given: str) -> bool:
    """Whether ``given`` is meant as a whole key, though perhaps mistyped."""
    _refuse_secret(given)
    return given.startswith("gu_") and len(given.rpartition("_")[2]) >= _WHOLE


def _means(given: str, row: KeyRow, kind: Kind | None) -> bool:
    if kind is not None and row.kind != kind.value:
        return False
    if given and row.name == given:
        return True
    prefix = f"gu_{row.kind}_"
    if not given.startswith(prefix) or given == prefix:
        return False
    return row.key.startswith(given) or parse_public(row.key).short.startswith(given)


def _by_key(row: KeyRow) -> str:
    return row.key


def _refuse_secret(given: str) -> None:
    # A secret that was pasted in the wrong place is not repeated: parse_public says what it is.
    if "_secret_" in given:
        parse_public(given)


# --- passphrases ---------------------------------------------------------------------------------


class Passphrase:
    """Asks for the passphrase of a key file, once, and only if it is called."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.given: str | None = None

    def __repr__(self) -> str:
        return f"<Passphrase of {self._path}>"

    def __call__(self) -> str:
        """The passphrase: ``GU_PASSPHRASE``, or typed without echo."""
        if self.given is None:
            self.given = os.environ.get(PASSPHRASE_VARIABLE) or _typed(
                f"passphrase of {self._path}", twice=False
            )
        return self.given


def new_passphrase() -> str:
    """A passphrase for a new key: ``GU_PASSPHRASE``, or typed twice without echo."""
    return os.environ.get(PASSPHRASE_VARIABLE) or _typed("new passphrase", twice=True)


def _typed(prompt: str, *, twice: bool) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            f"there is no terminal to ask for the {prompt}: set {PASSPHRASE_VARIABLE} to it"
        )
    text = typer.prompt(prompt, hide_input=True, confirmation_prompt=twice, err=True)
    return str(text)


# --- times ---------------------------------------------------------------------------------------


def parse_span(text: str) -> float:
    """``90s``, ``10m``, ``2h``, ``30d``, ``1w`` in seconds. Raises typer.BadParameter."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration; write it like 90s, 10m, 2h or 30d")
    return float(match[1]) * _UNITS[match[2]]


def parse_moment(text: str, now: float, *, ago: bool = False) -> float:
    """Epoch seconds of a date (``2031-05-01``, ``2031-05-01T12:30``, of this machine's time zone
    unless it names one), or of a duration from ``now``, backwards with ``ago``. Raises
    typer.BadParameter."""
    if _SPAN.fullmatch(text.strip()):
        return now + (-1 if ago else 1) * parse_span(text)
    try:
        found = datetime.fromisoformat(text.strip())
        return found.timestamp()
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{text!r} is no time; write it like 2h or 30d, 2031-05-01 or 2031-05-01T12:30"
        ) from None


def date(epoch: float) -> str:
    """A moment in this machine's time zone, to the second."""
    try:
        return datetime.fromtimestamp(epoch, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{epoch:.0f}"
