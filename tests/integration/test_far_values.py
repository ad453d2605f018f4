"""Large values on another machine. The driver of these tests has shared memory of its own, so that
its workers are, for all it knows, on a machine elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import guactors as gu
from guactors import errors
from guactors.objects import place
from guactors.objects.sweeping import arenas_in
from guactors.refs import current_session
from tests import leaks
from tests.command import ended, eventually

pytestmark = [pytest.mark.usefixtures("far"), pytest.mark.may_keep(*leaks.KINDS)]

COUNT = 1 << 20
"""Of float64: 8 MiB, two chunks."""


@pytest.fixture(scope="module")
def far(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[place.Place]:
    home = tmp_path_factory.mktemp("far-home")
    before = leaks.take(home, run_root)
    mine = place.place_at(Path(f"/dev/shm/guactors-test-{os.getpid()}"), home / "mine")
    place._pinned[:] = [mine]
    gu.init(num_cpus=2)
    yield mine
    gu.shutdown()
    found = leaks.settle(before, home, run_root, leaks.KINDS)
    if mine.directory.exists():
        found.append(str(mine.directory))
    if found:
        pytest.fail("the grid left behind:\n  " + "\n  ".join(found), pytrace=False)


def brought(mine: place.Place) -> int:
    """Bytes of large values in the driver's own memory."""
    return sum(entry.stat().st_blocks * 512 for entry in arenas_in(mine.directory))


@gu.remote
def numbers(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float64)


@gu.remote
def total(array: np.ndarray) -> float:
    return float(array.sum())


@gu.remote
class Shelf:
    def make(self, count: int) -> np.ndarray:
        return np.ones(count)

    def total(self, array: np.ndarray) -> float:
        return float(array.sum())

    def pid(self) -> int:
        return os.getpid()


