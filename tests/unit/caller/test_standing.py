"""Calls whose caller does not want to wait for what stands still, or whose clock is to stop."""

from __future__ import annotations

import pickle

import pytest

from guactors import messages as m
from guactors.caller.actors import RemoteActor
from guactors.caller.tasks import Stillness
from guactors.errors import CallTimeout, Suspended, TaskCancelled
from guactors.waiting import Stopwatch
from tests.unit.caller.bench import Bench, endpoints
from tests.unit.caller.test_looking import summary, tasks

STANDING = m.Standing("l-9", 1_800_000_000.0, "for work of priority 10")


def raising() -> Stillness:
    return Stillness(raises=True)


def actor_at(bench: Bench) -> RemoteActor:
    actor = bench.actor()
    bench.alive()
    return actor


def stand(bench: Bench, standing: m.Standing | None = STANDING) -> None:
    """The hub tells that the actor stands still, or with None that it goes on."""
    bench.hub(
        m.ActorUpdate("a-1", "alive", 0, "w-1", endpoints("w-1"), provider="p-1", standing=standing)
    )


def leased(bench: Bench, **options: object) -> int:
    """A call that runs in a lease."""
    id = bench.call(**options)
    bench.grant()
    assert bench.calls("w-1") == [id]
    return id


# --- being told -----------------------------------------------------------------------------------


def test_a_call_to_a_suspended_actor_is_not_sent_and_says_why() -> None:
    bench = Bench()
    actor = actor_at(bench)
    stand(bench)
    id = bench.call(actor, stillness=raising())
    bench.pass_time(10.0)
    assert bench.calls("w-1") == []
    error = bench.failure(id)
    assert isinstance(error, Suspended)
    assert (error.by, error.since, error.reason) == ("l-9", STANDING.since, STANDING.reason)
    for word in ("f was not sent", "a-1", "2027-01-15 08:00:00 UTC", "priority 10", "on_suspended"):
        assert word in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.by, again.since) == (str(error), error.by, error.since)


def test_one_that_wants_to_wait_is_sent() -> None:
    bench = Bench()
    actor = actor_at(bench)
    stand(bench)
    id = bench.call(actor)
    assert bench.calls("w-1") == [id] and bench.failure(id) is None


def test_what_waits_here_for_the_actor_ends_too_and_what_was_sent_does_not() -> None:
    bench = Bench()
    actor = actor_at(bench)
    sent = bench.call(actor, stillness=raising())
    argument = bench.call()
    bench.core.objects.hold(argument)
    held = bench.call(actor, deps=[argument], stillness=raising())
    patient = bench.call(actor)
    assert bench.calls("w-1") == [sent]
    stand(bench)
    assert isinstance(bench.failure(held), Suspended)
    assert bench.failure(sent) is None and bench.failure(patient) is None
    assert bench.core.standing.told(sent) is not None
    stand(bench, None)
    assert bench.core.standing.told(sent) is None
    bench.reply("w-1", sent)
    assert bench.data(sent) == b"v"


def test_who_waits_for_a_call_that_has_begun_is_told_and_the_call_stays() -> None:
    bench = Bench()
    id = leased(bench, stillness=raising())
    assert bench.core.standing.told(id) is None
    bench.core.standing.news = False
    bench.hub(m.LeaseSuspended("l-1", STANDING))
    assert bench.core.standing.news, "who waits must look"
    told = bench.core.standing.told(id)
    assert told is not None and "get() it again" in str(told) and "p-1" in str(told)
    assert bench.data(id) is None
    bench.hub(m.LeaseResumed("l-1"))
    assert bench.core.standing.told(id) is None
    bench.reply("w-1", id)
    assert bench.data(id) == b"v" and bench.core.standing.told(id) is None


def test_nobody_is_told_of_a_call_without_a_word() -> None:
    bench = Bench()
    id = leased(bench)
    bench.hub(m.LeaseSuspended("l-1", STANDING))
    assert bench.core.standing.told(id) is None and bench.core.standing.stands(id)


def test_each_result_of_a_call_is_asked_for_alike() -> None:
    bench = Bench()
    id = leased(bench, returns=2, stillness=raising())
    bench.hub(m.LeaseSuspended("l-1", STANDING))
    assert bench.core.standing.told(id + 1) is not None


def test_after_a_lost_link_only_what_the_hub_says_again_stands() -> None:
    bench = Bench()
    id = leased(bench, stillness=raising())
    bench.hub(m.LeaseSuspended("l-1", STANDING))
    bench.relink()
    assert bench.core.standing.told(id) is None
    bench.hub(m.LeaseSuspended("l-1", STANDING))
    assert bench.core.standing.told(id) is not None


# --- an actor that gives its calls back -----------------------------------------------------------


def given_back(bench: Bench, ids: list[int]) -> None:
    bench.says("w-1", m.Bounced(ids, True, False, True))
    assert bench.sent("w-1", m.Halted) == [m.Halted()]


def test_calls_that_an_actor_has_not_begun_go_to_it_where_it_goes_on() -> None:
    bench = Bench()
    actor = actor_at(bench)
    first, second, third = (bench.call(actor) for _ in range(3))
    bench.calls("w-1")
    given_back(bench, [second, third])
    later = bench.call(actor)
    assert bench.calls("w-1") == []
    bench.reply("w-1", first)
    ended = m.DeathReport("checkpointed")
    bench.hub(m.ActorUpdate("a-1", "restarting", 0, death=ended))
    bench.alive(incarnation=1, worker="w-2")
    assert bench.calls("w-2") == [second, third, later]
    assert bench.data(first) == b"v"


