"""What ``gu.map`` makes of calls that do nothing, beside ``multiprocessing.Pool``.

    python -m benchmarks.batched [--items N] [--rounds N] [--json FILE]

Owns: the throughput of no-op items through maps, in items a second. Every way runs in each round,
one after the other on the same two processes; the figure is the median round, and results are
counted and added up. A chunk of 4,096 is given to both; "by itself" is what each chooses when
nothing is said.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing.pool import Pool
from pathlib import Path

import guactors as gu
from guactors.integrations import Executor
from guactors.util.multiprocessing import Pool as GridPool

PROCESSES = 2
CHUNK = 4_096
WAYS = (
    "gu.map, by itself",
    "gu.map, unordered",
    "gu.map, 4,096",
    "our Pool.map, by itself",
    "our Executor.map, 4,096",
    "multiprocessing.Pool.map, by itself",
    "multiprocessing.Pool.map, 4,096",
    "multiprocessing.Pool.imap, 4,096",
)
BESIDE = "multiprocessing.Pool.map, by itself"


def nothing(item: int) -> int:
    return item


def ways(
    theirs: Pool, ours: GridPool, executor: Executor
) -> list[Callable[[range], Iterable[int]]]:
    """The functions to measure, in the order of WAYS."""
    return [
        lambda items: gu.map(nothing, items),
        lambda items: gu.map(nothing, items, order=False),
        lambda items: gu.map(nothing, items, chunk=CHUNK),
        lambda items: ours.map(nothing, items),
        lambda items: executor.map(nothing, items, chunksize=CHUNK),
        lambda items: theirs.map(nothing, items),
        lambda items: theirs.map(nothing, items, CHUNK),
        lambda items: theirs.imap(nothing, items, CHUNK),
    ]


def measure(count: int, rounds: int) -> dict[str, list[float]]:
    """Items a second of each way in each round."""
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    gu.init(num_cpus=PROCESSES)
    with (
        multiprocessing.get_context("spawn").Pool(PROCESSES) as theirs,
        GridPool(PROCESSES) as ours,
        Executor(PROCESSES) as executor,
    ):
        functions = ways(theirs, ours, executor)
        for number in range(rounds + 1):
            # The first round starts processes and is not counted.
            items = range(count if number else count // 20)
            for name, function in zip(WAYS, functions, strict=True):
                began = time.perf_counter()
                total = sum(function(items))
                seconds = time.perf_counter() - began
                assert total == sum(items), f"{name} lost items"
                if number:
                    rates[name].append(count / seconds)
    gu.shutdown()
    return rates


def main() -> int:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description="throughput of maps over no-op items")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the rates of all rounds there")
    arguments = parser.parse_args()
    rates = measure(arguments.items, arguments.rounds)
    beside = statistics.median(rates[BESIDE])
    print(f"| {arguments.items:,} no-op items | items/s | lowest to highest | by {BESIDE} |")
    print("|---|---|---|---|")
    for name, each in rates.items():
        middle = statistics.median(each)
        span = f"{min(each):,.0f} to {max(each):,.0f}"
        print(f"| {name} | {middle:,.0f} | {span} | {middle / beside:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rates, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
