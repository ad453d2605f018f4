"""Calls that wait are served by their exact priorities, and none starves."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from guactors.worker.call_queue import PATIENCE, CallQueue


def filled(*priorities: int) -> CallQueue[tuple[int, int]]:
    queue: CallQueue[tuple[int, int]] = CallQueue()
    for number, priority in enumerate(priorities):
        queue.put((priority, number), priority)
    return queue


def test_fifty_goes_before_five_and_both_before_what_came_without_a_word() -> None:
    queue = filled(0, 5, -5, 50, 5, 0)
    order = list(iter(queue.take, None))
    assert order == [(50, 3), (5, 1), (5, 4), (0, 0), (0, 5), (-5, 2)]
    assert not queue


def test_a_lower_priority_is_served_once_when_its_patience_is_over() -> None:
    queue = filled(0, *[7] * 3 * PATIENCE)
    order = [priority for priority, _ in iter(queue.take, None)]
    assert order.index(0) == PATIENCE


def test_each_of_many_priorities_gets_its_turn_under_a_flood() -> None:
    queue = filled(*[1] * 50, *[2] * 50, *[3] * 50, *[9] * 20 * PATIENCE)
    served = Counter(priority for priority, _ in [queue.take() or (0, 0) for _ in range(700)])
    assert set(served) == {1, 2, 3, 9}
    assert all(served[low] in (9, 10, 11) for low in (1, 2, 3))


def test_the_last_to_be_served_are_the_first_to_be_taken_back() -> None:
    queue = filled(0, 5, 0, 50, 0)
    assert queue.take_back(2, lambda item: item[1] != 4) == [(0, 0), (0, 2)]
    assert queue.take_back(9, lambda item: item[0] == 50) == [(50, 3)]
    assert queue.clear() == [(5, 1), (0, 4)]
    assert queue.take() is None


def test_one_is_removed_wherever_it_waits() -> None:
    queue = filled(0, 5, 5)
    assert queue.remove(lambda item: item[0] == 5) == (5, 1)
    assert queue.remove(lambda item: item[1] == 1) is None
    assert len(queue) == 2


@given(st.lists(st.one_of(st.none(), st.integers(-3, 3)), max_size=200))
def test_within_a_priority_the_order_is_that_of_arrival(steps: list[int | None]) -> None:
    """None takes one, a number puts one; nothing is lost or doubled."""
    queue: CallQueue[tuple[int, int]] = CallQueue()
    served: list[tuple[int, int]] = []
    put = 0
    for number, step in enumerate(steps):
        if step is not None:
            queue.put((step, number), step)
            put += 1
        elif (item := queue.take()) is not None:
            served.append(item)
        assert len(queue) == put - len(served)
    served += iter(queue.take, None)
    assert len(served) == put
    for level in range(-3, 4):
        own = [number for priority, number in served if priority == level]
        assert own == sorted(own)
        assert len(own) == steps.count(level)
