"""``guactors.integrations.Executor``: what CPython's own suite does not ask."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import pytest

import guactors as gu
from guactors import errors
from guactors.integrations import Executor
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


def eventually(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def square(x: int) -> int:
    return x * x


def fail(text: str) -> None:
    raise LookupError(text)


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor() as made:
        yield made


def test_an_error_is_of_its_own_type_with_the_remote_traceback(executor: Executor) -> None:
    error = executor.submit(fail, "gone").exception()
    assert type(error) is LookupError
    assert error.args == ("gone",)
    assert isinstance(error.__cause__, errors.TaskError)
    assert "raise LookupError(text)" in str(error.__cause__)


def test_a_died_worker_ends_its_call_only(executor: Executor) -> None:
    with pytest.raises(errors.WorkerDied):
        executor.submit(os._exit, 3).result(timeout=30)
    assert executor.submit(square, 3).result(timeout=30) == 9


def test_a_call_runs_once_unless_told_otherwise(tmp_path: Path) -> None:
    def mark_and_die(name: str) -> None:
        with Path(tmp_path, name).open("a", encoding="utf-8") as file:
            file.write("x")
        os._exit(1)

    with Executor(1) as once, Executor(1, max_retries=1) as twice:
        futures.wait([once.submit(mark_and_die, "once"), twice.submit(mark_and_die, "twice")])
    assert Path(tmp_path, "once").read_text("utf-8") == "x"
    assert Path(tmp_path, "twice").read_text("utf-8") == "xx"


def test_max_workers_holds_however_short_the_calls(tmp_path: Path) -> None:
    def alone(i: int) -> bool:
        lock = Path(tmp_path, "lock")
        lock.mkdir()  # fails if somebody else is in here
        lock.rmdir()
        return True

    with Executor(max_workers=1) as executor:
        assert all(executor.map(alone, range(200)))


def test_calls_are_sent_ahead_when_nobody_limits_them(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait() -> None:
        while not gate.exists():
            time.sleep(0.01)

    with Executor() as free, Executor(2) as limited:
        for executor, out in ((free, 3), (limited, 2)):
            calls = [executor.submit(wait) for _ in range(6)]
            assert [call.running() for call in calls] == [True] * out + [False] * (6 - out)
        gate.touch()


def test_everything_callable_can_be_called(executor: Executor) -> None:
    three = 3
    assert executor.submit(lambda x: x + three, 1).result() == 4
    assert executor.submit(functools.partial(square, 5)).result() == 25
    words = ["a"]
    assert executor.submit(words.__len__).result() == 1
    words.append("b")
    assert executor.submit(words.__len__).result() == 2
    assert executor.submit(square, gu.put(6)).result() == 36


def test_what_cannot_be_pickled_is_the_outcome(executor: Executor) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be pickled"):
        executor.submit(square, lock).result()
    with pytest.raises(TypeError, match="cannot be pickled"):
        executor.submit(lambda: lock).result()
    with pytest.raises(TypeError, match="cannot be pickled"):
        executor.submit(threading.Lock).result()


def test_options_are_the_grids() -> None:
    with Executor(num_cpus=2) as executor:
        seconds = 0.2
        began = time.monotonic()
        list(executor.map(time.sleep, [seconds] * 3))
        assert time.monotonic() - began >= 3 * seconds, "two calls of two CPUs ran at a time"
        assert executor._crew._window.places == 1
    with pytest.raises(errors.UnknownOption, match="did you mean num_cpus"):
        Executor(num_cpu=1)
    with pytest.raises(errors.UnknownOption, match="one result"):
        Executor(num_returns=2)
    with Executor(timeout=0.2) as hurried, pytest.raises(errors.CallTimeout):
        hurried.submit(time.sleep, 30).result(timeout=20)


def test_cancel_before_it_runs(tmp_path: Path) -> None:
    with Executor(max_workers=1) as executor:
        running = executor.submit(time.sleep, 0.3)
        waiting = executor.submit(Path(tmp_path, "ran").touch)
        assert running.running() and not waiting.running()
        assert waiting.cancel() and waiting.cancelled()
        assert futures.wait([waiting], timeout=5).done == {waiting}
        assert running.result(timeout=20) is None
        assert not running.cancel()
        with pytest.raises(futures.CancelledError):
            waiting.result()
    assert not Path(tmp_path, "ran").exists()


def test_cancel_ends_a_call_that_runs(tmp_path: Path) -> None:
    def run_long(began: Path, ended: Path) -> None:
        began.touch()
        try:
            time.sleep(60)
        finally:
            ended.touch()

    began, ended = tmp_path / "began", tmp_path / "ended"
    seen = []
    with Executor(max_workers=1) as executor:
        future = executor.submit(run_long, began, ended)
        future.add_done_callback(seen.append)
        eventually(began.exists)
        assert future.cancel()
        assert seen == [future]
        eventually(ended.exists)
        assert executor.submit(square, 2).result(timeout=20) == 4


def test_the_initializer_runs_once_in_each_process_of_its_own_executor() -> None:
    def remember(value: str) -> None:
        os.environ["GU_TEST_INIT"] = os.environ.get("GU_TEST_INIT", "") + value

    def recall(_: int) -> tuple[int, str | None]:
        time.sleep(0.01)
        return os.getpid(), os.environ.get("GU_TEST_INIT")

    with (
        Executor(2, initializer=remember, initargs=("a",)) as a,
        Executor(1, initializer=remember, initargs=("b",)) as b,
        Executor() as c,
    ):
        of_a, of_b, of_c = (set(one.map(recall, range(20))) for one in (a, b, c))
    assert {value for _, value in of_a} == {"a"} and len(of_a) <= 2
    assert {value for _, value in of_b} == {"b"} and len(of_b) == 1
    assert {value for _, value in of_c} == {None}
    assert not {pid for pid, _ in of_a} & {pid for pid, _ in of_b}


def test_a_failing_initializer_breaks_the_executor() -> None:
    with Executor(1, initializer=fail, initargs=("no",)) as executor:
        first, second = executor.submit(square, 1), executor.submit(square, 2)
        for future in (first, second):
            with pytest.raises(futures.BrokenExecutor, match="initializer"):
                future.result(timeout=30)
        with pytest.raises(futures.BrokenExecutor, match="initializer") as caught:
            executor.submit(square, 3)
        assert "no" in str(caught.value.__cause__)


def test_map_draws_no_more_than_its_buffer() -> None:
    drawn = 0

    def endless() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    with Executor() as executor:
        results = executor.map(square, endless(), buffersize=5)
        assert drawn == 5
        assert [next(results) for _ in range(20)] == [i * i for i in range(1, 21)]
        assert drawn <= 26
        chunked = executor.map(square, endless(), buffersize=2, chunksize=3)
        assert next(chunked) > 0
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="buffersize"):
                executor.map(square, [1], buffersize=wrong)
        with pytest.raises(TypeError, match="buffersize"):
            executor.map(square, [1], buffersize=1.5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="chunksize"):
            executor.map(square, [1], chunksize=0)


def test_asyncio_runs_in_it_and_cancels_in_it(executor: Executor, tmp_path: Path) -> None:
    def run_long(began: Path, ended: Path) -> None:
        began.touch()
        try:
            time.sleep(60)
        finally:
            ended.touch()

    began, ended = tmp_path / "began", tmp_path / "ended"

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, square, i) for i in range(9)]
        values = await asyncio.gather(*calls)
        late = loop.run_in_executor(executor, run_long, began, ended)
        await asyncio.to_thread(eventually, began.exists)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(late, 0.01)
        return values

    assert asyncio.run(main()) == [i * i for i in range(9)]
    eventually(ended.exists)


def test_an_executor_inside_a_task_does_not_block_the_grid() -> None:
    """Both CPUs are taken by tasks that wait for calls of their own."""

    @gu.remote
    def outer(n: int) -> int:
        with Executor() as inner:
            first = inner.submit(square, n).result()
            return first + sum(inner.map(square, range(5)))

    assert gu.get([outer.remote(n) for n in range(4)], timeout=50) == [n * n + 30 for n in range(4)]


def test_results_come_after_the_executor_is_forgotten() -> None:
    future = Executor(1).submit(square, 7)
    assert future.result(timeout=20) == 49
    eventually(lambda: not any(t.name == "guactors-executor" for t in threading.enumerate()))


def test_everything_pending_ends_with_the_grid() -> None:
    """The last test of this module that uses the fixture's grid: it makes its own afterwards."""
    executor = Executor(1)
    pending = [executor.submit(time.sleep, 60) for _ in range(3)]
    gu.shutdown()
    try:
        for future in [*pending, executor.submit(square, 1)]:
            with pytest.raises(errors.SessionClosed):
                future.result(timeout=20)
        executor.shutdown()
        assert not gu.is_initialized(), "a waiting call started a grid of its own"
    finally:
        gu.init(num_cpus=2, ignore_reinit_error=True)
