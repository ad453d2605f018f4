"""``gu key``: the keys of this user, and those that a hub lets in.

Owns: which files and which of the hub's words stand behind each command. Must never: print a
secret key or a passphrase, or take one from the command line.
"""

from __future__ import annotations

import enum
import os
import socket
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from msgspec.structs import replace

from guactors.cli import authority
from guactors.cli.authority import AsRunning, Key, Passphrase, Running, Why, ask, date, open_hub
from guactors.cli.console import note, print_json, span
from guactors.cli.network import is_loopback
from guactors.cli.options import Address, AsJson
from guactors.errors import UsageError
from guactors.grid_client import GridClient
from guactors.grid_file import DEFAULT_APP, running_grid
from guactors.home import write_private
from guactors.hub_keys import MAIN
from guactors.join import JoinAddress, format_join
from guactors.messages import (
    ApproveKey,
    Done,
    Invitation,
    KeyRow,
    MakeInvitation,
    PutSuccession,
    RevokeKey,
)
from guactors.security.key_files import (
    KeyFile,
    key_path,
    list_keys,
    load_key,
    new_key_file,
    read_head,
    rotate_transport,
    save_key,
    succeed,
)
from guactors.security.keys import KEY_BYTES, Kind, new_secret, parse_public
from guactors.security.signing import envelope_text
from guactors.transport.zmq_link import new_keypair

app = typer.Typer(no_args_is_help=True, help="Keys: make, list, approve, revoke, rotate, invite.")

OLD: Final = ".old"
"""Ends the name of the file in which a rotated key is kept."""
_COMING: Final = (Kind.OWNER, Kind.PROVIDER, Kind.APP)
"""Who comes to a hub, and must be known there by its new key."""

AsKind = Annotated[
    Kind | None, typer.Option("--kind", help="Where a name is that of several keys.")
]


class Role(enum.StrEnum):
    """In which role an invitation lets a key in."""

    PROVIDER = "provider"
    APP = "app"


# --- files of this user --------------------------------------------------------------------------


@app.command()
def new(
    kind: Annotated[Kind, typer.Argument(help="Owners sign grants, signers images and functions.")],
    name: Annotated[
        str | None,
        typer.Option(show_default="main; for an app default, for a provider the host's name"),
    ] = None,
    passphrase: Annotated[
        bool,
        typer.Option("--passphrase", help="Lock it; GU_PASSPHRASE, or asked for without echo."),
    ] = False,
) -> None:
    """Make a key and keep it here. Prints its public part, and nothing else, on stdout."""
    path = key_path(kind, name or _usual_name(kind))
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already: give another --name")
    made = new_key_file(kind, name or _usual_name(kind), new_keypair, os.urandom, int(time.time()))
    save_key(path, made, authority.new_passphrase() if passphrase else None)
    typer.echo(made.public.text)
    locked = "locked with the passphrase" if passphrase else "not locked, readable by you alone"
    note(f"the secret key is in {path} ({locked}); keep a copy where it is safe")


def _usual_name(kind: Kind) -> str:
    if kind is Kind.PROVIDER:
        return socket.gethostname().split(".")[0]
    return DEFAULT_APP if kind is Kind.APP else MAIN


@app.command()
def show(
    which: Annotated[
        str | None, typer.Argument(metavar="NAME|PATH|KEY", show_default="the only one there is")
    ] = None,
    kind: AsKind = None,
    as_json: AsJson = False,
) -> None:
    """Show what is public of a key: of a file of this user, or of the text of a public key."""
    if which is not None and authority.is_whole(which):
        key = parse_public(which, kind)
        path = next((one.path for one in list_keys() if one.public == key.text), None)
    else:
        path = authority.key_file(which, (kind,) if kind else tuple(Kind))
        key = parse_public(read_head(path).public)
    facts: dict[str, object] = {"kind": key.kind.value, "short": key.short, "key": key.text}
    if path is not None:
        head = read_head(path)
        facts |= {
            "name": head.name,
            "created": head.created,
            "transport": head.transport_public,
            "followed": len(head.succession),
            "file": str(path),
        }
    if as_json:
        print_json(facts)
        return
    if "created" in facts:
        facts["created"] = date(float(str(facts["created"])))
    authority.table(("FIELD", "VALUE"), facts.items())


