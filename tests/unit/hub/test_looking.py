"""Who may look at what through the hub, and what becomes of questions that are not answered."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.hub_state.inquiries import MOST_OPEN, PATIENCE
from guactors.hub_state.tallies import Tallies
from guactors.transport.base import Lane
from tests.unit.hub.bench import VERSIONS, Bench, spec
from tests.unit.hub.keyed_bench import APP, OTHER, OWNER, PROVIDER, KeyedBench

PAGE = m.RowPage(["name"], [["f"]], 0, 1)


def sources(bench: KeyedBench, what: str, peer: str) -> list[str]:
    answer = bench.ask(m.AskSources(0, what), peer)
    assert isinstance(answer, m.Sources), answer
    return [source.peer for source in answer.sources]


def rows(bench: KeyedBench, what: str, peer: str) -> list[dict[str, Any]]:
    answer = bench.ask(m.Inquire(0, "", m.Query(what)), peer)
    assert isinstance(answer, m.Page), answer
    return [dict(zip(answer.page.columns, row, strict=True)) for row in answer.page.rows]


def fault(bench: KeyedBench, message: m.Message, peer: str) -> m.Fault:
    answer = bench.ask(message, peer)
    assert isinstance(answer, m.Fault), answer
    return answer


def come_as_worker(bench: KeyedBench, worker: str, session: str) -> None:
    """A worker of the provider makes calls of its own."""
    link = f"k-{worker}"
    bench.user_of[link] = f"T-{worker}"
    bench.say("p-1", m.Vouch(worker, f"T-{worker}", session))
    hello = m.Hello(worker, "caller", VERSIONS, 1, "there", session)
    bench.link_of[worker] = link
    for lane in Lane:
        bench.feed(link, hello, lane)
    bench.trays[worker].clear()


@pytest.fixture
def bench() -> KeyedBench:
    """An owner's tool, and two apps, each with a session, a lease and an actor on one provider."""
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, OTHER, PROVIDER)
    bench.keyed_provider(cpus=8.0)
    bench.grant(APP)
    bench.grant(OTHER)
    for app, peer, session in ((APP, "c-1", "s-1"), (OTHER, "c-2", "s-2")):
        bench.come(app, peer, session)
        bench.leases(peer)
        bench.actor(spec(f"a-{peer}", peer, session))
        group = m.GroupSpec(f"g-{peer}", session, peer, [{"CPU": 1.0}, {"CPU": 0.5}], "PACK")
        bench.say(peer, m.CreateGroups([group]))
    return bench


def test_an_app_hears_of_its_own_the_owner_of_all(bench: KeyedBench) -> None:
    assert sources(bench, "tasks", "c-1") == ["c-1"]
    assert sources(bench, "objects", "c-2") == ["c-2"]
    assert sources(bench, "tasks", "c-owner") == ["c-1", "c-2"]
    for what, column, own in (
        ("actors", "job_id", "s-1"), ("leases", "caller_id", "c-1"),
        ("sessions", "session_id", "s-1"), ("placement-groups", "creator_job_id", "s-1"),
    ):  # fmt: skip
        assert [row[column] for row in rows(bench, what, "c-1")] == [own], what
        assert len(rows(bench, what, "c-owner")) == 2, what


def test_a_placement_group_as_it_is_listed(bench: KeyedBench) -> None:
    (row,) = rows(bench, "placement-groups", "c-1")
    assert row == {
        "placement_group_id": "g-c-1", "state": "CREATED", "name": None, "ray_namespace": "",
        "creator_job_id": "s-1", "strategy": "PACK", "bundles": "{CPU: 1}, {CPU: 0.5}",
        "node_ids": "p-1, p-1", "is_detached": False, "reason": None,
    }  # fmt: skip
    bench.say("c-1", m.RemoveGroups(["g-c-1"]))
    (row,) = rows(bench, "placement-groups", "c-1")
    assert (row["state"], row["node_ids"]) == ("REMOVED", None)
    assert "removed by c-1" in row["reason"]


def test_providers_are_told_of_which_sessions_the_asker_may_hear(bench: KeyedBench) -> None:
    for peer, sight in (("c-1", ["s-1"]), ("c-2", ["s-2"]), ("c-owner", None)):
        assert sources(bench, "workers", peer) == ["p-1"]
        bench.say(peer, m.Inquire(5, "p-1", m.Query("workers")))
        inquiry = bench.one("p-1", m.Inquiry)
        assert (inquiry.asker, inquiry.sessions) == (peer, sight)


