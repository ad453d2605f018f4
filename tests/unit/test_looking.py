"""The asker's side: many processes make one answer, and none is counted twice or left out."""

from __future__ import annotations

import pytest

from guactors.errors import PeerLost, UsageError
from guactors.looking import look, summarize_tasks
from guactors.messages import (
    AskSources,
    Cell,
    Inquire,
    Message,
    Page,
    RowPage,
    SourceRow,
    Sources,
)

COLUMNS = ["func_or_class_name", "total", "RUNNING", "FINISHED"]


class Grid:
    """Processes with rows, in pages of two. ``leaving`` go when they are asked, and leave theirs to
    the hub; ``silent`` never answer."""

    def __init__(self, **rows: list[list[Cell]]) -> None:
        self.rows = rows
        self.leaving: set[str] = set()
        self.silent: set[str] = set()
        self.hub: list[list[Cell]] = []
        self.asked: list[str] = []

    def ask(self, message: Message) -> Message:
        if isinstance(message, AskSources):
            hub = [SourceRow("")] if self.hub else []
            return Sources(0, hub + [SourceRow(peer) for peer in self.rows])
        assert isinstance(message, Inquire)
        peer, query = message.peer, message.query
        self.asked.append(peer)
        if peer in self.leaving:
            self.leaving.remove(peer)
            self.hub += self.rows.pop(peer)
        if peer in self.silent or (peer and peer not in self.rows):
            raise PeerLost(f"{peer} is gone")
        rows = self.rows[peer] if peer else self.hub
        here = rows[query.cursor : query.cursor + 2]
        following = query.cursor + 2 if query.cursor + 2 < len(rows) else 0
        page = RowPage(COLUMNS, here, following, min(query.cursor + 2, len(rows)), 5)
        return Page(0, page)


def row(name: str, running: int, finished: int) -> list[Cell]:
    return [name, running + finished, running, finished]


def test_pages_of_all_sources_make_one_answer() -> None:
    grid = Grid(a=[row(f"f{n}", 0, n) for n in range(5)], b=[row("g", 1, 1)])
    seen = look(grid.ask, "task-summary")
    assert [found[0] for found in seen.rows] == ["f0", "f1", "f2", "f3", "f4", "g"]
    assert (seen.matched, seen.dropped, seen.silent) == (6, 10, [])


def test_limit_and_order_hold_over_all_sources() -> None:
    grid = Grid(a=[row(f"f{n}", 0, n) for n in range(5)], b=[row("g", 0, 9)])
    assert len(look(grid.ask, "task-summary", limit=2).rows) == 2
    seen = look(grid.ask, "task-summary", limit=2, sort="-FINISHED")
    assert [found[0] for found in seen.rows] == ["g", "f4"]
    assert seen.matched == 6


def test_who_does_not_answer_is_named_and_the_others_are_shown() -> None:
    grid = Grid(a=[row("f", 0, 1)], b=[row("g", 0, 1)])
    grid.silent.add("a")
    seen = look(grid.ask, "task-summary")
    assert ([found[0] for found in seen.rows], seen.silent) == (["g"], ["a"])
    with pytest.raises(PeerLost):
        look(grid.ask, "stack", peer="a")


@pytest.mark.parametrize("leaving", ["a", "b", "ab"])
def test_who_leaves_in_the_middle_is_counted_once(leaving: str) -> None:
    grid = Grid(a=[row("f", 0, 3)], b=[row("f", 1, 4)], c=[row("f", 0, 1)])
    grid.leaving = set(leaving)
    counts, silent = summarize_tasks(grid.ask)
    assert counts == {"f": {"RUNNING": 1, "FINISHED": 8}}
    assert silent == []


def test_an_answer_is_not_begun_anew_without_end() -> None:
    grid = Grid(a=[row("f", 0, 1)], **{f"w{n}": [row("f", 0, 1)] for n in range(9)})
    real = grid.ask

    def one_leaves_each_time(message: Message) -> Message:
        if isinstance(message, AskSources):
            grid.leaving = {max(grid.rows)}
        return real(message)

    seen = look(one_leaves_each_time, "task-summary")
    assert len(seen.silent) == 1
    assert grid.asked.count("a") == 3


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(UsageError, match="negative"):
        look(Grid().ask, "tasks", limit=-1)
