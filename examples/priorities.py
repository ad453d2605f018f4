"""Urgent work on a grid that is full: who ran when, and who stood still for it.

    python examples/priorities.py [--seconds 8]

Owns: renders of priority 0 that fill every processor of the grid, urgent tasks of priority 10 that
come now and then, and one of priority 20 that pushes even those aside; and the chart at the end.
Each task notes when it had its turn, so the chart shows what happened and not what was planned:

    #  it runs        .  it stands still for something more urgent

Nothing of the renders is lost: each returns as many steps as it noted.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import guactors as gu

STEP = 0.01
STILL = 0.03
"""Seconds without a turn after which a task stood still."""
WIDTH = 96


class Span(NamedTuple):
    """A stretch of time, in seconds of the machine's clock, in which a task ran."""

    begin: float
    end: float


class Line(NamedTuple):
    """One task: what it was, and when it ran."""

    name: str
    priority: int
    spans: list[Span]
    steps: int


@gu.remote
def work(name: str, priority: int, steps: int) -> Line:
    """So many steps of a hundredth of a second of computing, and when they were done."""
    spans: list[Span] = []
    begin = last = time.monotonic()
    for _ in range(steps):
        end = time.monotonic() + STEP
        while time.monotonic() < end:
            now = time.monotonic()
            if now - last > STILL:
                spans.append(Span(begin, last))
                begin = now
            last = now
    return Line(name, priority, [*spans, Span(begin, time.monotonic())], steps)


def chart(lines: list[Line]) -> str:
    """A row for each task, the time from left to right."""
    first = min(line.spans[0].begin for line in lines)
    last = max(line.spans[-1].end for line in lines)
    scale = WIDTH / (last - first)
    rows = []
    for line in lines:
        cells = [" "] * (WIDTH + 1)
        born, done = line.spans[0].begin, line.spans[-1].end
        for place in range(int((born - first) * scale), int((done - first) * scale) + 1):
            cells[place] = "."
        for span in line.spans:
            for place in range(
                int((span.begin - first) * scale), int((span.end - first) * scale) + 1
            ):
                cells[place] = "#"
        rows.append(f"{line.name:>9} {line.priority:>3} |{''.join(cells)}|")
    rows.append(f"{'':>13} 0 s{'':{WIDTH - 10}}{last - first:.1f} s")
    return "\n".join(rows)


def table(lines: list[Line], asked: dict[str, float]) -> str:
    """When each began, and how often and how long it stood still."""
    rows = ["     task priority  began after   stood still    for     steps"]
    for line in lines:
        pauses = [b.begin - a.end for a, b in zip(line.spans, line.spans[1:], strict=False)]
        wait = (line.spans[0].begin - asked[line.name]) * 1000
        rows.append(
            f"{line.name:>9} {line.priority:>8} {wait:>9.1f} ms {len(pauses):>12}x "
            f"{sum(pauses):>6.2f} s {line.steps:>8}"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="that the renders take in all")
    given = parser.parse_args()
    gu.init(num_cpus=2)
    steps = int(given.seconds / STEP / 2)
    asked: dict[str, float] = {}
    refs = []

    def submit(name: str, priority: int, count: int) -> None:
        asked[name] = time.monotonic()
        refs.append(work.options(priority=priority, max_retries=0).remote(name, priority, count))

    for number in range(4):
        submit(f"render {number}", 0, steps // 2)
    for number in range(3):
        time.sleep(given.seconds / 10)
        submit(f"urgent {number}", 10, 30)
        submit(f"urgent {number}b", 10, 30)
    time.sleep(0.1)
    submit("alarm", 20, 20)
    lines = gu.get(refs, timeout=60)
    print(chart(lines))
    print()
    print(table(lines, asked))
    gu.shutdown()


if __name__ == "__main__":
    main()
