"""Leases: who gets which worker, and what the hub hears of it."""

from __future__ import annotations

import pytest

from guactors.errors import Death
from guactors.messages import (
    Bind,
    Blocked,
    EndSession,
    Keeping,
    LeaseEnded,
    LeaseStarted,
    Leave,
    Retiring,
    StopLease,
    WorkerBlocked,
    WorkerResumed,
)
from guactors.provider_state import SendHub, SendWorker, StartWorker
from tests.unit.provider.bench import Bench, endpoint


def test_a_warm_worker_is_bound_before_its_replacement_is_started() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    effects = bench.lease()
    assert effects == [
        SendWorker(worker, Bind("s-1", "space", "l-1")),
        SendHub(LeaseStarted("l-1", worker, [endpoint(worker)])),
    ]
    assert bench.starting == []
    later = bench.pass_time(0.1)
    assert [effect for effect in later if isinstance(effect, StartWorker)] == [StartWorker("w-2")]


def test_without_a_free_worker_one_is_started_at_once_and_the_lease_waits() -> None:
    bench = Bench(warm=0)
    assert bench.starting == []
    bench.lease()
    assert bench.said(LeaseStarted) == []
    (worker,) = bench.all_up()
    assert [one.worker for one in bench.said(LeaseStarted)] == [worker]


def test_leases_that_wait_are_served_in_order() -> None:
    bench = Bench(warm=0)
    for name in ("l-1", "l-2", "l-3"):
        bench.lease(name)
    bench.all_up()
    assert [one.lease for one in bench.said(LeaseStarted)] == ["l-1", "l-2", "l-3"]


def test_a_burst_starts_no_more_processes_at_once_than_the_machine_bears() -> None:
    bench = Bench(warm=0)
    for number in range(50):
        bench.lease(f"l-{number}")
    assert len(bench.starting) == 4
    bench.all_up()
    assert len(bench.said(LeaseStarted)) == 50


def test_a_returned_worker_takes_its_sessions_next_lease_without_a_second_bind() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease("l-1")
    bench.hub(StopLease("l-1"))
    assert bench.said(LeaseEnded) == []
    bench.told(worker, Bind)
    bench.lease("l-2")
    assert [one.worker for one in bench.said(LeaseStarted)] == [worker, worker]
    assert bench.told(worker, Bind) == []


def test_a_returned_worker_never_serves_another_session() -> None:
    bench = Bench(warm=0)
    bench.lease("l-1", "s-1")
    (first,) = bench.all_up()
    bench.hub(StopLease("l-1"))
    bench.lease("l-2", "s-2")
    (second,) = bench.all_up()
    assert [one.worker for one in bench.said(LeaseStarted)] == [first, second]


def test_a_lease_stopped_by_force_is_answered_when_its_worker_is_gone() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease()
    bench.hub(StopLease("l-1", kill=True))
    assert bench.killed == {worker: "killed"}
    assert bench.said(LeaseEnded) == []
    bench.ends(worker, Death("killed", signal=9))
    (ended,) = bench.said(LeaseEnded)
    assert (ended.death.cause, ended.death.signal) == ("killed", 9)
    assert (ended.death.worker, ended.death.provider) == (worker, "tester")


def test_a_lease_stopped_while_it_waits_gets_no_worker() -> None:
    bench = Bench(warm=0)
    bench.lease("l-1")
    bench.lease("l-2")
    bench.hub(StopLease("l-1"))
    bench.hub(StopLease("l-2", kill=True))
    assert [one.lease for one in bench.said(LeaseEnded)] == ["l-2"]
    bench.all_up()
    assert bench.said(LeaseStarted) == []


def test_stopping_an_unknown_lease_does_nothing() -> None:
    bench = Bench()
    assert bench.hub(StopLease("l-9")) == []
    assert bench.hub(StopLease("l-9", kill=True)) == []


def test_the_same_lease_asked_for_again_is_told_again() -> None:
    bench = Bench()
    bench.all_up()
    bench.lease()
    bench.lease()
    first, second = bench.said(LeaseStarted)
    assert first == second


@pytest.mark.parametrize(
    "death",
    [
        Death("exited", exit_code=3),
        Death("signal", signal=11, stderr_tail="Segmentation fault", rss_bytes=5),
        Death("out_of_memory", signal=9, rss_bytes=2**30),
    ],
)
def test_a_death_that_nobody_asked_for_is_told_as_it_was_seen(death: Death) -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease()
    bench.ends(worker, death)
    (ended,) = bench.said(LeaseEnded)
    assert ended.death.cause == death.cause
    assert ended.death.exit_code == death.exit_code
    assert ended.death.signal == death.signal
    assert ended.death.stderr_tail == death.stderr_tail
    assert ended.death.rss_bytes == death.rss_bytes


def test_the_death_of_an_idle_worker_is_nobodys_business() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease()
    bench.hub(StopLease("l-1"))
    bench.to_hub.clear()
    bench.ends(worker)
    assert bench.to_hub == []


