"""Options that several commands share, and the reading of their values.

Owns: their names and help texts. Must never: act on them.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

import typer

from guactors.messages import Limits

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="GU_ADDRESS",
        help="The hub: gu://HOST:PORT?hub=..., or auto for the grid that runs on this machine.",
        show_default="auto",
    ),
]

_SIZES = ("memory", "disk")
"""Limits that are bytes."""
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """``512MiB``, ``4G``, ``1.5 GB`` or bare bytes, as bytes. Raises typer.BadParameter."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; write it like 512MiB or 4GB")
    number, unit, binary = match.groups()
    return int(float(number) * (_BINARY if binary else _UNITS)[unit.lower()])


def parse_seconds(text: str, option: str) -> float:
    """``30s``, ``15m``, ``1.5h`` or bare seconds. Raises typer.BadParameter that names
    ``option``."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{option} {text!r} is no time; write it like 30s, 15m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2].lower()]


def parse_limits(texts: list[str]) -> dict[str, float]:
    """``["memory=64MiB", "cpu=0.5", ...]`` as a dict. Raises typer.BadParameter."""
    limits = {}
    for name, value in parse_pairs(texts, "--limit").items():
        if name not in Limits.__struct_fields__:
            known = ", ".join(Limits.__struct_fields__)
            raise typer.BadParameter(f"{name!r} is no limit; there are {known}")
        try:
            limits[name] = float(parse_size(value) if name in _SIZES else value)
        except ValueError:
            raise typer.BadParameter(f"--limit {name}: {value!r} is no number") from None
        if not 0 < limits[name] < math.inf:
            raise typer.BadParameter(f"--limit {name}: it must be above 0, not {value}")
    return limits


def parse_pairs(texts: list[str], option: str) -> dict[str, str]:
    """``["K=V", ...]`` as a dict. Raises typer.BadParameter that names ``option``."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{option} {text!r} is not of the form NAME=VALUE")
        pairs[name] = value
    return pairs
