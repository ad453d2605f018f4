"""What is written into the audit log, and what is only counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from guactors import messages as m
from guactors.gatekeeper_state.ledger import MOST, OTHERS, WINDOW, Ledger
from guactors.image_state.desk import DOWNLOAD, REMOVE, UPLOAD
from guactors.scheduling import events as e
from guactors.security.keys import Kind
from tests.unit.hub.gatekeeper_bench import APP, Bench, secret

NO = e.Decision("gu_app_x", "run", "sha3-256:1", "refused", "image", "not that one", "p-1")
YES = replace(NO, decision="allowed", reason="allowed")


def test_what_is_allowed_is_written_each_time() -> None:
    ledger = Ledger()
    assert [ledger.note(YES, 0.0) for _ in range(3)] == [[YES]] * 3
    assert ledger.next_wake() is None


def test_equal_refusals_of_a_minute_are_two_lines() -> None:
    ledger = Ledger()
    assert ledger.note(NO, 0.0) == [NO]
    assert ledger.next_wake() is None, "there is nothing to add yet"
    for second in range(1, 60):
        assert ledger.note(replace(NO, object=f"image {second}"), float(second)) == []
    assert ledger.next_wake() == WINDOW
    assert ledger.due(WINDOW - 0.001) == []
    (line,) = ledger.due(WINDOW)
    assert line == replace(NO, object="image 59", detail="repeated: 59; the last one: not that one")
    assert ledger.due(2 * WINDOW) == []
    assert ledger.note(NO, WINDOW + 1) == [NO], "a new minute"


def test_a_minute_that_is_over_is_written_before_what_comes_next() -> None:
    ledger = Ledger()
    ledger.note(NO, 0.0)
    ledger.note(NO, 1.0)
    lines = ledger.note(NO, WINDOW)
    assert [line.detail.partition(";")[0] for line in lines] == ["repeated: 1", "not that one"]


def test_refusals_that_differ_are_written_each() -> None:
    ledger = Ledger()
    differing = [NO, replace(NO, who="b"), replace(NO, action="join"), replace(NO, reason="quota")]
    assert [ledger.note(decision, 0.0) for decision in differing] == [[x] for x in differing]


@pytest.mark.parametrize(
    ("action", "written"),
    [(UPLOAD, UPLOAD), (DOWNLOAD, DOWNLOAD), (REMOVE, REMOVE), ("a stranger's word", "other")],
)
def test_a_crowd_keeps_the_words_that_are_known(action: str, written: str) -> None:
    ledger = Ledger()
    for number in range(MOST + 2):
        ledger.note(replace(NO, who=f"{number}", action=action), 0.0)
    (count,) = ledger.due(WINDOW)
    assert (count.who, count.action) == (OTHERS, written)


def test_a_crowd_of_strangers_becomes_one_line_more() -> None:
    ledger = Ledger()
    lines = [line for n in range(5000) for line in ledger.note(replace(NO, who=f"{n}"), 0.0)]
    assert len(lines) == MOST + 1
    assert lines[-1].who == OTHERS
    (count,) = ledger.due(WINDOW)
    assert (count.who, count.action, count.reason) == (OTHERS, "run", "image")
    assert count.detail.startswith(f"repeated: {5000 - MOST - 1};")
    ledger.check()


def test_words_of_strangers_are_reduced_to_known_ones() -> None:
    ledger = Ledger()
    crowd = [replace(NO, who=f"{n}", action=f"a{n}", reason=f"r{n}") for n in range(2000)]
    lines = [line for decision in crowd for line in ledger.note(decision, 0.0)]
    assert len(lines) == MOST + 1
    assert (lines[-1].action, lines[-1].reason) == ("other", "other")
    ledger.check()


def test_what_is_allowed_is_never_one_of_others() -> None:
    ledger = Ledger()
    for n in range(MOST + 10):
        ledger.note(replace(NO, who=f"{n}"), 0.0)
    assert ledger.note(YES, 0.0, often=True) == [YES]


def test_nothing_counted_is_lost_at_the_end() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.note(NO, 0.0)
    (line,) = ledger.flush()
    assert line.detail.startswith("repeated: 2;")
    assert ledger.flush() == []


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.floats(0, 50)), max_size=60)
)
def test_every_refusal_is_written_or_counted(events: list[tuple[str, str, float]]) -> None:
    ledger, now, lines = Ledger(), 0.0, []
    for who, reason, pause in events:
        now += pause
        lines += ledger.note(replace(NO, who=who, reason=reason, detail=""), now)
        ledger.check()
    lines += ledger.flush()
    counted = sum(
        int(line.detail.removeprefix("repeated: ").partition(";")[0]) if line.detail else 1
        for line in lines
    )
    assert counted == len(events)


# --- in the room --------------------------------------------------------------------------------


def test_decisions_of_others_are_written() -> None:
    bench = Bench()
    for decision in (YES, NO):
        assert bench.feed(e.Decided(decision)) == [e.Record([decision])]


def test_a_flood_at_the_door_is_two_lines() -> None:
    bench = Bench()
    for _ in range(100):
        bench.join(APP)
    assert bench.refusals() == [(APP.public.text, "join", "pending")]
    bench.sleep(WINDOW)
    assert len(bench.lines) == 2
    assert bench.lines[-1].detail.startswith("repeated: 99;")


def test_last_words_are_what_was_counted() -> None:
    bench = Bench()
    for _ in range(3):
        bench.ask(m.AskKeys(1), bench.standing(secret(Kind.OWNER, 9)))
    (effect,) = bench.room.last_words()
    assert isinstance(effect, e.Record)
    assert bench.room.last_words() == []
