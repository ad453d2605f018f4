"""Fair share between sessions."""

from __future__ import annotations

import pytest

import guactors as gu
from guactors import messages as m
from guactors.errors import UnknownOption
from guactors.scheduling.resources import STEP, to_units
from guactors.scheduling.shares import ShareBook, currency
from guactors.terms import terms_of
from tests.unit.hub.bench import Bench
from tests.unit.scheduling.test_fairness import Obedient, recalled

CPU = to_units({"CPU": 1.0})


def used(bench: Bench, session: str, name: str = "CPU") -> float:
    return bench.core.scheduler.desk.demands.shares.used(session).get(name, 0) / STEP


def crowded(cpus: float, workers: int, **shares: float) -> Bench:
    """A grid, a session ``s-1`` of one caller, and ``s-2`` of one with ``workers`` beside it."""
    bench = Bench()
    bench.caller("c-1", "s-1", share=shares.get("one", 1.0))
    bench.caller("c-2", "s-2", share=shares.get("other", 1.0))
    for number in range(workers):
        bench.caller(f"c-2{number}", "s-2", root=False)
    bench.provider(cpus=cpus)
    return bench


def demand_all(bench: Bench, count: int = 50) -> None:
    for peer in [peer for peer in bench.link_of if peer.startswith("c-")]:
        bench.demand(peer, count=count)


def test_a_session_with_many_callers_gets_no_more_than_one_with_a_single_caller() -> None:
    bench = crowded(8.0, workers=5)
    callers = Obedient(bench)
    demand_all(bench)
    callers.run(3.0)
    assert (used(bench, "s-1"), used(bench, "s-2")) == (4.0, 4.0)


def test_a_session_with_a_bigger_share_gets_so_much_more() -> None:
    bench = crowded(9.0, workers=2, one=2.0)
    callers = Obedient(bench)
    demand_all(bench)
    callers.run(3.0)
    assert (used(bench, "s-1"), used(bench, "s-2")) == (6.0, 3.0)


def test_what_others_do_not_want_is_everybodys() -> None:
    bench = crowded(8.0, workers=0, other=0.01)
    callers = Obedient(bench)
    bench.demand("c-2", count=50)
    callers.run(0.5)
    assert used(bench, "s-2") == 8.0


def test_a_newcomer_gets_its_share_from_many_callers_that_have_one_lease_each() -> None:
    bench = crowded(6.0, workers=5)
    callers = Obedient(bench)
    for number in range(5):
        bench.demand(f"c-2{number}", count=9)
    bench.demand("c-2", count=9)
    callers.run(1.0)
    assert used(bench, "s-2") == 6.0
    bench.demand("c-1", count=9)
    callers.run(2.0)
    assert (used(bench, "s-1"), used(bench, "s-2")) == (3.0, 3.0)


def test_shares_that_are_met_are_left_in_peace() -> None:
    bench = crowded(7.0, workers=3)
    callers = Obedient(bench)
    demand_all(bench)
    callers.run(4.0)
    bench.pass_time(1.0)
    before = (used(bench, "s-1"), used(bench, "s-2"))
    asked = recalled(bench)
    # Inside s-2, where four share three or four, turns go on.
    assert "c-1" not in asked
    callers.run(2.0)
    assert (used(bench, "s-1"), used(bench, "s-2")) == before
    assert sorted(before) == [3.0, 4.0]


def test_a_call_inside_a_call_has_its_turn_in_its_session() -> None:
    bench = crowded(4.0, workers=1)
    parents = bench.leases("c-2", count=2)
    bench.say("p-1", *(m.WorkerBlocked(lease) for lease in parents))
    callers = Obedient(bench)
    callers.held["c-2"] = set()
    bench.demand("c-1", count=50)
    callers.run(0.5)
    bench.demand("c-20", count=1)
    callers.run(0.5)
    assert callers.counts()["c-20"] == 1


def test_a_session_that_holds_devices_is_not_kept_from_processors() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider(cpus=2.0, GPU=1.0)
    bench.leases("c-1", key="d-gpu", resources={"CPU": 0.0, "GPU": 1.0})
    callers = Obedient(bench)
    bench.demand("c-2", count=9)
    callers.run(0.2)
    bench.demand("c-1", "d-cpu", count=9)
    callers.run(1.0)
    assert (used(bench, "s-1"), used(bench, "s-2")) == (1.0, 1.0)


def test_actors_and_room_set_aside_count() -> None:
    bench = crowded(4.0, workers=0)
    desk = bench.core.scheduler.desk
    bench.demand("c-1", count=1)
    bench.start_leases()
    desk.demands.use("s-2", to_units({"CPU": 3.0}), 1)
    assert (used(bench, "s-1"), used(bench, "s-2")) == (1.0, 3.0)


def test_sessions_are_compared_by_what_is_asked_for() -> None:
    def by(**amounts: float) -> tuple[str, float]:
        found = currency(to_units(amounts))
        return found.name, found.cost

    assert by(CPU=2.0) == ("CPU", 2.0)
    assert by(CPU=2.0, GPU=0.5, memory=1e9) == ("GPU", 0.5)
    assert by(memory=2.0**31) == ("memory", 2.0)
    assert by() == ("", 0.0)


def test_equals_are_served_in_the_order_in_which_they_came_and_then_in_turn() -> None:
    book, by = ShareBook(), currency(CPU)
    book.came("b", 1)
    book.came("a", 2)
    assert book.rank("b", by) < book.rank("a", by)
    book.served("b", 3)
    assert book.rank("a", by) < book.rank("b", by)
    assert book.rank_after("a", by, 2, 9) == (2.0, 9, 2)
    book.entitle("b", 0.5)
    book.use("b", CPU, 1)
    book.use("a", to_units({"CPU": 2.0}), 1)
    assert book.level("b", by) == book.level("a", by) == 2.0


def test_a_session_that_is_over_is_forgotten_when_nothing_of_it_is_left() -> None:
    book = ShareBook()
    book.entitle("a", 0.5)
    book.use("a", to_units({"CPU": 1.5, "GPU": 1.0}), 1)
    book.use("a", to_units({"CPU": 1.5}), -1)
    book.check({"a": {"GPU": STEP}})
    book.forget("a")
    assert (len(book), book.share("a")) == (1, 0.5)
    book.use("a", to_units({"GPU": 1.0}), -1)
    book.came("b", 1)
    book.forget("b")
    assert not len(book)


def test_the_listing_of_sessions_shows_share_and_use() -> None:
    bench = crowded(4.0, workers=0, one=2.0)
    bench.leases("c-1", count=2)
    bench.say("c-1", m.Inquire(7, "", m.Query("sessions")))
    (page,) = bench.heard("c-1", m.Page)
    rows = {row[0]: dict(zip(page.page.columns, row, strict=True)) for row in page.page.rows}
    assert (rows["s-1"]["share"], rows["s-1"]["using"]) == (2.0, {"CPU": 2.0})
    assert (rows["s-2"]["share"], rows["s-2"]["using"]) == (1.0, {})


@pytest.mark.parametrize("share", [0, -1, float("nan"), float("inf"), 1e100, "2", True, None])
def test_absurd_shares_are_refused_by_name(share: object) -> None:
    with pytest.raises(UnknownOption, match=r"share=.* is impossible"):
        terms_of(share=share)
    with pytest.raises(UnknownOption, match="share="):
        gu.init(share=share)  # type: ignore[arg-type]
