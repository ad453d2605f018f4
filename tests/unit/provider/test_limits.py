"""Limits: a worker is held to them before it hears of the session, and to the same for life."""

from __future__ import annotations

from guactors.messages import Bind, LeaseStarted, Limits, StopLease
from guactors.provider_state import LimitWorker, SendWorker
from tests.unit.provider.bench import Bench

HALF = Limits(cpu=0.5)


def test_it_is_held_before_it_is_bound() -> None:
    bench = Bench(warm=1)
    (worker,) = bench.all_up()
    effects = bench.lease(limits=HALF)
    kinds = [
        type(getattr(effect, "message", effect))
        for effect in effects
        if isinstance(effect, LimitWorker)
        or (isinstance(effect, SendWorker) and isinstance(effect.message, Bind))
    ]
    assert kinds == [LimitWorker, Bind]
    assert LimitWorker(worker, HALF) in effects


def test_an_actor_too() -> None:
    bench = Bench(warm=1)
    (worker,) = bench.all_up()
    assert LimitWorker(worker, HALF) in bench.actor(limits=HALF)


def test_workers_of_different_limits_are_never_mixed() -> None:
    bench = Bench(warm=0)
    bench.lease(limits=HALF)
    (first,) = bench.all_up()
    bench.hub(StopLease("l-1"))
    bench.lease("l-2")
    (second,) = bench.all_up()
    bench.lease("l-3", limits=HALF)
    assert [one.worker for one in bench.said(LeaseStarted)] == [first, second, first]
