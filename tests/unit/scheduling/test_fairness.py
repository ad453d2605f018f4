"""Turns, priorities, and leases asked back."""

from __future__ import annotations

from collections import Counter

from guactors import messages as m
from tests.unit.hub.bench import Bench


def grid(cpus: float, *callers: str) -> Bench:
    bench = Bench()
    for caller in callers:
        bench.caller(caller, f"s-{caller}")
    bench.provider(cpus=cpus)
    return bench


def recalled(bench: Bench) -> Counter[str]:
    """Who was asked for how many."""
    peers = [peer for peer in bench.trays if peer.startswith("c-")]
    return Counter({p: n for p in peers if (n := len(bench.heard(p, m.LeaseRecalled)))})


class Obedient:
    """Callers with endless queues, which give a recalled lease back at once."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.held: dict[str, set[str]] = {}

    def obey(self) -> None:
        bench = self.bench
        for peer in [peer for peer in bench.link_of if peer.startswith("c-")]:
            own = self.held.setdefault(peer, set())
            own |= set(bench.granted(peer))
            for recall in bench.heard(peer, m.LeaseRecalled):
                own.discard(recall.lease)
                bench.say(peer, m.ReturnLease(recall.lease))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.bench.start_leases()
            self.obey()
            self.bench.pass_time(0.05)

    def counts(self) -> dict[str, int]:
        return {peer: len(leases) for peer, leases in self.held.items()}


def test_leases_are_shared_evenly_from_the_start() -> None:
    bench = grid(6.0, "c-1", "c-2", "c-3")
    bench.provider("p-2", cpus=0.0)
    orders = []
    for caller in ("c-1", "c-2", "c-3"):
        bench.say("p-1", m.Offer({"CPU": 0.0}, {}, [], [], m.MachineInfo()))
        bench.demand(caller, count=9)
    bench.say("p-1", m.Offer({"CPU": 6.0}, {}, [], [], m.MachineInfo()))
    orders = bench.start_leases()
    assert Counter(order.caller for order in orders) == {"c-1": 2, "c-2": 2, "c-3": 2}


def test_a_newcomer_gets_its_share_and_nobody_less_than_that() -> None:
    bench = grid(8.0, "c-1", "c-2")
    callers = Obedient(bench)
    bench.demand("c-1", count=100)
    callers.run(0.2)
    assert callers.counts() == {"c-1": 8, "c-2": 0}
    bench.demand("c-2", count=100)
    callers.run(1.0)
    assert callers.counts() == {"c-1": 4, "c-2": 4}


def test_an_even_share_is_left_in_peace() -> None:
    bench = grid(4.0, "c-1", "c-2")
    callers = Obedient(bench)
    bench.demand("c-1", count=100)
    bench.demand("c-2", count=100)
    callers.run(1.0)
    before = {peer: set(leases) for peer, leases in callers.held.items()}
    callers.run(5.0)
    assert callers.held == before


def test_no_more_is_asked_back_than_is_waited_for() -> None:
    bench = grid(8.0, "c-1", "c-2")
    bench.leases("c-1", count=8)
    bench.demand("c-2", count=1)
    assert recalled(bench) == {"c-1": 1}
    bench.pass_time(0.9)
    assert not recalled(bench)


def test_a_recall_that_is_not_followed_is_tried_on_another_lease() -> None:
    bench = grid(4.0, "c-1", "c-2")
    bench.leases("c-1", count=4)
    bench.demand("c-2", count=1)
    assert recalled(bench) == {"c-1": 1}
    bench.pass_time(1.3)
    assert recalled(bench) == {"c-1": 1}


def test_the_one_with_the_most_gives() -> None:
    bench = grid(8.0, "c-1", "c-2", "c-3")
    bench.leases("c-1", count=2)
    bench.leases("c-2", count=6)
    bench.demand("c-3", count=2)
    assert recalled(bench) == {"c-2": 2}


def test_two_callers_take_turns_on_a_single_cpu() -> None:
    bench = grid(1.0, "c-1", "c-2")
    callers = Obedient(bench)
    bench.demand("c-1", count=10)
    bench.demand("c-2", count=10)
    turns = []
    for _ in range(8):
        callers.run(0.65)
        turns.append(next(peer for peer, count in callers.counts().items() if count))
    assert {"c-1", "c-2"} == set(turns)
    assert min(Counter(turns).values()) >= 3


def test_two_demands_of_one_caller_share_and_take_turns() -> None:
    bench = grid(4.0, "c-1")
    callers = Obedient(bench)
    bench.demand("c-1", "d-1", count=50)
    callers.run(0.2)
    bench.demand("c-1", "d-2", count=50)
    callers.run(1.0)
    keys = Counter(lease.key for lease in bench.core.scheduler.desk.leases)
    assert keys == {"d-1": 2, "d-2": 2}


def test_blocked_leases_are_neither_counted_nor_asked_back() -> None:
    bench = grid(2.0, "c-1", "c-2")
    held = bench.leases("c-1", count=2)
    bench.say("p-1", *(m.WorkerBlocked(lease) for lease in held))
    own = bench.leases("c-2", count=2)
    bench.demand("c-1", "d-2", count=1)
    # The waiter has two leases, but none that runs: it gets one of two.
    (recall,) = bench.heard("c-2", m.LeaseRecalled)
    assert recall.lease in own
    assert not bench.heard("c-1", m.LeaseRecalled)


def test_what_does_not_help_is_not_asked_back() -> None:
    bench = grid(2.0, "c-1", "c-2")
    bench.provider("p-2", cpus=2.0, GPU=1.0)
    bench.leases("c-1", count=4, provider="")
    bench.demand("c-2", resources={"CPU": 0.0, "GPU": 2.0})
    bench.pass_time(2.0)
    assert not recalled(bench)
    bench.heard("c-2", m.DemandInfeasible)
    bench.demand("c-2", "d-2", provider="box2")
    bench.pass_time(0.02)
    (recall,) = bench.heard("c-1", m.LeaseRecalled)
    assert bench.core.scheduler.desk.leases.by_id[recall.lease].slot.peer == "p-2"


# --- priorities ---------------------------------------------------------------------------------


def test_bigger_goes_first_whoever_came_first() -> None:
    bench = grid(2.0, "c-1", "c-2")
    held = bench.leases("c-1", count=2)
    for key, priority in (("low", 0), ("high", 7), ("middle", 3)):
        bench.demand("c-1", key, priority=priority)
    order = []
    for lease in (*held, "", ""):
        if lease:
            bench.say("c-1", m.ReturnLease(lease))
        for started in bench.start_leases():
            order.append(started.shape.priority)
            bench.granted("c-1")
    assert order[:2] == [7, 3]


def test_higher_priority_asks_back_from_lower_at_once_and_never_the_other_way() -> None:
    bench = grid(2.0, "c-1", "c-2")
    bench.leases("c-1", count=2, priority=5)
    bench.demand("c-2", count=2, priority=4)
    bench.pass_time(3.0)
    assert not recalled(bench)
    bench.demand("c-2", "d-2", count=1, priority=6)
    bench.pass_time(0.02)
    assert recalled(bench) == {"c-1": 1}


def test_room_for_a_big_need_is_kept_from_small_ones_of_lower_priority() -> None:
    bench = grid(4.0, "c-1", "c-2")
    held = bench.leases("c-1", count=4)
    bench.demand("c-2", "big", priority=1, resources={"CPU": 4.0})
    for lease in held:
        assert not bench.heard("p-1", m.StartLease)
        bench.say("c-1", m.ReturnLease(lease))
    assert bench.one("p-1", m.StartLease).shape.resources == {"CPU": 4.0}


def test_what_was_kept_for_a_big_need_goes_to_small_ones_when_it_is_wanted_no_more() -> None:
    bench = grid(4.0, "c-1", "c-2")
    held = bench.leases("c-1", count=4)
    bench.demand("c-2", "big", priority=1, resources={"CPU": 4.0})
    bench.demand("c-1", count=6)
    bench.say("c-1", m.ReturnLease(held[0]))
    assert not bench.heard("p-1", m.StartLease)
    bench.demand("c-2", "big", count=0, priority=1, resources={"CPU": 4.0})
    bench.pass_time(3.0)
    assert len(bench.heard("p-1", m.StartLease)) == 1


def test_room_is_kept_on_one_provider_only() -> None:
    bench = grid(2.0, "c-1", "c-2")
    bench.provider("p-2", cpus=2.0)
    held = bench.leases("c-1", count=4)
    bench.demand("c-1", count=50)
    bench.demand("c-2", "big", priority=1, resources={"CPU": 2.0})
    slot_of = {lease.id: lease.slot.peer for lease in bench.core.scheduler.desk.leases}
    for lease in held:
        bench.say("c-1", m.ReturnLease(lease))
    orders = {peer: bench.heard(peer, m.StartLease) for peer in ("p-1", "p-2")}
    sizes = sorted(sum(x.shape.resources["CPU"] for x in found) for found in orders.values())
    assert sizes == [2.0, 2.0], (orders, slot_of)


def test_a_big_need_does_not_starve_behind_small_equals() -> None:
    bench = grid(4.0, "c-1", "c-2")
    callers = Obedient(bench)
    bench.demand("c-1", count=1000)
    callers.run(0.5)
    bench.demand("c-2", "big", resources={"CPU": 4.0})
    # Callers that give a lease back ask for another at once: their demand stands.
    given = len(bench.core.scheduler.desk.leases)
    turns = []
    for _ in range(20):
        callers.run(0.5)
        turns.append(callers.counts()["c-2"])
    assert given == 4
    assert 5 <= sum(turns) <= 15, turns


def test_actors_that_wait_for_room_get_it_from_leases() -> None:
    bench = grid(1.0, "c-1", "c-2")
    callers = Obedient(bench)
    bench.demand("c-1", count=100)
    callers.run(0.3)
    made = m.ActorSpec("a-1", "s-c-2", "c-2", "A", m.Shape({"CPU": 1.0}))
    bench.create(made)
    callers.run(2.0)
    assert bench.start_actors()
