"""What a caller tells of its calls and objects: every state of a call, exact counts, a bound."""

from __future__ import annotations

from itertools import chain
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guactors import messages as m
from guactors.caller.lookout import Lookout
from tests.unit.caller.bench import KEY, Bench, error, value

EPOCH = 1_800_000_000.0
"""What the wall clock shows at second 0 of the bench."""


def listing(bench: Bench, what: str, **query: Any) -> list[dict[str, Any]]:
    """The rows of a listing, as somebody hears them who asks this caller."""
    lookout = Lookout(bench.core, "s-1")
    found = lookout.answer(m.Inquiry(7, "c-9", m.Query(what, **query)), EPOCH)
    assert not found.kind, found.detail
    assert not found.page.cursor
    return [dict(zip(found.page.columns, row, strict=True)) for row in found.page.rows]


def tasks(bench: Bench) -> dict[int, dict[str, Any]]:
    """Calls by their number."""
    rows = listing(bench, "tasks")
    found = {int(str(row["task_id"])[-16:], 16): row for row in rows}
    assert len(found) == len(rows), "a call is shown twice"
    return found


def states(bench: Bench) -> dict[int, str]:
    return {id: row["state"] for id, row in tasks(bench).items()}


def summary(bench: Bench) -> dict[str, int]:
    """How many calls are in which state; what the sum of a row says must be true."""
    rows = listing(bench, "task-summary")
    found: dict[str, int] = {}
    for row in rows:
        total = row.pop("total")
        del row["func_or_class_name"]
        assert sum(row.values()) == total
        for state, count in row.items():
            found[state] = found.get(state, 0) + count
    return {state: count for state, count in found.items() if count}


def test_a_call_goes_through_its_states() -> None:
    bench = Bench()
    first, second = bench.call(), bench.call()
    assert set(states(bench).values()) == {"PENDING_NODE_ASSIGNMENT"}
    bench.grant()
    assert states(bench) == {first: "RUNNING", second: "PENDING_NODE_ASSIGNMENT"}
    bench.pass_time(0.0001)
    bench.reply("w-1", first)
    assert states(bench) == {first: "FINISHED", second: "RUNNING"}
    third = bench.call()
    assert states(bench)[third] == "SUBMITTED_TO_WORKER"
    bench.reply("w-1", second, error())
    bench.reply("w-1", third)
    assert states(bench) == {first: "FINISHED", second: "FAILED", third: "FINISHED"}
    assert summary(bench) == {"FINISHED": 2, "FAILED": 1}


def test_a_row_tells_who_where_and_when() -> None:
    bench = Bench()
    id = bench.call()
    bench.pass_time(1.0)
    bench.grant()
    bench.pass_time(2.0)
    began = 5.0 + bench.now - 0.5
    times = pack("<ddd", EPOCH - 5.0, began, began + 0.25)
    bench.says("w-1", m.Replies([m.Reply(id, [value()])], times))
    row = tasks(bench)[id]
    assert row["name"] == row["func_or_class_name"] == "f"
    assert row["type"] == "NORMAL_TASK"
    assert (row["job_id"], row["caller_id"]) == ("s-1", "c-1")
    assert (row["node_id"], row["worker_id"]) == ("p-1", "w-1")
    assert row["required_resources"] == {"CPU": 1.0}
    made = (EPOCH + 1000.0) * 1e3
    assert row["creation_time_ms"] == made
    assert row["sent_time_ms"] == made + 1000
    assert row["start_time_ms"] == made + 2500
    assert row["duration_ms"] == 250
    assert row["end_time_ms"] == made + 2750


@pytest.mark.parametrize("offset", [-3600.0, 3600.0])
def test_a_worker_whose_clock_is_wrong_is_put_between_send_and_answer(offset: float) -> None:
    bench = Bench()
    id = bench.call()
    bench.grant()
    bench.pass_time(2.0)
    times = pack("<ddd", EPOCH + offset, bench.now - 1.0, bench.now)
    bench.says("w-1", m.Replies([m.Reply(id, [value()])], times))
    row = tasks(bench)[id]
    assert row["sent_time_ms"] <= row["start_time_ms"] <= row["end_time_ms"]
    assert row["end_time_ms"] <= (EPOCH + bench.now) * 1e3
    assert row["duration_ms"] == 1000


