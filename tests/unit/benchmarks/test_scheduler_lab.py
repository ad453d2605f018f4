"""The laboratory on a small grid: its sums agree with each other."""

from __future__ import annotations

import math
from random import Random

import pytest

from benchmarks.lab.baselines import FIFO, KILL_5, POLICIES, SUSPEND, Baseline, Policy
from benchmarks.lab.clock import Clock
from benchmarks.lab.figures import Figures, quantile
from benchmarks.lab.grid import Grid, Run
from benchmarks.lab.workload import PRIORITIES, Job, jobs, machines
from benchmarks.scheduler_lab import compare, growth, replay, scale, table, told


def test_time_goes_on_in_order() -> None:
    clock, seen = Clock(), list[int]()
    for number, when in enumerate((2.0, 1.0, 2.0)):
        clock.at(when, seen.append, number)
    clock.run(5.0)
    assert (seen, clock.now) == ([1, 0, 2], 5.0)


def test_a_pause_keeps_what_was_done() -> None:
    run = Run(Job(1, 0.0, 0, 0, 0, 10.0))
    assert run.go(5.0) == 15.0
    run.pause(9.0)
    assert run.go(100.0) == 106.0


def test_the_workload_is_the_same_for_the_same_seed() -> None:
    one, other = (jobs(Random(7), 20, 5.0) for _ in range(2))
    first = [next(one) for _ in range(200)]
    assert first == [next(other) for _ in range(200)]
    assert sorted(job.at for job in first) == [job.at for job in first]
    assert {job.priority for job in first} <= set(PRIORITIES)


def test_whoever_still_waits_counts() -> None:
    figures = Figures("x", 4.0)
    figures.submit(1, 0, 0.0)
    figures.submit(2, 0, 0.0)
    figures.begun(1, 0, 1.0)
    assert figures.wait(0, 0.99, 50.0) == 50.0
    assert math.isnan(figures.wait(10, 0.5, 50.0))
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0


@pytest.mark.parametrize("policy", [None, *POLICIES], ids=lambda x: x.name if x else "guactors")
def test_work_is_conserved(policy: Policy | None) -> None:
    there = machines(100, Random(3))
    runner = Grid(there, 20) if policy is None else Baseline(there, policy, Random(3))
    figures = replay(runner, 40.0, 3, 20)
    runner.check()
    waiting = sum(len(one) for one in figures.waiting.values())
    begun = sum(len(one) for one in figures.waits.values())
    assert figures.submitted == begun + waiting
    assert figures.finished <= begun
    assert min(min(waits) for waits in figures.waits.values() if waits) >= 0.0
    assert 0.5 < figures.utilisation(40.0) < 1.0 + 1e-9
    # What was held is what was done, what was thrown away, and what still runs.
    held = figures.utilisation(40.0) * figures.capacity * 40.0
    assert figures.done + figures.lost <= held + 1e-6
    assert (figures.preemptions > 0) == (policy is not FIFO)
    assert (figures.lost > 0) == (policy is not None and policy.preempts == "kill")
    if policy in (KILL_5, SUSPEND):
        assert figures.wait(30, 0.99, 40.0) <= figures.wait(0, 0.99, 40.0)


def test_the_tables_can_be_written() -> None:
    runs = [told(figures, 5.0) for figures in compare(20, 5.0, 1)]
    assert table(runs).count("\n") == len(runs) + 1


@pytest.mark.parametrize("yields", [True, False])
def test_what_waits_is_kept_up(yields: bool) -> None:
    figures = scale(20, 100, 200, 1, yields=yields)
    assert figures.decisions >= 200
    assert figures.rate() > 0
    assert (figures.preemptions > 0) == yields


def test_growth_is_measured_by_the_logarithm() -> None:
    def row(providers: int, waiting: int, cost: float) -> dict[str, float]:
        return {"providers": providers, "waiting": waiting, "microseconds": cost}

    rows = [row(10, 10, 1.0), row(10, 100, 2.0), row(10, 1000, 6.0), row(100, 10, 1.0)]
    found = [(growth(one, rows, "providers"), growth(one, rows, "waiting")) for one in rows]
    assert found == [("-", "-"), ("-", "1.00"), ("-", "2.00"), ("0.50", "-")]
