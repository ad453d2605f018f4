"""Workers that take no more calls are let go after their lease, and never serve another."""

from __future__ import annotations

from guactors.messages import LeaseEnded, LeaseStarted, Leave, Retiring, StopLease
from tests.unit.provider.bench import Bench


def test_it_leaves_when_its_lease_is_over() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease("l-1")
    bench.says(worker, Retiring())
    assert bench.told(worker, Leave) == []
    bench.hub(StopLease("l-1"))
    assert bench.told(worker, Leave) == [Leave(graceful=True)]
    assert bench.said(LeaseEnded) == []
    bench.pass_time(0.1)
    bench.all_up()
    bench.lease("l-2")
    assert bench.said(LeaseStarted)[-1].worker != worker


def test_one_whose_word_comes_after_its_lease_leaves_too() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease("l-1")
    bench.hub(StopLease("l-1"))
    bench.says(worker, Retiring())
    assert bench.told(worker, Leave) == [Leave(graceful=True)]


def test_one_that_does_not_leave_is_killed() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease("l-1")
    bench.says(worker, Retiring())
    bench.hub(StopLease("l-1"))
    assert worker not in bench.killed
    bench.pass_time(6.0)
    assert worker in bench.killed
