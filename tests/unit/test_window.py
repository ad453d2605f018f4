"""How many calls are sent ahead follows the time they take."""

from __future__ import annotations

from guactors.integrations.window import LONG, MOST_AHEAD, SHORT, Window


def answered(window: Window, times: int, took: float, *, starved: bool = True) -> Window:
    for _ in range(times):
        window.on_answer(took, starved=starved)
    return window


def test_quick_calls_are_sent_ahead_in_growing_number() -> None:
    window = Window(2, strict=False)
    assert window.limit == 3
    assert answered(window, 10, SHORT / 2).limit > 10
    assert answered(window, 10_000, SHORT / 2).limit == 2 + 2 * MOST_AHEAD


def test_slow_calls_are_not() -> None:
    window = answered(Window(2, strict=False), 100, SHORT / 2)
    assert answered(window, 20, 2 * LONG).limit == 3


def test_between_the_two_nothing_changes() -> None:
    window = answered(Window(2, strict=False), 10, SHORT / 2)
    before = window.limit
    assert answered(window, 10, (SHORT + LONG) / 2).limit == before


def test_nothing_is_sent_ahead_where_nothing_waits() -> None:
    assert answered(Window(2, strict=False), 100, SHORT / 2, starved=False).limit == 3


def test_a_strict_window_stays() -> None:
    assert answered(Window(2, strict=True), 100, SHORT / 2).limit == 2
