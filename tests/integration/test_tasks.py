"""Remote functions on a real embedded grid: values, errors, retries, streams, cancellation,
time."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import guactors as gu
from guactors import errors
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


@gu.remote
def add(a: int, b: int = 1) -> int:
    return a + b


@gu.remote
def fail(message: str) -> None:
    raise KeyError(message)


def test_values_come_back_in_order() -> None:
    assert gu.get([add.remote(i, b=i) for i in range(50)]) == [2 * i for i in range(50)]


def test_references_are_replaced_by_their_values() -> None:
    first = add.remote(1)
    assert gu.get(add.remote(first, b=add.remote(first))) == 5


def test_a_reference_inside_a_container_stays_a_reference() -> None:
    @gu.remote
    def open_it(box: list[gu.ObjectRef]) -> int:
        return int(gu.get(box[0])) + 1

    assert gu.get(open_it.remote([gu.put(41)])) == 42
    assert gu.get(open_it.remote([add.remote(40)])) == 42


def test_a_returned_reference_can_be_read_by_the_caller() -> None:
    @gu.remote
    def make() -> list[gu.ObjectRef]:
        return [gu.put("inner"), add.remote(1)]

    inner, sum_ = gu.get(make.remote())
    assert gu.get([inner, sum_]) == ["inner", 2]


def test_arrays_come_back_whole_and_read_only() -> None:
    @gu.remote
    def double(x: np.ndarray) -> np.ndarray:
        return x * 2

    data = np.arange(1_000_000, dtype=np.float64)
    result = gu.get(double.remote(data))
    assert np.array_equal(result, data * 2)
    assert not result.flags.writeable
    again = gu.get(double.remote(gu.put(data)))
    assert np.array_equal(again, result)


def test_several_returns() -> None:
    @gu.remote(num_returns=2)
    def pair() -> tuple[int, int]:
        return 1, 2

    one, two = pair.remote()
    assert gu.get([two, one]) == [2, 1]
    with pytest.raises(ValueError, match="num_returns=3 but returned 2 values"):
        gu.get(pair.options(num_returns=3).remote()[0])
    assert pair.options(num_returns=0).remote() is None


def test_an_error_is_its_own_type_with_the_remote_traceback() -> None:
    with pytest.raises(KeyError) as caught:
        gu.get(fail.remote("missing"))
    assert isinstance(caught.value, errors.TaskError)
    assert caught.value.args == ("missing",)
    assert "in fail" in str(caught.value) and "raise KeyError(message)" in str(caught.value)


def test_an_error_of_a_dependency_is_the_outcome() -> None:
    with pytest.raises(KeyError):
        gu.get(add.remote(fail.remote("early")))


def test_nested_tasks_do_not_deadlock_on_two_cpus() -> None:
    @gu.remote
    def fib(n: int) -> int:
        if n < 2:
            return n
        return sum(gu.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert gu.get(fib.remote(6), timeout=50) == 8


def test_streaming_gives_items_as_they_are_made() -> None:
    @gu.remote
    def count(n: int) -> Iterator[int]:
        yield from range(n)

    assert [gu.get(ref) for ref in count.remote(5)] == list(range(5))


def test_a_failing_stream_ends_with_its_error() -> None:
    @gu.remote
    def two_then_error() -> Iterator[int]:
        yield 1
        yield 2
        raise RuntimeError("third")

    refs = list(two_then_error.remote())
    assert gu.get(refs[:2]) == [1, 2]
    with pytest.raises(RuntimeError, match="third"):
        gu.get(refs[2])
    assert len(refs) == 3


def test_await_and_future() -> None:
    async def both() -> tuple[int, list[int]]:
        @gu.remote
        def count() -> Iterator[int]:
            yield from range(3)

        items = [gu.get(ref) async for ref in count.remote()]
        return await add.remote(1), items

    assert asyncio.run(both()) == (2, [0, 1, 2])
    assert add.remote(2).future().result(20) == 3


def test_get_timeout_leaves_the_call_running() -> None:
    @gu.remote
    def slow() -> str:
        time.sleep(0.5)
        return "done"

    ref = slow.remote()
    with pytest.raises(errors.GetTimeout):
        gu.get(ref, timeout=0.05)
    assert gu.get(ref) == "done"
    with pytest.raises(TimeoutError):
        gu.get(slow.remote(), timeout=0)


def test_wait_splits_in_order() -> None:
    @gu.remote
    def nap(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    long, short = nap.remote(2.0), nap.remote(0.01)
    ready, rest = gu.wait([long, short], timeout=10)
    assert (ready, rest) == ([short], [long])
    assert gu.wait([]) == ([], [])
    with pytest.raises(ValueError, match="once"):
        gu.wait([short, short])
    with pytest.raises(ValueError, match="num_returns=2"):
        gu.wait([short], num_returns=2)
    with pytest.raises(TypeError):
        gu.wait(short)
    gu.cancel(long)


def test_waiting_for_what_the_last_round_left_takes_each_once() -> None:
    refs = [add.remote(i) for i in range(100)]
    rest, seen = refs, []
    while rest:
        ready, rest = gu.wait(rest, timeout=30)
        assert len(ready) == 1
        seen += gu.get(ready)
    assert sorted(seen) == list(range(1, 101))


def test_wait_looks_at_the_refs_again_when_they_are_others() -> None:
    refs = [gu.put(i) for i in range(4)]
    ready, rest = gu.wait(refs, num_returns=2)
    assert (ready, rest) == (refs[:2], refs[2:])
    with pytest.raises(ValueError, match="once"):
        gu.wait([rest[0], rest[0]])
    with pytest.raises(ValueError, match="once"):
        gu.wait([*rest, rest[0]])
    with pytest.raises(TypeError, match="refs"):
        gu.wait([rest[0], 1])
    assert gu.wait(rest[::-1], num_returns=2) == (rest[::-1], [])


def test_wait_keeps_the_order_and_stops_in_time() -> None:
    @gu.remote
    def held(path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.01)

    long = held.remote("/nowhere/at/all")
    done = [add.remote(i) for i in range(3)]
    gu.get(done)
    refs = [done[2], long, done[0], done[1]]
    assert gu.wait(refs, num_returns=4, timeout=0) == ([done[2], done[0], done[1]], [long])
    assert gu.wait(refs, num_returns=2) == ([done[2], done[0]], [long, done[1]])
    gu.cancel(long)


def test_a_generator_is_ready_when_its_next_item_is_there() -> None:
    @gu.remote
    def two(path: str) -> Iterator[int]:
        yield 1
        while not Path(path).exists():
            time.sleep(0.01)
        yield 2

    stream = two.remote("/nowhere/at/all")
    assert gu.wait([stream], timeout=30) == ([stream], [])
    assert gu.get(next(stream)) == 1
    assert gu.wait([stream], timeout=0) == ([], [stream])
    gu.cancel(stream)


def test_call_timeout_interrupts_a_running_task_and_skips_a_queued_one(tmp_path: Path) -> None:
    @gu.remote(timeout=0.3)
    def sleep(seconds: float) -> None:
        time.sleep(seconds)

    began = time.monotonic()
    with pytest.raises(errors.CallTimeout):
        gu.get(sleep.remote(30))
    assert time.monotonic() - began < 5
    gu.get(sleep.options(timeout=None).remote(0))


def test_cancel_interrupts_a_running_task(tmp_path: Path) -> None:
    @gu.remote
    def forever(path: str) -> None:
        Path(path).touch()
        time.sleep(60)

    path = tmp_path / "started"
    ref = forever.remote(str(path))
    until(path.exists)
    gu.cancel(ref)
    with pytest.raises(errors.TaskCancelled):
        gu.get(ref, timeout=10)


def test_cancel_drops_queued_tasks() -> None:
    @gu.remote
    def hold() -> None:
        time.sleep(0.3)

    refs = [hold.remote() for _ in range(20)]
    for ref in refs[4:]:
        gu.cancel(ref)
    for ref in refs[4:]:
        with pytest.raises(errors.TaskCancelled):
            gu.get(ref, timeout=20)
    gu.get(refs[:4], timeout=20)


def test_forced_cancel_ends_a_task_that_ignores_interrupts(tmp_path: Path) -> None:
    @gu.remote
    def stubborn(path: str) -> None:
        Path(path).touch()
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                continue

    path = tmp_path / "stubborn"
    ref = stubborn.remote(str(path))
    until(path.exists)
    gu.cancel(ref, force=True)
    with pytest.raises(errors.TaskCancelled):
        gu.get(ref, timeout=10)
    assert gu.get(add.remote(1), timeout=20) == 2


def test_a_killed_worker_is_reported_with_signal_and_last_words() -> None:
    @gu.remote(max_retries=0)
    def die() -> None:
        import sys

        print("famous last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(errors.WorkerDied) as caught:
        gu.get(die.remote(), timeout=20)
    death = caught.value.death
    assert death is not None and death.signal == signal.SIGKILL
    assert "famous last words" in death.stderr_tail
    assert death.rss_bytes > 0


def test_a_killed_worker_s_task_is_retried(tmp_path: Path) -> None:
    @gu.remote(max_retries=1)
    def die_once(path: str) -> str:
        if not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "second life"

    assert gu.get(die_once.remote(str(tmp_path / "died")), timeout=20) == "second life"


def test_retry_exceptions(tmp_path: Path) -> None:
    @gu.remote(max_retries=2, retry_exceptions=[ValueError])
    def third_time(path: str) -> int:
        with open(path, "a") as file:
            file.write("x")
        tries = len(Path(path).read_text())
        if tries < 3:
            raise ValueError(tries)
        return tries

    assert gu.get(third_time.remote(str(tmp_path / "tries")), timeout=20) == 3


def test_what_cannot_be_pickled_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(errors.NotSerializable, match=r"arguments of add.*\[0\]\[0\]\.lock|\[0\]"):
        add.remote(lock)

    @gu.remote
    def uses_lock() -> object:
        return lock

    with pytest.raises(errors.NotSerializable, match="lock"):
        uses_lock.remote()

    @gu.remote
    def returns_lock() -> object:
        import threading

        return {"inside": threading.Lock()}

    with pytest.raises(errors.NotSerializable, match=r"result of .*returns_lock\['inside'\]"):
        gu.get(returns_lock.remote())


def test_a_missing_module_is_named() -> None:
    import sys
    import types

    module = types.ModuleType("only_here")
    exec("def f():\n    return 1\n", module.__dict__)
    module.f.__module__ = "only_here"
    sys.modules["only_here"] = module
    try:
        with pytest.raises(ModuleNotFoundError, match="only_here"):
            gu.get(gu.remote(module.f).remote(), timeout=20)
    finally:
        del sys.modules["only_here"]


def test_impossible_demands_are_refused_with_numbers() -> None:
    session = gu.api.current_session()
    assert session is not None
    session.core.patience.seconds = 0.2
    with pytest.raises(errors.Unschedulable, match="500"):
        gu.get(add.options(num_cpus=500).remote(1), timeout=20)


def test_options_are_checked() -> None:
    with pytest.raises(errors.UnknownOption, match="num_cpus"):
        add.options(num_cpu=1)
    with pytest.raises(errors.UnknownOption, match="num_cpus=-1"):
        add.options(num_cpus=-1)
    with pytest.raises(errors.UnknownOption):
        add.options(num_cpus=float("nan"))
    with pytest.raises(TypeError):
        add(1)


def test_grid_facts() -> None:
    assert gu.cluster_resources()["CPU"] == 2.0
    assert gu.nodes()[0]["Alive"]


def test_context_inside_a_task() -> None:
    @gu.remote(name="who-am-i")
    def who() -> tuple[str | None, str | None]:
        context = gu.get_runtime_context()
        return context.get_task_name(), context.get_worker_id()

    name, worker = gu.get(who.remote())
    assert name == "who-am-i" and worker is not None and worker.startswith("w-")


def until(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)
