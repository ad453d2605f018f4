"""One suite over every adapter of the worker process port (``runtimes/workers.py``)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from guactors.runtimes import open_workers
from guactors.runtimes.workers import Ended, Started
from tests.contract.process_watch import Watch, await_true, config_for, gone, read_pid

ENTRY = "tests.contract.stand_in_worker:run_worker"


@pytest.fixture(params=["fork", "spawn"])
def watch(request: pytest.FixtureRequest) -> Iterator[Watch]:
    workers = open_workers(ENTRY, method=request.param)
    yield Watch(workers)
    workers.close()


def test_a_worker_starts_and_ends_once(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-exit-1", tmp_path))
    death = watch.ended("w-exit-1").death
    assert (death.cause, death.exit_code, death.signal) == ("exited", 7, None)
    assert (death.worker, death.provider) == ("w-exit-1", "box")
    assert death.stderr_tail == "to err"
    assert death.rss_bytes > 2**20
    assert watch.lines("w-exit-1", 1) == ["to out"]
    assert watch.lines("w-exit-1", 2) == ["to err"]
    assert [type(one) for one in watch.seen if isinstance(one, Started | Ended)] == [Started, Ended]
    assert isinstance(watch.seen[0], Started)
    assert isinstance(watch.seen[-1], Ended)


def test_a_worker_finds_a_clean_house(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-look-1", tmp_path))
    assert watch.ended("w-look-1").death.stderr_tail == ""
    assert watch.lines("w-look-1", 1) == [
        "leader True True",
        "stdin ''",
        "signals True True",
        "fds []",
        "name box argv clean True",
    ]


def test_what_all_workers_would_do_is_done_once_before_they_are_forked(tmp_path: Path) -> None:
    workers = open_workers(ENTRY, method="fork")
    watch = Watch(workers)
    for worker in ("w-prepared-1", "w-prepared-2"):
        workers.start(config_for(worker, tmp_path))
        watch.ended(worker)
        assert watch.lines(worker, 1) == ["prepared True"]
    workers.close()


def test_what_a_shell_ignores_for_us_is_not_ignored_in_workers(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        workers = open_workers(ENTRY, method="spawn")
        watch = Watch(workers)
        workers.start(config_for("w-look-1", tmp_path))
        watch.ended("w-look-1")
        workers.close()
    finally:
        signal.signal(signal.SIGINT, before)
    assert "signals True True" in watch.lines("w-look-1", 1)


TRIES = f"""
import sys, tempfile
from pathlib import Path
from guactors.runtimes import open_workers
from tests.contract.process_watch import Watch, config_for

