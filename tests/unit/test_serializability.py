"""``inspect_serializability`` names what is in the way."""

from __future__ import annotations

import io
import threading
from typing import Any

from guactors.util import inspect_serializability


class Box:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)

    def method(self) -> None:
        pass


def guilty(obj: Any, **options: Any) -> tuple[set[str], str]:
    told = io.StringIO()
    fine, failures = inspect_serializability(obj, print_file=told, **options)
    assert fine is not bool(failures)
    return {failure.name for failure in failures}, told.getvalue()


def test_what_can_be_pickled_is_told_so() -> None:
    for fine in (1, [Box(x=1)], lambda: 3, Box):
        names, told = guilty(fine)
        assert names == set()
        assert told.endswith("yes\n")


def test_the_innermost_part_is_named() -> None:
    lock = threading.Lock()
    deep = Box(a=1, b={"c": [2, lock]})

    def closure() -> object:
        return deep

    for obj in (closure, deep, deep.method, {"x": deep}):
        names, told = guilty(obj, depth=5)
        assert names == {"[1]"}
        assert "cannot pickle '_thread.lock' object" in told
    (failure,) = inspect_serializability(deep, depth=5, print_file=io.StringIO())[1]
    assert failure.obj is lock
    assert failure.parent == [2, lock]


def test_depth_ends_the_search() -> None:
    deep = Box(b={"c": [threading.Lock()]})
    assert guilty(deep, depth=1)[0] == {"b"}
    assert guilty(deep, depth=2)[0] == {"['c']"}
    assert guilty(deep, name="mine", depth=0)[0] == {"mine"}


def test_a_loop_is_no_endless_search() -> None:
    loop = Box(lock=threading.Lock())
    loop.me = loop  # type: ignore[attr-defined]
    assert "lock" in guilty(loop)[0]