def test_they_keep_their_order_however_they_come_back() -> None:
    bench = Bench()
    actor = actor_at(bench)
    ids = [bench.call(actor) for _ in range(6)]
    bench.calls("w-1")
    given_back(bench, ids[1:3])
    bench.says("w-1", m.Bounced(ids[3:], True))
    bench.hub(m.ActorUpdate("a-1", "restarting", 0, death=m.DeathReport("checkpointed")))
    bench.reply("w-1", ids[0])
    bench.alive(incarnation=1, worker="w-2")
    assert bench.calls("w-2") == ids[1:]


def test_or_to_the_same_one_if_that_stays() -> None:
    bench = Bench()
    actor = actor_at(bench)
    first, second = bench.call(actor), bench.call(actor)
    bench.calls("w-1")
    given_back(bench, [second])
    bench.says("w-1", m.Unblocked())
    assert bench.calls("w-1") == [second]
    assert bench.data(first) is None


def test_an_answer_that_comes_after_the_news_of_the_end_counts() -> None:
    bench = Bench()
    actor = actor_at(bench)
    id = bench.call(actor)
    given_back(bench, [])
    bench.hub(m.ActorUpdate("a-1", "restarting", 0, death=m.DeathReport("checkpointed")))
    assert bench.failure(id) is None
    bench.reply("w-1", id)
    assert bench.data(id) == b"v"


def test_a_cancelled_call_that_comes_back_is_not_made_again() -> None:
    bench = Bench()
    actor = actor_at(bench)
    bench.call(actor)
    id = bench.call(actor)
    bench.calls("w-1")
    bench.cancel(id)
    given_back(bench, [id])
    assert isinstance(bench.failure(id), TaskCancelled)


# --- clocks ---------------------------------------------------------------------------------------


def timed(seconds: float, *, counts: bool = False) -> dict[str, object]:
    return {"deadline": 1000.0 + seconds, "stillness": Stillness(counts=counts)}


def test_the_clock_of_a_call_stands_with_it() -> None:
    bench = Bench()
    id = leased(bench, **timed(5.0))
    bench.pass_time(4.0)
    bench.hub(m.LeaseSuspended("l-1", STANDING))
    bench.pass_time(100.0)
    assert bench.failure(id) is None
    bench.hub(m.LeaseResumed("l-1"))
    bench.pass_time(0.9)
    assert bench.failure(id) is None
    bench.pass_time(0.2)
    assert isinstance(bench.failure(id), CallTimeout)


def test_it_counts_on_where_that_was_not_asked_for() -> None:
    bench = Bench()
    id = leased(bench, **timed(5.0, counts=True))
    bench.hub(m.LeaseSuspended("l-1", STANDING))
    bench.pass_time(5.1)
    assert isinstance(bench.failure(id), CallTimeout)


def test_twice_suspended_is_twice_not_counted() -> None:
    bench = Bench()
    actor = actor_at(bench)
    id = bench.call(actor, **timed(3.0))
    for _ in range(2):
        bench.pass_time(1.0)
        stand(bench)
        bench.pass_time(50.0)
        stand(bench, None)
    bench.pass_time(0.9)
    assert bench.failure(id) is None
    bench.pass_time(0.2)
    assert isinstance(bench.failure(id), CallTimeout)


def test_a_call_made_while_the_actor_stands_has_all_its_time_later() -> None:
    bench = Bench()
    actor = actor_at(bench)
    stand(bench)
    id = bench.call(actor, **timed(1.0))
    bench.pass_time(30.0)
    stand(bench, None)
    bench.pass_time(0.9)
    assert bench.failure(id) is None
    bench.pass_time(0.2)
    assert isinstance(bench.failure(id), CallTimeout)


def test_the_clock_goes_on_when_the_call_is_with_it_no_longer() -> None:
    bench = Bench()
    id = leased(bench, retries=1, **timed(5.0))
    bench.hub(m.LeaseSuspended("l-1", STANDING))
    bench.pass_time(20.0)
    bench.hub(m.LeaseLost("l-1", m.DeathReport("requeued")))
    bench.pass_time(4.9)
    assert bench.failure(id) is None
    bench.pass_time(0.2)
    assert isinstance(bench.failure(id), CallTimeout)


def test_its_worker_is_not_told_of_a_time_that_may_stand() -> None:
    bench = Bench()
    bench.call(**timed(5.0))
    bench.grant()
    (batch,) = bench.sent("w-1", m.Calls)
    assert batch.calls[0].remaining == 0.0
    bench.call(actor_at(bench), **timed(5.0, counts=True))
    (batch,) = bench.sent("w-1", m.Calls)
    assert batch.calls[0].remaining == pytest.approx(5.0)


def test_a_stopwatch_counts_the_seconds_of_running() -> None:
    watch = Stopwatch(2.0)
    assert watch.look(False, 10.0) == 2.0
    assert watch.look(False, 11.0) == 1.0
    assert watch.look(True, 11.5) is None
    assert watch.look(True, 99.0) is None
    assert watch.look(False, 100.0) == 0.5
    assert watch.look(False, 200.0) == 0.0


# --- looking --------------------------------------------------------------------------------------


def test_a_listing_says_who_has_its_room_and_since_when() -> None:
    bench = Bench()
    id = leased(bench)
    assert tasks(bench)[id]["state"] == "RUNNING"
    bench.hub(m.LeaseSuspended("l-1", STANDING))
    row = tasks(bench)[id]
    assert (row["state"], row["suspended_by"]) == ("SUSPENDED", "l-9")
    assert row["suspended_time_ms"] == STANDING.since * 1e3
    assert row["suspended_reason"] == STANDING.reason
    assert summary(bench) == {"SUSPENDED": 1}
    bench.hub(m.LeaseResumed("l-1"))
    assert tasks(bench)[id]["suspended_by"] is None
