"""Where work could give way is known without a look at all providers, whatever happens to them."""

from __future__ import annotations

from random import Random

import pytest

from guactors import messages as m
from guactors.scheduling.desk import Desk
from guactors.scheduling.leases import Lease
from guactors.scheduling.placement import Need, Slot, lease_need
from guactors.scheduling.preemption import GAP, MOST_LOOKED, Plan, make_plan
from tests.unit.hub.bench import Bench

CALLERS = ("c-1", "c-2", "c-3")
PRIORITIES = (0, 5, GAP, 2 * GAP, 3 * GAP)
WAYS = ([], ["never"], ["requeue"], ["suspend", "stop"])
HOLDS = ({"CPU": 1.0}, {"CPU": 2.0, "memory": 8.0}, {"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0})


class Walked(Desk):
    """A desk that offers every provider for a look."""

    def __init__(self, desk: Desk) -> None:
        self.__dict__.update(desk.__dict__)

    def giving_way(self, need: Need, priority: int, most: int) -> list[Slot]:
        return list(self.candidates(need))


class Life:
    """Callers ask and return, workers start, wait and go on, providers come, go and change."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.bench = Bench()
        for number, caller in enumerate(CALLERS):
            self.bench.caller(caller, f"s-{number}")
        for number in range(5):
            self.offer(number)

    @property
    def desk(self) -> Desk:
        return self.bench.core.scheduler.desk

    def offer(self, number: int) -> None:
        size = self.random.choice((2.0, 4.0, 8.0))
        self.bench.provider(f"p-{number}", size, memory=32.0, GPU=float(number % 2))

    def lease(self) -> Lease | None:
        leases = list(self.desk.leases)
        return self.random.choice(leases) if leases else None

    def shape(self) -> dict[str, object]:
        random = self.random
        return {
            "resources": random.choice(HOLDS),
            "priority": random.choice(PRIORITIES),
            "preemption": random.choice(WAYS),
        }

    def step(self) -> None:
        bench, random = self.bench, self.random
        lease = self.lease()
        match random.randrange(8):
            case 0 | 1 | 2:
                key = f"d-{random.randrange(12)}"
                bench.demand(random.choice(CALLERS), key, random.randrange(4), **self.shape())
            case 3 if lease is not None:
                bench.say(lease.caller, m.ReturnLease(lease.id))
            case 4 if lease is not None:
                bench.say(lease.slot.peer, m.WorkerBlocked(lease.id))
            case 5 if lease is not None:
                bench.say(lease.slot.peer, m.WorkerResumed(lease.id))
            case 6:
                number = random.randrange(5)
                if f"p-{number}" in self.desk.slots:
                    bench.break_link(f"p-{number}")
                    bench.trays[f"p-{number}"].clear()
                self.offer(number)
            case _:
                bench.pass_time(random.choice((0.01, 0.3, 2.0)))
        bench.start_leases()

    def need(self) -> Need:
        shape = m.Shape(self.random.choice(HOLDS), self.random.choice(PRIORITIES))
        return lease_need(shape, "3.11")


def told(plan: Plan | None) -> tuple[str, list[str]] | None:
    return None if plan is None else (plan.slot.peer, [victim.tenant.id for victim in plan.victims])


@pytest.mark.parametrize("seed", range(12))
def test_a_plan_is_that_of_a_walk_over_all_providers(seed: int) -> None:
    life, plans = Life(seed), 0
    for _ in range(120):
        life.step()
        life.desk.check()
        need, now = life.need(), life.bench.now
        found = make_plan(life.desk, need, now)
        assert told(found) == told(make_plan(Walked(life.desk), need, now))
        plans += found is not None
    assert plans, "nothing was compared"


def test_who_can_not_give_way_is_not_looked_at() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    for number in range(2 * MOST_LOOKED):
        bench.provider(f"p-{number}", 1.0)
    bench.leases("c-1", 2 * MOST_LOOKED - 1, preemption=["never"])
    [last] = bench.leases("c-1", 1, key="last")
    bench.demand("c-2", "d-9", 1, priority=GAP)
    desk = bench.core.scheduler.desk
    slot = desk.leases.by_id[last].slot
    [order] = bench.heard(slot.peer, m.StartLease)[-1:]
    assert [word.key for word in order.displaces] == [last]
