"""The entry of ``gu``: the list of commands, and errors as one line with an exit status.

Exit status: 0 done, 1 failed, 2 wrong usage; ``gu run`` gives the program's own, 128 + number for a
signal. Must never: show a traceback for anything but a bug.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, NoReturn, cast

import typer

from guactors.cli import (
    audit,
    doctor,
    foresight,
    grants,
    grid,
    images,
    keys,
    look,
    policies,
    reservations,
    run,
    runtimes,
    serve,
    sessions,
    show,
)
from guactors.cli.console import USAGE, fail
from guactors.errors import GuactorsError, InternalError
from guactors.versions import VERSION

INTERRUPTED = 130

app = typer.Typer(
    name="gu",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A private compute grid on your own machines.",
)

app.command("up")(grid.up)
app.command("down")(grid.down)
app.command("hub")(serve.hub)
app.command("provider")(serve.provider)
app.command("status")(show.status)
app.command("peers")(show.peers)
app.command("inf")(show.inf)
app.command("list")(look.list_rows)
app.command("explain")(foresight.explain)
app.command("plan")(foresight.plan)
app.command("reserve")(reservations.reserve)
app.command("reservations")(reservations.reservations)
app.command("unreserve")(reservations.unreserve)
app.command("summary")(look.summary)
app.command("timeline")(look.timeline)
app.command("stack")(look.stack)
app.command("run", context_settings={"allow_interspersed_args": False})(run.run)
app.command("doctor")(doctor.doctor)
app.add_typer(keys.app, name="key")
app.add_typer(grants.app, name="grant")
app.add_typer(sessions.app, name="session")
app.add_typer(policies.app, name="policy")
app.add_typer(audit.app, name="audit")
app.add_typer(images.app, name="image")
app.add_typer(runtimes.app, name="runtime")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gu {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A private compute grid on your own machines."""


# typer's public errors show it only as a base class, and which package defines it has changed.
_UsageFault = cast("type[Exception]", typer.BadParameter.__bases__[0])


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        sys.exit(app(standalone_mode=False))
    except InternalError:
        raise
    except (GuactorsError, OSError) as error:
        fail(describe(error))
    except _UsageFault as error:
        _explain_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted", INTERRUPTED)


def _explain_usage(error: Any) -> NoReturn:
    text = error.format_message()
    if not text or "\n" in text:  # called without a command: this is, or was, the help
        typer.echo(text, err=True)
        raise SystemExit(USAGE)
    command = error.ctx.command_path if error.ctx else "gu"
    fail(f"{text.rstrip('.')}; see {command} --help", USAGE)


def describe(error: GuactorsError | OSError) -> str:
    """One line for an error that is not a bug."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


if __name__ == "__main__":
    main()
