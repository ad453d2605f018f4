"""What becomes of workers when the processes above them are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from guactors.runtimes.python import PythonWorkers
from tests.contract.process_watch import Watch, await_true, config_for, gone, read_pid

ENTRY = "tests.contract.stand_in_worker:run_worker"
pytestmark = pytest.mark.needs("linux", "fork")


@pytest.fixture
def watch() -> Iterator[Watch]:
    workers = PythonWorkers(ENTRY)
    yield Watch(workers)
    workers.close()


@contextmanager
def provider(method: str, run_dir: Path, *names: str) -> Iterator[tuple[int, dict[str, int]]]:
    """A process that holds these workers, all of which have printed: its pid, and theirs."""
    command = [sys.executable, "-m", "tests.integration.stand_in_provider", method, str(run_dir)]
    popen = subprocess.Popen([*command, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        pids: dict[str, int] = {}
        printed: set[str] = set()
        assert popen.stdout is not None
        while len(printed) < len(names):
            line = popen.stdout.readline()
            assert line, "the provider ended"
            event = json.loads(line)
            if "started" in event:
                pids[event["started"]] = event["pid"]
            else:
                printed.add(event["printed"])
        yield popen.pid, pids
    finally:
        popen.kill()
        popen.communicate()


def zygote_of(watch: Watch) -> int:
    assert isinstance(watch.workers, PythonWorkers)
    pid = watch.workers.zygote_pid()
    assert pid is not None
    return pid


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_killed_provider_takes_all_with_it_within_a_second(method: str, tmp_path: Path) -> None:
    names = ("w-deaf-1", "w-family-1", "w-wait-1") if method == "fork" else ("w-family-1",)
    with provider(method, tmp_path, *names) as (pid, pids):
        child = read_pid(tmp_path / "w-family-1.child")
        below = [one.pid for one in psutil.Process(pid).children(recursive=True)]
        assert {child, *pids.values()} <= set(below)
        os.kill(pid, signal.SIGKILL)
        await_true(lambda: all(gone(one) for one in below), "all below end", within=1.0)


def test_a_stopped_worker_dies_with_its_provider(tmp_path: Path) -> None:
    with provider("fork", tmp_path, "w-wait-1") as (pid, pids):
        os.kill(pids["w-wait-1"], signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        await_true(lambda: gone(pids["w-wait-1"]), "the stopped one ends", within=1.0)


def test_a_killed_zygote_takes_its_workers_and_is_replaced(watch: Watch, tmp_path: Path) -> None:
    for name in ("w-deaf-1", "w-family-1"):
        watch.workers.start(config_for(name, tmp_path))
    watch.printed("w-deaf-1", "deaf")
    watch.printed("w-family-1", "family")
    child = read_pid(tmp_path / "w-family-1.child")
    os.kill(zygote_of(watch), signal.SIGKILL)
    for name in ("w-deaf-1", "w-family-1"):
        death = watch.ended(name).death
        assert (death.cause, death.signal) == ("signal", signal.SIGKILL)
        assert "zygote it was forked from is gone: signal 9" in death.detail
        assert death.rss_bytes > 2**20
    await_true(lambda: gone(child), "the grandchild ends", within=1.0)
    watch.workers.start(config_for("w-exit-2", tmp_path))
    assert watch.ended("w-exit-2").death.exit_code == 7


def test_a_zygote_is_replaced_by_a_fresh_python_where_there_are_threads(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(zygote_of(watch), signal.SIGKILL)
    await_true(lambda: not watch.workers.events() and gone_or_none(watch), "its end is noticed")
    monkeypatch.setattr("guactors.runtimes.process.single_threaded", lambda: False)
    watch.workers.start(config_for("w-look-1", tmp_path))
    assert watch.ended("w-look-1").death.exit_code == 0
    assert watch.lines("w-look-1", 1)[3] == "fds []"
    assert "guactors.runtimes.zygote" in psutil.Process(zygote_of(watch)).cmdline()


def gone_or_none(watch: Watch) -> bool:
    assert isinstance(watch.workers, PythonWorkers)
    return watch.workers.zygote_pid() is None


def test_starts_asked_of_a_dead_zygote_are_answered(watch: Watch, tmp_path: Path) -> None:
    os.kill(zygote_of(watch), signal.SIGSTOP)
    names = [f"w-exit-{number}" for number in range(4)]
    for name in names:
        watch.workers.start(config_for(name, tmp_path))
    os.kill(zygote_of(watch), signal.SIGKILL)
    for name in names:
        assert watch.ended(name).death.cause == "start_failed"


def test_an_entry_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    workers = PythonWorkers("tests.no_such_module:run_worker")
    try:
        watch = Watch(workers)
        workers.start(config_for("w-exit-1", tmp_path))
        death = watch.ended("w-exit-1").death
        assert death.cause == "start_failed"
        assert "exited with status 1" in death.detail
    finally:
        workers.close()


def test_a_stuck_zygote_does_not_hold_up_close(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-deaf-1", tmp_path))
    watch.printed("w-deaf-1", "deaf")
    worker = watch.started("w-deaf-1")
    os.kill(zygote_of(watch), signal.SIGSTOP)
    watch.workers.close()
    assert gone(worker)


def test_orphans_of_dead_workers_are_gone_after_close(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-daemon-1", tmp_path))
    daemon = read_pid(tmp_path / "w-daemon-1.child")
    watch.ended("w-daemon-1")
    watch.workers.close()
    await_true(lambda: gone(daemon), "the daemon ends", within=2.0)