with tempfile.TemporaryDirectory() as directory:
    workers = open_workers({ENTRY!r}, method=sys.argv[1])
    watch = Watch(workers)
    workers.start(config_for("w-environment-1", Path(directory)))
    watch.ended("w-environment-1")
    print(*watch.lines("w-environment-1", 1), sep="\\n")
    workers.close()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_users_passphrase_is_out_of_reach_of_a_worker(method: str) -> None:
    """Also of one whose provider was started with it: /proc shows what a process was born with."""
    tried = subprocess.run(
        [sys.executable, "-c", TRIES, method],
        env={**os.environ, "GU_PASSPHRASE": "open sesame"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert tried.stdout.splitlines() == ["own False", "at birth False", "child False"]


def test_an_entry_that_raises_shows_its_traceback(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-raise-1", tmp_path))
    death = watch.ended("w-raise-1").death
    assert (death.cause, death.exit_code) == ("exited", 1)
    assert death.stderr_tail.endswith("ValueError: no such luck")


def test_names_and_unfinished_lines_are_told(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-lines-1", tmp_path))
    watch.ended("w-lines-1")
    told = [(one.name, line) for one in watch.output("w-lines-1") for line in one.lines]
    assert told == [
        ("", "before"), ("first", "one"), ("first", "two"), ("second", "three"),
        ("second", "unfinished"),
    ]  # fmt: skip


def test_a_prompt_is_told_while_the_worker_waits(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-partial-1", tmp_path))
    watch.printed("w-partial-1", "prompt> ")
    assert not any(isinstance(one, Ended) for one in watch.seen)


def test_too_much_output_is_dropped_and_counted(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-chatter-1", tmp_path))
    watch.ended("w-chatter-1")
    dropped = sum(one.dropped for one in watch.output("w-chatter-1") if one.stream == 1)
    assert dropped > 0
    assert dropped + len(watch.lines("w-chatter-1", 1)) == 1000
    assert watch.lines("w-chatter-1", 2) == ["last words"]


def test_the_death_report_keeps_the_end_of_stderr(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-verbose-1", tmp_path))
    tail = watch.ended("w-verbose-1").death.stderr_tail
    assert tail.endswith("yEND")
    assert 4000 < len(tail) <= 4096


def test_kill_ends_one_that_is_deaf(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-deaf-1", tmp_path))
    watch.printed("w-deaf-1", "deaf")
    watch.workers.kill("w-deaf-1")
    death = watch.ended("w-deaf-1").death
    assert (death.cause, death.signal) == ("killed", signal.SIGKILL)


def test_kill_right_after_start(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-deaf-1", tmp_path))
    watch.workers.kill("w-deaf-1")
    assert watch.ended("w-deaf-1").death.cause == "killed"


def test_a_signal_nobody_here_sent(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-wait-1", tmp_path))
    watch.printed("w-wait-1", "waiting")
    os.kill(watch.started("w-wait-1"), signal.SIGKILL)
    death = watch.ended("w-wait-1").death
    assert (death.cause, death.signal) == ("signal", signal.SIGKILL)


def test_stop_and_continue(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-wait-1", tmp_path))
    watch.printed("w-wait-1", "waiting")
    process = psutil.Process(watch.started("w-wait-1"))
    watch.workers.signal("w-wait-1", signal.SIGSTOP)
    await_true(lambda: process.status() == psutil.STATUS_STOPPED, "stopped")
    watch.workers.signal("w-wait-1", signal.SIGCONT)
    await_true(lambda: process.status() != psutil.STATUS_STOPPED, "continued")
    watch.workers.signal("w-wait-1", signal.SIGSTOP)
    watch.workers.kill("w-wait-1")
    assert watch.ended("w-wait-1").death.cause == "killed"


@pytest.mark.parametrize("kind", ["wait", "family", "stray"])
def test_all_of_it_stands_still_and_goes_on(watch: Watch, tmp_path: Path, kind: str) -> None:
    worker = f"w-{kind}-1"
    watch.workers.start(config_for(worker, tmp_path))
    pids = [watch.started(worker)]
    for other in {"wait": (), "family": ("child",), "stray": ("child", "grandchild")}[kind]:
        pids.append(read_pid(tmp_path / f"{worker}.{other}"))
    processes = [psutil.Process(pid) for pid in pids]
    for _ in range(2):
        watch.workers.freeze(worker)
        await_true(lambda: all(x.status() == psutil.STATUS_STOPPED for x in processes), "stopped")
        watch.workers.thaw(worker)
        await_true(lambda: all(x.status() != psutil.STATUS_STOPPED for x in processes), "goes on")
    watch.workers.freeze(worker)
    watch.workers.kill(worker)
    assert watch.ended(worker).death.cause == "killed"
    for process in processes[1:]:
        if kind == "stray":
            process.kill()
        await_true(lambda: gone(process.pid), "gone")  # noqa: B023 - awaited at once


def test_what_is_left_of_the_group_dies_with_the_worker(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-family-1", tmp_path))
    child = read_pid(tmp_path / "w-family-1.child")
    os.kill(watch.started("w-family-1"), signal.SIGKILL)
    watch.ended("w-family-1")
    await_true(lambda: gone(child), "the grandchild ends")


def test_orders_to_the_dead_and_the_unknown_are_nothing(watch: Watch, tmp_path: Path) -> None:
    watch.workers.start(config_for("w-exit-1", tmp_path))
    watch.ended("w-exit-1")
    for worker in ("w-exit-1", "w-unknown-1"):
        watch.workers.kill(worker)
        watch.workers.signal(worker, signal.SIGTERM)
    watch.workers.start(config_for("w-exit-2", tmp_path))
    assert watch.ended("w-exit-2").death.cause == "exited"


def test_many_at_once_each_told_apart(watch: Watch, tmp_path: Path) -> None:
    names = [f"w-exit-{number}" for number in range(8)]
    for name in names:
        watch.workers.start(config_for(name, tmp_path))
    for name in names:
        assert watch.ended(name).death.exit_code == 7
    assert len({watch.started(name) for name in names}) == len(names)


def test_close_ends_all_and_is_idempotent(watch: Watch, tmp_path: Path) -> None:
    for name in ("w-deaf-1", "w-family-1"):
        watch.workers.start(config_for(name, tmp_path))
    watch.printed("w-deaf-1", "deaf")
    watch.printed("w-family-1", "family")
    pids = [watch.started("w-deaf-1"), watch.started("w-family-1")]
    pids.append(read_pid(tmp_path / "w-family-1.child"))
    watch.workers.close()
    await_true(lambda: all(gone(pid) for pid in pids), "all end", within=2.0)
    watch.workers.close()
    assert watch.workers.events() == []
