"""Calls that must have ended by a certain time: their order, what the hub is told of it, and how
those end that are late."""

from __future__ import annotations

import pickle

import pytest

from guactors import messages as m
from guactors.caller.leases import OVERDUE
from guactors.caller.tasks import Task
from guactors.errors import CallTimeout, DeadlineMissed
from tests.unit.caller.bench import KEY, Bench, endpoints, value

STANDING = m.Standing("l-9", 0.0, "for work of priority 10")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def due(bench: Bench, seconds: float) -> int:
    """A call that must have ended in so many seconds."""
    return bench.call(due=bench.now + seconds)


def told_due(bench: Bench) -> float:
    return round(bench.told(m.SetDemand)[-1].due, 3)


def order_of(bench: Bench, count: int) -> list[int]:
    """One worker runs them one after the other."""
    bench.grant()
    order: list[int] = []
    while len(order) < count:
        (id,) = bench.calls("w-1")
        order.append(id)
        bench.pass_time(0.06)
        bench.reply("w-1", id)
    return order


def test_the_earliest_deadline_goes_first_and_then_what_has_none(bench: Bench) -> None:
    free = [bench.call(), bench.call()]
    late, early, between = due(bench, 30.0), due(bench, 10.0), due(bench, 20.0)
    assert order_of(bench, 5) == [early, between, late, *free]


def test_equal_deadlines_keep_their_order(bench: Bench) -> None:
    first, second = due(bench, 10.0), due(bench, 10.0)
    assert order_of(bench, 2) == [first, second]


def test_what_comes_back_takes_its_place_again(bench: Bench) -> None:
    free = bench.call()
    bench.grant()
    assert bench.calls("w-1") == [free]
    early, late = due(bench, 10.0), due(bench, 20.0)
    bench.says("w-1", m.Bounced([free], True))
    bench.hub(m.LeaseGranted(KEY, "l-2", "w-2", "p-2", endpoints("w-2")))
    for id in (early, late, free):
        assert bench.calls("w-2") == [id]
        bench.pass_time(0.06)
        bench.reply("w-2", id)


def test_the_hub_hears_of_the_earliest(bench: Bench) -> None:
    bench.call()
    assert told_due(bench) == 0.0
    due(bench, 20.0)
    assert told_due(bench) == 20.0
    early = due(bench, 10.0)
    assert told_due(bench) == 10.0
    due(bench, 30.0)
    assert told_due(bench) == 10.0, "a later one changes nothing but the count"
    bench.cancel(early)
    assert told_due(bench) == 20.0


def test_the_hub_hears_of_what_goes_to_a_worker_at_once(bench: Bench) -> None:
    first = bench.call()
    bench.grant()
    bench.reply("w-1", first)
    bench.told(m.SetDemand)
    due(bench, 5.0)
    assert bench.told(m.LeaseDue) == [m.LeaseDue("l-1", 5.0)]
    bench.pass_time(1.0)
    again = [x for x in bench.relink() if isinstance(x, m.LeaseDue)]
    assert again == [m.LeaseDue("l-1", 4.0)], "in what is left of it"


def test_a_loop_of_short_calls_does_not_tell_of_each(bench: Bench) -> None:
    first = due(bench, 5.0)
    bench.grant()
    bench.reply("w-1", first)
    bench.told(m.SetDemand)
    bench.told(m.LeaseDue)
    for number in range(50):
        bench.pass_time(0.001)
        bench.reply("w-1", due(bench, 5.0) if number % 2 else bench.call())
    assert bench.told(m.SetDemand) == [] and bench.told(m.LeaseDue) == []


def test_the_hub_hears_that_what_runs_is_due_no_more(bench: Bench) -> None:
    id = due(bench, 50.0)
    bench.grant()
    assert bench.told(m.LeaseDue) == [m.LeaseDue("l-1", 50.0)]
    bench.pass_time(0.2)
    bench.reply("w-1", id)
    bench.call()
    assert bench.told(m.LeaseDue) == [m.LeaseDue("l-1")]


