"""What workers print, folded: first at once, repetitions counted."""

from __future__ import annotations

from guactors.messages import Output
from guactors.printing import WINDOW, LineFolder


def output(pid: int, *lines: str, name: str = "f", stream: int = 1, dropped: int = 0) -> Output:
    return Output("s-1", f"w-{pid}", pid, "p1", stream, name, list(lines), dropped)


def test_a_line_appears_at_once_with_its_name() -> None:
    assert LineFolder().on_output(output(7, "hello"), 0.0) == [(1, "(f pid=7, p1) hello")]


def test_the_same_line_of_other_workers_is_counted_and_told_when_the_window_closes() -> None:
    folder = LineFolder()
    folder.on_output(output(1, "same"), 0.0)
    assert folder.on_output(output(2, "same"), 0.1) == []
    assert folder.on_output(output(3, "same", "own"), 0.2) == [(1, "(f pid=3, p1) own")]
    assert folder.next_wake() == WINDOW
    assert folder.due(WINDOW) == [(1, "(f pid=1, p1) same [repeated 2x by other workers]")]
    assert folder.due(2 * WINDOW) == []


def test_a_worker_s_own_repetitions_are_never_folded() -> None:
    folder = LineFolder()
    lines = [line for _ in range(3) for line in folder.on_output(output(1, "tick"), 0.0)]
    assert len(lines) == 3


def test_folding_can_be_turned_off_and_losses_are_said() -> None:
    folder = LineFolder(fold=False)
    folder.on_output(output(1, "same"), 0.0)
    assert folder.on_output(output(2, "same", dropped=4, stream=2), 0.0) == [
        (2, "(f pid=2, p1) … 4 lines were too many and are lost"),
        (2, "(f pid=2, p1) same"),
    ]


def test_what_is_folded_at_the_end_is_told() -> None:
    folder = LineFolder()
    folder.on_output(output(1, "same"), 0.0)
    folder.on_output(output(2, "same"), 0.0)
    assert len(folder.due(0.0, everything=True)) == 1
