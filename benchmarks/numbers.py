"""The promised numbers, measured in one run on one machine.

    python -m benchmarks.numbers [--only ROW]... [--rounds N] [--json FILE] [--check]

Owns: the order of things: every round measures every row once, so that what the machine does
meanwhile falls on all of them; installing is done once. Prints the table and, last, one line of
JSON. ``--check``: exit status 1 when a target is missed. How much the raw floor varied tells
whether the machine was quiet enough for the verdicts to mean anything; a run where it was not says
so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import calls, install, memory, startup, urgency
from benchmarks.children import ChildFailed
from benchmarks.table import ROWS, STEADY, judge, render, unrest

Found = Mapping[str, float | list[float]]
FAMILIES: list[tuple[Callable[[], Found], tuple[str, ...]]] = [
    (startup.fresh_interpreter, ("import", "import_used", "first_result")),
    (memory.idle, ("idle_pss",)),
    (calls.one_at_a_time, ("actor_sync", "task_sync")),
    (calls.many_in_flight, ("actor_flood", "tcp_flood")),
    (urgency.behind_bulk, ("urgent_call", "urgent_burst", "urgent_control")),
    (startup.new_workers, ("worker_start",)),
    (install.installed, ("install",)),
]
ONCE = install.installed
LIBRARIES = ("guactors", "pyzmq", "msgspec", "cloudpickle", "psutil")


def measure(
    only: Sequence[str], rounds: int
) -> tuple[dict[str, list[float]], list[dict[str, str]]]:
    """All samples by name: those of the rows, and of the rates beside them; and what could not be
    measured, with the reason: the rest of a long run is worth keeping."""
    samples: dict[str, list[float]] = {}
    failures: list[dict[str, str]] = []
    for number in range(1, rounds + 1):
        for family, rows in FAMILIES:
            if only and not set(only) & set(rows):
                continue
            if family is ONCE and number > 1:
                continue
            print(f"round {number} of {rounds}: {', '.join(rows)}", file=sys.stderr)
            try:
                found = family()
            except (ChildFailed, OSError, subprocess.CalledProcessError) as error:
                failures.append({"round": str(number), "rows": ", ".join(rows), "why": str(error)})
                continue
            for name, value in found.items():
                samples.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    return samples, failures


def machine() -> dict[str, Any]:
    """Where it was measured, and with what."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load": [round(one, 2) for one in os.getloadavg()],
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.numbers")
    keys = [row.key for row in ROWS]
    parser.add_argument(
        "--only",
        action="append",
        choices=keys,
        metavar="ROW",
        help=f"measure this row (and what is measured with it): {', '.join(keys)}",
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    given = parser.parse_args(arguments)  # fmt: skip
    if given.rounds < 1:
        parser.error("--rounds takes 1 or more")
    where = machine()
    samples, failures = measure(given.only or [], given.rounds)
    verdicts = [one for one in judge(samples) if not given.only or one["key"] in given.only]
    varied = unrest(samples)
    quiet = None if varied is None else varied <= STEADY
    report = {
        "machine": where,
        "rounds": given.rounds,
        "quiet": quiet,
        "floor_varied": varied,
        "rows": verdicts,
        "failures": failures,
    }
    if given.json:
        given.json.write_text(json.dumps({**report, "samples": samples}, indent=1) + "\n")
    print(render(verdicts))
    if quiet is False:
        print(
            f"\nNOT A QUIET MACHINE: the raw floor varied by a factor of {varied:.1f} (quiet: up "
            f"to {STEADY}); neither pass nor MISS above can be relied on."
        )
    for one in failures:
        print(f"\nNOT MEASURED in round {one['round']}: {one['rows']}: {one['why']}")
    print(json.dumps(report))
    missed = [one["key"] for one in verdicts if one["passed"] is False]
    if missed and given.check:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
