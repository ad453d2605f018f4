"""The same work does not give way again and again, and everybody can see how often it did."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors import messages as m
from guactors.scheduling.preemption import Spared, spared
from guactors.scheduling.thrash import CALM, CYCLE, CYCLE_WITHIN, DEAR, GENTLE, Event, Past
from tests.unit.hub.bench import Bench, endpoint, spec
from tests.unit.scheduling.test_preemption import full, rows, still, urgent


def event(at: float, mode: str = "requeue") -> Event:
    return Event(at, "l-1", "", "p-1", 0, mode, "priority", 10)


def past(*ran: float, mode: str = "requeue") -> Past:
    """Of work that gave way after having run for each of these times."""
    now, found = 0.0, None
    for seconds in ran:
        now += seconds
        one = event(now, mode)
        found = found or Past(one)
        found.gave_way(one, seconds)
    assert found is not None
    return found


# --- pure -----------------------------------------------------------------------------------------


def test_protection_doubles_up_to_a_bound_and_begins_anew_after_calm() -> None:
    assert [past(*[1.0] * n).protection for n in (1, 2, 3, 7, 50)] == [1.0, 2.0, 4.0, 60.0, 60.0]
    assert past(1.0, mode="suspend").protection == GENTLE[0]
    assert past(*[1.0] * 50, mode="suspend").protection == GENTLE[1]
    assert past(1.0, 1.0, 1.0, 4.0 + CALM).protection == 1.0
    assert past(1.0, 1.0, 1.0, CALM).protection == 8.0


@given(st.lists(st.tuples(st.floats(0, 200), st.sampled_from(["suspend", "requeue"])), min_size=1))
def test_no_protection_is_longer_than_promised(steps: list[tuple[float, str]]) -> None:
    now, found = 0.0, Past(event(0.0))
    for ran, mode in steps:
        now += ran
        found.gave_way(event(now, mode), ran)
        assert 0 < found.protection <= (GENTLE if mode == "suspend" else DEAR)[1]


def test_a_cycle_is_told_once_for_so_many_times() -> None:
    seen = []
    found = Past(event(0.0))
    for number in range(3 * CYCLE):
        one = event(number * CYCLE_WITHIN / CYCLE)
        found.gave_way(one, 0.1)
        seen.append(one.cycle)
    assert [at for at, cycle in enumerate(seen) if cycle] == [
        CYCLE - 1,
        2 * CYCLE - 1,
        3 * CYCLE - 1,
    ]
    slow = [event(number * CYCLE_WITHIN) for number in range(3 * CYCLE)]
    for one in slow:
        found.gave_way(one, CYCLE_WITHIN)
    assert not any(one.cycle for one in slow)


# --- in the hub -----------------------------------------------------------------------------------


def come_and_go(bench: Bench) -> str:
    """Urgent work takes the place of the other as soon as that may give way, runs, and leaves; the
    other begins again. Who gave way."""
    urgent(bench)
    bench.pass_time(DEAR[1] + 1.0)
    order = bench.one("p-1", m.StartLease)
    (word,) = order.displaces
    if word.mode == "suspend":
        bench.say("p-1", m.Suspended(word.key, word.number))
    bench.say("p-1", m.LeaseStarted(order.lease, "w-new", [endpoint("w-new")]))
    bench.demand("c-2", "d-9", 0)
    bench.say("c-2", m.ReturnLease(order.lease))
    for again in bench.heard("p-1", m.StartLease):
        bench.say("p-1", m.LeaseStarted(again.lease, "w-again", [endpoint("w-again")]))
    return word.key


def waits(bench: Bench) -> float:
    """Seconds until urgent work has the place of the other."""
    began = bench.now
    urgent(bench)
    while not bench.heard("p-1", m.StartLease):
        bench.pass_time(0.05)
        assert bench.now - began < 2 * DEAR[1], "it starves"
    return bench.now - began


@pytest.mark.parametrize(("times", "least"), [(1, 1.0), (2, 2.0), (4, 8.0), (9, 60.0)])
def test_what_began_again_is_left_alone_for_longer_each_time(times: int, least: float) -> None:
    """Its past survives the end of its lease: the demand remembers it."""
    bench, low = full(1.0, preemption=["requeue"])
    seen = {low[0]}
    for _ in range(times):
        seen.add(come_and_go(bench))
    assert len(seen) == times, "each time it was another lease"
    assert least - 0.1 <= waits(bench) <= least + 0.5


def test_what_stood_still_is_left_alone_but_briefly() -> None:
    bench, low = full(1.0)
    for _ in range(30):
        assert come_and_go(bench) == low[0]
    assert waits(bench) <= GENTLE[1] + 0.2


def test_explaining_says_that_it_has_given_way_lately() -> None:
    bench, low = full(1.0, preemption=["requeue"])
    come_and_go(bench)
    desk = bench.core.scheduler.desk
    (lease,) = desk.leases
    need = lease.need._replace(priority=50)
    assert spared(desk, lease, need, "c-2", bench.now) is Spared.LATELY
    assert spared(desk, lease, need, "c-2", bench.now + DEAR[0]) is None
    assert lease.displaced == 1 and lease.id != low[0]


def test_an_actor_keeps_its_past() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 1.0)
    shape = m.Shape({"CPU": 1.0}, preemption=["requeue"])
    bench.actor(spec("a-1", shape=shape, placement={}))
    urgent(bench)
    order = bench.one("p-1", m.StartLease)
    assert [x.key for x in order.displaces] == ["a-1"]
    record = bench.core.scheduler.desk.actors.live["a-1"]
    assert record.displaced == 1 and record.past is not None
    assert record.past.last.by == order.lease


def test_victims_say_by_whom_and_winners_whom() -> None:
    bench, low = full(1.0)
    urgent(bench)
    order = bench.one("p-1", m.StartLease)
    bench.say("p-1", m.Suspended(low[0], 1))
    (victim,) = rows(bench, "leases", "c-1")[:1]
    assert (victim["preempted"], victim["preempted_by"]) == (1, order.lease)
    assert victim["preempted_reason"] == "priority: suspend"
    winner = rows(bench, "leases", "c-2")[1]
    assert winner["lease_id"] == order.lease and winner["displaced"] == low[0]
    (told,) = rows(bench, "preemptions", "c-1")
    assert (told["event"], told["what"], told["by"]) == ("preempted", low[0], order.lease)
    assert (told["mode"], told["reason"], told["by_priority"]) == ("suspend", "priority", 10)


def test_counters_by_reason_and_mode_and_an_event_when_a_cycle_shows() -> None:
    bench, _ = full(1.0, preemption=["suspend", "requeue"], max_suspended=5.0)
    urgent(bench)
    order = bench.one("p-1", m.StartLease)
    bench.say("p-1", m.Suspended(order.displaces[0].key, 1))
    bench.pass_time(6.0)
    counts = {"priority/suspend": 1, "max_suspended/requeue": 1}
    assert bench.grid().preemptions == counts
    (box,) = [peer for peer in bench.grid().peers if peer.peer == "p-1"]
    assert box.preemptions == counts
    bench.say("c-1", m.AskInfo(3, "p-1"))
    assert bench.one("c-1", m.Info).preemptions == counts
    assert not still(bench)


def test_a_cycle_shows() -> None:
    bench, _ = full(1.0)
    for _ in range(CYCLE):
        urgent(bench)
        bench.pass_time(0.3)
        order = bench.one("p-1", m.StartLease)
        (word,) = order.displaces
        bench.say("p-1", m.Suspended(word.key, word.number))
        bench.say("p-1", m.LeaseStarted(order.lease, "w-new", []))
        bench.demand("c-2", "d-9", 0)
        bench.say("c-2", m.ReturnLease(order.lease))
    assert bench.grid().preemptions == {"priority/suspend": CYCLE, "cycles": 1}
    events = [row["event"] for row in rows(bench, "preemptions", "c-1")]
    assert events == ["cycle", *["preempted"] * (CYCLE - 1)]
