"""The table of the peers: figures, the best of each column, and a reason for every dash."""

from __future__ import annotations

import pytest

from benchmarks import peer_table
from benchmarks.peer_kinds import KINDS
from benchmarks.peers import ASKED, REQUIREMENTS

FIGURES = {
    "fast": peer_table.medians({"start": [0.2, 0.3, 0.25], "call": [9000.0], "actor": [50.0]}),
    "slow": peer_table.medians({"start": [3.0], "call": [100.0], "actor": []}),
}
REASONS = {"slow": {"actor": "has no actors", "tasks": "has no tasks", "flood": "has no tasks"}}


def cells(table: str, line: int) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[line].strip("|").split("|")]


def test_every_peer_can_be_installed_and_started() -> None:
    assert list(REQUIREMENTS) == list(KINDS)


def test_what_a_peer_cannot_is_something_that_is_asked_for() -> None:
    for name, kind in KINDS.items():
        assert set(kind.cannot) <= set(ASKED), name


def test_medians_of_what_was_measured() -> None:
    assert FIGURES["fast"]["start"] == {
        "median": 0.25, "lowest": 0.2, "highest": 0.3, "samples": 3
    }  # fmt: skip
    assert "actor" not in FIGURES["slow"]


def test_the_best_of_a_column_is_the_highest_rate_or_the_shortest_time() -> None:
    turned = {"a": FIGURES["slow"], "b": FIGURES["fast"]}
    assert peer_table.best(turned, peer_table.BY_KEY["start"]) == "b"
    assert peer_table.best(turned, peer_table.BY_KEY["call"]) == "b"
    assert peer_table.best(turned, peer_table.BY_KEY["echo_1m"]) == ""


def test_the_table_marks_the_best_and_gives_each_reason_once() -> None:
    table = peer_table.render(["fast", "slow"], FIGURES, REASONS)
    head, fast, slow = (cells(table, line) for line in (0, 2, 3))
    column = {measure.key: at for at, measure in enumerate(peer_table.MEASURES, 1)}
    assert head[column["start"]] == "start to first result"
    assert fast[column["start"]] == "0.25 s*"
    assert fast[column["call"]] == "9,000/s*"
    assert slow[column["call"]] == "100/s"
    notes = table.splitlines()[5:]
    said = {key: slow[column[key]] for key in ("actor", "tasks", "flood", "idle")}
    assert all(dash.startswith("- (") for dash in said.values())
    assert said["tasks"] == said["flood"] != said["actor"]
    note = {dash: notes[int(dash[3:-1]) - 1] for dash in said.values()}
    assert note[said["actor"]].endswith("slow: has no actors")
    assert note[said["tasks"]].endswith("slow: has no tasks")
    assert note[said["idle"]].endswith("slow: was not measured")


def test_peers_are_chosen_by_name() -> None:
    assert peer_table.chosen([], ["a", "b"]) == ["a", "b"]
    assert peer_table.chosen(["b", "a"], ["a", "b", "c"]) == ["a", "b"]
    with pytest.raises(ValueError, match="no peer is called 'x'; there are a, b"):
        peer_table.chosen(["x"], ["a", "b"])
