"""How long work of a high priority waits on a grid that is full, and what that costs the others.

    python -m benchmarks.preemption [--trials 200] [--instances 10] [--json FILE]

Owns: a grid of two CPUs, two tasks that keep both busy and note when they stood still, and the rows
of the table. A row is judged by its quantile over all trials; beside it stands what the same takes
on the same grid with nothing else on it, and a raw floor. ``--instances``: trials of containers and
virtual machines (``urgent_instances``), 0 for none; without their programs there are none either.
Exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import guactors as gu
from benchmarks import urgent_instances
from benchmarks.table import aligned
from guactors.runtimes.program import run_program

CPUS = 2
GAP = 0.004
"""Seconds without a turn after which a task stood still: less is the system's own doing."""
MOST_GAPS = 100_000
_HEAD = "=qq"
"""Rounds done, gaps noted."""
_GAP = "=dd"
PAUSE = 0.05
HEAD, EACH = struct.calcsize(_HEAD), struct.calcsize(_GAP)


@dataclass
class Row:
    """``most``: the target. ``beside``: what was measured with it."""

    what: str
    figure: float
    unit: str = "ms"
    most: float | None = None
    beside: str = ""

    @property
    def met(self) -> bool:
        return self.most is None or self.figure <= self.most


@gu.remote(max_retries=0)
def grind(path: str) -> int:
    """Keep a processor busy until the neighbour of ``path`` is there, and note each gap."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as page:
        rounds = gaps = 0
        end, last = path + ".end", time.monotonic()
        while rounds % 1000 or not os.path.exists(end):
            rounds += 1
            now = time.monotonic()
            if now - last > GAP and gaps < MOST_GAPS:
                struct.pack_into(_GAP, page, HEAD + gaps * EACH, last, now)
                gaps += 1
            struct.pack_into(_HEAD, page, 0, rounds, gaps)
            last = now
        return rounds


@gu.remote(priority=10)
def stamp() -> tuple[float, float]:
    """When it began and, as near as can be, when it ended."""
    began = time.monotonic()
    return began, time.monotonic()


class Grinders:
    """Two of them, and what they noted."""

    def __init__(self, directory: Path) -> None:
        self.paths = [directory / f"grind-{number}" for number in range(CPUS)]
        size = HEAD + MOST_GAPS * EACH
        for path in self.paths:
            path.write_bytes(bytes(size))
        self.refs = [grind.remote(str(path)) for path in self.paths]
        while not all(self._head(path)[0] for path in self.paths):
            time.sleep(0.01)

    @staticmethod
    def _head(path: Path) -> tuple[int, int]:
        with path.open("rb") as file:
            rounds, gaps = struct.unpack(_HEAD, file.read(HEAD))
            return rounds, gaps

    def gaps(self) -> list[tuple[float, float]]:
        """All that both stood still, by its begin and its end."""
        found = []
        for path in self.paths:
            data = path.read_bytes()
            _, count = struct.unpack_from(_HEAD, data)
            found += [struct.unpack_from(_GAP, data, HEAD + n * EACH) for n in range(count)]
        return sorted(found)

    def end(self) -> int:
        """Rounds that were lost: noted, and not in what the task returned."""
        for path in self.paths:
            Path(f"{path}.end").touch()
        done = gu.get(self.refs, timeout=60)
        return sum(self._head(path)[0] for path in self.paths) - sum(done)


@contextmanager
def full_grid() -> Iterator[Grinders]:
    """A grid that has nothing free."""
    with tempfile.TemporaryDirectory(prefix="gb-") as directory:
        yield Grinders(Path(directory))


def python_trials(trials: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the submission to the first instruction; and the ends of the tasks, in
    monotonic seconds."""
    waits, ends = [], []
    for _ in range(trials):
        asked = time.monotonic()
        began, ended = gu.get(stamp.remote(), timeout=60)
        waits.append((began - asked) * 1000)
        ends.append(ended)
        time.sleep(PAUSE)
    return waits, ends


def program_trials(trials: int) -> list[float]:
    """The same of a program, which tells the time of day."""
    run = gu.remote(run_program).options(priority=10, num_returns="streaming")
    waits = []
    for _ in range(trials):
        asked = time.time()
        said = b""
        for ref in run.remote(["date", "+%s.%N"], {}, ""):
            stream, data = gu.get(ref, timeout=60)
            said += data if stream == "out" else b""
        waits.append((float(said) - asked) * 1000)
        time.sleep(PAUSE)
    return waits


