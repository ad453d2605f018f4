"""What a machine offers a grid, by the options of its command.

Owns: those options, and their meaning. Must never: look for hardware itself (``machine`` does).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer

from guactors.cli.options import parse_pairs, parse_size
from guactors.machine import detect_resources, find_gpus, find_labels
from guactors.runtimes.choice import ADAPTERS, NATIVE, find_external, usual_runtimes

Cpus = Annotated[float | None, typer.Option(min=0.0, show_default="all")]
Memory = Annotated[str | None, typer.Option(help="Such as 4GiB or 512MB.", show_default="all")]
Gpus = Annotated[int | None, typer.Option(min=0, show_default="all that are found")]
Resources = Annotated[
    list[str] | None, typer.Option("--resource", help="NAME=AMOUNT, of your own; may be repeated.")
]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", help="NAME=ID,ID: a resource given out one by one; may be repeated."),
]
NONE = "none"
Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        help="What it runs besides python and native, such as docker or qemu, or none; may be "
        "repeated.",
        show_default="all that are found (gu runtime list)",
    ),
]
Labels = Annotated[list[str] | None, typer.Option("--label", help="NAME=VALUE; may be repeated.")]


class Offered(NamedTuple):
    """As in ProviderConfig."""

    resources: dict[str, float]
    labels: dict[str, str]
    devices: dict[str, list[str]]
    runtimes: list[str]


def offered(
    cpus: float | None,
    memory: str | None,
    gpus: int | None,
    resource: list[str] | None,
    device: list[str] | None,
    label: list[str] | None,
    runtime: list[str] | None,
) -> Offered:
    """What the options say, and where they are silent, what is there. Raises BadParameter."""
    devices = _devices(gpus, device or [])
    resources = detect_resources()
    if cpus is not None:
        resources["CPU"] = cpus
    if memory is not None:
        resources["memory"] = float(parse_size(memory))
    if gpus is not None:
        resources["GPU"] = float(gpus)
    resources.update(_amounts(resource or []))
    resources.update({name: float(len(ids)) for name, ids in devices.items()})
    labels = {**find_labels(), **parse_pairs(label or [], "--label")}
    return Offered(resources, labels, devices, _runtimes(runtime))


def _runtimes(given: list[str] | None) -> list[str]:
    if given is None:
        return usual_runtimes()
    known = {*ADAPTERS, *find_external().drivers, NONE}
    for name in given:
        if name not in known:
            raise typer.BadParameter(
                f"there is no runtime {name!r}, there are {', '.join(sorted(known))}",
                param_hint="--runtime",
            )
    return [name for name in given if name not in (NATIVE, NONE)]


def _amounts(given: list[str]) -> dict[str, float]:
    found = {}
    for name, text in parse_pairs(given, "--resource").items():
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = -1.0
        if not 0.0 <= found[name] <= 1e15 or name in ("CPU", "GPU", "memory"):
            raise typer.BadParameter(
                f"{name}={text}: it takes NAME=AMOUNT; CPUs, GPUs and memory have options",
                param_hint="--resource",
            )
    return found


def _devices(gpus: int | None, given: list[str]) -> dict[str, list[str]]:
    """Ids by resource. GPUs that are told of beyond those that were found have no ids here: the
    provider counts them from 0."""
    there = [gpu.id for gpu in find_gpus()]
    wanted = len(there) if gpus is None else gpus
    found = {"GPU": there[:wanted]} if 0 < wanted <= len(there) else {}
    for name, text in parse_pairs(given, "--device").items():
        ids = [id.strip() for id in text.split(",") if id.strip()]
        if not ids or len(set(ids)) < len(ids) or name in ("CPU", "memory"):
            raise typer.BadParameter(
                f"{name}={text}: it takes NAME=ID,ID with different ids", param_hint="--device"
            )
        if name == "GPU" and gpus not in (None, len(ids)):
            raise typer.BadParameter(
                f"--gpus {gpus} and {len(ids)} ids of GPUs differ: give one of the two",
                param_hint="--device",
            )
        found[name] = ids
    return found