@pytest.mark.parametrize("times", [b"", b"\0" * 7, b"\0" * 800, pack("<ddd", EPOCH, 0.0, 9.0)])
def test_times_that_are_missing_or_nonsense_are_left_out(times: bytes) -> None:
    bench = Bench()
    id = bench.call()
    bench.grant()
    bench.says("w-1", m.Replies([m.Reply(id, [value()])], times))
    row = tasks(bench)[id]
    assert row["state"] == "FINISHED"
    assert row["start_time_ms"] is row["duration_ms"] is None


def test_a_call_that_waits_for_an_argument_says_so() -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call(deps=[first])
    assert states(bench)[second] == "PENDING_ARGS_AVAIL"
    bench.grant()
    bench.reply("w-1", first)
    assert states(bench)[second] == "RUNNING"


def test_a_call_whose_argument_failed_has_failed() -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call(deps=[first])
    bench.grant()
    bench.says("w-1", m.Replies([m.Reply(first, [error()], 0, "ValueError")]))
    found = tasks(bench)
    assert (found[first]["error_type"], found[first]["state"]) == ("ValueError", "FAILED")
    assert (found[second]["error_type"], found[second]["state"]) == ("DependencyFailed", "FAILED")


def test_a_cancelled_call_counts_once_whatever_its_worker_says() -> None:
    bench = Bench()
    waiting, running = bench.call(), bench.call()
    bench.grant()
    waiting, running = running, waiting
    bench.cancel(waiting)
    assert states(bench)[waiting] == "CANCELLED"
    bench.cancel(running)
    assert states(bench)[running] == "RUNNING", "its worker has not let go"
    bench.says("w-1", m.Replies([m.Reply(running, [error()], 0, "TaskCancelled")]))
    assert states(bench) == {waiting: "CANCELLED", running: "CANCELLED"}
    assert summary(bench) == {"CANCELLED": 2}


def test_a_call_that_was_given_up_counts_once_when_its_worker_answers_after_all() -> None:
    bench = Bench()
    id = bench.call(deadline=bench.now + 1.0)
    bench.grant()
    bench.pass_time(1.5)
    assert tasks(bench)[id]["error_type"] == "CallTimeout"
    bench.reply("w-1", id)
    assert states(bench) == {id: "FAILED"}
    assert summary(bench) == {"FAILED": 1}


def test_a_cancelled_call_whose_argument_comes_later_does_not_run() -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call(deps=[first])
    bench.cancel(second)
    bench.drop(second)
    bench.grant()
    bench.reply("w-1", first)
    assert bench.calls("w-1") == [first]
    assert summary(bench) == {"FINISHED": 1, "CANCELLED": 1}


def test_a_retried_call_is_one_call_with_attempts() -> None:
    bench = Bench()
    id = bench.call(retries=1)
    bench.grant()
    bench.lose("w-1")
    assert states(bench)[id] in ("SUBMITTED_TO_WORKER", "PENDING_NODE_ASSIGNMENT")
    bench.hub(m.LeaseLost("l-1", m.DeathReport("signal", worker="w-1")))
    bench.grant("l-2", "w-2")
    bench.reply("w-2", id, attempt=1)
    row = tasks(bench)[id]
    assert (row["state"], row["attempt_number"], row["worker_id"]) == ("FINISHED", 1, "w-2")


def test_a_lost_worker_is_the_fault_of_its_call() -> None:
    bench = Bench()
    id = bench.call()
    bench.grant()
    bench.lose("w-1")
    bench.hub(m.LeaseLost("l-1", m.DeathReport("signal", worker="w-1")))
    row = tasks(bench)[id]
    assert (row["state"], row["error_type"]) == ("FAILED", "WorkerDied")


