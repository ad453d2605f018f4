"""``gu runtime``: what this machine can run programs in, and how to get what it lacks.

Owns: the commands. Must never: decide whether a runtime works: it is probed, and says so itself.
"""

from __future__ import annotations

import enum
import sys
from typing import Annotated

import typer
from rich.table import Table

from guactors.cli.console import console, fail, note, print_json, size, waiting
from guactors.cli.image_choice import open_store
from guactors.cli.options import AsJson
from guactors.errors import RuntimeMissing
from guactors.runtimes.base import Probe
from guactors.runtimes.choice import (
    ADAPTERS,
    find_external,
    guest_packages,
    probe_runtime,
)

app = typer.Typer(no_args_is_help=True, help="Runtimes: list what works here, set up what may.")

FACTS_FIRST = ("accel", "isolation", "limits")
WORKS = "works"
HARDWARE = ("kvm", "hvf", "whpx")
"""Facts that say why a machine is emulated."""


class Kind(enum.StrEnum):
    """What is set up with packages that are fetched."""

    QEMU = "qemu"
    FIRECRACKER = "firecracker"


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List every runtime: whether it works on this machine, what it is like, else what to do. The
    first time that takes seconds: virtual machines are booted to find out."""
    found = find_external()
    probes: dict[str, Probe] = {}
    with waiting("trying out the runtimes of this machine"):
        for name in [*ADAPTERS, *found.drivers]:
            probes[name] = probe_runtime(name, open_store)
    if as_json:
        print_json({
            "runtimes": [{"name": name, **_fields(probe)} for name, probe in probes.items()],
            "refused_drivers": found.refused,
        })  # fmt: skip
        return
    _table(probes)
    for reason in found.refused:
        note(f"a driver is not used: {reason}")


def _fields(probe: Probe) -> dict[str, object]:
    return {
        "usable": probe.usable, "version": probe.version, "reason": probe.reason,
        "facts": probe.facts,
    }  # fmt: skip


def _table(probes: dict[str, Probe]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("RUNTIME", "USABLE", "VERSION"):
        table.add_column(column, no_wrap=column != "VERSION", overflow="fold")
    table.add_column("WHAT IT IS LIKE, OR WHAT TO DO", overflow="fold")
    for name, probe in probes.items():
        said = describe(probe) if probe.usable else one_line(probe.reason)
        table.add_row(name, "yes" if probe.usable else "no", version(probe) or "-", said)
    console().print(table)


def describe(probe: Probe) -> str:
    """What is known of a runtime that works, the most important first, on one line."""
    facts = dict(probe.facts)
    said = [f"{name} {facts.pop(name)}" for name in FACTS_FIRST if name in facts]
    for name in HARDWARE:
        if (why := facts.pop(name, WORKS)) != WORKS:
            said.insert(1, why)
    said += [f"{name} {value}" for name, value in facts.items()]
    return "; ".join(map(one_line, said))


def version(probe: Probe) -> str:
    """Without the word itself, with which some begin."""
    return one_line(probe.version).removeprefix("version ")


def one_line(text: str) -> str:
    """The first line: what follows are the last words of a program, which ``--json`` has."""
    return " ".join(text.partition("\n")[0].split())


@app.command()
def setup(
    runtime: Annotated[Kind, typer.Argument(help="Which one.", show_default=False)],
) -> None:
    """Fetch what a virtual machine boots, make it, and boot it once."""
    _need_program(runtime)
    from guactors.runtimes.qemu.guest.make import bring_packages

    with waiting("fetching the packages of the guest"):
        packages = bring_packages(guest_packages())
    what = "downloaded" if packages.fetched else "there already, nothing downloaded:"
    note(f"packages of the guest: {what} {size(packages.size)} in {guest_packages()}")
    with waiting("making the guest and booting it"):
        probe = probe_runtime(runtime.value, open_store)
    if not probe.usable:
        fail(f"{runtime.value}: {probe.reason}")
    typer.echo(f"{runtime.value} {version(probe)} works here: {describe(probe)}")


def _need_program(runtime: Kind) -> None:
    """Before anything is downloaded for it. Raises RuntimeMissing."""
    if runtime is Kind.QEMU:
        from guactors.runtimes.qemu.found import find_qemu

        find_qemu()
    elif sys.platform == "linux":
        from guactors.runtimes.firecracker.probing import check_kvm, find_binary

        find_binary()
        check_kvm()
    else:
        raise RuntimeMissing(f"the runtime {runtime.value!r} does not run on {sys.platform}")
