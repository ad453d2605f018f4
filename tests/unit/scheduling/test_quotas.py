"""What a session lets itself have at a time."""

from __future__ import annotations

import pytest

import guactors as gu
from guactors import messages as m
from guactors.errors import UnknownOption
from guactors.terms import terms_of
from tests.unit.hub.bench import Bench, spec
from tests.unit.scheduling.test_fairness import Obedient
from tests.unit.scheduling.test_groups import group, inside, make
from tests.unit.scheduling.test_shares import used


def grid(cpus: float, **quota: float) -> Bench:
    """A session ``s-1`` with this quota, ``s-2`` without one, and a provider."""
    bench = Bench()
    bench.caller("c-1", "s-1", quota=quota)
    bench.caller("c-2", "s-2")
    bench.provider(cpus=cpus, GPU=4.0, memory=1e9)
    return bench


def why(bench: Bench, peer: str = "c-1") -> list[tuple[object, object]]:
    """Reason and detail of all that waits."""
    bench.say(peer, m.Inquire(1, "", m.Query("explanations")))
    (page,) = bench.heard(peer, m.Page)
    rows = [dict(zip(page.page.columns, row, strict=True)) for row in page.page.rows]
    return [(row["reason"], row["detail"]) for row in rows]


@pytest.mark.parametrize(
    ("quota", "shape", "granted"),
    [
        ({"CPU": 3.0}, {"CPU": 1.0}, 3),
        ({"CPU": 3.0}, {"CPU": 2.0}, 1),
        ({"CPU": 9.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 0.5}, 2),
        ({"memory": 5e8}, {"CPU": 1.0, "memory": 2e8}, 2),
        ({"tasks": 2.0}, {"CPU": 0.5}, 2),
        ({"GPU": 1.0}, {"CPU": 1.0}, 8),
        ({"GPU": 0.0}, {"CPU": 1.0}, 8),
    ],
)
def test_a_session_gets_no_more_than_its_quota(
    quota: dict[str, float], shape: dict[str, float], granted: int
) -> None:
    bench = grid(8.0, **quota)
    bench.demand("c-1", count=8, resources=shape)
    assert len(bench.start_leases()) == granted


def test_others_with_the_same_need_are_not_held_up() -> None:
    bench = grid(8.0, CPU=2.0)
    bench.demand("c-1", count=8)
    bench.demand("c-2", count=8)
    bench.start_leases()
    assert (used(bench, "s-1"), used(bench, "s-2")) == (2.0, 6.0)


def test_what_comes_back_is_given_again() -> None:
    bench = grid(8.0, tasks=2.0)
    first, _ = _granted(bench, 5)
    bench.say("c-1", m.ReturnLease(first))
    bench.demand("c-1", count=5)
    assert len(bench.start_leases()) == 1


def _granted(bench: Bench, count: int) -> list[str]:
    bench.demand("c-1", count=count)
    bench.start_leases()
    return bench.granted("c-1")


@pytest.mark.parametrize("quota", [{"CPU": 2.0}, {"tasks": 2.0}])
def test_a_call_inside_a_call_finds_room_under_the_quota(quota: dict[str, float]) -> None:
    bench = grid(8.0, **quota)
    parents = _granted(bench, 2)
    bench.caller("c-11", "s-1", root=False)
    bench.demand("c-11", count=1)
    assert not bench.start_leases()
    bench.say("p-1", m.WorkerBlocked(parents[0]))
    assert [order.caller for order in bench.start_leases()] == ["c-11"]
    bench.say("p-1", m.WorkerResumed(parents[0]))
    bench.core.check()


def test_actors_are_counted_for_themselves() -> None:
    bench = grid(8.0, actors=1.0)
    shape = m.Shape({"CPU": 1.0})
    for number in range(3):
        bench.create(spec(f"a-{number}", "c-1", "s-1", shape=shape))
    bench.demand("c-1", count=2)
    assert len(bench.start_actors()) == 1
    assert len(bench.start_leases()) == 2
    bench.say("c-1", m.KillActor("a-0", True))
    bench.say("p-1", m.ActorEnded("a-0", 0, m.DeathReport("killed")))
    assert len(bench.start_actors()) == 1


def test_workers_of_a_session_count_together() -> None:
    bench = grid(8.0, CPU=3.0)
    bench.caller("c-11", "s-1", root=False)
    bench.demand("c-1", count=8)
    bench.demand("c-11", count=8)
    callers = Obedient(bench)
    callers.run(1.0)
    assert used(bench, "s-1") == 3.0
    assert min(callers.counts()["c-1"], callers.counts()["c-11"]) >= 1


