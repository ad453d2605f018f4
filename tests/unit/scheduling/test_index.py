"""The index finds what a walk over all providers finds, whatever happens to them; and no line of
those who wait is passed over that a look at all of them would serve."""

from __future__ import annotations

from random import Random

import pytest

from guactors import messages as m
from guactors.messages import Placing, Shape
from guactors.scheduling.index import Index
from guactors.scheduling.placement import Need, Slot, choose, feasible, lease_need
from guactors.scheduling.ranking import Log
from guactors.scheduling.resources import Pool
from guactors.scheduling.standing import StandingBook
from tests.unit.hub.bench import Bench

ZONES = ("lab", "den", "")
SIZES = ({"CPU": 2.0}, {"CPU": 4.0, "memory": 8.0}, {"CPU": 16.0, "memory": 64.0, "GPU": 2.0})
SHAPES = (
    Shape({"CPU": 1.0}),
    Shape({"CPU": 0.0}),
    Shape({"CPU": 0.5, "memory": 2.0}, priority=3),
    Shape({"CPU": 3.0, "memory": 7.0}),
    Shape({"CPU": 1.0, "GPU": 1.0}),
    Shape({"CPU": 1.0}, labels={"zone": "lab"}),
    Shape({"CPU": 1.0}, labels={"zone": "!lab"}, priority=1),
    Shape({"CPU": 1.0}, provider="box-3"),
    Shape({"CPU": 1.0}, place=Placing(spread=True)),
    Shape({"CPU": 1.0}, place=Placing(prefer="p-2")),
    Shape({"CPU": 2.0}, place=Placing(soft={"zone": "den"})),
    Shape({"CPU": 1.0}, labels={"zone": "lab"}, place=Placing(fallback=[{"zone": "den"}])),
)


