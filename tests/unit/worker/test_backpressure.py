"""Brakes of streams: when a producer waits, and what ends its wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from guactors.errors import TaskCancelled
from guactors.messages import Call
from guactors.worker.backpressure import Brakes
from guactors.worker.intake import Item

HERE = {"reader"}


def brakes() -> Brakes:
    worker: Any = SimpleNamespace(home_of=lambda link: link if link in HERE else None)
    return Brakes(worker)


def item(window: int, *, link: str = "reader", call: int = 7) -> Item:
    return Item(link, Call(call, b"f", "", b"", returns=-1, window=window))


def test_it_holds_while_as_many_are_unread_as_may_be() -> None:
    roused: list[int] = []
    all_of = brakes()
    brake = all_of.put_on(item(2), "f", lambda: roused.append(1))
    assert not brake.holds(1)
    assert brake.holds(2)
    all_of.on_taken("reader", 7, 1)
    assert roused == [1]
    assert not brake.holds(2)
    assert brake.holds(3)


def test_words_count_all_that_was_taken_and_old_ones_take_nothing_back() -> None:
    all_of = brakes()
    brake = all_of.put_on(item(1), "f", lambda: None)
    all_of.on_taken("reader", 7, 5)
    all_of.on_taken("reader", 7, 3)
    assert not brake.holds(5)
    assert brake.holds(6)


def test_the_word_of_another_reader_or_call_does_not_count() -> None:
    all_of = brakes()
    brake = all_of.put_on(item(1), "f", lambda: None)
    all_of.on_taken("stranger", 7, 5)
    all_of.on_taken("reader", 8, 5)
    assert brake.holds(1)


def test_a_cancelled_one_is_woken_and_ends() -> None:
    roused: list[int] = []
    all_of = brakes()
    one = item(1)
    brake = all_of.put_on(one, "f", lambda: roused.append(1))
    one.cancelled = True
    all_of.on_cancelled("reader", 7)
    assert roused == [1]
    with pytest.raises(TaskCancelled, match="was cancelled"):
        brake.holds(1)


def test_one_whose_reader_is_gone_is_woken_and_ends() -> None:
    roused: list[int] = []
    all_of = brakes()
    brake = all_of.put_on(item(1), "f", lambda: roused.append(1))
    all_of.forget("another")
    assert brake.holds(1)
    all_of.forget("reader")
    assert roused == [1]
    with pytest.raises(TaskCancelled, match="who reads the stream is gone"):
        brake.holds(0)


def test_one_whose_reader_went_before_it_began_ends_too() -> None:
    brake = brakes().put_on(item(1, link="gone"), "f", lambda: None)
    with pytest.raises(TaskCancelled):
        brake.holds(0)


def test_one_that_ended_is_heard_of_no_more() -> None:
    all_of = brakes()
    roused: list[int] = []
    one = item(1)
    all_of.put_on(one, "f", lambda: roused.append(1))
    all_of.take_off(one)
    all_of.on_taken("reader", 7, 1)
    all_of.forget("reader")
    assert roused == []
