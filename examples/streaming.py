"""Streaming: results are used while the task that makes them still runs.

A generator task has no single result but a stream of them. Two tasks throw darts at a square
without end, and yield how many fell into the circle; here the counts become a narrowing estimate of
pi. When it is narrow enough the streams are cancelled: nobody had to know beforehand how many darts
that would take.

    python examples/streaming.py --tolerance 0.001
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator

import guactors as gu

DARTS = 20_000
"""Per result: some 5 ms of work."""


@gu.remote
def throw_darts(seed: int) -> Iterator[int]:
    """Endless: of each :data:`DARTS` darts, how many fell into the circle."""
    draw = random.Random(seed).random
    while True:
        yield sum(draw() ** 2 + draw() ** 2 < 1 for _ in range(DARTS))


def half_width(estimate: float, darts: int) -> float:
    """Of the 95 % confidence interval around an estimate of pi."""
    share = estimate / 4
    return 4 * 1.96 * math.sqrt(share * (1 - share) / darts)


def estimate_pi(tolerance: float) -> tuple[float, int]:
    """Pi to within ``tolerance`` (95 %), and how many darts it took."""
    streams = [throw_darts.remote(seed) for seed in range(2)]
    inside = darts = 0
    began, shown = time.perf_counter(), 0.0
    try:
        while True:
            for stream in streams:
                inside += gu.get(next(stream))
                darts += DARTS
            estimate = 4 * inside / darts
            width = half_width(estimate, darts)
            seconds = time.perf_counter() - began
            if width <= tolerance:
                return estimate, darts
            if not shown or seconds > 2 * shown:
                shown = seconds
                print(f"{seconds:7.3f} s  {darts:>11,} darts  {estimate:.5f} +- {width:.5f}")
    finally:
        for stream in streams:
            gu.cancel(stream)


def main(argv: list[str] | None = None) -> int:
    """0, or 1 when pi is not where it should be (one run in some thousands)."""
    parser = argparse.ArgumentParser(description="Pi from two endless streams.")
    parser.add_argument("--tolerance", type=float, default=0.002)
    options = parser.parse_args(argv)
    gu.init()
    try:
        estimate, darts = estimate_pi(options.tolerance)
    finally:
        gu.shutdown()
    print(f"pi = {estimate:.5f} +- {options.tolerance:g} after {darts:,} darts")
    return 0 if abs(estimate - math.pi) < 2 * options.tolerance else 1


if __name__ == "__main__":
    raise SystemExit(main())