def test_blocked_and_resumed_are_passed_on_with_the_lease() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease()
    bench.to_hub.clear()
    for blocked in (True, True, False, False):
        bench.says(worker, Blocked(blocked))
    assert bench.to_hub == [WorkerBlocked("l-1"), WorkerResumed("l-1")]


def test_a_resume_that_comes_after_the_lease_is_not_told_of_the_next_one() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease("l-1")
    bench.says(worker, Blocked(True))
    bench.hub(StopLease("l-1"))
    bench.lease("l-2")
    bench.to_hub.clear()
    bench.says(worker, Blocked(False))
    assert bench.to_hub == []


def test_the_end_of_a_session_kills_its_workers_and_answers_its_waiting_leases() -> None:
    bench = Bench(warm=0)
    for name in ("l-1", "l-2"):
        bench.lease(name)
    busy, idle = bench.all_up()
    bench.hub(StopLease("l-2"))
    bench.lease("l-other", "s-2")
    bench.hub(EndSession("s-1"))
    assert bench.killed == {busy: "session_ended", idle: "session_ended"}
    bench.ends(busy)
    bench.ends(idle)
    (ended,) = bench.said(LeaseEnded)
    assert (ended.lease, ended.death.cause) == ("l-1", "session_ended")
    bench.all_up()
    assert [one.lease for one in bench.said(LeaseStarted)][-1] == "l-other"


def test_the_end_of_a_session_answers_those_that_wait() -> None:
    bench = Bench(warm=0)
    bench.lease("l-1")
    bench.hub(EndSession("s-1"))
    (ended,) = bench.said(LeaseEnded)
    assert (ended.lease, ended.death.cause) == ("l-1", "session_ended")


def test_idle_workers_beyond_twice_the_cpus_are_let_go_the_longest_idle_first() -> None:
    bench = Bench(warm=0)
    for number in range(6):
        bench.lease(f"l-{number}")
    workers = bench.all_up()
    for number in range(6):
        bench.now += 1
        bench.hub(StopLease(f"l-{number}"))
    left = [worker for worker in workers if bench.told(worker, Leave)]
    assert left == workers[:2]


def test_an_idle_worker_is_let_go_after_a_minute_and_killed_if_it_stays() -> None:
    bench = Bench(warm=0)
    bench.lease()
    (worker,) = bench.all_up()
    bench.hub(StopLease("l-1"))
    bench.pass_time(59.0)
    assert bench.told(worker, Leave) == []
    bench.pass_time(1.5)
    assert bench.told(worker, Leave) == [Leave(graceful=True, if_unused=True)]
    bench.lease("l-2")
    assert worker not in [one.worker for one in bench.said(LeaseStarted)][1:]
    bench.pass_time(5.0)
    assert bench.killed == {worker: "released"}


def test_an_idle_worker_that_keeps_what_others_need_stays() -> None:
    bench = Bench(warm=0)
    bench.lease()
    (worker,) = bench.all_up()
    bench.hub(StopLease("l-1"))
    bench.pass_time(60.5)
    assert bench.told(worker, Leave) == [Leave(graceful=True, if_unused=True)]
    bench.says(worker, Keeping(True))
    bench.pass_time(600.0)
    assert bench.told(worker, Leave) == []
    bench.lease("l-2")
    assert [one.worker for one in bench.said(LeaseStarted)][-1] == worker
    bench.hub(StopLease("l-2"))
    bench.says(worker, Keeping(False))
    bench.pass_time(60.5)
    assert bench.told(worker, Leave) == [Leave(graceful=True, if_unused=True)]
    bench.pass_time(5.0)
    assert bench.killed == {worker: "released"}


def test_too_many_idle_workers_that_keep_something_are_not_asked_again_and_again() -> None:
    bench = Bench(warm=0, resources={"CPU": 1.0})
    for number in range(4):
        bench.lease(f"l-{number}")
    workers = bench.all_up()
    for number in range(4):
        bench.hub(StopLease(f"l-{number}"))
    asked = [worker for worker in workers if bench.told(worker, Leave)]
    assert asked
    for worker in asked:
        bench.says(worker, Keeping(True))
    bench.pass_time(30.0)
    assert not any(bench.told(worker, Leave) for worker in asked)
    assert bench.killed == {}


def test_a_worker_that_is_to_leave_has_time_to_hand_over_what_it_keeps() -> None:
    bench = Bench(warm=0)
    bench.lease()
    (worker,) = bench.all_up()
    bench.says(worker, Retiring())
    bench.hub(StopLease("l-1"))
    assert bench.told(worker, Leave) == [Leave(graceful=True)]
    bench.says(worker, Keeping(True))
    bench.pass_time(50.0)
    assert bench.killed == {}
    bench.pass_time(11.0)
    assert bench.killed == {worker: "released"}


def test_a_worker_that_has_to_leave_cannot_stay() -> None:
    bench = Bench(warm=0)
    bench.lease()
    (worker,) = bench.all_up()
    bench.hub(StopLease("l-1"))
    bench.hub(EndSession("s-1"))
    bench.says(worker, Keeping(True))
    bench.pass_time(10.0)
    assert worker in bench.killed
