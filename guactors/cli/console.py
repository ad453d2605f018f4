"""What the terminal gets: tables for people, JSON for programs, one line for an error.

Owns: how values are written. Must never: fetch any.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table

FAILURE = 1
USAGE = 2
WIDE = 160
"""Columns of a table that goes into a file or pipe, where no terminal sets the limit."""


def console(*, stderr: bool = False) -> Console:
    """The terminal as rich sees it now; colours only on a real one."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDE
    # What is shown may be a stranger's words, and must not be taken for markup.
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def fail(message: str, status: int = FAILURE) -> NoReturn:
    """End the command with one line on stderr."""
    line = " ".join(message.partition("\n")[0].split())
    typer.echo(f"gu: {line}", err=True)
    raise SystemExit(status)


def note(message: str) -> None:
    """A remark for the person at the terminal, on stderr, so that stdout stays for results."""
    typer.echo(message, err=True)


class _OneLine(logging.Formatter):
    """Errors without tracebacks; GU_DEBUG=1 shows those."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        if os.environ.get("GU_DEBUG") == "1":
            return super().formatException(ei)
        return f"  {ei[0].__name__}: {ei[1]}"


def log_in_lines() -> None:
    """Send what guactors logs to stderr, for a process that runs in the foreground."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner on stderr while the body runs, if stderr is a terminal."""
    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield
        return
    with terminal.status(what):
        yield


def plain(value: object) -> object:
    """Structs as dicts, all the way down, and bytes as base64; for :func:`print_json`."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return b64encode(value).decode() if isinstance(value, bytes) else value


def print_json(value: object) -> None:
    """``value`` (structs welcome) as indented JSON on stdout."""
    typer.echo(json.dumps(plain(value), indent=2))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Rows under headings; a heading that begins with ``>`` aligns its column to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console().print(table)


def print_lines(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under headings, a row a line however long it is: to be searched, and never cut."""
    lines = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def amount(name: str, value: float) -> str:
    """A resource for people: memory in binary units, the others as short numbers."""
    return size(value) if "memory" in name else f"{value:g}"


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def span(seconds: float) -> str:
    """A duration: ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
