"""When a machine is lent, by the options of its command.

Owns: those options, and their meaning. Must never: ask a source (``idle`` does).
"""

from __future__ import annotations

import shlex
from typing import Annotated, Final

import typer

from guactors.cli.options import parse_seconds
from guactors.config import Lending
from guactors.errors import UsageError
from guactors.idle import SOURCES
from guactors.provider_state.availability import AvailabilityPolicy

USUAL: Final = "input,load"
"""Sources of --when-idle."""

Available = Annotated[
    str,
    typer.Option(
        metavar="HOURS",
        help="When this machine is lent, such as 'mon-fri 18:00-08:00; sat; sun'.",
        show_default="always",
    ),
]
WhenIdle = Annotated[bool, typer.Option("--when-idle", help="Only while nobody uses it.")]
IdleSource = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help=f"What says whether it is used, of {', '.join(SOURCES)}.",
        show_default=USUAL,
    ),
]
IdleCommand = Annotated[
    str, typer.Option(help="Of the source command: it ends with 0 where nobody uses the machine.")
]
IdleAfter = Annotated[
    str | None, typer.Option(help="So long without use.", show_default="15m", metavar="TIME")
]
BusyAfter = Annotated[
    str | None, typer.Option(help="So long of use.", show_default="10s", metavar="TIME")
]
BusyLoad = Annotated[
    float | None, typer.Option(help="Processors that others keep busy.", show_default="0.5")
]
Dwell = Annotated[
    str | None,
    typer.Option(help="Once taken back, so long at least.", show_default="1m", metavar="TIME"),
]
LeaveAfter = Annotated[
    str | None,
    typer.Option(
        help="What may be requeued leaves a machine that was taken back.",
        show_default="10m",
        metavar="TIME",
    ),
]


def lending(
    available: str,
    *,
    when_idle: bool,
    idle_source: str,
    idle_command: str,
    idle_after: str | None,
    busy_after: str | None,
    busy_load: float | None,
    dwell: str | None,
    leave_after: str | None,
) -> Lending:
    """What the options say. Raises BadParameter and UsageError that name the bad one."""
    names = [name.strip() for name in idle_source.split(",") if name.strip()]
    if idle_command and "command" not in names:
        names.append("command")
    if when_idle and not names:
        names = USUAL.split(",")
    thresholds = {
        "idle_after": _seconds(idle_after, "--idle-after"),
        "busy_after": _seconds(busy_after, "--busy-after"),
        "busy_load": busy_load,
        "dwell": _seconds(dwell, "--dwell"),
    }
    given = {name: value for name, value in thresholds.items() if value is not None}
    if given and not names:
        option = next(iter(given)).replace("_", "-")
        raise typer.BadParameter(f"--{option} is about idleness: add --when-idle")
    for name in names:
        if name not in SOURCES:
            known = ", ".join(SOURCES)
            raise typer.BadParameter(f"--idle-source: there is no {name!r}, there are {known}")
    leave = _seconds(leave_after, "--leave-after")
    found = Lending(
        hours=available,
        sources=list(dict.fromkeys(names)),
        command=_words(idle_command),
        **given,
        **({} if leave is None else {"leave_after": leave}),
    )
    try:
        AvailabilityPolicy(found)
    except UsageError as error:
        raise typer.BadParameter(f"--{error}") from None
    return found


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise typer.BadParameter(f"--idle-command {command!r}: {error}") from None


def _seconds(text: str | None, option: str) -> float | None:
    return None if text is None else parse_seconds(text, option)
