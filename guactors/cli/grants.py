"""``gu grant``: what apps may do, signed with an owner's key of this user.

Owns: the commands. Must never: send a grant that this user did not sign here or bring as a file, or
let a hub choose what is signed: of its answers only serials and keys by name go into a grant.
"""

from __future__ import annotations

import enum
import time
from pathlib import Path
from typing import Annotated

import typer

from guactors.cli import authority
from guactors.cli import grant_terms as terms
from guactors.cli.authority import AsRunning, Key, Passphrase, Running, Why, ask, open_hub
from guactors.cli.console import note, print_json
from guactors.cli.options import Address, AsJson
from guactors.errors import AuthFailed, PermissionDenied, UsageError
from guactors.grid_client import GridClient
from guactors.messages import AskGrants, Done, GrantList, GrantRow, KeyRow, PutGrant, RevokeGrant
from guactors.security.canonical import shown
from guactors.security.grants import (
    ACTIONS,
    Grant,
    Reason,
    build_grant,
    open_grant,
    short_name,
    sign_grant,
    valid_at,
)
from guactors.security.key_files import KeyFile, load_key
from guactors.security.keys import Kind, PublicKey, parse_public
from guactors.security.words import PREEMPTION, RUNTIMES

app = typer.Typer(no_args_is_help=True, help="Grants: what an app may do, signed by an owner.")


class Mode(enum.StrEnum):
    """Whether an image needs a listed hash or a listed signer, or both."""

    ANY = "any"
    ALL = "all"


Words = list[str] | None
App = Annotated[str | None, typer.Option("--app", metavar="KEY", help="Whose grant it is.")]
Providers = Annotated[
    Words, typer.Option("--provider", metavar="KEY|NAME|label:N=V|*", help="Where work may run.")
]
Runtimes = Annotated[
    Words, typer.Option("--runtime", metavar="WORD|*", help=f"Of {', '.join(RUNTIMES)}.")
]
Images = Annotated[Words, typer.Option("--image", metavar="HASH|*", help="sha3-256:...")]
Signers = Annotated[
    Words, typer.Option("--signer", metavar="KEY|*", help="Whose signature of an image counts.")
]
FunctionSigners = Annotated[
    Words,
    typer.Option(
        "--function-signer", metavar="KEY|*", help="Whose functions may run; '*': anybody's."
    ),
]
AsMode = Annotated[
    Mode | None, typer.Option("--mode", help="Listed hash or signer, or both.", show_default="any")
]
Priority = Annotated[int | None, typer.Option("--max-priority", show_default="0")]
Preempt = Annotated[
    Words, typer.Option("--preempt", metavar="WORD|*", help=f"Of {', '.join(PREEMPTION)}.")
]
Cpu = Annotated[str | None, typer.Option("--cpu", metavar="N|*", show_default="0")]
Memory = Annotated[str | None, typer.Option("--memory", metavar="4GiB|*", show_default="0")]
Gpu = Annotated[str | None, typer.Option("--gpu", metavar="N|*", show_default="0")]
Storage = Annotated[str | None, typer.Option("--storage", metavar="4GiB|*", show_default="0")]
Instances = Annotated[str | None, typer.Option("--instances", metavar="N|*", show_default="0")]
Actions = Annotated[
    Words, typer.Option("--action", metavar="WORD", help=f"Of {', '.join(ACTIONS)}.")
]
Egress = Annotated[Words, typer.Option("--egress", metavar="PLACE|*")]
Overlay = Annotated[Words, typer.Option("--overlay", metavar="NAME|*")]
Expires = Annotated[str | None, typer.Option("--expires", metavar="30d|DATE", show_default="never")]
NotBefore = Annotated[
    str | None, typer.Option("--not-before", metavar="2h|DATE", show_default="now")
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="FILE", help="As gu grant template prints it; options go first."
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Write it there, for gu grant put; ask no hub.")
]
Owner = Annotated[
    str | None,
    typer.Option("--owner", metavar="NAME|PATH", show_default="the only owner key there is"),
]
Serial = Annotated[int, typer.Argument(min=1)]
Issuer = Annotated[
    str | None, typer.Option("--issuer", metavar="KEY", help="Where two issuers used a serial.")
]


# --- making --------------------------------------------------------------------------------------


@app.command()
def template() -> None:
    """Print a grant that allows nothing, to be filled in and given to gu grant create --from."""
    print_json(terms.TEMPLATE)


