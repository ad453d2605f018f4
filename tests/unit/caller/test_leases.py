"""Stateless calls: how many leases are asked for, what runs where, and what comes back."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.caller.doubts import MOST_SPARED
from guactors.caller.leases import OVERDUE
from guactors.caller.tasks import shape_key
from guactors.errors import (
    CallTimeout,
    OutOfMemory,
    PermissionDenied,
    TaskCancelled,
    Unschedulable,
    WorkerDied,
)
from tests.unit.caller.bench import FN, KEY, ONE, Bench, endpoints, error, value

OTHER = b"o" * 16
DEATH = m.DeathReport("signal", signal=9, worker="w-1")


def test_the_first_call_asks_for_one_lease_and_goes_out_with_its_function() -> None:
    bench = Bench()
    id = bench.call()
    assert bench.told(m.SetDemand) == [m.SetDemand(KEY, ONE, 1)]
    bench.grant()
    assert bench.dialled == ["w-1"]
    kinds = [type(message) for message, _ in bench.to_worker["w-1"]]
    assert kinds == [m.Define, m.Calls]
    bench.reply("w-1", id)
    assert bench.data(id) == b"v"


def test_a_function_is_defined_once_per_worker() -> None:
    bench = Bench()
    first = bench.call()
    bench.grant()
    bench.reply("w-1", first)
    bench.call()
    assert len(bench.sent("w-1", m.Define)) == 1


def test_calls_of_unknown_length_go_out_one_by_one() -> None:
    bench = Bench()
    ids = [bench.call() for _ in range(3)]
    bench.grant()
    assert bench.calls("w-1") == ids[:1]
    bench.pass_time(0.2)
    bench.reply("w-1", ids[0])
    assert bench.calls("w-1") == ids[1:2]


def test_short_calls_are_pipelined() -> None:
    bench = Bench()
    first = bench.call()
    bench.grant()
    bench.calls("w-1")
    bench.pass_time(0.0001)
    bench.reply("w-1", first)
    ids = [bench.call() for _ in range(10)]
    assert bench.calls("w-1") == ids


def test_calls_of_length_zero_are_worth_a_lease() -> None:
    """A coarse clock measures nothing at all for a short call."""
    bench = Bench()
    bench.core.leases.service[FN] = 0.0
    bench.call()
    assert [x.count for x in bench.told(m.SetDemand)] == [1]


def test_one_that_is_idle_again_keeps_its_turn_and_busy_ones_take_turns() -> None:
    bench = Bench()
    first = bench.call()
    bench.grant()
    assert bench.calls("w-1") == [first]
    second = bench.call()
    bench.grant("l-2", "w-2")
    assert bench.calls("w-2") == [second]
    bench.reply("w-1", first)
    bench.reply("w-2", second)
    went = []
    for _ in range(4):
        id = bench.call()
        (worker,) = [name for name in ("w-1", "w-2") if bench.calls(name) == [id]]
        bench.reply(worker, id)
        went.append(worker)
    assert len(set(went)) == 1
    for _ in range(4):
        bench.call()
    assert [len(bench.calls(name)) for name in ("w-1", "w-2")] == [2, 2]


def test_an_idle_lease_lingers_and_goes_back() -> None:
    bench = Bench(linger=0.5)
    id = bench.call()
    bench.grant()
    bench.reply("w-1", id)
    bench.pass_time(0.4)
    assert not bench.told(m.ReturnLease)
    bench.pass_time(0.2)
    assert bench.told(m.ReturnLease) == [m.ReturnLease("l-1")]
    assert bench.told(m.SetDemand)[-1].count == 0
    assert bench.hung_up == ["w-1"]


def test_a_lease_for_a_demand_nobody_knows_goes_straight_back() -> None:
    bench = Bench()
    bench.hub(m.LeaseGranted("other", "l-9", "w-9", "p-1", endpoints("w-9")))
    assert bench.told(m.ReturnLease) == [m.ReturnLease("l-9")]


def test_a_recalled_lease_runs_what_runs_and_goes_back() -> None:
    bench = Bench()
    bench.core.leases.service[FN] = 0.001
    ids = [bench.call() for _ in range(3)]
    bench.grant()
    assert bench.calls("w-1") == ids
    bench.hub(m.LeaseRecalled("l-1"))
    assert bench.sent("w-1", m.TakeBack) == [m.TakeBack(3)]
    bench.says("w-1", m.Bounced(ids[1:]))
    assert not bench.told(m.ReturnLease)
    bench.reply("w-1", ids[0])
    assert bench.told(m.ReturnLease) == [m.ReturnLease("l-1")]
    bench.grant("l-2", "w-2")
    assert bench.calls("w-2") == ids[1:]


def test_nothing_waits_behind_a_call_of_unknown_length() -> None:
    bench = Bench()
    bench.core.leases.service[FN] = 0.0001
    bench.core.blobs[OTHER] = m.Define(OTHER, "long", b"code")
    long = bench.call(fn=OTHER)
    bench.grant()
    assert bench.calls("w-1") == [long]
    short = [bench.call() for _ in range(3)]
    assert not bench.calls("w-1")
    assert bench.told(m.SetDemand)[-1].count == 2
    bench.grant("l-2", "w-2")
    assert bench.calls("w-2") == short


def test_calls_do_not_wait_long_behind_one_that_takes_its_time() -> None:
    bench = Bench()
    bench.core.leases.service[FN] = 0.001
    ids = [bench.call() for _ in range(3)]
    bench.grant()
    assert bench.calls("w-1") == ids
    bench.told(m.SetDemand)
    bench.pass_time(OVERDUE / 2)
    assert not bench.sent("w-1", m.TakeBack)
    bench.pass_time(OVERDUE)
    assert bench.sent("w-1", m.TakeBack) == [m.TakeBack(2)]
    bench.pass_time(OVERDUE * 5)
    assert not bench.sent("w-1", m.TakeBack), "once is enough"
    bench.says("w-1", m.Bounced(ids[1:]))
    assert not bench.calls("w-1"), "they would be behind it again"
    assert bench.told(m.SetDemand)
    bench.reply("w-1", ids[0])
    assert bench.calls("w-1") == ids[1:2], "it goes on, and nobody else came"


def test_a_blocked_worker_gets_nothing_until_it_goes_on() -> None:
    bench = Bench()
    first = bench.call()
    bench.grant()
    bench.calls("w-1")
    bench.says("w-1", m.Bounced([], blocked=True))
    second = bench.call()
    assert bench.calls("w-1") == []
    assert bench.told(m.SetDemand)[-1].count == 2
    bench.says("w-1", m.Unblocked())
    bench.reply("w-1", first)
    assert bench.calls("w-1") == [second]


@pytest.mark.parametrize("retries", [1, 3, -1])
def test_a_call_with_retries_goes_elsewhere_at_once(retries: int) -> None:
    bench = Bench()
    id = bench.call(retries=retries)
    bench.grant()
    bench.calls("w-1")
    bench.lose("w-1")
    bench.grant("l-2", "w-2")
    assert bench.calls("w-2") == [id]
    bench.reply("w-1", id, value(b"late"))
    bench.reply("w-2", id, value(b"old"), attempt=0)
    assert bench.data(id) is None, "answers of earlier attempts do not count"
    bench.reply("w-2", id, value(b"new"), attempt=1)
    assert bench.data(id) == b"new"


def test_a_call_without_retries_waits_for_the_cause() -> None:
    bench = Bench()
    id = bench.call()
    bench.grant()
    bench.lose("w-1")
    assert bench.failure(id) is None
    bench.hub(m.LeaseLost("l-1", DEATH))
    failure = bench.failure(id)
    assert isinstance(failure, WorkerDied)
    assert failure.death is not None
    assert failure.death.signal == 9


def test_without_a_word_from_the_hub_the_doubt_ends() -> None:
    bench = Bench()
    id = bench.call()
    bench.grant()
    bench.lose("w-1")
    bench.pass_time(2.1)
    assert isinstance(bench.failure(id), WorkerDied)
    assert bench.told(m.ReturnLease) == [m.ReturnLease("l-1", dead=True)]


def test_a_lease_lost_by_the_hub_closes_its_link_and_ends_its_loans() -> None:
    bench = Bench()
    lent = bench.put()
    bench.call(lent=[lent])
    bench.grant()
    bench.drop(lent)
    bench.hub(m.LeaseLost("l-1", DEATH))
    assert bench.hung_up == ["w-1"]
    assert lent not in bench.kept()


def test_a_retry_of_the_users_errors_only_where_wanted() -> None:
    bench = Bench(retry_error=lambda task, data: b"again" in data)
    id = bench.call(retries=1, retry_errors=True)
    bench.grant()
    bench.reply("w-1", id, error("again"))
    assert bench.failure(id) is None
    bench.reply("w-1", id, error("again"), attempt=1)
    assert isinstance(bench.failure(id), ValueError)


def test_a_queued_call_is_cancelled_here() -> None:
    bench = Bench()
    id = bench.call()
    bench.cancel(id)
    assert isinstance(bench.failure(id), TaskCancelled)
    bench.grant()
    assert bench.calls("w-1") == []


def test_a_sent_call_is_cancelled_there() -> None:
    bench = Bench()
    id = bench.call()
    bench.grant()
    bench.cancel(id)
    assert bench.failure(id) is None
    assert bench.sent("w-1", m.CancelCall) == [m.CancelCall(id)]


def test_a_bounced_call_is_cancelled_here_again() -> None:
    """It is in the queue, whatever worker it was at before."""
    bench = Bench()
    bench.core.leases.service[FN] = 0.001
    ids = [bench.call() for _ in range(2)]
    bench.grant()
    bench.hub(m.LeaseRecalled("l-1"))
    bench.says("w-1", m.Bounced(ids[1:]))
    bench.cancel(ids[1])
    assert isinstance(bench.failure(ids[1]), TaskCancelled)
    bench.grant("l-2", "w-2")
    assert bench.calls("w-2") == []


def test_a_cancelled_call_that_bounces_is_over() -> None:
    bench = Bench()
    id = bench.call()
    bench.grant()
    bench.cancel(id)
    bench.says("w-1", m.Bounced([id]))
    assert isinstance(bench.failure(id), TaskCancelled)


def test_force_ends_the_worker_but_runs_nothing_twice() -> None:
    bench = Bench()
    bench.core.leases.service[FN] = 0.001
    once, again = bench.call(), bench.call(retries=1)
    victim = bench.call(retries=3)
    bench.grant()
    bench.cancel(victim, force=True)
    assert bench.told(m.ReturnLease) == [m.ReturnLease("l-1", dead=True)]
    assert isinstance(bench.failure(victim), TaskCancelled)
    assert isinstance(bench.failure(once), WorkerDied)
    bench.grant("l-2", "w-2")
    assert bench.calls("w-2") == [again]


def test_force_settles_what_was_cancelled_before() -> None:
    bench = Bench()
    bench.core.leases.service[FN] = 0.001
    soft, hard = bench.call(), bench.call()
    bench.grant()
    bench.cancel(soft)
    bench.cancel(hard, force=True)
    assert isinstance(bench.failure(soft), TaskCancelled)


@pytest.mark.parametrize("sent", [False, True])
def test_a_timeout_falls_on_time_wherever_the_call_is(sent: bool) -> None:
    bench = Bench()
    arg = bench.put()
    id = bench.call(deadline=bench.now + 1.0, deps=[arg])
    if sent:
        bench.grant()
        (batch,) = bench.sent("w-1", m.Calls)
        assert batch.calls[0].remaining == pytest.approx(1.0)
    bench.pass_time(0.9)
    assert bench.failure(id) is None
    bench.pass_time(0.2)
    assert isinstance(bench.failure(id), CallTimeout)
    assert bench.sent("w-1", m.CancelCall) == ([m.CancelCall(id, timeout=True)] if sent else [])
    if sent:
        bench.reply("w-1", id, error())
    bench.drop(id, arg)
    assert bench.kept() == []


def test_a_hopeless_demand_is_given_up_after_a_while() -> None:
    bench = Bench(patience=10.0)
    id = bench.call()
    bench.hub(m.DemandInfeasible(KEY, "too big"))
    bench.pass_time(9.0)
    assert bench.failure(id) is None
    bench.pass_time(2.0)
    assert isinstance(bench.failure(id), Unschedulable)
    assert bench.told(m.SetDemand)[-1].count == 0


def test_what_was_given_up_is_not_given_up_again() -> None:
    """Or a hub that refuses everything and its caller would talk for ever."""
    bench = Bench()
    id = bench.call()
    bench.hub(m.DemandInfeasible(KEY, "no grant", "PermissionDenied"))
    assert isinstance(bench.failure(id), PermissionDenied)
    assert bench.told(m.SetDemand)[-1].count == 0
    for _ in range(3):
        bench.hub(m.DemandInfeasible(KEY, "no grant", "PermissionDenied"))
    assert bench.told(m.SetDemand) == []


def test_a_grant_ends_the_patience() -> None:
    bench = Bench(patience=10.0)
    id = bench.call()
    bench.hub(m.DemandInfeasible(KEY, "too big"))
    bench.grant()
    bench.pass_time(20.0)
    assert bench.failure(id) is None


def test_a_new_hub_is_told_everything_zeros_too() -> None:
    bench = Bench()
    bench.call()
    bench.grant()
    assert bench.relink() == [m.HeldLeases(["l-1"]), m.SetDemand(KEY, ONE, 1)]
    bench.reply("w-1", 1)
    bench.pass_time(1.0)
    assert bench.relink() == [m.HeldLeases([]), m.SetDemand(KEY, ONE, 0)]


def test_equal_shapes_share_a_demand() -> None:
    one, two = {"CPU": 1.0, "GPU": 2.0}, {"GPU": 2.0, "CPU": 1.0}
    assert shape_key(m.Shape(one)) == shape_key(m.Shape(two))
    assert shape_key(m.Shape(one)) != shape_key(m.Shape(one, priority=1))
    assert len(shape_key(m.Shape({f"r{i}": 1.0 for i in range(50)}))) <= 64


# --- memory ---------------------------------------------------------------------------------------

FULL = m.DeathReport("out_of_memory", "the machine was full", worker="w-1")


def lose(bench: Bench, number: int, death: m.DeathReport) -> None:
    """The worker is lost, and the hub says how."""
    bench.lose(f"w-{number}")
    bench.hub(m.LeaseLost(f"l-{number}", death))


def test_a_machine_without_memory_costs_no_retries() -> None:
    bench = Bench()
    id = bench.call(retries=1)
    for number in range(1, MOST_SPARED + 1):
        bench.grant(f"l-{number}", f"w-{number}")
        lose(bench, number, FULL)
    last = MOST_SPARED + 1
    bench.grant(f"l-{last}", f"w-{last}")
    bench.reply(f"w-{last}", id, attempt=MOST_SPARED)
    assert bench.data(id) == b"v"


def test_but_not_for_ever() -> None:
    bench = Bench()
    id = bench.call(retries=1)
    for number in range(1, MOST_SPARED + 3):
        bench.grant(f"l-{number}", f"w-{number}")
        lose(bench, number, FULL)
    assert isinstance(bench.failure(id), OutOfMemory)


@pytest.mark.parametrize("cause", ["memory_limit", "out_of_memory"])
def test_memory_without_retries(cause: str) -> None:
    bench = Bench()
    id = bench.call(retries=0)
    bench.grant()
    lose(bench, 1, m.DeathReport(cause, "so much", worker="w-1"))
    assert isinstance(bench.failure(id), OutOfMemory)


def test_its_own_limit_is_its_own_fault() -> None:
    bench = Bench()
    id = bench.call(retries=1)
    for number in (1, 2):
        bench.grant(f"l-{number}", f"w-{number}")
        lose(bench, number, m.DeathReport("memory_limit", "so much", worker=f"w-{number}"))
    assert isinstance(bench.failure(id), OutOfMemory)


def test_a_lease_that_nobody_waits_for_any_more_is_not_asked_for() -> None:
    bench = Bench()
    first, second = bench.call(), bench.call()
    bench.told(m.SetDemand)
    bench.cancel(first)
    assert not bench.told(m.SetDemand)
    bench.cancel(second)
    assert bench.told(m.SetDemand) == [m.SetDemand(KEY, ONE, 0)]


def test_a_worker_whose_last_call_came_back_gets_what_waits() -> None:
    """The answer of a long call made it one behind which nothing waits; the one behind it, taken
    back, came later than that answer."""
    bench = Bench()
    first = bench.call()
    bench.grant()
    bench.pass_time(0.001)
    bench.reply("w-1", first)
    long, behind = bench.call(), bench.call()
    bench.core.flush()
    bench.pass_time(OVERDUE + 0.1)
    assert bench.sent("w-1", m.TakeBack)
    bench.calls("w-1")
    late = bench.call()
    bench.reply("w-1", long)
    bench.says("w-1", m.Bounced([behind]))
    bench.core.flush()
    assert bench.calls("w-1")[:1] == [behind]
    bench.core.check()
    bench.reply("w-1", behind)
    assert bench.calls("w-1") == [late]
