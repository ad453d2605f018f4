"""``gu policy``: what the owner of a machine lets run on it, read and tried out before it counts.

Owns: the commands. Must never: change a policy: its owner does, with an editor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guactors.cli import authority
from guactors.cli.console import note
from guactors.errors import PermissionDenied, UsageError
from guactors.home import home
from guactors.provider_policy import POLICY_FILE, read_policy
from guactors.security.grants import short_name, signers_of
from guactors.security.keys import Kind
from guactors.security.policy import Policy, default_policy, judge, parse_policy, policy_text
from guactors.security.rights import PYTHON, Work

app = typer.Typer(no_args_is_help=True, help="Policies: what may run on this machine at most.")

File = Annotated[
    Path | None,
    typer.Argument(show_default=f"{POLICY_FILE} in GU_HOME, else that of a new provider"),
]


@app.command()
def show(file: File = None) -> None:
    """Print a policy with all its fields, as JSON; also a beginning for one's own."""
    typer.echo(policy_text(_policy(file)).decode(), nl=False)


@app.command()
def check(
    file: File = None,
    app_key: Annotated[
        str | None, typer.Option("--app", metavar="KEY", help="Ask whether work of it may run.")
    ] = None,
    runtime: Annotated[str | None, typer.Option(show_default=PYTHON)] = None,
    image: Annotated[str | None, typer.Option(metavar="HASH")] = None,
    signer: Annotated[
        list[str] | None, typer.Option("--signer", metavar="KEY", help="Who signed the image.")
    ] = None,
    function_signer: Annotated[
        str | None, typer.Option(metavar="KEY", help="Who signed the function.")
    ] = None,
    priority: Annotated[int | None, typer.Option(show_default="0")] = None,
) -> None:
    """Read a policy and run its own tests; with --app, --runtime, ... also answer a question. The
    exit status is 1 where the answer is no."""
    policy = _policy(file)
    note(f"the policy is sound, {len(policy.tests)} tests of its own pass")
    if not any((app_key, runtime, image, signer, function_signer, priority is not None)):
        return
    rows = authority.local_keys()
    who = authority.pick_key(app_key, rows, Kind.APP).text if app_key else ""
    work = Work(
        runtime=runtime or PYTHON,
        image=image or "",
        signers=frozenset(authority.pick_key(one, rows, Kind.SIGNER).text for one in signer or ()),
        priority=priority or 0,
    )
    verdict = judge(policy, who, work)
    if not verdict.allowed:
        raise PermissionDenied(f"{verdict.reason}: {verdict.detail}")
    by = authority.pick_key(function_signer, rows, Kind.SIGNER).text if function_signer else ""
    _check_function(policy, work, by)
    typer.echo("allowed")
    note("a grant must allow it, too")


def _check_function(policy: Policy, work: Work, by: str) -> None:
    """Raises PermissionDenied for functions that may not run, though the rest of the work may."""
    signers = signers_of(policy)
    if work.runtime == PYTHON and signers is not None and by not in signers:
        name = short_name(by) if by else "nobody"
        raise PermissionDenied(f"function_signer: functions signed by {name} may not run here")


def _policy(file: Path | None) -> Policy:
    """That of a file, else the one that a provider of this user would have."""
    if file is not None or (home() / POLICY_FILE).exists():
        return parse_policy(read_policy(file, home(), ""))
    join = authority.join_of(None)
    if join is None:
        raise UsageError(f"there is no {home() / POLICY_FILE}, and no grid is known: give a file")
    return default_policy([join.owner])
