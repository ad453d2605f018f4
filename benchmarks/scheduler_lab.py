"""The scheduler laboratory: a workload of the shape of published traces, in virtual time, through
the pure scheduler as the hub drives it, beside what others do with the same jobs.

    python -m benchmarks.scheduler_lab compare [--providers 10000] [--seconds 60] [--seed 1]
    python -m benchmarks.scheduler_lab scale   [--events 20000] [--seed 1] [--never]
    python -m benchmarks.scheduler_lab one     --providers N --waiting M [--events 20000] [--never]

``compare``: use of the CPUs, waits by priority, preemptions and lost work of guactors and of the
baselines. The grid is full from the start: at first jobs for twice its CPUs are submitted at
once, then as many as end (load 1.0), in bursts. ``scale``: decisions a second at each number of
providers and of waiting demands, which is kept up: for each job that ends another is submitted.
``--never``: nobody gives way, so that placement is measured alone. ``to log`` of a size is by how
much a decision is dearer than at the smallest such size, over by how much the logarithm of that
size is bigger: up to 1.00 the cost grows no faster than the logarithm. The parameters of the
workload are in :mod:`benchmarks.lab.workload`, those of the baselines in
:mod:`benchmarks.lab.baselines`. ``--json FILE`` writes all figures, from which
``python -m benchmarks.lab.drawing FILE PNG`` draws (where matplotlib is).

A decision is a placement or a preemption. Its cost is all CPU time that the scheduler takes: for a
job these are four events (two SetDemand, LeaseStarted, ReturnLease) and its share of the ticks, in
which leases to ask back are looked for. Of those there are up to 100 a second of the grid's time,
whatever its size: in a small grid, with few decisions a second, they are most of the cost. ``of a
core`` is what the scheduler takes at the pace of the grid.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import resource
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.lab.baselines import POLICIES, Baseline
from benchmarks.lab.figures import Figures
from benchmarks.lab.grid import Grid
from benchmarks.lab.workload import (
    MACHINES,
    PRIORITIES,
    SHAPES,
    duration,
    jobs,
    machines,
)
from benchmarks.table import aligned

SIZES = ((100, 1_000, 10_000), (1_000, 10_000, 100_000))
"""Providers, and waiting demands, of the scaling run."""
OVERFULL = 2.0
USERS = 1_000
"""Of the scaling run, whatever its size: so many kinds of jobs wait at each size."""
SETTLE = 5.0
OURS = {"guactors": True, "guactors, nobody gives way": False}
"""Of a comparison: whether work is suspended for what is more urgent."""


def memory() -> float:
    """Bytes of peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def rate_of(capacity: float, seconds: float, random: Random) -> float:
    """Jobs a second that keep ``capacity`` CPUs busy for so long: durations beyond do not count."""
    weights = [shape[4] for shape in SHAPES]
    drawn = random.choices(SHAPES, weights, k=20_000)
    work = sum(shape[0] * min(seconds, duration(random)) for shape in drawn) / len(drawn)
    return capacity / work


def replay(runner: Grid | Baseline, seconds: float, seed: int, users: int) -> Figures:
    """The same jobs for whoever schedules them."""
    random = Random(seed)
    capacity, figures = runner.figures.capacity, runner.figures
    source = jobs(random, users, rate_of(capacity, seconds, Random(seed)))
    job, asked = next(source), 0.0
    while asked < OVERFULL * capacity:
        runner.submit(job)
        asked += job.cpus
        job = next(source)
    offset = job.at
    while job.at - offset <= seconds:
        runner.clock.run(job.at - offset)
        runner.submit(job)
        job = next(source)
    runner.clock.run(seconds)
    return figures