def test_calls_of_an_actor() -> None:
    bench = Bench()
    actor = bench.actor()
    actor.concurrency = 1
    first, second = bench.call(actor), bench.call(actor)
    assert set(states(bench).values()) == {"PENDING_NODE_ASSIGNMENT"}
    bench.alive()
    assert states(bench) == {first: "RUNNING", second: "SUBMITTED_TO_WORKER"}
    bench.reply("w-1", first)
    row = tasks(bench)[first]
    assert (row["type"], row["actor_id"], row["func_or_class_name"]) == (
        "ACTOR_TASK", "a-1", "Counter.go",
    )  # fmt: skip
    bench.hub(m.ActorUpdate("a-1", "dead", 0, death=m.DeathReport("killed")))
    assert tasks(bench)[second]["error_type"] == "ActorKilled"
    late = bench.call(actor)
    assert states(bench) == {first: "FINISHED", second: "FAILED", late: "FAILED"}


def test_calls_that_keep_no_record_are_nowhere() -> None:
    bench = Bench()
    ids = [bench.call(events=False), bench.call()]
    assert list(states(bench)) == ids[1:]
    bench.grant()
    for id in ids:
        bench.reply("w-1", id)
    assert list(states(bench)) == ids[1:]
    assert summary(bench) == {"FINISHED": 1}
    cancelled = bench.call(events=False)
    bench.cancel(cancelled)
    assert cancelled not in states(bench)


def test_what_has_no_room_is_counted_exactly() -> None:
    bench = Bench()
    log = bench.core.log
    log._most = 10
    bench.grant()
    for n in range(100):
        id = bench.call(name=f"f{n % 3}")
        bench.grant(f"l-{n}") if not bench.core.leases.by_id else None
        bench.reply("w-1", id, *([error()] if n % 4 == 0 else []))
        bench.drop(id)
    assert len(tasks(bench)) == 10
    assert log.dropped == 90
    assert summary(bench) == {"FINISHED": 75, "FAILED": 25}
    rows = {row["func_or_class_name"]: row["total"] for row in listing(bench, "task-summary")}
    assert rows == {"f0": 34, "f1": 33, "f2": 33}


def test_the_answer_says_how_many_are_counted_only() -> None:
    bench = Bench()
    bench.core.log._most = 1
    for _ in range(3):
        bench.cancel(bench.call())
    bench.core.log._most = 0
    bench.cancel(bench.call())
    answer = Lookout(bench.core, "s-1").answer(m.Inquiry(7, "c-9", m.Query("tasks")), EPOCH)
    assert answer.page.dropped == 4


def test_names_without_end_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guactors.caller.task_log.MOST_NAMES", 3)
    bench = Bench()
    bench.core.log._most = 0
    for n in range(10):
        bench.cancel(bench.call(name=f"f{n}"))
    rows = {row["func_or_class_name"]: row["total"] for row in listing(bench, "task-summary")}
    assert rows == {"f0": 1, "f1": 1, "f2": 1, "(others)": 7}


def test_a_tally_counts_every_call_and_names_the_most_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("guactors.caller.lookout.MOST_TALLIED", 3)
    bench = Bench()
    for name, count in (("a", 1), ("b", 5), ("c", 2), ("d", 9)):
        for _ in range(count):
            bench.cancel(bench.call(name=name))
    bench.call(name="d")
    assert Lookout(bench.core, "s-1").tally() == [
        m.TallyRow("d", 0, 1, 9), m.TallyRow("b", 0, 0, 5), m.TallyRow("(others)", 0, 0, 3),
    ]  # fmt: skip
    assert Lookout(Bench().core, "s-1").tally() == []


