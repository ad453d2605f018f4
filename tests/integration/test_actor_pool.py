"""``guactors.util.ActorPool``: what Ray documents of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors import errors
from guactors.util import ActorPool
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


@gu.remote
class Worker:
    def double(self, x: int) -> int:
        return 2 * x

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def invert(self, x: int) -> float:
        return 1 / x

    def pid(self, _: object) -> int:
        return os.getpid()

    def die(self, _: object) -> None:
        os._exit(1)

    @gu.method(num_returns=2)
    def both(self, x: int) -> tuple[int, int]:
        return x, -x

    def wait_for(self, path: Path) -> str:
        while not path.exists():
            time.sleep(0.005)
        return path.name


def double(actor: Any, value: int) -> Any:
    return actor.double.remote(value)


@pytest.fixture
def pool() -> ActorPool:
    return ActorPool([Worker.remote(), Worker.remote()])


def test_map_keeps_the_order_and_uses_all(pool: ActorPool) -> None:
    assert list(pool.map(double, range(20))) == [2 * i for i in range(20)]
    assert list(pool.map(lambda a, v: a.sleep.remote(v), [0.1, 0.0, 0.0])) == [0.1, 0.0, 0.0]
    assert len(set(pool.map(lambda a, v: a.pid.remote(v), range(6)))) == 2
    assert list(pool.map(double, [])) == []


def test_map_unordered_gives_what_is_there(pool: ActorPool, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    results = pool.map_unordered(lambda a, v: a.wait_for.remote(v), [first, second])
    second.touch()
    assert next(results) == "second"
    first.touch()
    assert next(results) == "first"
    assert list(results) == []
    assert sorted(pool.map_unordered(double, range(20))) == [2 * i for i in range(20)]


def test_submit_waits_for_a_free_actor(pool: ActorPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    assert pool.has_free() and not pool.has_next()
    for _ in range(2):
        pool.submit(lambda a, v: a.wait_for.remote(v), gate)
    assert not pool.has_free()
    assert pool.pop_idle() is None
    pool.submit(double, 21)  # waits
    gate.touch()
    assert [pool.get_next() for _ in range(3)] == ["gate", "gate", 42]
    assert pool.has_free() and not pool.has_next()
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_a_timeout_leaves_the_call_or_drops_it(pool: ActorPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    for take in (pool.get_next, pool.get_next_unordered):
        pool.submit(lambda a, v: a.wait_for.remote(v), gate)
        with pytest.raises(TimeoutError, match=r"0\.01 s"):
            take(timeout=0.01)
        assert pool.has_next()
        with pytest.raises(TimeoutError, match="lost"):
            take(timeout=0.01, ignore_if_timedout=True)
        assert not pool.has_next() and pool.has_free()
    gate.touch()
    pool.submit(double, 1)
    assert pool.get_next_unordered(timeout=30) == 2


def test_an_error_takes_the_place_of_its_result(pool: ActorPool) -> None:
    for value in (1, 0, 2):
        pool.submit(lambda a, v: a.invert.remote(v), value)
    assert pool.get_next() == 1.0
    with pytest.raises(ZeroDivisionError):
        pool.get_next()
    assert pool.get_next() == 0.5


def test_in_order_after_unordered_is_the_earliest_that_is_left(
    pool: ActorPool, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    pool.submit(lambda a, v: a.wait_for.remote(v), gate)
    pool.submit(double, 1)
    pool.submit(double, 2)
    assert pool.get_next_unordered() == 2
    gate.touch()
    assert pool.get_next() == "gate"
    assert pool.get_next() == 4


def test_map_forgets_what_nobody_took(pool: ActorPool) -> None:
    for value in range(5):
        pool.submit(double, value)
    assert list(pool.map(double, [10, 11])) == [20, 22]


def test_a_call_may_have_several_results(pool: ActorPool) -> None:
    assert list(pool.map(lambda a, v: a.both.remote(v), [1, 2])) == [[1, -1], [2, -2]]
    assert sorted(pool.map_unordered(lambda a, v: a.both.remote(v), [1, 2])) == [[1, -1], [2, -2]]


def test_actors_come_and_go(pool: ActorPool) -> None:
    one = pool.pop_idle()
    two = pool.pop_idle()
    assert pool.pop_idle() is None
    pool.submit(double, 4)
    assert not pool.has_next()
    pool.push(one)
    assert pool.get_next() == 8
    with pytest.raises(ValueError, match="already"):
        pool.push(one)
    pool.push(two)
    assert len(set(pool.map(lambda a, v: a.pid.remote(v), range(4)))) == 2


def test_a_dead_actor_leaves_and_the_last_one_answers_for_all(pool: ActorPool) -> None:
    pool.submit(lambda a, v: a.die.remote(v), None)
    for value in range(4):
        pool.submit(double, value)
    with pytest.raises(errors.ActorDied):
        pool.get_next()
    assert [pool.get_next() for _ in range(4)] == [0, 2, 4, 6]
    assert len(set(pool.map(lambda a, v: a.pid.remote(v), range(4)))) == 1
    pool.submit(lambda a, v: a.die.remote(v), None)
    for value in range(3):
        pool.submit(double, value)
    for _ in range(4):
        with pytest.raises(errors.ActorDied):
            pool.get_next(timeout=30)
    assert not pool.has_next()


def test_what_fails_to_call_leaves_the_actor_free(pool: ActorPool) -> None:
    with pytest.raises(AttributeError):
        pool.submit(lambda a, v: a.nothing.remote(v), 1)
    assert list(pool.map(double, [1, 2, 3])) == [2, 4, 6]
