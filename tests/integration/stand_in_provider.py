"""Holds workers and does nothing else, to be killed by a test: ``METHOD RUN_DIR WORKER...``. It
writes what it is told as lines of JSON, so that the test knows the pids."""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path

from guactors.runtimes import open_workers
from guactors.runtimes.workers import OutputLines, Started
from tests.contract.process_watch import config_for


def main() -> None:
    method, run_dir, *names = sys.argv[1:]
    workers = open_workers("tests.contract.stand_in_worker:run_worker", method)
    for name in names:
        workers.start(config_for(name, Path(run_dir)))
    while True:
        select.select([*workers.filenos(), 0], [], [], workers.wake_after())
        for event in workers.events():
            match event:
                case Started(worker=worker, pid=pid):
                    tell({"started": worker, "pid": pid})
                case OutputLines(worker=worker, lines=lines):
                    tell({"printed": worker, "lines": lines})


def tell(what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