@app.command()
def create(
    for_app: App = None,
    provider: Providers = None,
    runtime: Runtimes = None,
    image: Images = None,
    signer: Signers = None,
    function_signer: FunctionSigners = None,
    mode: AsMode = None,
    max_priority: Priority = None,
    preempt: Preempt = None,
    cpu: Cpu = None,
    memory: Memory = None,
    gpu: Gpu = None,
    storage: Storage = None,
    instances: Instances = None,
    action: Actions = None,
    egress: Egress = None,
    overlay: Overlay = None,
    expires: Expires = None,
    not_before: NotBefore = None,
    from_: From = None,
    out: Out = None,
    owner: Owner = None,
    address: Address = None,
    key: Key = None,
) -> None:
    """Sign a grant and give it to the hub. It allows what is written out, and '*' is everything.

    Prints the grant's serial. Lists are given by repeating their option."""
    now = time.time()
    fields = {
        "app": for_app, "providers": provider, "runtimes": runtime, "image_hashes": image,
        "image_signers": signer, "function_signers": function_signer,
        "image_mode": mode and mode.value, "max_priority": max_priority, "preemption": preempt,
        "actions": action, "expires": _moment(expires, now), "not_before": _moment(not_before, now),
    }  # fmt: skip
    quotas = {
        "cpu": terms.devices(cpu, "--cpu"), "memory": terms.amount(memory),
        "gpu": terms.devices(gpu, "--gpu"), "storage": terms.amount(storage),
        "instances": terms.count(instances, "--instances"),
    }  # fmt: skip
    network = {"overlay": overlay, "egress": egress}
    document = terms.with_options(terms.read_document(from_), fields, quotas, network)
    grant = _create(document, out, owner, address, key)
    typer.echo(grant.serial)
    _note_gaps(grant)


def _create(
    document: terms.Document,
    out: Path | None,
    owner: str | None,
    address: str | None,
    key: str | None,
) -> Grant:
    if not document.get("app"):
        raise UsageError("whose grant is it? give --app, an app's public key")
    document.setdefault("hub", _hub_key(address))
    path = authority.key_file(owner, (Kind.OWNER,))
    passphrase = Passphrase(path)
    signing = load_key(path, Kind.OWNER, ask=passphrase)
    now = time.time()
    if out is not None:
        return _create_file(out, document, signing, now)
    client = open_hub(address, key) if key else authority.hub_as(address, path, passphrase)
    return _create_at(client, document, signing, now)


def _create_at(client: GridClient, document: terms.Document, signing: KeyFile, now: float) -> Grant:
    with client:
        rows = [row for row in authority.known_keys(client) if row.state == "approved"]
        issued = ask(client, AskGrants(0), GrantList).grants
        issuer = signing.public.text
        used = [row.serial for row in issued if row.issuer == issuer]
        document.setdefault("serial", max(used, default=0) + 1)
        grant = _build(document, [*rows, *authority.local_keys()], signing, now)
        ask(client, PutGrant(0, sign_grant(grant, signing.secret)), Done)
    return grant


def _create_file(out: Path, document: terms.Document, signing: KeyFile, now: float) -> Grant:
    document.setdefault("serial", int(now * 1000))
    grant = _build(document, authority.local_keys(), signing, now)
    data = sign_grant(grant, signing.secret)
    with out.open("xb") as file:
        file.write(data)
    note(f"the grant is in {out}: gu grant put {out} gives it to the hub")
    return grant


def _build(document: terms.Document, rows: list[KeyRow], signing: KeyFile, now: float) -> Grant:
    whole = terms.with_keys(document, rows)
    unknown = sorted(whole.keys() - set(Grant.__struct_fields__))
    if unknown:
        raise UsageError(f"a grant has no field {shown(unknown[0])!r}: gu grant template shows all")
    return build_grant(**{"issuer": signing.public.text, "now": now, **whole})


def _hub_key(address: str | None) -> str:
    join = authority.join_of(address)
    if join is None:
        raise UsageError("for which hub is it? start one, or give --address, its join address")
    return join.hub


def _moment(text: str | None, now: float) -> int | None:
    return None if text is None else int(authority.parse_moment(text, now))


def _note_gaps(grant: Grant) -> None:
    missing = terms.lacks(grant)
    if missing:
        note(f"as it is, it lets nothing run: it lacks {', '.join(missing)}")


@app.command()
def put(
    file: Annotated[Path, typer.Argument(help="As gu grant create --out wrote it.")],
    address: Address = None,
    key: Key = None,
) -> None:
    """Give a grant to the hub that was signed elsewhere. Prints its serial."""
    grant = _opened(file, None, address)
    with open_hub(address, key) as client:
        ask(client, PutGrant(0, file.read_bytes()), Done)
    typer.echo(grant.serial)


