"""Traces keep the rules of the trace-event format, and rows of a viewer that can nest."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from guactors import trace
from guactors.messages import Cell

Event = dict[str, Any]


def check_format(events: list[Event]) -> None:
    """The rules of the trace-event format for the phases that are used here: X, M, s and f; and
    that it is plain JSON, without NaN."""
    assert json.loads(json.dumps(events, allow_nan=False)) == events
    flows: dict[int, list[str]] = {}
    spans: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["ts"], int | float)
        match event["ph"]:
            case "X":
                assert event["dur"] >= 0
                assert event["cat"]
                row = spans.setdefault((event["pid"], event["tid"]), [])
                row.append((event["ts"], event["ts"] + event["dur"]))
            case "M":
                assert event["name"] in ("process_name", "thread_name")
                assert event["args"]["name"]
            case "s" | "f":
                flows.setdefault(event["id"], []).append(event["ph"])
                assert event["ph"] == "s" or event["bp"] == "e"
            case other:
                raise AssertionError(f"phase {other}")
    assert all(phases == ["s", "f"] for phases in flows.values())
    named = {(event["pid"], event["tid"]) for event in events if event["ph"] == "M"}
    for place, row in spans.items():
        assert place in named
        assert (place[0], 0) in named
        check_nesting(row)
    for event in events:
        if event["ph"] in "sf":
            row = spans[event["pid"], event["tid"]]
            assert any(start <= event["ts"] <= end for start, end in row), "an arrow in the void"


def check_nesting(row: list[tuple[float, float]]) -> None:
    """Spans of one thread hold each other whole, or do not touch."""
    open_until: list[float] = []
    for start, end in sorted(row, key=lambda span: (span[0], -span[1])):
        while open_until and open_until[-1] <= start:
            open_until.pop()
        assert not open_until or end <= open_until[-1], row
        open_until.append(end)


def task(id: str, start: float, end: float, **more: Cell) -> dict[str, Cell]:
    """A record as the listing of tasks has it; times in milliseconds."""
    return {
        "task_id": id, "name": "f", "state": "FINISHED", "type": "NORMAL_TASK", "actor_id": None,
        "parent_task_id": None, "node_id": "p-1", "worker_id": "w-1", "creation_time_ms": start - 1,
        "sent_time_ms": start, "start_time_ms": start, "end_time_ms": end, **more,
    }  # fmt: skip


def of_phase(events: list[Event], phase: str) -> list[Event]:
    return [event for event in events if event["ph"] == phase]


def test_a_call_is_a_complete_event_on_the_row_of_its_worker() -> None:
    events = trace.events([task("1", 1000.5, 1002.0), task("2", 1003.0, 1004.0, worker_id="w-2")])
    check_format(events)
    first, second = of_phase(events, "X")
    assert (first["ts"], first["dur"], first["name"]) == (1_000_500.0, 1_500.0, "f")
    assert first["args"]["task_id"] == "1"
    assert first["pid"] == second["pid"]
    assert first["tid"] != second["tid"]
    names = {event["args"]["name"] for event in of_phase(events, "M")}
    assert names == {"provider p-1", "worker w-1", "worker w-2"}


def test_what_has_not_run_is_left_out() -> None:
    assert trace.events([task("1", 1.0, 2.0, start_time_ms=None)]) == []
    assert trace.events([task("1", 1.0, 2.0, end_time_ms=None)]) == []
    assert trace.events([]) == []


def test_an_arrow_leads_from_parent_to_child() -> None:
    events = trace.events([
        task("1", 10.0, 20.0), task("2", 12.0, 14.0, parent_task_id="1", worker_id="w-2"),
        task("3", 13.0, 14.0, parent_task_id="nobody"),
    ])  # fmt: skip
    check_format(events)
    (start,), (end,) = of_phase(events, "s"), of_phase(events, "f")
    parent, child, _ = of_phase(events, "X")
    assert (start["pid"], start["tid"], start["ts"]) == (parent["pid"], parent["tid"], 11_000.0)
    assert (end["pid"], end["tid"], end["ts"]) == (child["pid"], child["tid"], 12_000.0)


def test_calls_that_run_at_once_get_rows_of_their_own() -> None:
    events = trace.events([task("1", 10.0, 20.0), task("2", 15.0, 25.0), task("3", 20.0, 30.0)])
    check_format(events)
    first, second, third = of_phase(events, "X")
    assert first["tid"] == third["tid"] != second["tid"]
    assert "worker w-1 (2)" in {event["args"]["name"] for event in of_phase(events, "M")}


def test_what_failed_is_seen() -> None:
    failed, cancelled, well = of_phase(trace.events([
        task("1", 1.0, 2.0, state="FAILED", error_type="ValueError"),
        task("2", 3.0, 4.0, state="CANCELLED"), task("3", 5.0, 6.0),
    ]), "X")  # fmt: skip
    assert failed["cname"] == "terrible"
    assert failed["args"]["error_type"] == "ValueError"
    assert cancelled["cname"] == "grey"
    assert "cname" not in well


TIMES = st.integers(1, 12)


@given(
    st.lists(
        st.tuples(TIMES, st.integers(0, 8), st.sampled_from("abc"), st.integers(0, 20)), max_size=20
    )
)
def test_any_calls_make_a_trace_that_keeps_the_rules(
    calls: list[tuple[int, int, str, int]],
) -> None:
    rows = [
        task(str(number), start, start + length, worker_id=worker, parent_task_id=str(parent))
        for number, (start, length, worker, parent) in enumerate(calls)
    ]
    events = trace.events(rows)
    check_format(events)
    assert len(of_phase(events, "X")) == len(calls)
