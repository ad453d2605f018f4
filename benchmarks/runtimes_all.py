"""Every number of the runtimes, native, Docker and QEMU, in one table of one run.

    python -m benchmarks.runtimes_all [--json FILE]

Owns: the order. Each part runs in a process of its own, one after the other; see ``runtimes.py``,
``runtimes_docker.py`` and ``runtimes_qemu.py`` for what a row is. A part that cannot run here is
said, and exits with 1 as a missed target does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.runtimes import Row, cells
from benchmarks.runtimes_docker import TARGETS
from benchmarks.table import aligned

DOCKER = {
    "overhead_ms": ("docker: life of an instance beside `docker run`", "ms"),
    "pause_p99_ms": ("docker: pause, p99", "ms"),
    "lost_bytes": ("docker: 1 GiB of output, slow reader: lost", "bytes"),
    "grown_mb": ("docker: the same: memory of the keeper", "MiB"),
}


def part(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """One of them, its progress on our standard error."""
    argv = [sys.executable, "-m", f"benchmarks.{module}", *words]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)


def rows_of(module: str, prefix: str, directory: Path) -> list[Row]:
    """What it wrote. Raises FileNotFoundError where it could not run."""
    path = directory / f"{module}.json"
    part(module, "--json", str(path))
    found = json.loads(path.read_text())
    return [Row(**{**row, "name": f"{prefix}: {row['name']}"}) for row in found]


def rows_of_docker() -> list[Row]:
    """The figures that have a target."""
    done = part("runtimes_docker")
    found = json.loads(done.stdout)
    beside = f"docker run {found['docker_run_ms']:.0f} ms, an instance {found['total_ms']:.0f} ms"
    return [
        Row(name, found[key], unit, TARGETS[key], beside if key == "overhead_ms" else "")
        for key, (name, unit) in DOCKER.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gb-") as directory:
        place = Path(directory)
        rows = rows_of("runtimes", "native", place)
        rows += rows_of_docker()
        rows += rows_of("runtimes_qemu", "VM", place)
    if given.json:
        given.json.write_bytes(msgspec.json.encode(rows))
    head = ["what", "measured", "target", "met", "in the same run"]
    print(aligned([head, *map(cells, rows)]))
    raise SystemExit(not all(row.met for row in rows))


if __name__ == "__main__":
    main()
