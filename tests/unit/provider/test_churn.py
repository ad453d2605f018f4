"""Fresh workers kept for actors that follow each other fast."""

from __future__ import annotations

import pytest

from guactors.messages import Leave, StopActor
from guactors.provider_state.churn import WINDOW, Churn
from guactors.provider_state.pool import IDLE_LIMIT, MOST_WARM, WARM_PAUSE
from tests.unit.provider.bench import Bench


def test_as_many_are_kept_as_were_taken_lately() -> None:
    churn = Churn(1, 4)
    assert (churn.keep(0.0), churn.brisk(0.0)) == (1, False)
    kept = []
    for number in range(6):
        churn.took(number * 0.01)
        kept.append(churn.keep(number * 0.01))
    assert kept == [1, 2, 3, 4, 4, 4]
    assert churn.brisk(0.05)
    late = 0.06 + WINDOW
    assert (churn.keep(late), churn.brisk(late)) == (1, False)


def test_no_warm_workers_means_none() -> None:
    churn = Churn(0, 4)
    for _ in range(5):
        churn.took(0.0)
    assert (churn.keep(0.0), churn.brisk(0.0)) == (0, False)


def test_more_warm_workers_than_the_bound_stay_as_many() -> None:
    churn = Churn(6, 4)
    for _ in range(9):
        churn.took(0.0)
    assert churn.keep(0.0) == 6


def lives(bench: Bench, count: int, every: float) -> None:
    """Actors that are made and killed one after the other."""
    for number in range(count):
        name = f"a-{number}"
        bench.actor(name)
        bench.all_up()
        bench.hub(StopActor(name, "killed"))
        bench.ends(next(iter(bench.killed)))
        bench.killed.clear()
        bench.pass_time(every)


def test_actors_that_follow_each_other_find_a_stock_of_workers() -> None:
    bench = Bench()
    bench.all_up()
    lives(bench, 8, 0.01)
    bench.all_up()
    assert bench.core.counts()["workers"] == MOST_WARM
    bench.core.check()


def test_the_stock_is_let_go_when_no_actor_comes_any_more() -> None:
    bench = Bench()
    bench.all_up()
    lives(bench, 8, 0.01)
    bench.all_up()
    bench.pass_time(IDLE_LIMIT + 1.0)
    told = [worker for worker in bench.to_worker if bench.told(worker, Leave)]
    assert len(told) == MOST_WARM - 1


@pytest.mark.parametrize("pause", [2 * WINDOW, 1.0])
def test_actors_that_come_slowly_find_one(pause: float) -> None:
    bench = Bench()
    bench.all_up()
    lives(bench, 5, pause)
    bench.all_up()
    assert bench.core.counts()["workers"] == 1


def test_the_first_replacement_waits_for_the_first_call() -> None:
    bench = Bench()
    bench.all_up()
    bench.actor("a-1")
    assert bench.starting == []
    bench.pass_time(WARM_PAUSE)
    assert len(bench.starting) == 1