def test_room_that_a_group_sets_aside_counts_and_is_not_counted_again() -> None:
    bench = grid(8.0, CPU=3.0)
    make(bench, group("g-1", {"CPU": 2.0}))
    assert used(bench, "s-1") == 2.0
    make(bench, group("g-2", {"CPU": 1.0}, {"CPU": 1.0}))
    assert used(bench, "s-1") == 2.0, "half a group was set aside"
    bench.demand("c-1", count=2, place=inside("g-1"))
    assert len(bench.start_leases()) == 2
    assert used(bench, "s-1") == 2.0
    bench.core.check()


def test_nobody_is_made_to_give_way_for_what_the_quota_forbids() -> None:
    bench = grid(2.0, CPU=1.0)
    bench.demand("c-2", count=2)
    bench.start_leases()
    bench.demand("c-1", count=2, priority=20)
    (order,) = bench.start_leases()
    assert len(order.displaces) == 1


def test_explain_names_the_numbers() -> None:
    bench = grid(8.0, CPU=2.0)
    bench.demand("c-1", count=4)
    bench.start_leases()
    ((reason, detail),) = why(bench)
    assert reason == "quota"
    assert detail == "asked 1 CPU, its session uses 2 of the 2 of its quota"


def test_plan_counts_the_quota() -> None:
    bench = grid(8.0, tasks=3.0)
    bench.say("c-1", m.AskPlan(5, m.Shape({"CPU": 1.0}), 5))
    (answer,) = bench.heard("c-1", m.PlanIs)
    assert (len(answer.places), answer.missing) == (3, 2)


def test_what_passes_the_quota_alone_is_refused_at_once() -> None:
    bench = grid(8.0, CPU=2.0)
    bench.demand("c-1", resources={"CPU": 4.0})
    (told,) = bench.heard("c-1", m.DemandInfeasible)
    assert told.reason == "asked 4 CPU, its session uses 0 of the 2 of its quota"


def test_a_new_hub_counts_what_it_finds_before_it_knows_the_quota() -> None:
    bench = Bench(young=True)
    one = m.Shape({"CPU": 1.0})
    reports = [m.LeaseReport(f"old-{n}", "s-1", "c-1", one, f"w-{n}", []) for n in range(2)]
    bench.provider(cpus=8.0, leases=reports)
    bench.caller("c-11", "s-1", root=False)
    bench.demand("c-11", "d-9", count=1, resources={"CPU": 1.0})
    assert len(bench.start_leases()) == 1, "nobody knows of a quota yet"
    bench.caller("c-1", "s-1", quota={"tasks": 4.0})
    bench.say("c-1", m.HeldLeases(["old-0", "old-1"]))
    bench.demand("c-1", "d-1", count=9)
    assert len(bench.start_leases()) == 1
    bench.core.check()
    assert len(bench.core.scheduler.desk.leases) == 4


def test_the_listing_of_sessions_shows_the_quota() -> None:
    bench = grid(8.0, CPU=2.0, tasks=5.0)
    bench.say("c-1", m.Inquire(7, "", m.Query("sessions")))
    (page,) = bench.heard("c-1", m.Page)
    found = {row[0]: row[-1] for row in page.page.rows}
    assert found == {"s-1": {"CPU": 2.0, "tasks": 5.0}, "s-2": {}}


@pytest.mark.parametrize(
    ("quota", "named"),
    [
        ({"CPU": float("nan")}, r"quota\['CPU'\]=nan"),
        ({"CPU": -1}, r"quota\['CPU'\]=-1"),
        ({"memory": 1e100}, r"quota\['memory'\]=1e\+100"),
        ({"tasks": 1.5}, r"quota\['tasks'\]=1.5"),
        ({"actors": True}, r"quota\['actors'\]=True"),
        ({"GPU": "1"}, r"quota\['GPU'\]='1'"),
        ({"": 1}, "quota has the name ''"),
        ({7: 1}, "quota has the name 7"),
        (8, "quota=8"),
    ],
)
def test_absurd_quotas_are_refused_by_name(quota: object, named: str) -> None:
    with pytest.raises(UnknownOption, match=named):
        terms_of(quota=quota)
    with pytest.raises(UnknownOption, match=named):
        gu.init(quota=quota)  # type: ignore[arg-type]