def test_what_is_taken_back_is_no_matter_of_the_lease(bench: Bench) -> None:
    """A call waits behind another that takes its time; it goes elsewhere."""
    short = bench.call()
    bench.grant()
    bench.pass_time(0.03)
    bench.reply("w-1", short)
    bench.call()
    id = due(bench, 50.0)
    assert bench.told(m.LeaseDue) == [m.LeaseDue("l-1", 50.0)]
    bench.pass_time(OVERDUE)
    assert bench.sent("w-1", m.TakeBack)
    bench.says("w-1", m.Bounced([id]))
    assert bench.told(m.LeaseDue) == [m.LeaseDue("l-1")]


def late(bench: Bench, id: int) -> DeadlineMissed:
    found = bench.failure(id)
    assert isinstance(found, DeadlineMissed) and isinstance(found, CallTimeout)
    assert pickle.loads(pickle.dumps(found)).where == found.where
    return found


def test_what_waits_for_a_worker_ends_and_says_so(bench: Bench) -> None:
    bench.call(due=bench.now + 1.0, priority=0)
    id = due(bench, 2.0)
    bench.pass_time(1.5)
    assert bench.failure(id) is None
    bench.pass_time(1.0)
    found = late(bench, id)
    assert 0 <= found.late < 0.01
    assert found.where == ("it waited for a worker with 1 CPU, behind 0 calls; 0 workers are there")
    assert "had 2 s" in str(found)
    assert bench.told(m.SetDemand)[-1].count == 0, "nobody is asked for what is over"


def test_what_runs_is_told_to_end(bench: Bench) -> None:
    id = due(bench, 2.0)
    bench.grant()
    bench.pass_time(2.5)
    assert bench.sent("w-1", m.CancelCall) == [m.CancelCall(id, True, True)]
    assert "sent to w-1 2.000 s ago" in late(bench, id).where


def test_the_worker_hears_how_much_time_there_is(bench: Bench) -> None:
    bench.call(due=bench.now + 2.0, deadline=bench.now + 3.0)
    bench.pass_time(0.5)
    bench.grant()
    (batch,) = bench.sent("w-1", m.Calls)
    assert batch.calls[0].remaining == pytest.approx(1.5)


def test_a_worker_that_sees_it_first_says_the_same(bench: Bench) -> None:
    id = due(bench, 2.0)
    bench.grant()
    bench.now += 2.0
    answer = m.Reply(id, [value(b"x", error=True)], 0, "CallTimeout")
    bench.says("w-1", m.Replies([answer]))
    assert "had 2 s" in str(late(bench, id))


def test_an_actor_that_is_not_there_yet(bench: Bench) -> None:
    actor = bench.actor()
    bench.call(actor)
    id = bench.call(actor, due=bench.now + 1.0)
    bench.pass_time(2.0)
    assert late(bench, id).where == "it waited for the actor a-1, which is pending, behind 1 calls"


def test_arguments_that_do_not_come(bench: Bench) -> None:
    missing = bench.core.objects.new()
    id = bench.call(deps=[missing], due=bench.now + 1.0)
    bench.pass_time(2.0)
    assert late(bench, id).where == "it waited for 1 of its arguments"


def test_a_victim_that_has_a_deadline_ends_at_it_and_its_worker_with_it(bench: Bench) -> None:
    """Its clock does not stop, and what stands still for nobody any more is given back."""
    id = due(bench, 2.0)
    bench.grant()
    bench.hub(m.LeaseSuspended("l-1", STANDING))
    bench.pass_time(2.5)
    assert "stands still, for work of priority 10" in late(bench, id).where
    assert bench.told(m.ReturnLease) == [m.ReturnLease("l-1", dead=True)]


def test_the_earlier_of_timeout_and_deadline_counts(bench: Bench) -> None:
    id = bench.call(due=bench.now + 5.0, deadline=bench.now + 1.0)
    bench.pass_time(2.0)
    found = bench.failure(id)
    assert isinstance(found, CallTimeout) and not isinstance(found, DeadlineMissed)


def test_remaining_is_never_nothing_where_there_is_an_end() -> None:
    assert Task(1).remaining(5.0) == 0.0
    assert Task(1, due=4.0).remaining(5.0) == 1e-3
    assert Task(1, due=9.0, deadline=6.0).remaining(5.0) == 1.0