def test_a_provider_without_ones_work_is_not_ones_business(bench: KeyedBench) -> None:
    bench.grant(APP)
    bench.say("c-1", m.Goodbye("done"))
    bench.come(APP, "c-3", "s-3")
    assert sources(bench, "workers", "c-3") == []
    assert sources(bench, "stack", "c-owner") == ["p-1"]
    assert "may look at" in fault(bench, m.Inquire(0, "p-1", m.Query("stack")), "c-3").detail


def test_a_question_goes_to_who_knows_and_the_answer_back(bench: KeyedBench) -> None:
    query = m.Query("tasks", [m.Filter("name", "=", "f")], 10)
    bench.say("c-owner", m.Inquire(5, "c-1", query))
    inquiry = bench.one("c-1", m.Inquiry)
    assert inquiry.query == query
    bench.say("c-2", m.Findings(inquiry.number, m.RowPage(["name"], [["made up"]])))
    assert not bench.heard("c-owner", m.Page), "somebody else answered"
    bench.say("c-1", m.Findings(inquiry.number, PAGE))
    assert bench.one("c-owner", m.Page) == m.Page(5, PAGE)
    bench.say("c-1", m.Findings(inquiry.number, PAGE))
    assert not bench.heard("c-owner", m.Page), "answered twice"


def test_what_is_wrong_with_a_question_comes_back(bench: KeyedBench) -> None:
    bench.say("c-owner", m.Inquire(5, "c-1", m.Query("tasks")))
    number = bench.one("c-1", m.Inquiry).number
    bench.say("c-1", m.Findings(number, m.RowPage([], []), "UsageError", "no column"))
    assert bench.one("c-owner", m.Fault) == m.Fault("UsageError", "no column", 5)


def test_others_processes_cannot_be_asked(bench: KeyedBench) -> None:
    for what, peer in (("tasks", "c-2"), ("objects", "c-2"), ("tasks", "p-1"), ("tasks", "c-9"),
                       ("workers", "c-1"), ("objects", "")):  # fmt: skip
        assert fault(bench, m.Inquire(0, peer, m.Query(what)), "c-1").kind == "PeerLost"
    assert not bench.heard("c-2", m.Inquiry)
    assert not bench.heard("p-1", m.Inquiry)


def test_without_the_right_nothing_is_shown() -> None:
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, PROVIDER)
    bench.keyed_provider()
    bench.grant(actions=["submit"])
    bench.come(APP, "c-1", "s-1")
    for message in (
        m.AskSources(0, "tasks"),
        m.Inquire(0, "c-1", m.Query("tasks")),
        m.Inquire(0, "p-1", m.Query("stack")),
        m.Inquire(0, "", m.Query("actors")),
    ):
        assert fault(bench, message, "c-1").kind == "PermissionDenied"  # fmt: skip
    assert not bench.heard("c-1", m.Inquiry)


def test_a_listing_that_is_not_there_is_named(bench: KeyedBench) -> None:
    told = fault(bench, m.AskSources(0, "task"), "c-1")
    assert told.kind == "UsageError"
    assert "did you mean 'tasks'?" in told.detail
    assert "sessions" in told.detail
    assert fault(bench, m.Inquire(0, "", m.Query("task")), "c-1").kind == "UsageError"
    assert (
        "no column"
        in fault(bench, m.Inquire(0, "", m.Query("actors", sort="colour")), "c-1").detail
    )
    assert (
        "no column"
        in fault(bench, m.Inquire(0, "", m.Query("sessions", sort="colour")), "c-1").detail
    )


def test_who_does_not_answer_is_not_waited_for_without_end(bench: KeyedBench) -> None:
    bench.say("c-owner", m.Inquire(5, "c-1", m.Query("tasks")))
    bench.pass_time(PATIENCE + 0.1)
    told = bench.one("c-owner", m.Fault)
    assert (told.kind, told.request) == ("PeerLost", 5)
    bench.say("c-1", m.Findings(bench.one("c-1", m.Inquiry).number, PAGE))
    assert not bench.heard("c-owner", m.Page), "too late"


def test_who_leaves_ends_the_questions_it_was_asked_and_those_it_asked(bench: KeyedBench) -> None:
    bench.say("c-owner", m.Inquire(5, "c-1", m.Query("tasks")))
    bench.say("c-2", m.Inquire(6, "c-2", m.Query("tasks")))
    bench.say("c-1", m.Goodbye("done"))
    assert bench.one("c-owner", m.Fault).request == 5
    number = bench.one("c-2", m.Inquiry).number
    bench.say("c-2", m.Goodbye("done"))
    assert len(bench.core.hub._desk.inquiries) == 0
    bench.come(OTHER, "c-3", "s-3")
    bench.say("c-3", m.Findings(number, PAGE))
    bench.core.check()