# --- looking -------------------------------------------------------------------------------------


@app.command("list")
def list_(
    for_app: App = None, address: Address = None, key: Key = None, as_json: AsJson = False
) -> None:
    """List the grants that the hub keeps, those that no longer count included."""
    with open_hub(address, key) as client:
        rows = _rows(client, for_app)
    if as_json:
        print_json([terms.plain_row(row) for row in rows])
        return
    columns = ("SERIAL", "APP", "ISSUER", "STATE", "ACTIONS", "RUNTIMES", "PROVIDERS", "EXPIRES")
    authority.table(columns, map(terms.brief, sorted(rows, key=lambda row: (row.app, row.serial))))


@app.command()
def show(
    serial: Serial,
    issuer: Issuer = None,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show all that a grant says."""
    with open_hub(address, key) as client:
        row = _one(_rows(client, None), serial, issuer)
    if as_json:
        print_json(terms.plain_row(row))
        return
    found = terms.opened(row)
    if not isinstance(found, Grant):
        raise AuthFailed(found.detail)
    authority.table(("FIELD", "VALUE"), [("state", row.state), *terms.facts(found)])


@app.command()
def revoke(
    serial: Serial,
    issuer: Issuer = None,
    running: AsRunning = Running.STOP,
    reason: Why = "",
    address: Address = None,
    key: Key = None,
) -> None:
    """Make a grant count no more, for good."""
    with open_hub(address, key) as client:
        row = _one(_rows(client, None), serial, issuer)
        question = RevokeGrant(0, row.issuer, serial, running.value, reason)
        done = ask(client, question, Done)
    note(done.text or f"grant {serial} of {short_name(row.app)} is revoked")


def _rows(client: GridClient, for_app: str | None) -> list[GrantRow]:
    text = ""
    if for_app is not None:
        rows = [] if authority.is_whole(for_app) else authority.known_keys(client)
        text = authority.pick_key(for_app, rows, Kind.APP).text
    return ask(client, AskGrants(0, text), GrantList).grants


def _one(rows: list[GrantRow], serial: int, issuer: str | None) -> GrantRow:
    """The row of a serial. Raises UsageError where it is none, or that of several issuers."""
    found = [row for row in rows if row.serial == serial]
    if issuer is not None:
        issuers = [KeyRow(row.issuer, Kind.OWNER.value, "", "", 0.0) for row in found]
        chosen = authority.pick_key(issuer, issuers, Kind.OWNER).text
        found = [row for row in found if row.issuer == chosen]
    if not found:
        raise UsageError(f"the hub keeps no grant {serial} by that issuer: gu grant list shows all")
    if len(found) > 1:
        names = ", ".join(row.issuer for row in found)
        raise UsageError(f"{len(found)} issuers used serial {serial}: give --issuer, of {names}")
    return found[0]


# --- checking ------------------------------------------------------------------------------------


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="As gu grant create --out wrote it.")],
    owner: Annotated[
        list[str] | None,
        typer.Option(
            "--owner", metavar="KEY", help="Whose grants count; may be repeated.",
            show_default="the owner in the join address, and those whose keys are here",
        ),
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Verify a grant in a file, without a hub: its signature, its form, its time. Whether it was
    revoked only the hub knows."""
    grant = _opened(file, owner, address)
    wrong = valid_at(grant, time.time())
    if wrong is Reason.EXPIRED:
        raise PermissionDenied(f"grant {grant.serial} is signed well, but it has expired")
    if wrong is not None:
        raise PermissionDenied(f"grant {grant.serial} is signed well, but not valid yet")
    if as_json:
        print_json(grant)
        return
    authority.table(("FIELD", "VALUE"), terms.facts(grant))
    _note_gaps(grant)


def _opened(file: Path, owners: list[str] | None, address: str | None) -> Grant:
    """The grant in ``file``, by one of these owners, or of those known here without them."""
    join = authority.join_of(address)
    local = authority.local_keys((Kind.OWNER,))
    if owners:
        trusted = {authority.pick_key(given, local, Kind.OWNER) for given in owners}
    else:
        trusted = {parse_public(row.key, Kind.OWNER) for row in local}
        if join is not None:
            trusted.add(parse_public(join.owner, Kind.OWNER))
    if not trusted:
        raise UsageError("no owner is known here: give --owner, the public key of one")
    hub: PublicKey | None = parse_public(join.hub, Kind.HUB) if join is not None else None
    try:
        return open_grant(file.read_bytes(), trusted, hub)
    except AuthFailed as fault:
        raise AuthFailed(f"{shown(str(file))}: {fault}") from None
