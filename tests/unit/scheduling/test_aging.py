"""What has waited for long counts more: it orders, and pushes nobody aside."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.config import Timing
from guactors.scheduling.aging import highest
from guactors.scheduling.queues import Queue
from tests.unit.hub.bench import Bench
from tests.unit.scheduling.test_fairness import Obedient, recalled

STEP = 10.0


def grid(cpus: float = 1.0, callers: int = 3, aging: float = STEP) -> Bench:
    bench = Bench(timing=Timing(aging=aging))
    for number in range(1, callers + 1):
        bench.caller(f"c-{number}", f"s-{number}")
    bench.provider(cpus=cpus)
    return bench


def queue(bench: Bench, priority: int) -> Queue:
    (found,) = [
        queue
        for queue in bench.core.scheduler.desk.demands.every_queue()
        if queue.need.priority == priority
    ]
    return found


def give_back(bench: Bench, *peers: str) -> list[str]:
    """All that these hold, and for good; whose starts then."""
    for peer in peers:
        bench.demand(peer, count=0)
        for lease in list(bench.core.scheduler.desk.leases.of_caller(peer)):
            bench.say(peer, m.ReturnLease(lease.id))
    return [order.caller for order in bench.start_leases()]


@pytest.mark.parametrize(
    ("priority", "top"), [(0, 9), (5, 9), (9, 9), (10, 19), (-1, -1), (-4, -1), (-10, -1)]
)
def test_it_stays_within_its_ten(priority: int, top: int) -> None:
    assert highest(priority) == top
    bench = grid()
    bench.leases("c-1", priority=30)
    bench.demand("c-2", priority=priority)
    levels = []
    for _ in range(12):
        levels.append(queue(bench, priority).level)
        bench.pass_time(STEP)
    assert levels == [min(priority + step, top) for step in range(12)]


def test_without_aging_nothing_ages() -> None:
    bench = grid(aging=0.0)
    bench.leases("c-1", priority=30)
    bench.demand("c-2")
    bench.pass_time(1000.0)
    assert queue(bench, 0).level == 0
    assert not queue(bench, 0).since


@pytest.mark.parametrize(("steps", "first"), [(2, "c-3"), (3, "c-2"), (4, "c-2")])
def test_what_has_waited_goes_before_what_is_a_little_more_urgent(steps: int, first: str) -> None:
    bench = grid()
    bench.leases("c-1", priority=30)
    bench.demand("c-2", priority=0)
    bench.pass_time(steps * STEP)
    bench.demand("c-3", priority=3)
    assert give_back(bench, "c-1") == [first]


def test_a_higher_ten_is_never_passed() -> None:
    bench = grid()
    bench.leases("c-1", priority=30)
    bench.demand("c-2", priority=0)
    bench.pass_time(100 * STEP)
    bench.demand("c-3", priority=10)
    assert give_back(bench, "c-1") == ["c-3"]


def test_it_makes_nobody_give_way() -> None:
    bench = grid()
    bench.leases("c-1", priority=-1)
    bench.demand("c-2", priority=8)
    bench.pass_time(100 * STEP)
    assert not bench.start_leases()
    bench.demand("c-3", priority=9)
    (order,) = bench.start_leases()
    assert (order.caller, len(order.displaces)) == ("c-3", 1)


def test_who_was_served_is_as_young_as_a_newcomer() -> None:
    bench = grid()
    bench.leases("c-1", priority=30)
    bench.demand("c-2", count=2, priority=0)
    bench.pass_time(9 * STEP)
    bench.demand("c-3", priority=1)
    assert queue(bench, 0).level == 9
    assert give_back(bench, "c-1") == ["c-2"]
    assert queue(bench, 0).level == 0
    assert give_back(bench, "c-2") == ["c-3"]


def test_a_queue_counts_as_its_oldest() -> None:
    bench = grid()
    bench.leases("c-1", priority=30)
    bench.demand("c-2", priority=0)
    bench.pass_time(2.5 * STEP)
    bench.demand("c-3", priority=0)
    assert queue(bench, 0).level == 2
    bench.demand("c-2", count=0)
    assert queue(bench, 0).level == 0
    bench.pass_time(STEP)
    assert queue(bench, 0).level == 1
    bench.core.check()


def test_two_of_one_ten_that_never_cease_share_in_the_end() -> None:
    """Without aging the lower would wait for ever."""
    bench = grid(cpus=2.0, callers=2)
    callers = Obedient(bench)
    bench.demand("c-1", count=50, priority=1)
    bench.demand("c-2", count=50, priority=0)
    served = []
    for moment in range(2400):
        callers.run(0.05)
        if callers.counts()["c-2"]:
            served.append(moment * 0.05)
    assert served
    assert served[0] <= 9 * STEP + 1.0
    assert served[-1] > 9 * STEP


def test_equals_are_not_asked_for_more_by_their_age() -> None:
    bench = grid(cpus=4.0, callers=2)
    callers = Obedient(bench)
    bench.demand("c-1", count=50)
    bench.demand("c-2", count=50)
    callers.run(1.0)
    assert callers.counts() == {"c-1": 2, "c-2": 2}
    bench.pass_time(12 * STEP)
    assert not recalled(bench)


def test_time_does_not_run_for_what_could_not_start() -> None:
    bench = grid()
    bench.leases("c-1", priority=30)
    bench.demand("c-2", priority=0)
    desk = bench.core.scheduler.desk
    bench.pass_time(2 * STEP)
    desk.demands.pause("c-2", True)
    bench.pass_time(STEP)
    desk.demands.pause("c-2", False)
    assert queue(bench, 0).level == 0


def test_many_short_queues_leave_one_entry_on_the_agenda() -> None:
    bench = grid(aging=1000.0)
    agenda = bench.core.scheduler.desk.agenda
    before = len(agenda._items)
    for _ in range(50):
        bench.leases("c-1")
        give_back(bench, "c-1")
        bench.demand("c-1", count=0)
    assert len(agenda._items) - before == 1


def test_it_is_shown() -> None:
    bench = grid()
    bench.leases("c-1", priority=30)
    bench.demand("c-2", priority=1)
    bench.pass_time(4 * STEP)
    for what in ("demand", "explanations"):
        bench.say("c-2", m.Inquire(1, "", m.Query(what)))
        (page,) = bench.heard("c-2", m.Page)
        (row,) = [dict(zip(page.page.columns, row, strict=True)) for row in page.page.rows]
        assert (row["priority"], row["counts_as"]) == (1, 5)
