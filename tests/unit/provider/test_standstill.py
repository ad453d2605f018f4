"""Standing still for others: what workers and the hub are told, and when processes are stopped."""

from __future__ import annotations

import pytest

from guactors.errors import Death
from guactors.messages import (
    ActorEnded,
    Displaced,
    GoOn,
    LeaseEnded,
    LeaseStarted,
    Ping,
    Quit,
    Resume,
    Resumed,
    Stand,
    Stood,
    StopActor,
    StopLease,
    Suspend,
    Suspended,
)
from guactors.provider_state import HaltWorker, ImageFacts
from guactors.provider_state.standstill import INSTANCE_PATIENCE, PATIENCE
from tests.unit.provider.bench import Bench
from tests.unit.security.grant_samples import IMAGE


def busy(**options: object) -> tuple[Bench, str]:
    """A worker with the lease l-1, and a second one that is free."""
    bench = Bench(warm=2, **options)
    bench.all_up()
    bench.lease()
    (started,) = bench.said(LeaseStarted)
    return bench, started.worker


def halts(bench: Bench) -> list[HaltWorker]:
    """Taken out of the tray."""
    found = [effect for effect in bench.other if isinstance(effect, HaltWorker)]
    bench.other = [effect for effect in bench.other if not isinstance(effect, HaltWorker)]
    return found


def urgent(bench: Bench, number: int = 5, name: str = "l-9") -> None:
    bench.lease(name, "s-9", displaces=[Displaced("l-1", number)])


def test_a_newcomer_begins_while_its_victim_gives_back_its_calls_and_is_stopped() -> None:
    bench, worker = busy()
    urgent(bench)
    assert [word.number for word in bench.told(worker, Stand)] == [5]
    assert [one.lease for one in bench.said(LeaseStarted)] == ["l-9"] and halts(bench) == []
    bench.says(worker, Stood(5))
    assert halts(bench) == [HaltWorker(worker, stop=True)]
    assert bench.said(Suspended) == [Suspended("l-1", 5)]


def test_one_that_does_not_answer_is_stopped_all_the_same() -> None:
    bench, worker = busy()
    urgent(bench)
    bench.pass_time(2 * PATIENCE)
    assert halts(bench) == [HaltWorker(worker, stop=True)]
    bench.says(worker, Stood(5))
    assert halts(bench) == [], "stopped twice"


def test_it_goes_on() -> None:
    bench, worker = busy()
    urgent(bench)
    bench.says(worker, Stood(5))
    halts(bench)
    bench.hub(Resume("l-1", 5))
    assert halts(bench) == [HaltWorker(worker, stop=False)]
    assert bench.told(worker, GoOn) == [GoOn(5)]
    assert bench.said(Resumed) == [Resumed("l-1", 5)]


def test_an_actor_is_stopped_at_once() -> None:
    bench = Bench(warm=2)
    bench.all_up()
    bench.actor()
    bench.hub(Suspend("a-1", 3))
    (halt,) = halts(bench)
    assert halt.stop and bench.told(halt.worker, Stand) == []
    assert bench.said(Suspended) == [Suspended("a-1", 3)]


def test_a_stopped_worker_is_not_held_to_be_dead() -> None:
    bench, worker = busy()
    bench.hub(Suspend("l-1", 1))
    bench.says(worker, Stood(1))
    bench.mute.add(worker)
    bench.pass_time(600.0)
    assert worker not in bench.killed
    assert bench.told(worker, Ping) == []
    bench.hub(Resume("l-1", 1))
    bench.pass_time(30.0)
    assert worker not in bench.killed, "it has time to be heard again"
    bench.pass_time(60.0)
    assert bench.killed[worker] == "unresponsive"


def test_a_victim_that_ends_while_it_is_to_stand_still() -> None:
    bench, worker = busy()
    urgent(bench)
    bench.ends(worker, Death("exited"))
    assert [one.lease for one in bench.said(LeaseEnded)] == ["l-1"]
    bench.pass_time(1.0)
    assert bench.said(Suspended) == [] and halts(bench) == []


def test_a_victim_that_is_not_here() -> None:
    bench, _ = busy()
    bench.lease("l-9", "s-9", displaces=[Displaced("l-7", 5)])
    assert [one.lease for one in bench.said(LeaseStarted)] == ["l-9"]


def test_a_victim_that_is_ending_already_is_not_touched() -> None:
    bench, worker = busy()
    bench.hub(StopLease("l-1", kill=True))
    urgent(bench)
    assert bench.told(worker, Stand) == [] and halts(bench) == []
    assert bench.said(LeaseStarted) == [], "it has all that it held until it is gone"
    bench.ends(worker)
    assert [one.lease for one in bench.said(LeaseStarted)] == ["l-9"]


def test_a_newcomer_that_is_withdrawn_meanwhile() -> None:
    bench, worker = busy()
    urgent(bench)
    bench.hub(StopLease("l-9"))
    bench.hub(Resume("l-1", 5))
    assert bench.told(worker, GoOn) == [GoOn(5)]
    bench.says(worker, Stood(5))
    assert halts(bench) == [], "it was too late"


