"""Survey a whole code base on the grid: every ``.py`` file of Python's standard library.

The sources travel with the tasks, so a provider needs nothing but guactors and Python. Each task
parses a batch of files and keeps only counts; one last task adds the counts up where they lie. What
comes back is one small table, and a chart of how many decisions an average function takes.

Run it:                        python examples/survey.py --chart survey.svg
On the grid of ``gu up``:      python examples/survey.py --address auto
Only some packages, as JSON:   python examples/survey.py --packages json,email,asyncio --json

The analysis is plain functions of bytes and dicts: no grid is needed to test it.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import TransferSpeedColumn as SpeedColumn
from rich.table import Table
from survey_chart import Bar, bar_chart

import guactors as gu

BATCH_BYTES = 256 * 1024
"""Source bytes per task: some 0.2 s of work, far above the cost of sending it."""
RANKED_FROM = 50
"""Packages with fewer functions are counted but not ranked: one odd function would decide."""
INSTALLED = frozenset({"site-packages", "dist-packages", "__pycache__"})
TEST_DIRECTORIES = frozenset({"test", "tests", "idle_test"})


class Source(NamedTuple):
    """One file to survey: the package it counts for, its name below the root, and its size."""

    package: str
    name: str
    size: int


class Tally(TypedDict):
    """What is known of one package. ``worst`` and ``longest`` are (figure, where)."""

    files: int
    unparsed: int
    bytes: int
    lines: int
    classes: int
    functions: int
    complexity: int
    worst: tuple[int, str]
    longest: tuple[int, str]


Survey = dict[str, Tally]
"""Package name to tally; the only thing that travels back."""


# --- analysis: runs on the providers ------------------------------------------------------------


def decisions(node: ast.AST) -> int:
    """How many ways out ``node`` itself adds to the function around it (McCabe's count).

    Branches, loops and handlers count one, ``a and b and c`` two, a comprehension one and one more
    for each ``if``; a bare ``case _`` is the ``else`` of its match and counts nothing."""
    match node:
        case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While():
            return 1
        case ast.ExceptHandler():
            return 1
        case ast.BoolOp():
            return len(node.values) - 1
        case ast.comprehension():
            return 1 + len(node.ifs)
        case ast.match_case(pattern=ast.MatchAs(pattern=None), guard=None):
            return 0
        case ast.match_case():
            return 1
    return 0


def measure(tree: ast.AST) -> tuple[list[tuple[str, int, int]], int]:
    """Every function of the module as (qualified name, lines, complexity), and how many classes.

    A nested function counts for itself, not for the one around it. A loop with a list of its own:
    the standard library's tests hold expressions nested deeper than Python's stack."""
    lines: dict[str, int] = {}
    complexity: dict[str, int] = {"": 1}
    classes = 0
    todo: list[tuple[ast.AST, str, str]] = [(tree, "", "")]
    while todo:
        node, scope, function = todo.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{scope}{child.name}"
                while name in complexity:
                    name += "'"
                complexity[name] = 1
                lines[name] = (child.end_lineno or child.lineno) - child.lineno + 1
                todo.append((child, f"{name}.", name))
            elif isinstance(child, ast.ClassDef):
                classes += 1
                todo.append((child, f"{scope}{child.name}.", function))
            else:
                complexity[function] += decisions(child)
                todo.append((child, scope, function))
    return [(name, lines[name], complexity[name]) for name in lines], classes


def survey_file(name: str, source: bytes) -> Tally:
    """The tally of one file; one that this Python cannot parse counts as ``unparsed``."""
    tally = Tally(
        files=1, unparsed=0, bytes=len(source), lines=source.count(b"\n"), classes=0, functions=0,
        complexity=0, worst=(0, ""), longest=(0, ""),
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tally["unparsed"] = 1
        return tally
    functions, tally["classes"] = measure(tree)
    for function, lines, complexity in functions:
        where = f"{name}:{function}"
        tally["functions"] += 1
        tally["complexity"] += complexity
        tally["worst"] = max(tally["worst"], (complexity, where))
        tally["longest"] = max(tally["longest"], (lines, where))
    return tally


def merge(*surveys: Survey) -> Survey:
    """The sum of several surveys."""
    total: Survey = {}
    for survey in surveys:
        for package, tally in survey.items():
            seen = total.get(package)
            total[package] = tally if seen is None else add(seen, tally)
    return total


def add(one: Tally, other: Tally) -> Tally:
    """Counts added, records compared."""
    return Tally(
        files=one["files"] + other["files"],
        unparsed=one["unparsed"] + other["unparsed"],
        bytes=one["bytes"] + other["bytes"],
        lines=one["lines"] + other["lines"],
        classes=one["classes"] + other["classes"],
        functions=one["functions"] + other["functions"],
        complexity=one["complexity"] + other["complexity"],
        worst=max(one["worst"], other["worst"]),
        longest=max(one["longest"], other["longest"]),
    )


def survey_batch(batch: list[tuple[str, str, bytes]]) -> Survey:
    """The task: (package, file name, source) of each file in, one small survey out."""
    return merge(*({package: survey_file(name, source)} for package, name, source in batch))


# --- what to survey: runs here ------------------------------------------------------------------


def find_sources(root: Path) -> list[Source]:
    """Every Python file below ``root`` but installed packages, in a stable order."""
    found = []
    for directory, inner, names in os.walk(root):
        inner[:] = sorted({*inner} - INSTALLED)
        for name in sorted(names):
            if name.endswith(".py"):
                path = Path(directory, name)
                parts = path.relative_to(root).parts
                found.append(Source(package_of(parts), "/".join(parts), path.stat().st_size))
    return found


def package_of(parts: tuple[str, ...]) -> str:
    """The package a file counts for; all tests count as one."""
    if TEST_DIRECTORIES.intersection(parts[:-1]):
        return "test"
    return parts[0].removesuffix(".py")


def batches(sources: Iterable[Source], limit: int = BATCH_BYTES) -> Iterator[list[Source]]:
    """Neighbours together until ``limit`` bytes; a larger file is a batch of its own."""
    batch: list[Source] = []
    size = 0
    for source in sources:
        if batch and size + source.size > limit:
            yield batch
            batch, size = [], 0
        batch.append(source)
        size += source.size
    if batch:
        yield batch


def load(root: Path, batch: list[Source]) -> list[tuple[str, str, bytes]]:
    """The argument of one task."""
    return [(source.package, source.name, (root / source.name).read_bytes()) for source in batch]


# --- the driver ---------------------------------------------------------------------------------


def run(root: Path, sources: list[Source], console: Console) -> Survey:
    """Survey ``sources`` on the grid, with live progress."""
    task, reduce = gu.remote(survey_batch), gu.remote(merge)
    with progress_bar(console, sum(source.size for source in sources)) as advance:
        sizes: dict[Any, int] = {}
        for batch in batches(sources):
            ref = task.remote(load(root, batch))
            sizes[ref] = sum(source.size for source in batch)
        pending = list(sizes)
        while pending:
            ready, pending = gu.wait(pending)
            advance(sum(sizes[ref] for ref in ready))
        survey: Survey = gu.get(reduce.remote(*sizes))
    return survey


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[Any]:
    """Yields ``advance(bytes)``."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), SpeedColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("parsing", total=total)
        yield lambda size: progress.advance(bar, size)


class Ranked(NamedTuple):
    """One row of the result: a package and its decisions per function."""

    package: str
    mean: float
    tally: Tally


def ranking(survey: Survey, least: int = RANKED_FROM) -> list[Ranked]:
    """Packages with at least ``least`` functions, most decisions per function first."""
    rows = [
        Ranked(package, tally["complexity"] / tally["functions"], tally)
        for package, tally in survey.items()
        if tally["functions"] >= max(1, least)
    ]
    return sorted(rows, key=lambda row: (-row.mean, row.package))


def table(rows: list[Ranked], width: int) -> Table:
    """The result for a person whose terminal has ``width`` columns."""
    shown = Table(title="Decisions per function", box=SIMPLE_HEAD)
    shown.add_column("package")
    for heading in ("mean", "funcs", "classes", "lines"):
        shown.add_column(heading, justify="right")
    for heading in ("most complex", "longest"):
        shown.add_column(heading, no_wrap=True, max_width=max(12, (width - 55) // 2))
    for row in rows:
        tally = row.tally
        shown.add_row(
            row.package, f"{row.mean:.1f}", f"{tally['functions']:,}", f"{tally['classes']:,}",
            f"{tally['lines']:,}", record(tally["worst"]), record(tally["longest"]),
        )  # fmt: skip
    return shown


def record(best: tuple[int, str]) -> str:
    """``(67, "json/decoder.py:f")`` as ``67 f``: where room is short, the name is cut."""
    return f"{best[0]} {best[1].rpartition(':')[2]}"


def summary(total: Tally) -> str:
    """One line about everything that was read."""
    return (
        f"{total['files']:,} files, {total['lines']:,} lines, {total['functions']:,} functions, "
        f"{total['classes']:,} classes, {total['unparsed']} files not parsed"
    )


def chart(rows: list[Ranked], total: Tally, seconds: float) -> str:
    """The result as SVG."""
    version = ".".join(platform.python_version_tuple()[:2])
    bars = [
        Bar(
            label=row.package,
            value=row.mean,
            text=f"{row.mean:.1f}",
            number=f"{row.tally['functions']:,}",
            note=record(row.tally["worst"]),
        )
        for row in rows
    ]
    return bar_chart(
        title=f"Python {version}: {rows[0].package} takes the most decisions per function",
        subtitle=f"Mean cyclomatic complexity, packages with at least {RANKED_FROM} functions",
        footer=f"{summary(total)}. Parsed in {seconds:.1f} s with guactors.",
        heads=Bar("", 0, "decisions per function", "functions", "most complex function"),
        bars=bars,
    )


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Survey Python's standard library on the grid.")
    parser.add_argument("--address", help="grid to join (default: GU_ADDRESS, else its own)")
    parser.add_argument("--root", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--packages", help="only these, separated by commas")
    parser.add_argument("--top", type=int, default=20, help="rows to show (default: 20)")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write an SVG chart")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """0, or 1 when there is nothing to survey."""
    options = arguments(argv)
    console = Console(stderr=True)
    sources = find_sources(options.root)
    if options.packages:
        wanted = set(options.packages.split(","))
        sources = [source for source in sources if source.package in wanted]
    if not sources:
        print(f"no Python files to survey below {options.root}", file=sys.stderr)
        return 1
    gu.init(options.address)
    try:
        began = time.perf_counter()
        survey = run(options.root, sources, console)
        seconds = time.perf_counter() - began
        cpus = gu.cluster_resources()["CPU"]
    finally:
        gu.shutdown()
    total = merge(*({"": tally} for tally in survey.values()))[""]
    rows = ranking(survey)[: options.top] or ranking(survey, 1)[: options.top]
    if options.json:
        report = {"seconds": seconds, "cpus": cpus, "total": total, "packages": survey}
        print(json.dumps(report, indent=2))
    else:
        screen = Console()
        screen.print(table(rows, screen.width))
        print(summary(total))
        print(f"{total['bytes'] / 1e6:.1f} MB on {cpus:g} CPUs in {seconds:.1f} s")
    if options.chart and rows:
        options.chart.write_text(chart(rows, total, seconds), encoding="utf-8")
        print(f"chart: {options.chart.resolve()}", file=sys.stderr if options.json else sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