@app.command("list")
def list_(
    hub: Annotated[
        bool, typer.Option("--hub", help="Those that the hub knows, not those of this user.")
    ] = False,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the keys in the files of this user, or those that the hub knows."""
    if hub:
        _list_known(address, key, as_json=as_json)
        return
    found = list_keys()
    if as_json:
        print_json(
            [one._asdict() | {"path": str(one.path), "kind": one.kind.value} for one in found]
        )
        return
    authority.table(
        ("NAME", "KIND", "KEY", "FILE", "NOTE"),
        (
            (
                one.name,
                one.kind.value,
                parse_public(one.public).short if one.public else "-",
                one.path,
                ("locked" if one.encrypted else "") if one.public else "unusable: gu key show",
            )
            for one in found
        ),
    )


def _list_known(address: str | None, key: str | None, *, as_json: bool) -> None:
    with open_hub(address, key) as client:
        rows = authority.known_keys(client)
    if as_json:
        print_json(rows)
        return
    order = {"pending": 0, "approved": 1, "revoked": 2}
    authority.table(
        ("KEY", "KIND", "NAME", "STATE", "SINCE", "BY", "REASON"),
        (
            (_short(row.key), row.kind, row.name or "-", row.state, _since(row), _short(row.by),
             row.reason or "-")
            for row in sorted(rows, key=lambda row: (order.get(row.state, 3), row.kind, row.name))
        ),
    )  # fmt: skip


def _since(row: KeyRow) -> str:
    return date(row.since) if row.since else "-"


def _short(text: str) -> str:
    """A key as listings show it; other texts as they are."""
    if authority.is_whole(text):
        return parse_public(text).short
    return text or "-"


@app.command()
def rotate(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH")],
    kind: AsKind = None,
    identity: Annotated[
        bool,
        typer.Option("--identity", help="A new signing key; the old one says that it follows it."),
    ] = False,
    address: Address = None,
) -> None:
    """Change the transport keys of a key, or with --identity also who it is.

    What was granted to it or by it stays. The old file is kept beside it, as NAME.key.old."""
    path = authority.key_file(name, (kind,) if kind else tuple(Kind))
    passphrase = Passphrase(path)
    old = load_key(path, ask=passphrase)
    if not identity:
        _replace(path, rotate_transport(old, new_keypair), passphrase)
        typer.echo(old.public.text)
        note(f"it has new transport keys; the old ones are in {_kept(path)}")
        if old.secret.kind is Kind.HUB:
            note(
                "join addresses name the old ones: from the hub's next start on there are new ones"
            )
        return
    if old.secret.kind is Kind.HUB:
        raise UsageError(
            "a hub stays who it is: grants and join addresses name it; without --identity it gets "
            "new transport keys"
        )
    _rotate_identity(path, old, address, passphrase)


def _rotate_identity(path: Path, old: KeyFile, address: str | None, passphrase: Passphrase) -> None:
    kind = old.secret.kind
    new_key = succeed(old, new_secret(kind, os.urandom(KEY_BYTES)), int(time.time()))
    to_tell = kind in _COMING and (address is not None or running_grid() is not None)
    if to_tell:
        # Dialled with the old key first: if that fails, nothing has changed.
        with authority.hub_as(address, path, passphrase) as client:
            _replace(path, new_key, passphrase)
            ask(client, PutSuccession(0, envelope_text(new_key.succession[-1])), Done)
    elif kind is Kind.OWNER:
        raise UsageError(
            "no hub is there to be told which key follows this one: start it, or give --address"
        )
    else:
        _replace(path, new_key, passphrase)
    typer.echo(new_key.public.text)
    note(f"it follows {old.public.text}, whose file is {_kept(path)}")
    if kind is Kind.SIGNER:
        note("grants and policies that list the old key as a signer need the new one beside it")
    elif not to_tell:
        note("no hub was told: each learns of it when the key next comes there")


def _replace(path: Path, new_key: KeyFile, passphrase: Passphrase) -> None:
    write_private(_kept(path), path.read_bytes())
    save_key(path, new_key, passphrase.given, replace=True)


def _kept(path: Path) -> Path:
    return path.with_name(path.name + OLD)


# --- the hub's -----------------------------------------------------------------------------------


@app.command()
def approve(
    which: Annotated[str, typer.Argument(metavar="KEY", help="As gu key list --hub shows it.")],
    name: Annotated[str, typer.Option(help="How the hub is to call it.")] = "",
    address: Address = None,
    key: Key = None,
) -> None:
    """Let a key in. KEY is the whole key, a unique beginning of it, its short form, or its name.

    A name is only what its holder calls itself: compare the whole key that this prints."""
    with open_hub(address, key) as client:
        chosen = authority.pick_key(which, _rows_for(client, which))
        done = ask(client, ApproveKey(0, chosen.text, name), Done)
    typer.echo(chosen.text)
    note(done.text or f"the {chosen.kind.value} is approved")


@app.command()
def revoke(
    which: Annotated[str, typer.Argument(metavar="KEY", help="As gu key list --hub shows it.")],
    running: AsRunning = Running.STOP,
    reason: Why = "",
    address: Address = None,
    key: Key = None,
) -> None:
    """Shut a key out, for good. KEY as for gu key approve."""
    with open_hub(address, key) as client:
        chosen = authority.pick_key(which, _rows_for(client, which))
        done = ask(client, RevokeKey(0, chosen.text, running.value, reason), Done)
    typer.echo(chosen.text)
    note(done.text or f"the {chosen.kind.value} is revoked")


def _rows_for(client: GridClient, which: str) -> list[KeyRow]:
    """What is needed to understand ``which``; a whole key needs nothing."""
    return [] if authority.is_whole(which) else authority.known_keys(client)


@app.command()
def invite(
    role: Annotated[Role, typer.Argument()],
    name: Annotated[str, typer.Option(help="How the hub is to call who comes.")] = "",
    for_: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long it is good.")
    ] = "10m",
    address: Address = None,
    key: Key = None,
) -> None:
    """Let in, once, whichever key comes with the join address that this prints: it is a secret."""
    seconds = authority.parse_span(for_)
    with open_hub(address, key) as client:
        join = authority.join_of(address)
        assert join is not None, "a hub was found, so it has an address"
        question = MakeInvitation(0, role.value, name, seconds)
        invitation = ask(client, question, Invitation)
    typer.echo(format_join(replace(join, invitation=invitation.token)))
    note(
        f"a secret: it lets one {role.value} in, once, within {span(seconds)}, until "
        f"{date(invitation.expires)}"
    )
    _warn_of_loopback(join)


def _warn_of_loopback(join: JoinAddress) -> None:
    if is_loopback(join.host):
        note("only this machine can reach that address: gu hub --listen tcp://0.0.0.0:61621")
