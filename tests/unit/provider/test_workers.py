"""Workers: starting, failing to start, silence, lost lines, output."""

from __future__ import annotations

from itertools import pairwise

import pytest

from guactors.config import Timing
from guactors.errors import Death, InternalError
from guactors.messages import (
    Goodbye,
    Hello,
    LeaseEnded,
    LeaseStarted,
    Output,
    Ping,
    Pong,
    Welcome,
    WorkerReady,
)
from guactors.provider_state import GiveUp, Note, Ready, SendWorker
from guactors.provider_state.watch import PROBE_AFTER
from guactors.provider_state.workers import Leased, Starting, Worker
from tests.unit.provider.bench import VERSIONS, Bench, start_lease


def test_warm_workers_are_started_first_of_all() -> None:
    bench = Bench(warm=3, up=False)
    assert bench.starting == ["w-1", "w-2", "w-3"]


def test_ready_is_told_once_after_the_welcome_and_the_first_worker() -> None:
    bench = Bench(warm=2)
    assert Ready() not in bench.other
    bench.all_up()
    assert bench.other.count(Ready()) == 1


def test_without_warm_workers_the_welcome_is_enough() -> None:
    assert Ready() in Bench(warm=0).other


def test_a_worker_is_welcomed() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    assert bench.told(worker, Welcome) == [Welcome("p-1", VERSIONS)]


def test_a_process_that_does_not_come_up_answers_the_lease_that_waits() -> None:
    bench = Bench(warm=0)
    bench.lease()
    (worker,) = bench.starting
    bench.ends(worker, Death("exited", exit_code=1, stderr_tail="ImportError"))
    (ended,) = bench.said(LeaseEnded)
    assert ended.death.cause == "start_failed"
    assert ended.death.stderr_tail == "ImportError"
    assert bench.starting == []


def test_a_process_that_is_not_ready_after_thirty_seconds_is_killed() -> None:
    bench = Bench(warm=0)
    bench.lease()
    (worker,) = bench.starting
    bench.pass_time(29.9)
    assert bench.killed == {}
    bench.pass_time(0.2)
    assert bench.killed == {worker: "start_failed"}
    bench.ends(worker)
    (ended,) = bench.said(LeaseEnded)
    assert ended.death.cause == "start_failed"


def test_warm_workers_that_fail_are_tried_less_and_less_often() -> None:
    bench = Bench()
    bench.all_up()
    bench.lease()
    starts = []
    for _ in range(8):
        while not bench.starting:
            bench.pass_time(0.25)
        starts.append(bench.now)
        bench.ends(bench.starting[0])
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(0.5, abs=0.3)
    assert pauses[-1] == pytest.approx(30.0, abs=0.3)


def test_a_provider_whose_first_workers_all_fail_gives_up_and_says_why() -> None:
    bench = Bench()
    for _ in range(3):
        bench.pass_time(2.0)
        bench.ends(bench.starting[0], Death("exited", exit_code=1, stderr_tail="no module zmq"))
    (given_up,) = [effect for effect in bench.other if isinstance(effect, GiveUp)]
    assert given_up.kind == "WorkerDied"
    assert "no module zmq" in given_up.detail


def test_pings_are_answered_and_sent() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.says(worker, Ping(7))
    assert bench.told(worker, Pong) == [Pong(7)]
    effects = bench.pass_time(1.5)
    assert SendWorker(worker, Ping(1)) in effects


def test_silence_is_noted_and_ends_a_worker_only_after_a_minute() -> None:
    bench = Bench(timing=Timing(lost_after=5.0))
    (worker,) = bench.all_up()
    bench.lease()
    bench.mute.add(worker)
    bench.pass_time(59.0)
    notes = [effect for effect in bench.other if isinstance(effect, Note)]
    assert [note.text for note in notes] == [f"worker {worker} is silent"]
    assert worker not in bench.killed
    bench.pass_time(3.0)
    assert bench.killed[worker] == "unresponsive"
    bench.ends(worker, Death("killed", signal=9))
    assert [one.death.cause for one in bench.said(LeaseEnded)] == ["unresponsive"]


def test_a_worker_that_answers_is_never_ended() -> None:
    bench = Bench(warm=0)
    bench.lease()
    bench.all_up()
    bench.pass_time(300.0)
    assert bench.killed == {}


def test_a_worker_that_lost_its_line_but_lives_on_is_ended() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease()
    bench.do(bench.core.on_worker_link_lost(worker, bench.now))
    bench.pass_time(1.9)
    assert bench.killed == {}
    bench.pass_time(0.2)
    assert bench.killed == {worker: "unresponsive"}


def test_a_worker_that_found_a_new_line_lives() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.do(bench.core.on_worker_link_lost(worker, bench.now))
    bench.says(worker, Hello(worker, "worker", VERSIONS, 77, "here"))
    bench.pass_time(5.0)
    assert bench.killed == {}


def test_disturbances_are_answered_by_asking_everybody_once() -> None:
    bench = Bench(warm=3)
    workers = bench.all_up()
    for _ in range(3):
        bench.do(bench.core.on_disturbed(bench.now))
    assert bench.pinged == []
    for _ in range(2):
        bench.do(bench.core.on_tick(bench.now + PROBE_AFTER))
    assert bench.pinged == workers


def test_a_worker_that_says_goodbye_gets_no_work_and_is_ended_if_it_stays() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.says(worker, Goodbye())
    bench.lease()
    assert bench.said(LeaseStarted) == []
    bench.pass_time(5.0)
    assert bench.killed == {worker: "exited"}


def test_output_goes_to_the_hub_with_its_session() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease()
    bench.do(bench.core.on_output(worker, 2, "f", ("one", "two"), 3))
    assert bench.said(Output) == [Output("s-1", worker, 77, "tester", 2, "f", ["one", "two"], 3)]


def test_output_while_the_hub_is_away_is_counted_as_dropped() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease()
    bench.hub_down()
    bench.do(bench.core.on_output(worker, 1, "f", ("one", "two"), 3))
    assert bench.said(Output) == []
    bench.hub_up()
    bench.do(bench.core.on_output(worker, 1, "f", ("three",), 0))
    (output,) = bench.said(Output)
    assert (output.lines, output.dropped) == (["three"], 5)


def test_output_of_a_worker_without_session_goes_to_the_log() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.do(bench.core.on_output(worker, 2, "", ("a warning",), 0))
    assert bench.said(Output) == []
    assert any(isinstance(one, Note) and "a warning" in one.text for one in bench.other)


def test_what_a_dead_worker_said_is_ignored() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.ends(worker)
    assert bench.says(worker, WorkerReady([])) == []
    assert bench.do(bench.core.on_output(worker, 1, "", ("late",), 0)) == []
    assert bench.ends(worker) == []


def test_an_impossible_move_tells_the_workers_history() -> None:
    worker = Worker("w-1", Starting(0.0))
    with pytest.raises(InternalError, match="w-1 cannot go to Leased after: Starting"):
        worker.move(Leased(start_lease()))


def test_the_provider_itself_may_have_slept_without_killing_anybody() -> None:
    bench = Bench()
    bench.mute.update(bench.all_up())
    bench.pass_time(0.5)
    bench.now += 3600.0
    bench.do(bench.core.on_tick(bench.now))
    assert bench.killed == {}