def test_an_instance_is_suspended_by_its_worker_which_lives_on() -> None:
    bench = Bench(warm=2)
    bench.all_up()
    bench.lease(image=IMAGE, runtime="native")
    bench.image_here(ImageFacts(IMAGE))
    for worker in list(bench.preparing):
        bench.root_ready(worker)
    (started,) = bench.said(LeaseStarted)
    bench.hub(Suspend("l-1", 2))
    assert bench.told(started.worker, Stand) == [Stand(2)]
    bench.pass_time(INSTANCE_PATIENCE / 2)
    assert bench.said(Suspended) == []
    bench.says(started.worker, Stood(2))
    assert bench.said(Suspended) == [Suspended("l-1", 2)]
    assert halts(bench) == []


@pytest.mark.parametrize("silent", [True, False])
def test_an_instance_that_does_not_stand_still_stops_the_newcomer(silent: bool) -> None:
    bench = Bench(warm=2)
    bench.all_up()
    bench.lease(image=IMAGE, runtime="native")
    bench.image_here(ImageFacts(IMAGE))
    for worker in list(bench.preparing):
        bench.root_ready(worker)
    (started,) = bench.said(LeaseStarted)
    bench.lease("l-9", "s-9", displaces=[Displaced("l-1", 5)])
    if silent:
        bench.pass_time(INSTANCE_PATIENCE + 1)
    else:
        bench.says(started.worker, Stood(5, "the daemon does not answer"))
    (told,) = bench.said(Suspended)
    assert told.key == "l-1" and told.error
    (ended,) = bench.said(LeaseEnded)
    assert (ended.lease, ended.death.cause) == ("l-9", "not_displaced")
    assert "l-1" in ended.death.detail
    assert bench.told(started.worker, GoOn) == [GoOn(5)]


def test_what_was_said_before_the_line_broke_is_said_again() -> None:
    bench, worker = busy()
    bench.hub(Suspend("l-1", 4))
    bench.says(worker, Stood(4))
    bench.hub_down()
    bench.to_hub.clear()
    bench.hub_up()
    assert bench.said(Suspended) == [Suspended("l-1", 4)]
    bench.hub(Suspend("l-1", 6))
    assert bench.said(Suspended) == [Suspended("l-1", 6)], "the latest number counts"
    assert len(halts(bench)) == 1


def test_nobody_stays_frozen_for_what_ended_while_the_hub_is_away() -> None:
    bench, worker = busy()
    urgent(bench)
    bench.says(worker, Stood(5))
    halts(bench)
    (started,) = bench.said(LeaseStarted)
    bench.hub_down()
    bench.ends(started.worker)
    assert halts(bench) == [HaltWorker(worker, stop=False)]


def test_a_lease_that_is_given_back_as_it_stands_leaves_a_worker_that_runs() -> None:
    bench, worker = busy()
    bench.hub(Suspend("l-1", 1))
    bench.says(worker, Stood(1))
    halts(bench)
    bench.hub(StopLease("l-1"))
    assert halts(bench) == [HaltWorker(worker, stop=False)]
    bench.lease("l-2")
    assert [one.worker for one in bench.said(LeaseStarted)] == [worker]


def test_an_actor_that_is_to_end_gracefully_runs_until_then() -> None:
    bench = Bench(warm=2)
    bench.all_up()
    bench.actor()
    bench.hub(Suspend("a-1", 3))
    (halt,) = halts(bench)
    bench.hub(StopActor("a-1", "released", graceful=True))
    assert halts(bench) == [HaltWorker(halt.worker, stop=False)]
    bench.ends(halt.worker)
    assert bench.said(ActorEnded)


def test_suspended_twice_is_suspended_once() -> None:
    bench, worker = busy()
    bench.hub(Suspend("l-1", 1))
    bench.hub(Suspend("l-1", 2))
    assert len(bench.told(worker, Stand)) == 1
    bench.says(worker, Stood(1))
    assert bench.said(Suspended) == [Suspended("l-1", 2)]


def test_one_with_a_grace_is_asked_and_ended_when_that_is_over() -> None:
    bench, worker = busy()
    bench.hub(StopLease("l-1", True, 3.0, "requeued"))
    assert bench.told(worker, Quit) == [Quit(3.0)] and not bench.killed
    urgent(bench)
    assert bench.said(LeaseStarted) == [], "it has its room until it is gone"
    bench.pass_time(2.9)
    assert not bench.killed
    bench.pass_time(0.2)
    assert bench.killed == {worker: "requeued"}
    bench.ends(worker)
    (ended,) = bench.said(LeaseEnded)
    assert (ended.lease, ended.death.cause) == ("l-1", "requeued")
    assert [one.lease for one in bench.said(LeaseStarted)] == ["l-9"]


def test_one_that_stands_still_goes_on_to_end_by_itself() -> None:
    bench, worker = busy()
    bench.hub(Suspend("l-1", 5))
    bench.says(worker, Stood(5))
    assert halts(bench) == [HaltWorker(worker, stop=True)]
    bench.hub(StopLease("l-1", True, 3.0, "preempted"))
    assert halts(bench) == [HaltWorker(worker, stop=False)]
    assert bench.told(worker, Quit) == [Quit(3.0)]
    assert not bench.killed
    bench.hub(StopLease("l-1", kill=True))
    assert worker in bench.killed, "nobody wants to know any more"
