"""One side of ``ray_rows``: a process that measures rows on guactors or on Ray.

    python -m benchmarks.ray_side guactors|ray FAMILY SECONDS QUEUED

Owns: how a row is timed, Ray's way, scaled to SECONDS: call it for half of that and count, then
twice repeat a tenth of that count until SECONDS have passed. It says its library when its cluster
of two CPUs is there, then answers the name of a row with ``{name: [figures]}``. Runs
in an environment that need not have guactors. Must never: know the other side.
"""

from __future__ import annotations

import importlib
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import ratios
from benchmarks.children import answer, serve
from benchmarks.ray_workloads import MIB, OK, WORKLOADS, Stage, Work

REPEATS = 2
CPUS = 2
ARRAY = 100 * MIB
GET_AT_ONCE = 10_000

Figures = dict[str, list[float]]


class WrongAnswer(Exception):
    """A workload returned something else than it should."""


def rates(work: Work, seconds: float) -> list[float]:
    """Rates of REPEATS slices; of one where a single call takes longer than a slice."""
    clock = time.perf_counter
    calls, began = 0, clock()
    while (passed := clock() - began) < seconds / 2 or not calls:
        work.once()
        calls += 1
    step = calls // 10 + 1
    found = []
    for _ in range(REPEATS if passed / calls < seconds else 1):
        count, began = 0, clock()
        while (passed := clock() - began) < seconds:
            for _ in range(step):
                work.once()
            count += step
        found.append(work.each * count / passed)
    return found


def checked(name: str, work: Work) -> None:
    """Raises WrongAnswer."""
    if not work.right(got := work.once()):
        raise WrongAnswer(f"{name}: got {got!r:.200}")


def measured(stage: Stage, name: str, seconds: float) -> Figures:
    """A row of WORKLOADS; its answer is looked at before and after."""
    try:
        work = WORKLOADS[name](stage)
        checked(name, work)
        found = rates(work, seconds)
        checked(name, work)
    finally:
        stage.clear()
    return {name: found}


def put_by_copy(stage: Stage, seconds: float) -> Figures:
    """GB/s of putting an array, and its share of copying the same array into shared memory that was
    touched before; by turns."""
    array = np.ones(ARRAY, dtype=np.uint8)
    put = stage.ray.put
    if not np.array_equal(stage.ray.get(put(array)), array):
        raise WrongAnswer("put: another array came back")
    gigabytes = array.nbytes / 1e9
    shared = np.frombuffer(mmap.mmap(-1, array.nbytes), dtype=np.uint8)
    shared[:] = 0
    copying = Work(lambda: np.copyto(shared, array), gigabytes)
    putting = Work(lambda: put(array), gigabytes)
    before = rates(copying, seconds)
    found = rates(putting, seconds)
    after = rates(copying, seconds)
    copy = sum(before + after) / len(before + after)
    return {ratios.PUT: found, ratios.PUT_SHARE: [one / copy for one in found]}


def queued(stage: Stage, count: int) -> Figures:
    """``count`` no-op tasks are submitted while other tasks hold every CPU; then those end. The
    rate is that of all of it, from the first submission to the last result."""
    ray, small_value = stage.ray, stage.small_value

    @ray.remote
    def hold(here: str, until: str) -> None:
        Path(here).touch()
        while not Path(until).exists():
            time.sleep(0.02)

    with tempfile.TemporaryDirectory(prefix="gu-queue-") as directory:
        gate = Path(directory, "gate")
        held = [Path(directory, str(number)) for number in range(CPUS)]
        holders = [hold.remote(str(one), str(gate)) for one in held]
        while not all(one.exists() for one in held):
            time.sleep(0.02)
        began = time.perf_counter()
        refs = [small_value.remote() for _ in range(count)]
        submitted = time.perf_counter()
        gate.touch()
        ray.get(holders)
        for first in range(0, count, GET_AT_ONCE):
            part = refs[first : first + GET_AT_ONCE]
            if ray.get(part) != [OK] * len(part):
                raise WrongAnswer(f"of the tasks from {first} on, some returned something else")
        ended = time.perf_counter()
    return {
        ratios.QUEUED: [count / (ended - began)],
        ratios.QUEUED_SUBMIT: [count / (submitted - began)],
        ratios.QUEUED_PEAK: [peak_memory() / 1e6],
    }


def peak_memory() -> float:
    """Bytes: the most that this process had resident (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("/proc/self/status has no line VmHWM")


def started(library: str, family: str, directory: str) -> ModuleType:
    """The module, with a cluster of its own."""
    module = importlib.import_module(library)
    resources = {"custom": 100} if family == ratios.GROUPS else None
    own: dict[str, Any] = {}
    if library == "ray":
        own = {"include_dashboard": False, "_temp_dir": directory, "logging_level": "ERROR"}
    module.init(num_cpus=CPUS, resources=resources, log_to_driver=False, **own)
    return module


def handlers(
    stage: Stage, family: str, seconds: float, count: int
) -> dict[str, Callable[[], Figures]]:
    """What can be asked: every row of the family that is measured by itself."""
    special = {
        ratios.PUT: lambda: put_by_copy(stage, seconds),
        ratios.QUEUED: lambda: queued(stage, count),
    }
    return {
        row.name: special.get(row.name) or (lambda name=row.name: measured(stage, name, seconds))
        for row in ratios.ROWS
        if row.family == family and not row.by
    }


def main(library: str, family: str, seconds: float, count: int) -> None:
    # Whatever a library prints must not come between the answers.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="gu-rows-", ignore_cleanup_errors=True) as directory:
        os.environ.setdefault("GU_HOME", os.path.join(directory, "home"))
        module = started(library, family, directory)
        try:
            answer(library)
            serve(handlers(Stage(module), family, seconds, count))
        finally:
            module.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
