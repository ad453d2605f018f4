"""Programs and instances: what they cost, row by row, each beside the floor of the same run.

    python -m benchmarks.runtimes [--rows NAME,NAME] [--json FILE]

Owns: one function a row; the targets they are judged by. A floor is what the operating system takes
for the same without us. Prints a table; exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

import guactors as gu
from benchmarks.table import aligned
from guactors.runtimes.base import Command, Output, Spec
from guactors.runtimes.instance import Instance
from guactors.runtimes.native.driver import NativeRuntime
from guactors.runtimes.program import WINDOW, run_program

TRUE = "/bin/true"
GIB = 1 << 30
PROCESSES = 8
"""Of an instance that is paused, all busy."""


@dataclass
class Row:
    """``value`` is to be at most (or, ``at_least``, at least) the ``target``; ``floor``: what it is
    set against, in words."""

    name: str
    value: float
    unit: str
    target: float
    floor: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target


def milliseconds(once: Callable[[], object], count: int) -> list[float]:
    """Sorted."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        once()
        found.append(1000 * (time.perf_counter() - began))
    return sorted(found)


def p99(sample: list[float]) -> float:
    return sample[min(len(sample) - 1, int(0.99 * len(sample)))]


@contextmanager
def grid() -> Iterator[None]:
    gu.init(num_cpus=2, log_to_driver=False)
    try:
        yield
    finally:
        gu.shutdown()


def one_program() -> Row:
    """A program from the call to its exit code, in a session that is there."""
    task = gu.remote(run_program).options(num_cpus=1)

    def once() -> None:
        *_, last = (gu.get(ref) for ref in task.remote([TRUE], {}, ""))
        assert last == ("exit", 0), last

    with grid():
        milliseconds(once, 50)
        found = milliseconds(once, 300)
    floor = milliseconds(lambda: subprocess.run([TRUE], check=True), 300)
    words = f"subprocess.run {statistics.median(floor):.1f} ms"
    return Row("gu run true, warm, in a session", statistics.median(found), "ms", 15, words)


def command_line() -> Row:
    """The same as a command of its own, which begins with a Python."""
    home = {**os.environ, "GU_HOME": tempfile.mkdtemp(prefix="gu-bench-")}
    command = [sys.executable, "-m", "guactors.cli.main"]
    subprocess.run([*command, "up"], env=home, check=True, stdout=subprocess.DEVNULL)
    try:
        once = [*command, "run", "--", TRUE]
        found = milliseconds(lambda: subprocess.run(once, env=home, check=True), 20)
        bare = [sys.executable, "-c", "pass"]
        floor = milliseconds(lambda: subprocess.run(bare, check=True), 20)
    finally:
        subprocess.run([*command, "down"], env=home, check=True, stdout=subprocess.DEVNULL)
    words = f"python -c pass {statistics.median(floor):.0f} ms"
    return Row("gu run true as a command", statistics.median(found), "ms", float("inf"), words)


def pipelined() -> Row:
    """Many programs submitted at once, two CPUs."""
    count = 2000
    task = gu.remote(run_program).options(num_cpus=1)
    with grid():
        for number in (100, count):
            began = time.perf_counter()
            streams = [task.remote([TRUE], {}, "") for _ in range(number)]
            for stream in streams:
                *_, last = (gu.get(ref) for ref in stream)
                assert last == ("exit", 0), last
        rate = count / (time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(500):
        subprocess.run([TRUE], check=True)
    floor = 500 / (time.perf_counter() - began)
    words = f"subprocess.run, one after the other {floor:.0f}/s"
    return Row("native programs pipelined, 2 CPUs", rate, "/s", 600, words, at_least=True)


def native_pause() -> Row:
    """From the wish to the moment in which nothing of the instance runs."""
    spin = f"for i in $(seq {PROCESSES - 1}); do sh -c 'while :; do :; done' & done; echo go; wait"
    found = []
    with tempfile.TemporaryDirectory() as directory:
        runtime = NativeRuntime()
        spec = Spec("i-bench", "p-bench", directory)
        with Instance(spec, runtime.create(spec)) as instance:
            instance.start()
            running = instance.exec(Command(("/bin/sh", "-c", spin)))
            assert isinstance(running.read(10), Output)
            for _ in range(200):
                began = time.perf_counter()
                instance.pause()
                found.append(1000 * (time.perf_counter() - began))
                instance.resume()
        runtime.close()
    words = (
        f"{PROCESSES} busy processes on {os.cpu_count()} CPUs, p50 {statistics.median(found):.2f}"
    )
    return Row("native, suspend decided to stopped, p99", p99(sorted(found)), "ms", 5, words)


def large_output() -> Row:
    """A GiB of output to a caller that stops reading now and then: all of it comes, and no process
    of the grid grows by more than what is under way."""
    script = f"head -c {GIB} /dev/zero"
    with grid():
        peak = _Peak(psutil.Process())
        total = 0
        began = time.perf_counter()
        paced = gu.remote(run_program).options(_generator_backpressure_num_objects=WINDOW)
        for number, ref in enumerate(paced.remote(["sh", "-c", script], {}, "")):
            kind, data = gu.get(ref)
            if kind == "out":
                total += len(data)
            if number % 2000 == 0:
                time.sleep(0.3)
        seconds = time.perf_counter() - began
        grown = peak.stop()
    assert total == GIB, f"{GIB - total} bytes are lost"
    words = f"1 GiB arrived whole, {total / seconds / 1e6:.0f} MB/s"
    return Row("1 GiB of output, growth of hub, provider, worker", grown, "MB", 64, words)


class _Peak:
    """By how much the descendants of a process grow together, in MB."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._first = self._most = self._now()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _now(self) -> float:
        total = 0.0
        for child in self._process.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6

    def _look(self) -> None:
        while not self._stopping.wait(0.05):
            self._most = max(self._most, self._now())

    def stop(self) -> float:
        self._stopping.set()
        self._thread.join()
        return self._most - self._first


ROWS: dict[str, Callable[[], Row]] = {
    "one": one_program,
    "command": command_line,
    "pipelined": pipelined,
    "pause": native_pause,
    "output": large_output,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="by commas; default: all")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for name in given.rows.split(","):
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows.append(ROWS[name]())
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows]))
    head = ["what", "measured", "target", "met", "in the same run"]
    print(aligned([head, *map(cells, rows)]))
    raise SystemExit(not all(row.met for row in rows))


def cells(row: Row) -> list[str]:
    """Of a line of the table."""
    if row.target == float("inf"):
        return [row.name, f"{row.value:.1f} {row.unit}", "-", "-", row.floor]
    sign = ">=" if row.at_least else "<="
    met = "yes" if row.met else "NO"
    return [row.name, f"{row.value:.1f} {row.unit}", f"{sign} {row.target:g}", met, row.floor]


if __name__ == "__main__":
    main()
