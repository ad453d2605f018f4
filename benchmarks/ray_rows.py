"""Ray's microbenchmark, row by row, on guactors and on Ray by turns.

    python -m benchmarks.ray_rows [--rounds N] [--rows SUBSTRING,...] [--seconds S]
                                  [--skip-install] [--json FILE] [--chart FILE.png]

Owns: the order of things. A round is a whole run on guactors, then one on Ray, each with processes
and a cluster of its own that are gone before the other's start. What fails or hangs on one side is
said so, and the run goes on. Ray is installed into ``build/peers/ray``, never beside guactors.
Prints the table, what failed, what had to be killed, and where it ran.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import leftovers, ratios, venvs
from benchmarks.children import ROOT, Child, ChildFailed, ChildLost
from benchmarks.numbers import machine

RAY = "ray==2.60.0"
LIBRARIES = ("guactors", "ray")
START_WITHIN = 90.0
LIMIT = 240.0
QUEUE_LIMIT = 1800.0
END_WITHIN = 20.0
ECHOES = {row.by: row.name for row in ratios.ROWS if row.name in (ratios.ECHO, ratios.ASYNC_ECHO)}


@dataclass
class Side:
    """One library: how to start it, and what was found so far."""

    library: str
    python: str
    seconds: float
    queued: int
    log: Path
    limit: float = LIMIT
    echo: Child | None = None
    samples: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)

    def round(self, number: int, asked: Mapping[str, Sequence[str]]) -> None:
        """Measure all that is asked, family by family."""
        for family, names in asked.items():
            todo = list(names)
            while todo:
                todo = self._family(number, family, todo)

    def _family(self, number: int, family: str, names: list[str]) -> list[str]:
        """What is left to ask when the child was lost: all after the row that lost it."""
        with self._child(family) as child:
            try:
                child.ask(timeout=START_WITHIN)
            except ChildFailed as error:
                self._failed(number, names, error)
                return []
            for at, name in enumerate(names):
                print(f"round {number}, {self.library}: {name}", file=sys.stderr)
                try:
                    self._measure(child, family, name)
                except ChildFailed as error:
                    self._failed(number, [name], error)
                    if isinstance(error, ChildLost):
                        return names[at + 1 :]
        return []

    def _measure(self, child: Child, family: str, name: str) -> None:
        limit = QUEUE_LIMIT if family == ratios.QUEUE else self.limit
        share = ECHOES.get(name) if self.echo is not None else None
        before = self.echo.ask("echo") if self.echo is not None and share else 0.0
        found = child.ask(name, timeout=limit)
        if self.echo is not None and share:
            floor = (before + self.echo.ask("echo")) / 2
            found[share] = [statistics.median(found[name]) / floor]
        for row, figures in found.items():
            self.samples.setdefault(row, []).extend(figures)

    def _failed(self, number: int, names: Sequence[str], error: ChildFailed) -> None:
        print(f"round {number}, {self.library}: {error}", file=sys.stderr)
        for name in names:
            self.failures.setdefault(name, f"round {number}: {error}")

    @contextlib.contextmanager
    def _child(self, family: str) -> Iterator[Child]:
        env = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
        child = Child(
            "benchmarks.ray_side", self.library, family, str(self.seconds), str(self.queued),
            env=env, python=self.python, log=self.log,
        )  # fmt: skip
        try:
            yield child
        finally:
            child.close(END_WITHIN)
            keep = [self.echo.pid] if self.echo is not None else []
            self.killed += leftovers.ended(keep)


def measure(sides: Sequence[Side], rows: Sequence[ratios.Row], rounds: int) -> None:
    """All rounds, the sides by turns."""
    leftovers.adopt_orphans()
    for name in ("RAY_ADDRESS", "GU_ADDRESS"):
        os.environ.pop(name, None)
    wants_echo = any(row.name in ECHOES.values() for row in rows)
    with contextlib.ExitStack() as stack:
        if wants_echo:
            echo = stack.enter_context(Child("benchmarks.floor"))
            for side in sides:
                side.echo = echo
        for number in range(1, rounds + 1):
            for side in sides:
                side.round(number, ratios.questions(rows, number))


def report(
    sides: Sequence[Side], rows: Sequence[ratios.Row], given: argparse.Namespace
) -> dict[str, Any]:
    """Everything that is known, for JSON."""
    ours, theirs = sides
    return {
        "command": "python -m benchmarks.ray_rows " + shlex.join(given.arguments),
        "machine": machine(),
        "ray": venvs.versions(theirs.python, ("ray", "numpy")),
        "rounds": given.rounds, "seconds": given.seconds, "queued": given.queued,
        "rows": ratios.judge(rows, ours.samples, theirs.samples),
        "failures": {side.library: side.failures for side in sides},
        "killed": {side.library: side.killed for side in sides},
        "samples": {side.library: side.samples for side in sides},
    }  # fmt: skip


def show(found: Mapping[str, Any]) -> str:
    """The table and what must be known with it."""
    where = found["machine"]
    how = "{rounds} rounds by turns, slices of {seconds:g} s, medians; {queued:,} queued tasks"
    lines = [
        ratios.render(found["rows"]),
        "",
        f"command: {found['command']}",
        "machine: " + ", ".join(f"{key} {value}" for key, value in where.items()),
        "Ray's environment: " + ", ".join(f"{key} {value}" for key, value in found["ray"].items()),
        how.format_map(found),
    ]
    for library in LIBRARIES:
        lines += [
            f"FAILED on {library}: {name}: {why}"
            for name, why in found["failures"][library].items()
        ]
        lines += [f"KILLED after {library}: {name}" for name in found["killed"][library]]
    return "\n".join(lines)


def chart(found: Mapping[str, Any], file: Path, python: str) -> None:
    """Draw it, by the interpreter of an environment that has matplotlib."""
    where = found["machine"]
    data = {
        "title": "guactors by Ray, in the same run",
        "note": f"{where['system']}, {where['cpus']} CPUs, Python {where['python']}, "
        f"Ray {found['ray'].get('ray', '?')}; {found['rounds']} rounds",
        "bars": ratios.bars(found["rows"]),
    }
    with tempfile.TemporaryDirectory(prefix="gu-chart-") as directory:
        bars = Path(directory, "bars.json")
        bars.write_text(json.dumps(data))
        command = [python, "-m", "benchmarks.chart", str(bars), str(file.resolve())]
        subprocess.run(command, cwd=ROOT, check=True)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; ``rows`` are Rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_rows")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--rows", default="", help="numbers, or parts of names, by commas")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a slice; default: 2, Ray's")
    parser.add_argument("--queued", type=int, default=1_000_000, help="tasks of that row")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of a row and round")
    parser.add_argument("--skip-install", action="store_true", help="use what is installed")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--chart", type=Path, help="draw the ratios into this file (png, svg, pdf)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    given = parser.parse_args(arguments)
    given.arguments = list(arguments)
    if given.rounds < 1 or given.seconds <= 0 or given.queued < 1:
        parser.error("--rounds, --seconds and --queued take 1 or more")
    try:
        words = [word.strip() for word in given.rows.split(",")] if given.rows else []
        given.rows = ratios.chosen(words)
    except ValueError as error:
        parser.error(str(error))
    return given


def requirements() -> list[str]:
    """What Ray's environment has: Ray, and the numpy that is here. Raises KeyError without."""
    numpy = venvs.versions(sys.executable, ("numpy",))["numpy"]
    return [RAY, f"numpy=={numpy}"]


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(sys.argv[1:] if arguments is None else arguments)
    try:
        install = not given.skip_install
        ray = venvs.python_of("ray", requirements(), install=install)
        # At once: who waits for a long run does not want to learn at its end that this is missing.
        painter = venvs.python_of("chart", ["matplotlib"], install=install) if given.chart else ""
    except KeyError:
        print("numpy is missing here: pip install 'guactors[examples]'", file=sys.stderr)
        return 2
    except venvs.NotInstalled as error:
        print(error, file=sys.stderr)
        return 2
    logs = ROOT / "build" / "rows"
    logs.mkdir(parents=True, exist_ok=True)
    sides = [
        Side(library, python, given.seconds, given.queued, logs / f"{library}.log", given.limit)
        for library, python in zip(LIBRARIES, (sys.executable, ray), strict=True)
    ]
    measure(sides, given.rows, given.rounds)
    found = report(sides, given.rows, given)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    print(show(found), flush=True)
    if given.chart:
        chart(found, given.chart, painter)
    missed = [one["number"] for one in found["rows"] if one["met"] is False]
    if missed and given.check:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
