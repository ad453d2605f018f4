"""A million calls, and what those who look inside are told: exact counts, the time of the answers,
and the memory of the caller.

Owns: the program. It is not among the rows of ``benchmarks.numbers``, for it takes a minute.

    python -m benchmarks.million [CALLS] [BATCH]

Each batch is submitted, run and let go before the next; BATCH 0 queues all at once.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psutil

import guactors as gu
from guactors.looking import asker, look
from guactors.refs import current_session
from guactors.util import state

CALLS = 1_000_000
BATCH = 10_000
FAILING = 1000
"""Every so many calls one fails."""
T = TypeVar("T")


@gu.remote
def work(number: int) -> None:
    if number % FAILING == 0:
        raise ValueError(number)


def timed(what: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return what(), round(time.perf_counter() - began, 3)


def run(calls: int, batch: int) -> None:
    """Make the calls, and wait for all."""
    for start in range(0, calls, batch or calls):
        refs = [work.remote(n) for n in range(start, min(calls, start + (batch or calls)))]
        for first in range(0, len(refs), BATCH):
            part = refs[first : first + BATCH]
            gu.wait(part, num_returns=len(part))


def main(calls: int, batch: int) -> dict[str, Any]:
    gu.init(num_cpus=2)
    process = psutil.Process()
    before = process.memory_info().rss
    _, seconds = timed(lambda: run(calls, batch))
    after = process.memory_info().rss
    summary, summed_in = timed(state.summarize_tasks)
    counts = summary["cluster"]["summary"]["work"]["state_counts"]
    session = current_session()
    assert session is not None
    ask = asker(session)
    seen, listed_in = timed(lambda: look(ask, "tasks", limit=10))
    failed, filtered_in = timed(
        lambda: state.list_tasks(filters=[("state", "=", "FAILED")], limit=100, detail=True)
    )
    expected = {"FINISHED": calls - -(-calls // FAILING), "FAILED": -(-calls // FAILING)}
    result = {
        "calls": calls,
        "batch": batch,
        "seconds": round(seconds, 1),
        "calls_per_second": round(calls / seconds),
        "counts": counts,
        "exact": counts == expected and seen.matched + seen.dropped == calls,
        "kept": seen.matched,
        "counted_only": seen.dropped,
        "summary_seconds": summed_in,
        "list_seconds": listed_in,
        "filtered_list_seconds": filtered_in,
        "failed_rows_shown": len(failed),
        "grown_mib": round((after - before) / 2**20),
        "python": platform.python_version(),
    }
    gu.shutdown()
    return result


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    found = main(*(given + [CALLS, BATCH][len(given) :]))
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["exact"] else 1)