class World:
    """Providers that come, go, change, fill and empty; an index over them; and what a plain look
    at all of them says."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.slots: dict[str, Slot] = {}
        self.denied: set[tuple[Need, str]] = set()
        self.index = Index(
            self.slots, lambda need, slot, _: (need, slot.peer) not in self.denied, StandingBook()
        )
        self.taken: list[tuple[Slot, Need, str]] = []
        self.orders = 0

    def candidates(self, need: Need) -> list[Slot]:
        found = [slot for slot in self.slots.values() if feasible(slot, need)]
        found = [slot for slot in found if (need, slot.peer) not in self.denied]
        home = need.wish.prefer
        return [slot for slot in found if home and home in (slot.peer, slot.name)] or found

    def step(self) -> None:
        random, peers = self.random, list(self.slots)
        match random.randrange(9):
            case 0:
                self.join(f"p-{random.randrange(8)}")
            case 1 if peers:
                slot = self.slots.pop(random.choice(peers))
                slot.up = slot.offered = False
                self.taken = [one for one in self.taken if one[0] is not slot]
                self.index.changed(slot)
            case 2 if peers:
                slot = self.slots[random.choice(peers)]
                slot.up = not slot.up
                if slot.up:
                    self.index.eased(slot)
            case 3 | 4 if self.taken:
                slot, need, id = self.taken.pop(random.randrange(len(self.taken)))
                slot.leases.discard(id)
                slot.pool.give(need.hold)
                self.index.eased(slot)
            case 5 if peers:
                need = self.need()
                slot = self.slots[random.choice(peers)]
                self.denied ^= {(need, slot.peer)}
                self.index.set_apart(need)
            case _:
                self.take()

    def join(self, peer: str) -> None:
        slot = self.slots.get(peer)
        if slot is None:
            self.orders += 1
            slot = self.slots[peer] = Slot(peer, f"box-{peer[2:]}", "3.11", self.orders)
        slot.offered = self.random.random() < 0.9
        slot.pool.resize(self.random.choice(SIZES))
        slot.labels = {"zone": self.random.choice(ZONES)}
        self.index.changed(slot)

    def need(self) -> Need:
        return lease_need(self.random.choice(SHAPES), "3.11")

    def take(self) -> None:
        """Ask both, and take what both say."""
        need, random = self.need(), self.random
        closed = {peer for peer in self.slots if random.random() < 0.15}
        prefer = None
        if random.random() < 0.3:
            prefer = {f"p-{x}": 8.0 - x for x in random.sample(range(8), 3)}
        plain = choose(self.candidates(need), need, closed, prefer)
        found = self.index.choose(need, 0.0, lambda slot: slot.peer in closed, prefer)
        assert found is plain, f"the index says {found!r}, a walk {plain!r}, for {need}"
        if plain is not None and random.random() < 0.8:
            self.orders += 1
            plain.pool.take(need.hold)
            plain.leases.add(f"l-{self.orders}")
            self.taken.append((plain, need, f"l-{self.orders}"))


@pytest.mark.parametrize("seed", range(40))
def test_the_index_chooses_what_a_walk_chooses(seed: int) -> None:
    world = World(seed)
    for _ in range(400):
        world.step()
        for shape in SHAPES:
            need = lease_need(shape, "3.11")
            assert set(world.index.candidates(need, 0.0)) == set(world.candidates(need))
    world.index.check(0.0)


def test_a_log_that_was_cut_is_told_from_one_without_news() -> None:
    log, slot = Log(), Slot("p-1", "box", "3.11", 1)
    slot.pool = Pool({"CPU": 1.0})
    assert list(log.since(0) or ()) == []
    for _ in range(11):
        log.put(slot, 10)
    assert log.since(0) is None
    assert list(log.since(log.end - 2) or ()) == [slot]


def test_a_demand_that_moves_to_an_equal_queue_takes_its_turn_along() -> None:
    """Two queues of one kind: the turn of one is what the turn of the other has been."""
    bench = Bench()
    bench.caller()
    bench.provider(cpus=1.0)
    bench.leases("c-1")
    limits = [None, m.Limits(memory=1 << 30), m.Limits(memory=2 << 30)]
    for limit in (*limits, *limits):
        for key in ("d-1", "d-2"):
            bench.say("c-1", m.SetDemand(key, Shape({"CPU": 1.0}, limits=limit), 1))
        bench.say("c-1", m.SetDemand("d-3", Shape({"CPU": 1.0}), 1))
        bench.say("p-1", m.Offer({"CPU": 1.0}, {}, [], [], m.MachineInfo()))
        bench.pass_time(0.2)
    assert bench.core.scheduler.desk.demands.waiting() == 2


@pytest.mark.parametrize("seed", range(12))
def test_nobody_waits_for_room_that_is_there(seed: int) -> None:
    """Random work in a small grid: after each event ``Desk.check`` asks the index for every queue
    whether a provider has room that is kept for nobody."""
    random, bench = Random(seed), Bench()
    for number in range(4):
        bench.caller(f"c-{number}", f"s-{number}")
    for number in range(5):
        labels = {"zone": random.choice(ZONES)}
        bench.provider(f"p-{number}", random.choice((1.0, 2.0, 4.0)), labels=labels)
    held: dict[str, str] = {}
    for _ in range(120):
        caller = f"c-{random.randrange(4)}"
        match random.randrange(4):
            case 0 | 1:
                shape = Shape(
                    {"CPU": random.choice((0.5, 1.0, 2.0, 4.0))}, random.choice((0, 0, 5, 9)),
                    random.choice(({}, {}, {"zone": "lab"})),
                )  # fmt: skip
                key = f"d-{random.randrange(5)}"
                bench.say(caller, m.SetDemand(key, shape, random.randrange(4)))
            case 2:
                for lease in random.sample(sorted(held), min(2, len(held))):
                    bench.say(held.pop(lease), m.ReturnLease(lease))
            case _:
                bench.pass_time(random.choice((0.02, 0.2, 0.7)))
        bench.start_leases()
        for number in range(4):
            for lease in bench.granted(f"c-{number}"):
                held[lease] = f"c-{number}"
            for lost in bench.heard(f"c-{number}", m.LeaseRecalled):
                if held.pop(lost.lease, None) is not None:
                    bench.say(f"c-{number}", m.ReturnLease(lost.lease))