def test_a_record_keeps_neither_arguments_nor_results() -> None:
    bench = Bench()
    ids = [bench.call(args=b"a" * 100), bench.call(args=b"b" * 100)]
    bench.grant()
    bench.reply("w-1", ids[0], value(b"v" * 100))
    bench.cancel(ids[1])
    bench.says("w-1", m.Replies([m.Reply(ids[1], [error()], 0, "TaskCancelled")]))
    bench.drop(*ids)
    kept = list(chain.from_iterable(batch.tasks for batch in bench.core.log.batches()))
    assert [task.args for task in kept if task] == [b"", b""]
    assert not bench.kept()


def test_objects_say_where_they_are_and_why_they_are_kept() -> None:
    bench = Bench()
    inner = bench.put(b"12345")
    outer = bench.put(b"o", contains=[inner])
    call = bench.call(deps=[inner])
    rows = {int(str(row["object_id"])[-16:], 16): row for row in listing(bench, "objects")}
    kept = rows[inner]
    assert (kept["object_size"], kept["state"], kept["where"]) == (5, "READY", "inline")
    assert kept["references"] == 3
    assert (kept["local_references"], kept["contained_references"]) == (1, 1)
    assert (kept["lent_references"], kept["task_references"]) == (0, 1)
    assert rows[outer]["references"] == rows[outer]["local_references"] == 1
    pending = rows[call]
    assert (pending["object_size"], pending["state"], pending["where"]) == (None, "PENDING", None)
    assert pending["name"] == "f"
    assert {row["owner"] for row in rows.values()} == {"c-1"}


def test_a_lent_object_says_so() -> None:
    bench = Bench()
    id = bench.put()
    bench.core.objects.hold(id)
    bench.call(lent=[id])
    bench.grant()
    (row,) = [row for row in listing(bench, "objects") if row["state"] == "READY"]
    assert row["lent_references"] == 1


def test_a_question_that_makes_no_sense_is_answered() -> None:
    bench = Bench()
    lookout = Lookout(bench.core, "s-1")
    for query in (m.Query("tasks", sort="colour"), m.Query("things")):
        answer = lookout.answer(m.Inquiry(7, "c-9", query), EPOCH)
        assert (answer.number, answer.kind) == (7, "UsageError")
        assert "there are" in answer.detail


@settings(max_examples=60, deadline=None)
@given(
    room=st.integers(0, 6),
    steps=st.lists(st.sampled_from("ccccrrrefxdgl"), max_size=60),
    data=st.data(),
)
def test_each_call_is_counted_once_whatever_happens(
    room: int, steps: list[str], data: st.DataObject
) -> None:
    """c: a call, r: a reply, e: an error, f: a cancel, x: the worker dies, d: with a deadline that
    passes, g: a lease, l: a call that waits for another."""
    bench = Bench()
    bench.core.log._most = room
    made, leases, live = 0, 0, ""
    ids: list[int] = []
    for step in steps:
        target = bench.core._target(live)
        flight = list(target.in_flight.values()) if target is not None else []
        if step in "cdl":
            more: dict[str, Any] = {"deadline": bench.now + 0.5} if step == "d" else {}
            if step == "l" and ids:
                more["deps"] = [data.draw(st.sampled_from(ids))]
            ids.append(bench.call(retries=data.draw(st.integers(0, 1)), **more))
            made += 1
            if step == "d":
                bench.pass_time(1.0)
        elif step == "g" and not live:
            leases += 1
            live = f"w-{leases}"
            bench.hub(m.LeaseGranted(KEY, f"l-{leases}", live, "p-1", []))
            live = live if live in bench.core.leases.by_peer else ""
        elif step in "re" and flight:
            task = data.draw(st.sampled_from(flight))
            bench.reply(live, task.id, error() if step == "e" else value(), attempt=task.attempt)
        elif step == "f" and ids:
            bench.cancel(data.draw(st.sampled_from(ids)))
        elif step == "x" and live:
            bench.lose(live)
            bench.hub(m.LeaseLost(f"l-{leases}", m.DeathReport("signal", worker=live)))
            live = ""
        assert sum(summary(bench).values()) == made
        assert len(tasks(bench)) + bench.core.log.dropped == made
