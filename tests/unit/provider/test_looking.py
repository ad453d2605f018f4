"""What a provider tells of its workers, and stack dumps from the question to the answer."""

from __future__ import annotations

from typing import Any

import pytest

from guactors.messages import AskStack, Findings, Inquiry, Query, StackIs
from guactors.provider_state import TakeStack
from guactors.provider_state.lookout import LAST, MOST_DUMPS, PATIENCE
from tests.unit.provider.bench import Bench


@pytest.fixture
def bench() -> Bench:
    """A worker with a lease of s-1, one with an actor of s-2, and a warm one."""
    bench = Bench(warm=0, resources={"CPU": 8.0})
    bench.lease("l-1", "s-1")
    bench.all_up()
    bench.actor("a-1", "s-2")
    bench.all_up()
    bench.alive("w-2")
    bench.to_hub.clear()
    return bench


def ask(bench: Bench, what: str, sessions: list[str] | None = None, worker: str = "") -> Findings:
    bench.hub(Inquiry(7, "c-9", Query(what, subject=worker), sessions))
    (answer,) = bench.said(Findings)
    assert answer.number == 7
    return answer


def begin(bench: Bench, worker: str, number: int = 7, what: str = "stack") -> None:
    """A question that is not answered at once."""
    bench.hub(Inquiry(number, "c-9", Query(what, subject=worker)))
    assert not bench.said(Findings)


def taken(bench: Bench, number: int, threads: list[str], by: str, fault: str = "") -> None:
    bench.do(bench.core.on_stack_taken(number, threads, by, fault))


def records(findings: Findings) -> list[dict[str, Any]]:
    assert not findings.kind, findings.detail
    return [dict(zip(findings.page.columns, row, strict=True)) for row in findings.page.rows]


def test_workers_with_what_they_do(bench: Bench) -> None:
    first, second = records(ask(bench, "workers"))
    assert (first["worker_id"], first["state"], first["lease_id"]) == ("w-1", "LEASED", "l-1")
    assert (first["pid"], first["node_id"], first["node_name"]) == (77, "p-1", "tester")
    assert (second["state"], second["actor_id"], second["job_id"]) == ("HOSTING", "a-1", "s-2")
    assert not first["blocked"]


def test_only_workers_of_sessions_one_may_hear_of(bench: Bench) -> None:
    assert [row["worker_id"] for row in records(ask(bench, "workers", ["s-2", "s-3"]))] == ["w-2"]
    assert records(ask(bench, "workers", [])) == []


def test_a_worker_without_a_session_is_shown_to_the_owner_alone() -> None:
    bench = Bench(warm=1)
    bench.all_up()
    assert [row["state"] for row in records(ask(bench, "workers"))] == ["UNBOUND"]
    assert records(ask(bench, "workers", ["", "s-1"])) == []


def test_a_worker_tells_its_own_stack(bench: Bench) -> None:
    begin(bench, "w-1")
    assert bench.told("w-1", AskStack) == [AskStack(7)]
    bench.says("w-1", StackIs(7, ["main\n  here", "other"]))
    found = records(bench.said(Findings)[0])
    assert [row["stack"] for row in found] == ["main\n  here", "other"]
    assert {(row["worker_id"], row["pid"], row["by"]) for row in found} == {("w-1", 77, "itself")}
    bench.says("w-1", StackIs(7, ["again"]))
    assert not bench.said(Findings)


@pytest.mark.parametrize("worker", ["w-2", "w-9", ""])
def test_the_stack_of_anothers_worker_is_none(bench: Bench, worker: str) -> None:
    for what in ("stack", "native-stack"):
        answer = ask(bench, what, ["s-1"], worker)
        assert answer.kind == "UsageError"
        assert "of yours" in answer.detail
    assert not bench.told("w-2", AskStack)
    assert not any(isinstance(effect, TakeStack) for effect in bench.other)


def test_no_worker_answers_for_another(bench: Bench) -> None:
    begin(bench, "w-1")
    bench.says("w-2", StackIs(7, ["made up"]))
    assert not bench.said(Findings)


def test_a_worker_that_does_not_come_to_answer_is_told_by_a_signal(bench: Bench) -> None:
    begin(bench, "w-1")
    bench.pass_time(PATIENCE + 0.1)
    assert bench.other[-1] == TakeStack("w-1", 77, 7)
    taken(bench, 7, ["by force"], "signal")
    (row,) = records(bench.said(Findings)[0])
    assert (row["by"], row["stack"]) == ("signal", "by force")
    bench.says("w-1", StackIs(7, ["late"]))
    assert not bench.said(Findings)


def test_its_own_answer_still_counts_where_the_signal_brought_nothing(bench: Bench) -> None:
    begin(bench, "w-1")
    bench.pass_time(PATIENCE + 0.1)
    taken(bench, 7, [], "signal")
    bench.says("w-1", StackIs(7, ["late"]))
    assert records(bench.said(Findings)[0])[0]["by"] == "itself"


def test_a_worker_that_shows_nothing_is_not_waited_for_without_end(bench: Bench) -> None:
    bench.mute.add("w-1")
    begin(bench, "w-1")
    bench.pass_time(LAST + 0.1)
    (answer,) = bench.said(Findings)
    assert answer.kind == "WorkerDied"
    assert "stopped" in answer.detail
    taken(bench, 7, ["late"], "signal")
    assert not bench.said(Findings)


def test_a_worker_that_ends_meanwhile_is_said_to_have(bench: Bench) -> None:
    begin(bench, "w-1")
    begin(bench, "w-2", 8)
    bench.ends("w-1")
    (answer,) = bench.said(Findings)
    assert (answer.number, answer.kind) == (7, "WorkerDied")


def test_native_frames_come_from_outside_alone(bench: Bench) -> None:
    begin(bench, "w-1", what="native-stack")
    assert bench.other[-1] == TakeStack("w-1", 77, 7, native=True)
    assert not bench.told("w-1", AskStack)
    bench.pass_time(PATIENCE + 0.1)
    assert sum(isinstance(effect, TakeStack) for effect in bench.other) == 1
    taken(bench, 7, [], "py-spy", "py-spy is not installed")
    (answer,) = bench.said(Findings)
    assert (answer.kind, answer.detail) == ("UsageError", "py-spy is not installed")


def test_many_dumps_at_once_are_refused(bench: Bench) -> None:
    for number in range(MOST_DUMPS):
        begin(bench, "w-1", number + 10)
    assert "ask again" in ask(bench, "stack", worker="w-1").detail


def test_what_a_provider_does_not_list_is_said(bench: Bench) -> None:
    assert ask(bench, "tasks").kind == "UsageError"
