"""``guactors.util.queue.Queue``: what ``queue.Queue`` promises, between processes."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import guactors as gu
from guactors import errors
from guactors.util.queue import Empty, Full, Queue
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


def eventually(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def two() -> Iterator[Queue]:
    made = Queue(maxsize=2)
    yield made
    made.shutdown(force=True)


def test_first_in_first_out(two: Queue) -> None:
    assert two.empty() and not two.full() and two.size() == two.qsize() == len(two) == 0
    two.put("a")
    two.put_nowait({"b": [1]})
    assert two.full() and not two.empty() and two.size() == two.qsize() == len(two) == 2
    assert two.get() == "a"
    assert two.get_nowait() == {"b": [1]}
    assert two, "an empty queue is no false value"


def test_errors_are_those_of_the_standard_queue(two: Queue) -> None:
    with pytest.raises(queue.Empty):
        two.get_nowait()
    with pytest.raises(Empty):
        two.get(block=False)
    with pytest.raises(Empty):
        two.get(timeout=0.01)
    two.put_nowait_batch([1, 2])
    with pytest.raises(queue.Full):
        two.put_nowait(3)
    with pytest.raises(Full):
        two.put(3, timeout=0.01)
    for call in (two.get, lambda timeout: two.put(1, timeout=timeout)):
        with pytest.raises(ValueError, match="non-negative"):
            call(timeout=-1)
    assert two.get(timeout=0) == 1, "an item that is there needs no time"
    two.put(4, timeout=0)
    assert two.get_nowait_batch(2) == [2, 4]


def test_a_batch_is_all_or_nothing(two: Queue) -> None:
    two.put(1)
    with pytest.raises(Full, match="2 items"):
        two.put_nowait_batch([2, 3])
    assert two.size() == 1
    two.put_nowait_batch([2])
    with pytest.raises(Empty, match="3 items"):
        two.get_nowait_batch(3)
    assert two.get_nowait_batch(0) == []
    assert two.get_nowait_batch(2) == [1, 2]
    with pytest.raises(TypeError):
        two.put_nowait_batch(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        two.get_nowait_batch(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        two.get_nowait_batch(-1)


def test_get_waits_for_put_and_put_for_room(two: Queue) -> None:
    got: list[int] = []
    reader = threading.Thread(target=lambda: got.extend(two.get(timeout=30) for _ in range(3)))
    reader.start()
    for i in range(3):
        two.put(i)
    reader.join(30)
    assert got == [0, 1, 2]
    two.put_nowait_batch([1, 2])
    writer = threading.Thread(target=two.put, args=(3,))
    writer.start()
    assert [two.get(timeout=30) for _ in range(3)] == [1, 2, 3]
    writer.join(30)
    assert not writer.is_alive()


def test_a_get_that_gave_up_takes_nothing(two: Queue) -> None:
    with pytest.raises(Empty):
        two.get(timeout=0.01)
    two.put(1)
    assert two.size() == 1


def test_producers_and_consumers_in_tasks() -> None:
    """More of them than processors, half of which must wait for the other half."""

    @gu.remote
    def produce(there: Queue, numbers: range) -> None:
        for number in numbers:
            there.put(number)

    @gu.remote
    def consume(there: Queue, count: int) -> int:
        return sum(there.get() for _ in range(count))

    there = Queue(maxsize=3)
    consumers = [consume.remote(there, 20) for _ in range(3)]
    producers = [produce.remote(there, range(at, at + 20)) for at in (0, 20, 40)]
    gu.get(producers, timeout=50)
    assert sum(gu.get(consumers, timeout=50)) == sum(range(60))
    there.shutdown()


def test_coroutines(two: Queue) -> None:
    async def produce() -> None:
        for i in range(20):
            await two.put_async(i)

    async def consume() -> list[int]:
        return [await two.get_async() for _ in range(20)]

    async def main() -> list[int]:
        _, found = await asyncio.gather(produce(), consume())
        with pytest.raises(Empty):
            await two.get_async(timeout=0.01)
        with pytest.raises(Empty):
            await two.get_async(block=False)
        await two.put_async(1)
        await two.put_async(2)
        with pytest.raises(Full):
            await two.put_async(3, timeout=0.01)
        return found

    assert asyncio.run(main()) == list(range(20))


def test_no_number_of_waiting_readers_keeps_a_writer_out() -> None:
    there = Queue()
    count = 1500
    waiting = [there.actor.get.remote(None) for _ in range(count)]
    there.put_nowait_batch(range(count))
    assert sorted(value for (value,) in gu.get(waiting, timeout=50)) == list(range(count))
    there.shutdown(force=True)


def test_shutdown_lets_what_waits_end() -> None:
    there = Queue()
    late = there.actor.get.remote(0.2)
    there.shutdown(grace_period_s=20)
    assert gu.get(late, timeout=20) is None
    with pytest.raises(errors.ActorDied):
        there.put(1)
    there.shutdown()


def test_a_forced_shutdown_ends_what_waits() -> None:
    there = Queue()
    late = there.actor.get.remote(None)
    there.shutdown(force=True)
    with pytest.raises(errors.ActorDied):
        gu.get(late, timeout=20)
    impatient = Queue()
    late = impatient.actor.get.remote(None)
    impatient.shutdown(grace_period_s=0.05)
    with pytest.raises(errors.ActorDied):
        gu.get(late, timeout=20)


def test_options_are_those_of_an_actor() -> None:
    there = Queue(actor_options={"name": "the-queue", "num_cpus": 1})
    there.put(5)
    assert gu.get(gu.get_actor("the-queue").size.remote()) == 1
    eventually(lambda: gu.available_resources().get("CPU") == 1.0)
    there.shutdown(force=True)
    with pytest.raises(errors.UnknownOption):
        Queue(actor_options={"num_cpu": 1})