def compare(providers: int, seconds: float, seed: int) -> list[Figures]:
    """guactors and the baselines, with the same machines and jobs."""
    found, users = [], max(20, providers // 10)
    for name in (*OURS, *POLICIES):
        there, before = machines(providers, Random(seed)), memory()
        if isinstance(name, str):
            runner: Grid | Baseline = Grid(there, users, name, yields=OURS[name])
        else:
            runner = Baseline(there, name, Random(seed))
        found.append(replay(runner, seconds, seed, users))
        found[-1].memory = memory() - before
        runner.check()
    return found


def scale(providers: int, waiting: int, events: int, seed: int, *, yields: bool = True) -> Figures:
    """So many decisions while so many wait."""
    random, before = Random(seed), memory()
    grid = Grid(machines(providers, random), USERS, apart=True, yields=yields)
    source = jobs(random, USERS, 1.0, even=True)
    while len(grid.pending) < waiting + grid.figures.decisions - len(grid.runs):
        grid.submit(next(source))
    grid.on_end = lambda _: grid.submit(next(source))
    grid.clock.run(SETTLE)
    figures = grid.figures
    figures.thinking = figures.ticking = figures.collecting = 0.0
    figures.decisions = figures.preemptions = 0
    figures.begin(grid.clock.now)
    gc.callbacks.append(grid.collects)
    while figures.decisions < events:
        grid.clock.step()
    gc.callbacks.remove(grid.collects)
    figures.passed = grid.clock.now - SETTLE
    figures.memory = memory() - before
    return figures


# --- what is shown --------------------------------------------------------------------------------


def told(figures: Figures, now: float) -> dict[str, Any]:
    """Of one run of ``compare``."""
    return {
        "name": figures.name,
        "utilisation": figures.utilisation(now),
        "p50": {tier: figures.wait(tier, 0.5, now) for tier in PRIORITIES},
        "p99": {tier: figures.wait(tier, 0.99, now) for tier in PRIORITIES},
        "preemptions": figures.preemptions,
        "lost": figures.lost,
        "done": figures.done,
        "finished": figures.finished,
        "submitted": figures.submitted,
        "rate": figures.rate(),
        "memory": figures.memory,
        "used": figures.used,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """One line per scheduler."""
    tiers = [f"wait p50/p99 at {tier}" for tier in PRIORITIES]
    lines = [("", "use", *tiers, "preempted", "lost CPU h", "ended", "decisions/s", "memory")]
    for run in runs:
        waits = [f"{run['p50'][tier]:.1f} / {run['p99'][tier]:.1f} s" for tier in PRIORITIES]
        # What the simulation of a baseline costs says nothing about the system it is named after.
        ours = run["name"] in OURS
        rate = f"{run['rate']:,.0f}" if ours else "-"
        size = f"{run['memory'] / 1e6:,.0f} MB" if ours else "-"
        lines.append((
            run["name"], f"{run['utilisation']:.1%}", *waits, f"{run['preemptions']:,}",
            f"{run['lost'] / 3600:.1f}", f"{run['finished']:,}", rate,
            size,
        ))  # fmt: skip
    return aligned(lines)


def scaling_table(rows: list[dict[str, Any]]) -> str:
    """One line per size."""
    lines = [
        (
            "providers", "waiting", "decisions/s", "us each", "of it ticks", "of it gc",
            "to log providers", "to log waiting", "suspended", "of a core", "memory",
        )
    ]  # fmt: skip
    lines += [
        (
            f"{row['providers']:,}", f"{row['waiting']:,}", f"{row['rate']:,.0f}",
            f"{row['microseconds']:.0f}", f"{row['ticks']:.0f}", f"{row['collecting']:.0f}",
            growth(row, rows, "providers"), growth(row, rows, "waiting"),
            f"{row['preemptions']:,}", f"{row['share']:.1%}", f"{row['memory'] / 1e6:,.0f} MB",
        )
        for row in rows
    ]  # fmt: skip
    return aligned(lines)


def growth(row: dict[str, Any], rows: list[dict[str, Any]], size: str) -> str:
    """How much dearer than where only this size is the smallest, to the logarithm of that."""
    other = "waiting" if size == "providers" else "providers"
    least = min((one for one in rows if one[other] == row[other]), key=lambda one: float(one[size]))
    if least[size] == row[size]:
        return "-"
    cost = row["microseconds"] / least["microseconds"]
    return f"{cost / (math.log(row[size]) / math.log(least[size])):.2f}"


def one_size(given: argparse.Namespace) -> dict[str, Any]:
    """One size of the scaling run, in this process."""
    figures = scale(
        given.providers, given.waiting, given.events, given.seed, yields=not given.never
    )
    return {
        "providers": given.providers,
        "waiting": given.waiting,
        "rate": figures.rate(),
        "microseconds": 1e6 / figures.rate(),
        "share": figures.thinking / figures.passed,
        "ticks": 1e6 * figures.ticking / figures.decisions,
        "collecting": 1e6 * figures.collecting / figures.decisions,
        "preemptions": figures.preemptions,
        "memory": figures.memory,
    }


def all_sizes(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Every size in a process of its own, or the memory of one would count for the next."""
    rows = []
    for providers in SIZES[0]:
        for waiting in SIZES[1]:
            command = [
                sys.executable, "-m", "benchmarks.scheduler_lab", "one", "--providers",
                str(providers), "--waiting", str(waiting), "--events", str(given.events),
                "--seed", str(given.seed), "--json", "-", *(["--never"] if given.never else []),
            ]  # fmt: skip
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(answer.stdout))
            print(scaling_table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description="the scheduler laboratory")
    parser.add_argument("what", choices=("compare", "scale", "one"))
    parser.add_argument("--providers", type=int, default=10_000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--never", action="store_true")
    parser.add_argument("--json", default="")
    given = parser.parse_args()
    data: dict[str, Any] = {
        "title": f"{len(MACHINES)} kinds of machines",
        "runs": [],
        "scaling": [],
    }
    if given.what == "compare":
        found = compare(given.providers, given.seconds, given.seed)
        data["runs"] = [told(figures, given.seconds) for figures in found]
        data["title"] = f"{given.providers:,} providers, {given.seconds:g} s, seed {given.seed}"
        print(table(data["runs"]))
    elif given.what == "scale":
        data["scaling"] = all_sizes(given)
        print(scaling_table(data["scaling"]))
    elif given.json == "-":
        print(json.dumps(one_size(given)))
        return
    else:
        data["scaling"] = [one_size(given)]
        print(scaling_table(data["scaling"]))
    if given.json:
        Path(given.json).write_text(json.dumps(data))


if __name__ == "__main__":
    main()