def returns(gaps: list[tuple[float, float]], ends: list[float]) -> list[float]:
    """Milliseconds from each end of a task to the moment at which its victim ran again."""
    found = []
    for end in ends:
        over = [back - end for gone, back in gaps if gone <= end <= back]
        found += [seconds * 1000 for seconds in over[:1]]
    return found


def floor_of_stopping(trials: int) -> list[float]:
    """Milliseconds in which a busy process of this machine is stopped, goes on, and has a turn."""
    code = "import os, time\nwhile 1: os.write(1, b'x'); time.sleep(0.0002)"
    waits = []
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        for _ in range(trials):
            began = time.monotonic()
            os.kill(child.pid, signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            os.kill(child.pid, signal.SIGCONT)
            waits.append((time.monotonic() - began) * 1000)
            time.sleep(0.001)
        child.kill()
    return waits


def quantile(values: list[float], share: float) -> float:
    """Of all trials."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def both(
    what: str, values: list[float], most: tuple[float | None, float | None], beside: str
) -> list[Row]:
    """The median and the 99th of a hundred."""
    return [
        Row(f"{what}, p50", quantile(values, 0.5), most=most[0], beside=beside),
        Row(f"{what}, p99", quantile(values, 0.99), most=most[1]),
    ]


def measure(trials: int) -> list[Row]:
    floor = f"SIGSTOP and SIGCONT of a process {statistics.median(floor_of_stopping(50)):.2f} ms"
    gu.init(num_cpus=CPUS)
    try:
        gu.get([stamp.remote() for _ in range(4)])
        idle_python = statistics.median(python_trials(20)[0])
        idle_program = statistics.median(program_trials(10))
        with full_grid() as grinders:
            waits, ends = python_trials(trials)
            gaps = grinders.gaps()
            programs = program_trials(max(20, trials // 4))
            lost = grinders.end()
    finally:
        gu.shutdown()
    back = returns(gaps, ends)
    rows = both("Python: submitted to its first instruction", waits, (10, 30),
                f"on a free grid {idle_python:.1f} ms; {floor}")  # fmt: skip
    rows += both("program: submitted to its first instruction", programs, (25, None),
                 f"on a free grid {idle_program:.1f} ms")  # fmt: skip
    seen = f"{len(back)} of {len(ends)} times; of it 3 ms in which more may come"
    rows += both("done to its victim running again", back, (None, 10), seen)
    rows.append(Row("rounds of the victims that were lost", float(lost), "", 0.0,
                    f"{len(gaps)} times one stood still"))  # fmt: skip
    return rows


INSTANCES = {
    "docker": ("container", 400, "docker run", "docker unpause"),
    "qemu": ("VM, emulated", 1200, "the warm snapshot alone until its agent answers", "cont"),
}
"""What it is called, the target of its first output in milliseconds, and the two floors."""


def measure_instances(trials: int) -> list[Row]:
    """Of containers and virtual machines."""
    rows = []
    for runtime, times in urgent_instances.measure(trials).items():
        what, most, begin, resume = INSTANCES[runtime]
        free, floor, least = map(statistics.median, (times.free, times.floor, times.resume))
        rows += both(f"{what}: submitted to its first output here", times.urgent, (most, None),
                     f"on a free grid {free:.0f} ms; {begin} {floor:.0f} ms")  # fmt: skip
        back = f"{what}: done to its victim running again"
        rows += both(back, times.back, (None, None), f"{resume} {least:.1f} ms")
        ours = statistics.median(times.back) - least
        rows.append(Row(f"{back}, less {resume}", ours, most=10))
    return rows


def cells(row: Row) -> list[str]:
    """As in the table."""
    target = "-" if row.most is None else f"<= {row.most:g}"
    met = "-" if row.most is None else "yes" if row.met else "NO"
    return [row.what, f"{row.figure:.1f} {row.unit}".strip(), target, met, row.beside]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = measure(given.trials)
    if given.instances:
        missing = urgent_instances.missing()
        rows += [] if missing else measure_instances(given.instances)
        if missing:
            print(f"no containers and virtual machines: without {', '.join(missing)}")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows]))
    print(aligned([["what", "measured", "target", "met", "in the same run"], *map(cells, rows)]))
    raise SystemExit(not all(row.met for row in rows))


if __name__ == "__main__":
    main()