def test_nobody_asks_too_much_at_once(bench: KeyedBench) -> None:
    for request in range(MOST_OPEN + 1):
        bench.say("c-owner", m.Inquire(request + 1, "c-1", m.Query("tasks")))
    assert bench.one("c-owner", m.Fault).request == MOST_OPEN + 1
    bench.say("c-2", m.Inquire(9, "c-2", m.Query("tasks")))
    assert bench.heard("c-2", m.Inquiry), "another one's questions count"


def test_the_worker_of_an_owner_does_not_see_what_the_owner_sees(bench: KeyedBench) -> None:
    """Other people's code may run in it."""
    bench.come(OWNER, "c-o", "s-o")
    bench.leases("c-o")
    come_as_worker(bench, "w-9", "s-o")
    assert sources(bench, "tasks", "w-9") == ["c-o", "w-9"], "a session is one's own, as a whole"
    assert [row["caller_id"] for row in rows(bench, "leases", "w-9")] == ["c-o"]
    assert rows(bench, "actors", "w-9") == []
    assert [row["session_id"] for row in rows(bench, "sessions", "w-9")] == ["s-o"]
    assert fault(bench, m.Inquire(0, "c-1", m.Query("tasks")), "w-9").kind == "PeerLost"


def test_calls_of_workers_that_have_left_are_counted_on_while_their_session_lasts(
    bench: KeyedBench,
) -> None:
    for worker, rows_ in (
        ("w-1", [m.TallyRow("f", 3, 1), m.TallyRow("g", cancelled=2)]),
        ("w-2", [m.TallyRow("f", 4)]),
    ):  # fmt: skip
        come_as_worker(bench, worker, "s-1")
        bench.say(worker, m.Tally(rows_), m.Goodbye("done"))
    assert sources(bench, "tasks", "c-1") == ["", "c-1"]
    assert sources(bench, "tasks", "c-2") == ["c-2"], "another one's"
    for peer in ("c-1", "c-owner"):
        found = {row["func_or_class_name"]: row for row in rows(bench, "task-summary", peer)}
        f, g = found["f"], found["g"]
        assert (f["total"], f["FINISHED"], f["FAILED"], f["CANCELLED"]) == (8, 7, 1, 0)
        assert (g["total"], g["CANCELLED"]) == (2, 2)
    answer = bench.ask(m.Inquire(0, "", m.Query("tasks")), "c-1")
    assert isinstance(answer, m.Page)
    assert (answer.page.rows, answer.page.dropped) == ([], 10)
    bench.say("c-1", m.Goodbye("done"))
    bench.pass_time(60.0)
    assert rows(bench, "task-summary", "c-owner") == []


def test_names_without_end_are_tallied_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guactors.hub_state.tallies.MOST_NAMES", 2)
    tallies = Tallies()
    for _ in range(2):
        tallies.add("s-1", [m.TallyRow(f"f{n}", 1) for n in range(5)])
    assert tallies.of(["s-1", "s-2"]) == {
        "f0": [2, 0, 0], "f1": [2, 0, 0], "(others)": [6, 0, 0],
    }  # fmt: skip


def test_what_waits_is_counted_by_what_it_needs() -> None:
    bench = Bench()
    bench.provider(cpus=1.0)
    bench.caller("c-1")
    bench.caller("c-2", "s-2")
    bench.demand("c-1", count=3)
    bench.demand("c-2", count=2)
    bench.demand("c-2", "d-2", resources={"GPU": 1.0})
    bench.start_leases()
    bench.say("c-1", m.Inquire(1, "", m.Query("demand", sort="-waiting")))
    page = bench.one("c-1", m.Page).page
    found = [dict(zip(page.columns, row, strict=True)) for row in page.rows]
    assert [(x["required_resources"], x["waiting"], x["callers"]) for x in found] == [
        ({"CPU": 1.0}, 4, 2), ({"CPU": 1.0, "GPU": 1.0}, 1, 1),
    ]  # fmt: skip
    assert [x["infeasible"] for x in found] == [False, True]


def test_a_dead_actor_is_listed_with_its_cause() -> None:
    bench = Bench()
    bench.provider()
    bench.caller()
    bench.actor()
    bench.say("p-1", m.ActorEnded("a-1", 0, m.DeathReport("signal", "Segmentation fault")))
    bench.say("c-1", m.Inquire(1, "", m.Query("actors")))
    page = bench.one("c-1", m.Page).page
    (row,) = [dict(zip(page.columns, row, strict=True)) for row in page.rows]
    assert row["state"] == "DEAD"
    assert row["death_cause"] == "signal: Segmentation fault"
