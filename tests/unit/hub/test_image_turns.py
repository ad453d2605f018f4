"""The order in which questions about images are worked on."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from guactors.image_state.turns import (
    MOST_BYTES,
    MOST_BYTES_OF_PEER,
    MOST_OF_PEER,
    MOST_RUNNING,
    MOST_WAITING,
    Turns,
)


def started(turns: Turns[Any]) -> list[tuple[str, Any, int]]:
    found = []
    while (turn := turns.start()) is not None:
        found.append(turn)
        turns.check()
    return found


def test_peers_take_turns_and_nobody_has_all_places() -> None:
    turns: Turns[int] = Turns()
    for number in range(10):
        assert turns.put("a", number, alone=False)
    for peer in "bc":
        assert turns.put(peer, 0, alone=False)
    order = [(peer, number) for peer, number, _ in started(turns)]
    assert order == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("a", 2), ("a", 3)]
    turns.done("a", 0)
    assert started(turns) == [("a", 4, 0)]


def test_what_must_be_alone_waits_and_is_waited_for() -> None:
    turns: Turns[str] = Turns()
    for word in ("chunk 1", "chunk 2", "seal", "chunk 3"):
        turns.put("a", word, alone=word == "seal")
    assert [word for _, word, _ in started(turns)] == ["chunk 1", "chunk 2"]
    turns.done("a", 0)
    assert started(turns) == []
    turns.done("a", 0)
    assert [word for _, word, _ in started(turns)] == ["seal"]
    turns.done("a", 0)
    assert [word for _, word, _ in started(turns)] == ["chunk 3"]


def test_too_many_and_too_much_are_not_taken() -> None:
    turns: Turns[int] = Turns()
    assert all(turns.put("a", number, alone=False) for number in range(MOST_WAITING))
    assert not turns.put("a", 99, alone=False)
    assert turns.put("b", 0, alone=False, size=MOST_BYTES_OF_PEER)
    assert not turns.put("b", 1, alone=False, size=1)
    assert turns.put("b", 1, alone=False)
    assert turns.put("c", 0, alone=False, size=MOST_BYTES - MOST_BYTES_OF_PEER)
    assert not turns.put("d", 0, alone=False, size=1)
    turns.check()


def test_a_single_question_that_is_too_large_is_let_through() -> None:
    turns: Turns[int] = Turns()
    assert turns.put("a", 0, alone=False, size=2 * MOST_BYTES)
    assert not turns.put("b", 0, alone=False, size=1)


steps = st.one_of(
    st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, MOST_BYTES_OF_PEER)),
    st.integers(0, 20),
)


@given(st.lists(steps, max_size=80))
def test_each_runs_once_and_those_of_a_peer_begin_in_their_order(script: list[Any]) -> None:
    turns: Turns[int] = Turns()
    running: list[tuple[str, int, int]] = []
    put: dict[str, list[int]] = {}
    begun: dict[str, list[int]] = {}

    def go_on() -> None:
        for turn in started(turns):
            running.append(turn)
            begun.setdefault(turn[0], []).append(turn[1])
        assert len(running) <= MOST_RUNNING
        for peer in "abcd":
            assert sum(one[0] == peer for one in running) <= MOST_OF_PEER

    for number, step in enumerate(script):
        if isinstance(step, tuple):
            peer, alone, size = step
            if turns.put(peer, number, alone=alone, size=size):
                put.setdefault(peer, []).append(number)
        elif running:
            peer, _, size = running.pop(step % len(running))
            turns.done(peer, size)
        go_on()
    while running:
        peer, _, size = running.pop()
        turns.done(peer, size)
        go_on()
    assert begun == put
    assert len(turns) == 0
