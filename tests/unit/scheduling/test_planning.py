"""A plan is what then happens; and asking for one changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from guactors import messages as m
from tests.unit.hub.bench import Bench, spec

ITS_OWN = 0.25
Happened = tuple[str, list[tuple[str, str]], dict[str, float]]
"""A provider, who gave way there and how, and where there are alternatives what is held."""


def planned(bench: Bench, shape: m.Shape, count: int = 1, peer: str = "c-9") -> m.PlanIs:
    bench.say(peer, m.AskPlan(7, shape, count))
    return bench.one(peer, m.PlanIs)


def places(answer: m.PlanIs) -> list[Happened]:
    return [
        (place.provider, sorted((x.key, x.mode) for x in place.victims), place.takes)
        for place in answer.places
    ]


def happened(bench: Bench) -> list[Happened]:
    """What providers were told, in the order of the leases."""
    found = [
        (int(order.lease.partition("-")[2]), peer, order)
        for peer in list(bench.trays)
        for order in bench.heard(peer, m.StartLease)
        if order.shape.min_runtime == ITS_OWN
    ]
    return [
        (peer, sorted((word.key, word.mode) for word in order.displaces), held(order.shape))
        for _, peer, order in sorted(found, key=lambda one: one[0])
    ]


def held(shape: m.Shape) -> dict[str, float]:
    return {k: n for k, n in shape.resources.items() if n} if shape.alternatives else {}


def picture(desk: Any) -> list[object]:
    """All that may not change because somebody asks."""
    slots = [
        (x.peer, x.up, x.offered, x.forced, dict(x.pool.used), set(x.leases), set(x.actors))
        for x in desk.slots.values()
    ]
    leases = [
        (x.id, x.state, x.blocked, x.displaced, x.steady, repr(x.suspension), x.recalled_at)
        for x in desk.leases
    ]
    actors = [(x.id, x.state, repr(x.suspension), x.displaced) for x in desk.actors]
    demands = [
        (x.key, x.count, x.queued, x.turn, x.infeasible, x.given_up, set(x.held))
        for x in desk.demands
    ]
    queues = [(x.need, x.waiting, x.blocked_since, x.turn()) for x in desk.demands.every_queue()]
    more = [desk.permission.held(), list(desk.roomier), list(desk.standing), len(desk.out)]
    return [slots, leases, actors, demands, queues, *more]


KINDS = st.sampled_from(
    [{"CPU": 1.0}, {"CPU": 2.0}, {"CPU": 0.5}, {"CPU": 1.0, "memory": 40.0}, {"CPU": 0.0}]
)
WAYS = st.sampled_from([[], ["requeue"], ["suspend", "requeue"], ["stop"], ["never"]])
PRIORITIES = st.sampled_from([-20, 0, 0, 1, 9, 10, 12, 30])
COMPANY = st.sampled_from(
    [
        None,
        None,
        m.Company({"app": "db"}),
        m.Company({"app": "db"}, apart={"app": "db"}),
        m.Company({"app": "web"}, near={"app": "db"}),
        m.Company(apart={"app": "in(db,web)"}),
        m.Company({"app": "web"}, rather_near={"app": "db"}, rather_apart={"app": "web"}),
    ]
)
work = st.tuples(
    KINDS, PRIORITIES, WAYS, st.integers(1, 3), st.sampled_from([0.0, 0.0, 5.0]),
    st.sampled_from(["c-0", "c-1", "c-9"]), st.booleans(), COMPANY,
)  # fmt: skip
providers = st.lists(st.tuples(st.sampled_from([1.0, 2.0, 4.0]), st.booleans()), max_size=4)


def world(machines: list[tuple[float, bool]], given_work: list[Any]) -> Iterator[Bench]:
    """A grid on which some work runs, and some waits."""
    bench = Bench()
    for peer in ("c-0", "c-1", "c-9"):
        bench.caller(peer, peer.replace("c", "s"))
    for number, (cpus, labelled) in enumerate(machines):
        labels = {"kind": "good"} if labelled else {}
        bench.provider(f"p-{number}", cpus, labels=labels, memory=100.0)
    for number, (resources, priority, ways, count, least, peer, actor, company) in enumerate(
        given_work
    ):
        if actor:
            shape = m.Shape(resources, priority, preemption=ways, company=company)
            made = spec(f"a-{number}", peer, peer.replace("c", "s"), shape=shape, placement={})
            bench.create(made)
        else:
            bench.demand(
                peer, f"d-{number}", count, resources=resources, priority=priority,
                preemption=ways, min_runtime=least, company=company,
            )  # fmt: skip
        bench.start_leases()
        bench.start_actors()
        yield bench
    # Until nobody who waits could be helped: else it would be helped first.
    while True:
        bench.pass_time(0.3)
        if not [*bench.start_leases(), *bench.start_actors()]:
            break
    yield bench


@settings(max_examples=300, deadline=None)
@given(
    machines=providers,
    given_work=st.lists(work, max_size=7),
    resources=KINDS,
    priority=st.sampled_from([0, 1, 10, 12, 30]),
    count=st.integers(1, 4),
    selects=st.booleans(),
    alternatives=st.lists(KINDS, max_size=2),
    company=COMPANY,
)
def test_a_plan_is_what_then_happens(
    machines: list[tuple[float, bool]],
    given_work: list[Any],
    resources: dict[str, float],
    priority: int,
    count: int,
    selects: bool,
    alternatives: list[dict[str, float]],
    company: m.Company | None,
) -> None:
    *_, bench = world(machines, given_work)
    labels = {"kind": "good"} if selects else {}
    # Nobody else waits for quite the same.
    shape = m.Shape(
        resources, priority, labels, min_runtime=ITS_OWN, alternatives=alternatives,
        company=company,
    )  # fmt: skip
    desk = bench.core.scheduler.desk
    happened(bench)
    before = picture(desk)
    answer = planned(bench, shape, count)
    assert picture(desk) == before
    desk.check()
    assert answer.missing == count - len(answer.places)
    assert bool(answer.misses) == bool(answer.missing)
    assert not happened(bench), "asking has started something"
    bench.say("c-9", m.SetDemand("d-new", shape, count))
    event("victims" if any(place.victims for place in answer.places) else "none")
    event(f"missing {bool(answer.missing)}, places {bool(answer.places)}")
    assert places(answer) == happened(bench)


def test_a_plan_of_nothing_but_room() -> None:
    bench = Bench()
    bench.caller("c-9", "s-9")
    bench.provider("p-1", 2.0)
    answer = planned(bench, m.Shape({"CPU": 1.0}), 2)
    assert places(answer) == [("p-1", [], {}), ("p-1", [], {})]
    assert answer.missing == 0 and not answer.misses and not answer.never
    assert answer.places[0].name == "box1"