TOTAL = float(COUNT * (COUNT - 1) // 2)


def test_what_only_tasks_need_never_comes_here(far: place.Place) -> None:
    shelf = Shelf.remote()
    ref = numbers.remote(COUNT)
    assert gu.get(total.remote(ref)) == TOTAL
    assert gu.get(shelf.total.remote(ref)) == TOTAL
    ready, _ = gu.wait([ref], fetch_local=False)
    assert ready == [ref]
    assert gu.get(shelf.total.remote(shelf.make.remote(COUNT))) == COUNT
    assert brought(far) == 0
    gu.kill(shelf)


def test_get_brings_it_once(far: place.Place) -> None:
    ref = numbers.remote(5 * COUNT)
    array = gu.get(ref)
    assert not array.flags.writeable
    assert array[-1] == 5 * COUNT - 1
    assert brought(far) >= array.nbytes
    assert np.shares_memory(array, gu.get(ref))


def test_many_at_a_time() -> None:
    refs = [numbers.remote(COUNT + i) for i in range(8)]
    assert [len(array) for array in gu.get(refs)] == [COUNT + i for i in range(8)]
    assert sum(gu.get([total.remote(ref) for ref in refs])) > 8 * TOTAL


def test_wait_brings_it_unless_told_not_to(far: place.Place) -> None:
    ref = numbers.remote(COUNT)
    assert gu.wait([ref], fetch_local=False)[0] == [ref]
    before = brought(far)
    assert gu.wait([ref], timeout=30)[0] == [ref]
    assert brought(far) > before or gu.get(ref, timeout=0).nbytes > 0


def test_futures_and_awaiting(far: place.Place) -> None:
    assert numbers.remote(COUNT).future().result(30)[-1] == COUNT - 1

    async def ask() -> float:
        return float((await numbers.remote(COUNT)).sum())

    import asyncio

    assert asyncio.run(ask()) == TOTAL


def test_streams() -> None:
    @gu.remote
    def stream() -> Iterator[np.ndarray]:
        for i in range(3):
            yield np.full(COUNT, i)

    assert [int(gu.get(ref)[-1]) for ref in stream.remote()] == [0, 1, 2]


def end_depots() -> None:
    """They are gone, and what they kept with them."""
    session = current_session()
    assert session is not None
    for handle in session._depots._handles:
        gu.kill(handle)
        with pytest.raises(errors.ActorDied):
            gu.get(handle.__ray_ready__.remote(), timeout=30)


def test_a_value_that_died_with_its_machine_is_made_again() -> None:
    @gu.remote(num_returns=2)
    def made(start: int) -> tuple[int, np.ndarray]:
        return os.getpid(), np.arange(start, start + COUNT)

    pid_ref, ref = made.remote(gu.put(7))
    pid = gu.get(pid_ref)
    gu.wait([ref], fetch_local=False)
    os.kill(pid, signal.SIGKILL)
    end_depots()
    eventually(lambda: ended(pid), "the worker is dead")
    assert gu.get(ref)[0] == 7
    assert gu.get(total.remote(ref)) == TOTAL + 7 * COUNT


def test_a_chain_that_died_with_its_machine_is_made_again() -> None:
    @gu.remote(num_returns=2)
    def doubled(array: np.ndarray) -> tuple[int, np.ndarray]:
        return os.getpid(), array * 2

    first = numbers.remote(COUNT)
    pid_ref, second = doubled.remote(first)
    pid = gu.get(pid_ref)
    os.kill(pid, signal.SIGKILL)
    end_depots()
    assert gu.get(total.remote(second)) == 2 * TOTAL
    assert gu.get(first)[-1] == COUNT - 1


def test_a_value_outlives_its_worker() -> None:
    @gu.remote(num_returns=2, max_retries=0)
    def made() -> tuple[int, np.ndarray]:
        return os.getpid(), np.ones(COUNT)

    pid_ref, ref = made.remote()
    os.kill(gu.get(pid_ref), signal.SIGKILL)
    assert gu.get(total.remote(ref)) == COUNT
    assert gu.get(ref).sum() == COUNT


def test_a_value_outlives_its_actor() -> None:
    shelf = Shelf.remote()
    ref = shelf.make.remote(COUNT)
    gu.wait([ref], fetch_local=False)
    gu.kill(shelf)
    assert gu.get(ref, timeout=30).sum() == COUNT


def test_a_value_of_an_actor_whose_machine_died_is_lost_and_says_so() -> None:
    shelf = Shelf.remote()
    ref = shelf.make.remote(COUNT)
    gu.wait([ref], fetch_local=False)
    gu.kill(shelf)
    kept = current_session().core.objects.places.copies  # type: ignore[union-attr]
    eventually(lambda: ref._id in kept, "a depot has it")
    end_depots()
    with pytest.raises(errors.ObjectLost, match="gone"):
        gu.get(ref, timeout=30)


def test_the_value_of_an_actor_that_nobody_holds_any_more_comes_here() -> None:
    ref = Shelf.remote().make.remote(COUNT)
    gu.wait([ref], fetch_local=False)
    assert gu.get(ref, timeout=30).sum() == COUNT


def test_the_value_of_a_worker_that_retires_comes_here() -> None:
    @gu.remote(max_calls=1, max_retries=0)
    def once(count: int) -> np.ndarray:
        return np.ones(count)

    assert [gu.get(ref, timeout=30).sum() for ref in [once.remote(COUNT) for _ in range(3)]] == [
        COUNT,
        COUNT,
        COUNT,
    ]


def test_a_value_that_is_here_outlives_its_actor() -> None:
    shelf = Shelf.remote()
    ref = shelf.make.remote(COUNT)
    gu.get(ref)
    gu.kill(shelf)
    assert gu.get(ref).sum() == COUNT
    assert gu.get(total.remote(ref)) == COUNT


def test_workers_give_back_what_is_not_needed(far: place.Place) -> None:
    for _ in range(10):
        gu.get([total.remote(numbers.remote(COUNT)) for _ in range(4)])
    theirs = place._place_of(Path(os.environ["GU_HOME"]))

    def used() -> int:
        return sum(entry.stat().st_blocks * 512 for entry in arenas_in(theirs.directory))

    eventually(lambda: used() == 0, "their memory is given back")
    del far
