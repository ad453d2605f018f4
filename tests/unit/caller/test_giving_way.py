"""What a caller does when workers of its own stand still for others, or end for them."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.caller.leases import BRIEF, OVERDUE
from guactors.errors import Preempted, TaskCancelled, WorkerDied
from tests.unit.caller.bench import KEY, Bench, endpoints

STANDING = m.Standing("l-9", 0.0, "for work of priority 10")


def busy(calls: int = 5) -> tuple[Bench, list[int]]:
    """A worker with short calls in a line; one of them runs."""
    bench = Bench()
    first = bench.call()
    bench.grant()
    bench.pass_time(0.001)
    bench.reply("w-1", first)
    ids = [bench.call() for _ in range(calls)]
    bench.core.flush()
    bench.pass_time(0.0)
    bench.calls("w-1")
    return bench, ids


def stand(bench: Bench, ids: list[int]) -> None:
    """The worker gives back what it has not started, and the hub says why."""
    bench.says("w-1", m.Bounced(ids, True, False, True))
    bench.hub(m.LeaseSuspended("l-1", STANDING))


def test_what_has_not_started_is_asked_for_elsewhere() -> None:
    bench, ids = busy()
    stand(bench, ids[1:])
    assert bench.sent("w-1", m.Halted) == [m.Halted()]
    bench.pass_time(0.0)
    asked = bench.told(m.SetDemand)
    assert asked and asked[-1].count > 1
    bench.hub(m.LeaseGranted(KEY, "l-2", "w-2", "p-2", endpoints("w-2")))
    assert bench.calls("w-2")[0] == ids[1]
    assert not bench.told(m.ReturnLease), "it still runs the first"


def test_nothing_is_sent_behind_halted() -> None:
    bench, ids = busy()
    stand(bench, ids[1:])
    bench.calls("w-1")
    bench.call()
    bench.pass_time(1.0)
    assert bench.calls("w-1") == []
    bench.hub(m.LeaseResumed("l-1"))
    bench.says("w-1", m.Unblocked())
    bench.reply("w-1", ids[0])
    bench.pass_time(0.0)
    assert bench.calls("w-1"), "it may have calls again"


@pytest.mark.parametrize("hub_first", [True, False])
def test_a_lease_with_nothing_to_do_goes_back_as_it_stands(hub_first: bool) -> None:
    bench, ids = busy()
    for id in ids:
        bench.reply("w-1", id)
    bench.told(m.ReturnLease)
    if hub_first:
        bench.hub(m.LeaseSuspended("l-1", STANDING))
    else:
        bench.says("w-1", m.Bounced([], True, False, True))
    assert bench.told(m.ReturnLease) == [m.ReturnLease("l-1")]
    if not hub_first:
        bench.hub(m.LeaseSuspended("l-1", STANDING))
        assert not bench.told(m.ReturnLease)


def test_a_lease_for_which_others_stand_still_goes_back_soon() -> None:
    bench = Bench()
    id = bench.call()
    bench.hub(m.LeaseGranted(KEY, "l-1", "w-1", "p-1", endpoints("w-1"), brief=True))
    bench.reply("w-1", id)
    assert not bench.told(m.ReturnLease)
    bench.pass_time(2 * BRIEF)
    assert bench.told(m.ReturnLease) == [m.ReturnLease("l-1")]


def test_a_caller_in_a_loop_keeps_it() -> None:
    bench = Bench()
    id = bench.call()
    bench.hub(m.LeaseGranted(KEY, "l-1", "w-1", "p-1", endpoints("w-1"), brief=True))
    for _ in range(5):
        bench.reply("w-1", id)
        bench.pass_time(BRIEF / 2)
        id = bench.call()
    assert not bench.told(m.ReturnLease)


def ends(bench: Bench, cause: str) -> None:
    bench.hub(m.LeaseLost("l-1", m.DeathReport(cause, "it gave way to work of priority 10")))


def test_what_is_to_begin_anew_does_so_at_no_charge() -> None:
    bench = Bench()
    id = bench.call(retries=0)
    bench.grant()
    ends(bench, "requeued")
    bench.hub(m.LeaseGranted(KEY, "l-2", "w-2", "p-2", endpoints("w-2")))
    assert bench.calls("w-2") == [id]
    bench.reply("w-2", id, attempt=1)
    assert bench.data(id) == b"v"


@pytest.mark.parametrize("retries", [0, 2])
def test_the_end_of_its_worker_may_be_seen_first(retries: int) -> None:
    bench = Bench()
    id = bench.call(retries=retries)
    bench.grant()
    bench.lose("w-1")
    ends(bench, "requeued")
    bench.hub(m.LeaseGranted(KEY, "l-2", "w-2", "p-2", endpoints("w-2")))
    assert bench.calls("w-2") == [id]
    entry = bench.core.objects.entries[id]
    assert entry.task is not None and entry.task.retries == retries, "no retry is charged"


def test_it_is_told_though_the_end_of_its_worker_was_seen_first() -> None:
    bench = Bench()
    id = bench.call(retries=0)
    bench.grant()
    bench.lose("w-1")
    ends(bench, "preempted")
    assert isinstance(bench.failure(id), Preempted)


def test_what_was_cancelled_does_not_begin_anew() -> None:
    bench = Bench()
    id = bench.call()
    bench.grant()
    bench.cancel(id)
    ends(bench, "requeued")
    assert isinstance(bench.failure(id), TaskCancelled)


def test_what_is_stopped_for_good_is_not_tried_again() -> None:
    bench = Bench()
    id = bench.call(retries=5)
    bench.grant()
    ends(bench, "preempted")
    error = bench.failure(id)
    assert isinstance(error, Preempted) and isinstance(error, WorkerDied)
    assert "priority 10" in str(error)


def test_what_was_sent_to_one_that_just_stood_still_comes_back_and_goes_out_again() -> None:
    bench, ids = busy(3)
    bench.pass_time(OVERDUE + 1.0)
    assert bench.sent("w-1", m.TakeBack), "it seems to take its time"
    bench.says("w-1", m.Bounced(ids, True))
    bench.says("w-1", m.Unblocked())
    bench.pass_time(0.0)
    assert bench.calls("w-1")[:1] == ids[:1]


@pytest.mark.parametrize("retries", [0, 5])
@pytest.mark.parametrize("cause", ["requeued", "preempted"])
def test_one_that_was_asked_to_end_and_whose_end_is_seen_before_it_is_told(
    retries: int, cause: str
) -> None:
    bench = Bench()
    id = bench.call(retries=retries)
    bench.grant()
    bench.says("w-1", m.Bounced([], True, True))
    bench.lose("w-1")
    bench.pass_time(0.01)
    bench.hub(m.LeaseGranted(KEY, "l-2", "w-2", "p-2", endpoints("w-2")))
    assert bench.calls("w-2") == [], "nobody knows why"
    ends(bench, cause)
    if cause == "preempted":
        assert isinstance(bench.failure(id), Preempted)
    else:
        assert bench.calls("w-2") == [id]


def test_one_that_is_to_go_back_and_dies_is_tried_again_when_that_is_known() -> None:
    bench = Bench()
    id = bench.call(retries=1)
    bench.grant()
    bench.says("w-1", m.Bounced([], True, True))
    bench.lose("w-1")
    bench.hub(m.LeaseGranted(KEY, "l-2", "w-2", "p-2", endpoints("w-2")))
    ends(bench, "signal")
    assert bench.calls("w-2") == [id]
    bench.lose("w-2")
    bench.hub(m.LeaseLost("l-2", m.DeathReport("signal")))
    assert isinstance(bench.failure(id), WorkerDied)
