"""Waiting for things to happen to processes, with deadlines and no sleeping into the blue."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from guactors.config import Identity, WorkerConfig
from guactors.messages import Endpoint
from guactors.runtimes.workers import Ended, OutputLines, ProcessEvent, Started, WorkerProcesses

DEADLINE = 15.0
E = TypeVar("E", Started, Ended, OutputLines)
NOWHERE = Endpoint("ipc:///nowhere", "ipc:///nowhere")


def config_for(worker: str, run_dir: Path) -> WorkerConfig:
    identity = Identity(client_secret="not for argv")
    return WorkerConfig(worker, "p-1", "box", NOWHERE, [NOWHERE], str(run_dir), identity=identity)


class Watch:
    """Collects the events of an adapter until a condition holds."""

    def __init__(self, workers: WorkerProcesses) -> None:
        self.workers = workers
        self.seen: list[ProcessEvent] = []

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"never came: {what}; seen: {self.seen}"
            wake = self.workers.wake_after()
            select.select(self.workers.filenos(), [], [], 1.0 if wake is None else wake)
            self.seen += self.workers.events()

    def started(self, worker: str) -> int:
        """Its pid, once it is there."""
        self.until(lambda: self._of(worker, Started), f"Started of {worker}")
        return self._of(worker, Started)[0].pid

    def ended(self, worker: str) -> Ended:
        self.until(lambda: self._of(worker, Ended), f"Ended of {worker}")
        return self._of(worker, Ended)[0]

    def printed(self, worker: str, line: str) -> None:
        self.until(lambda: line in self.lines(worker, 1), f"{line!r} of {worker}")

    def lines(self, worker: str, stream: int) -> list[str]:
        return [
            line
            for event in self._of(worker, OutputLines)
            if event.stream == stream
            for line in event.lines
        ]

    def output(self, worker: str) -> list[OutputLines]:
        return self._of(worker, OutputLines)

    def _of(self, worker: str, kind: type[E]) -> list[E]:
        return [one for one in self.seen if isinstance(one, kind) and one.worker == worker]


def gone(pid: int) -> bool:
    """Ended, even if nobody has reaped it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def await_true(condition: Callable[[], object], what: str, within: float = DEADLINE) -> None:
    """Poll a condition that no descriptor announces."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        select.select([], [], [], 0.01)


def read_pid(path: Path) -> int:
    """A pid that some process writes to a file."""
    await_true(lambda: path.exists() and path.read_text(), f"a pid in {path}")
    return int(path.read_text())
