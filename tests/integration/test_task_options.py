"""Options of tasks and streams on a real grid: max_calls, and streams that pause."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors import exceptions
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


# --- max_calls ------------------------------------------------------------------------------------


@gu.remote(max_calls=3, max_retries=0)
def three_times(_number: int) -> int:
    return os.getpid()


@gu.remote(max_retries=0)
def where() -> int:
    return os.getpid()


def test_a_process_runs_a_function_as_often_as_it_says_and_no_call_is_lost() -> None:
    found = gu.get([three_times.remote(i) for i in range(20)], timeout=30)
    assert max(Counter(found).values()) == 3
    once = three_times.options(max_calls=1)
    assert len(set(gu.get([once.remote(i) for i in range(5)], timeout=30))) == 5


def test_other_calls_that_wait_behind_the_last_run_go_elsewhere() -> None:
    refs = []
    for i in range(60):
        refs += [three_times.remote(i), where.remote()]
    found = gu.get(refs, timeout=30)
    assert max(Counter(found[::2]).values()) == 3
    assert len(found) == 120


def test_a_process_that_ran_its_last_call_runs_its_exit_hooks(tmp_path: Path) -> None:
    @gu.remote(max_calls=1)
    def leave_note(path: str) -> int:
        import atexit

        atexit.register(Path(path).write_text, "left")
        return os.getpid()

    note = tmp_path / "note"
    process = gu.get(leave_note.remote(str(note)), timeout=20)
    until(note.exists)
    until(lambda: not alive(process))


def test_failed_runs_and_streams_count_too() -> None:
    @gu.remote(max_calls=2)
    def fail() -> None:
        raise ValueError(str(os.getpid()))

    @gu.remote(max_calls=1)
    def pids() -> Iterator[int]:
        yield os.getpid()
        yield os.getpid()

    seen = Counter[str]()
    for _ in range(6):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            gu.get(fail.remote(), timeout=20)
        seen[str(caught.value.__cause__ or caught.value)] += 1
    assert max(seen.values()) == 2
    streams = [pids.remote() for _ in range(3)]
    found = [tuple(gu.get(list(stream), timeout=20)) for stream in streams]
    assert len(set(found)) == 3
    assert all(first == second for first, second in found)


# --- streams that pause ---------------------------------------------------------------------------


def count_into(path: str, items: int) -> Iterator[int]:
    """Notes each item in the file before it is made."""
    for i in range(items):
        with Path(path).open("a") as file:
            file.write("x")
        yield i


def made(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def settles_at(path: Path, count: int) -> bool:
    """Whether so many are made, and after a while no more."""
    until(lambda: made(path) >= count)
    time.sleep(0.1)
    return made(path) == count


streaming = gu.remote(count_into)


@gu.remote
class Producer:
    def count(self, path: str, items: int) -> Iterator[int]:
        yield from count_into(path, items)

    def present(self) -> bool:
        return True


@gu.remote
class AsyncProducer:
    async def count(self, path: str, items: int) -> AsyncIterator[int]:
        for i in count_into(path, items):
            yield i
            await asyncio.sleep(0)

    def plain(self, path: str, items: int) -> Iterator[int]:
        return count_into(path, items)

    async def present(self) -> bool:
        return True


def start(kind: str, path: Path, window: int, **options: Any) -> tuple[Any, Any]:
    """A stream of 8 items with a window, and what keeps it."""
    actor: Any = None
    if kind == "task":
        method = streaming
    elif kind == "async":
        actor = AsyncProducer.options(**options).remote()
        method = actor.count
    elif kind == "sync in async":
        actor = AsyncProducer.options(**options).remote()
        method = actor.plain.options(num_returns="streaming")
    else:
        threads = 2 if kind == "threads" else 1
        actor = Producer.options(max_concurrency=threads, **options).remote()
        method = actor.count
    made = method.options(_generator_backpressure_num_objects=window)
    return made.remote(str(path), 8), actor


KINDS = ["task", "actor", "threads", "async", "sync in async"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_producer_pauses_while_so_many_are_unread(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "made"
    stream, _actor = start(kind, path, 2)
    assert settles_at(path, 2)
    # Looking whether an item is there takes nothing.
    assert gu.wait([stream], timeout=20)[0] == [stream]
    assert gu.get(next(stream), timeout=20) == 0
    assert settles_at(path, 3)
    assert gu.get(list(stream), timeout=20) == list(range(1, 8))
    assert gu.get(stream.completed(), timeout=20) is None


def test_of_call_and_actor_the_tighter_window_wins(tmp_path: Path) -> None:
    for name, window, of_actor in (("call", 2, 4), ("actor", 4, 2), ("off", -1, 2)):
        path = tmp_path / name
        stream, _actor = start(
            "actor", path, window, _actor_generator_backpressure_num_objects=of_actor
        )
        assert settles_at(path, 2), name
        assert gu.get(list(stream), timeout=20) == list(range(8))
    path = tmp_path / "unlimited"
    stream, _actor = start("actor", path, -1)
    assert settles_at(path, 8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["cancelled", "dropped"])
def test_a_paused_producer_whose_stream_is_gone_ends(kind: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "made"
    stream, actor = start(kind, path, 1)
    until(lambda: made(path) == 1)
    if how == "cancelled":
        gu.cancel(stream)
        refs = list(stream)
        with pytest.raises(exceptions.TaskCancelledError):
            gu.get(refs, timeout=20)
    else:
        del stream
    if actor is None:
        assert gu.get([where.remote() for _ in range(4)], timeout=20)
    else:
        assert gu.get(actor.present.remote(), timeout=20)
    assert made(path) <= 2


def test_a_paused_actor_serves_others_when_its_reader_died(tmp_path: Path) -> None:
    @gu.remote(max_retries=0)
    def read_and_die(producer: Any, path: str) -> None:
        method = producer.count.options(_generator_backpressure_num_objects=1)
        stream = method.remote(path, 8)
        gu.get(next(stream))
        os._exit(3)

    producer = Producer.remote()
    path = tmp_path / "made"
    with pytest.raises(exceptions.WorkerCrashedError):
        gu.get(read_and_die.remote(producer, str(path)), timeout=20)
    assert gu.get(producer.present.remote(), timeout=20)
    assert made(path) < 8


def test_paused_tasks_keep_no_cpu_from_their_readers(tmp_path: Path) -> None:
    limited = streaming.options(_generator_backpressure_num_objects=1)
    streams = [limited.remote(str(tmp_path / f"{i}"), 4) for i in range(3)]
    for i in range(3):
        until(lambda i=i: made(tmp_path / f"{i}") == 1)  # type: ignore[misc]
    # All CPUs of the grid are under producers that wait for us.
    assert gu.get([where.remote() for _ in range(4)], timeout=20)
    assert [gu.get(list(stream), timeout=20) for stream in streams] == [[0, 1, 2, 3]] * 3


def test_a_producer_that_is_tried_again_goes_on_where_it_was(tmp_path: Path) -> None:
    @gu.remote(max_retries=2, _generator_backpressure_num_objects=2)
    def dies_once(path: str) -> Iterator[int]:
        for i in range(8):
            if i == 5 and not Path(path).exists():
                Path(path).touch()
                os._exit(3)
            yield i

    stream = dies_once.remote(str(tmp_path / "died"))
    assert gu.get(list(stream), timeout=30) == list(range(8))


@pytest.mark.parametrize("kind", ["task", "actor", "async"])
def test_a_dynamic_number_of_results_comes_in_one_value(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "made")
    if kind == "task":
        actor, method = None, streaming
    else:
        actor = (Producer if kind == "actor" else AsyncProducer).remote()
        method = actor.count
    whole = method.options(num_returns="dynamic").remote(path, 4)
    assert isinstance(whole, gu.ObjectRef)
    refs = gu.get(whole, timeout=20)
    assert gu.get(list(refs), timeout=20) == [0, 1, 2, 3]

    @gu.remote
    def total(items: Any) -> int:
        return sum(gu.get(ref, timeout=20) for ref in items)

    assert gu.get(total.remote(whole), timeout=20) == 6


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.005)
