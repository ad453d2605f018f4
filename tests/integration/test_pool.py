"""``guactors.util.multiprocessing.Pool`` beside ``multiprocessing.Pool``: the same calls, the same
outcomes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors import errors
from guactors.util.multiprocessing import Pool
from tests import leaks
from tests.integration import pool_jobs as jobs
from tests.integration.pool_cases import DIFFERENT_TEXT, SAME, outcome

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]
ROOT = Path(__file__).resolve().parents[2]


def eventually(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def standard() -> dict[str, Any]:
    """What ``multiprocessing.Pool`` makes of each case, in a process of its own: it leaves a helper
    process behind for as long as its own process lives."""
    program = "from tests.integration import pool_cases; pool_cases.print_outcomes()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, timeout=60, check=True
    )
    outcomes: dict[str, Any] = pickle.loads(done.stdout)
    assert outcomes.keys() == SAME.keys()
    return outcomes


@pytest.fixture(scope="module")
def ours(grid: None) -> Iterator[Pool]:
    with Pool(2, jobs.start, ("s",)) as pool:
        yield pool


@pytest.mark.parametrize("what", SAME)
def test_as_the_standard_pool(what: str, standard: dict[str, Any], ours: Pool) -> None:
    expected = standard[what]
    found = outcome(lambda: SAME[what](ours))
    if what in DIFFERENT_TEXT:
        assert issubclass(found[0], expected[0])
    else:
        assert found == expected


def test_an_error_has_the_remote_traceback_as_in_the_standard_pool(ours: Pool) -> None:
    with pytest.raises(jobs.Refused) as caught:
        ours.apply(jobs.refuse, (5,))
    assert caught.value.number == 5
    assert "raise Refused(x)" in str(caught.value.__cause__)


def test_the_callback_for_nothing_is_called() -> None:
    """The standard pool forgets it."""
    told = threading.Event()
    with Pool(1) as pool:
        assert pool.map_async(jobs.square, [], callback=lambda _: told.set()).get() == []
        assert told.is_set()


def test_closed_means_closed() -> None:
    pool = Pool(1)
    result = pool.map_async(jobs.square, range(10))
    pool.close()
    for call in (pool.map, pool.imap, pool.map_async):
        with pytest.raises(ValueError, match="Pool not running"):
            call(jobs.square, [1])
    pool.join()
    assert result.ready() and result.get() == [i * i for i in range(10)]
    with pytest.raises(ValueError, match="not running"), pool:
        pass


def test_join_waits_for_what_imap_has_not_drawn_yet() -> None:
    pool = Pool(1)
    results = pool.imap(jobs.square, range(100))
    pool.close()
    pool.join()
    assert list(results) == [i * i for i in range(100)]


def test_terminate_ends_what_is_pending() -> None:
    pool = Pool(1)
    running = pool.apply_async(jobs.slow_pid, (60,))
    waiting = pool.apply_async(jobs.square, (1,))
    pool.terminate()
    for result in (running, waiting):
        with pytest.raises(errors.TaskCancelled, match="terminated"):
            result.get(20)
    pool.join()


def test_leaving_the_with_block_ends_its_processes() -> None:
    with Pool(1) as pool:
        pid = pool.apply(jobs.pid)
        os.kill(pid, 0)
    eventually(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_makes_room_after_its_number_of_calls() -> None:
    with Pool(1, jobs.start, ("x",), maxtasksperchild=2) as pool:
        seen = [(pool.apply(jobs.pid), pool.apply(jobs.started)) for _ in range(3)]
        assert len({pid for pid, _ in seen}) == 3
        assert {text for _, text in seen} == {"x"}
        eventually(lambda: not _alive(seen[0][0]))


def test_a_process_that_dies_ends_its_call_and_is_replaced() -> None:
    with Pool(1) as pool:
        dying = pool.apply_async(os._exit, (7,))
        after = pool.apply_async(jobs.square, (3,))
        with pytest.raises(errors.ActorDied):
            dying.get(30)
        assert after.get(30) == 9


def test_a_failing_initializer_ends_every_call() -> None:
    with Pool(2, jobs.refuse, (1,)) as pool:
        result = pool.map_async(jobs.square, range(20))
        with pytest.raises(Exception, match="initializer"):
            result.get(30)
        with pytest.raises(Exception, match="initializer"):
            pool.apply(jobs.square, (1,))


def test_imap_draws_as_results_are_taken() -> None:
    drawn = 0

    def endless() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    with Pool(2) as pool:
        results = pool.imap(jobs.square, endless(), 2)
        assert [next(results) for _ in range(50)] == [i * i for i in range(1, 51)]
        assert drawn <= 50 + 2 * 2 * 5
        unordered = pool.imap_unordered(jobs.square, endless())
        assert len({next(unordered) for _ in range(50)}) == 50
        assert unordered.next(timeout=20) > 0


def test_a_callback_that_raises_does_not_stop_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    def complain(_: object) -> None:
        raise RuntimeError("from the callback")

    with Pool(1) as pool:
        result = pool.apply_async(jobs.square, (2,), callback=complain)
        assert result.get(20) == 4
        assert pool.apply(jobs.square, (3,)) == 9
    assert "from the callback" in caplog.text


def test_more_processes_than_processors() -> None:
    with Pool(6) as pool:
        pids = pool.map(jobs.slow_pid, [0.3] * 6, 1)
    assert len(set(pids)) == 6


def test_a_pool_inside_a_task() -> None:
    @gu.remote
    def outer(n: int) -> int:
        with Pool(1) as pool:
            there = pool.map_async(jobs.square, range(n)).get()
            return sum(there) + sum(pool.imap(jobs.square, range(n)))

    assert gu.get([outer.remote(n) for n in (3, 4, 5)], timeout=50) == [10, 28, 60]


def test_options_are_those_of_a_remote_class() -> None:
    with pytest.raises(errors.UnknownOption, match="did you mean num_cpus"):
        Pool(1, num_cpu=1)
    for option in ("name", "lifetime", "get_if_exists"):
        with pytest.raises(errors.UnknownOption, match=option):
            Pool(1, ray_remote_args={option: "x"})
    with Pool(1, ray_remote_args={"num_cpus": 1}) as pool:
        assert pool.apply(jobs.square, (2,)) == 4
        eventually(lambda: gu.available_resources().get("CPU") == 1.0)


def test_an_address_is_joined_where_there_is_no_grid_yet() -> None:
    """The last test of this module that uses the fixture's grid: it makes its own afterwards."""
    with Pool(1, ray_address="gu://nobody") as pool:
        assert pool.apply(jobs.square, (3,)) == 9, "we are on a grid, and stay there"
    gu.shutdown()
    try:
        with pytest.raises(errors.UsageError, match="gu://nobody"):
            Pool(1, ray_address="gu://nobody")
    finally:
        gu.init(num_cpus=2, ignore_reinit_error=True)
