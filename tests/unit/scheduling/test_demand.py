"""Whose turn it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guactors.messages import Shape
from guactors.scheduling.demand import DemandBook
from guactors.scheduling.placement import Need, lease_need
from guactors.scheduling.queues import Demand

CPU = Shape({"CPU": 1.0})
GPU = Shape({"GPU": 1.0})


def need(shape: Shape = CPU) -> Need:
    return lease_need(shape, "3.11")


class Served:
    """A book whose head is served again and again."""

    def __init__(self) -> None:
        self.book = DemandBook()
        self.held: dict[str, int] = {}
        self._number = 0

    def add(self, caller: str, key: str, count: int, shape: Shape = CPU) -> Demand:
        return self.book.add(caller, key, need(shape), shape, count)

    def serve(self, shape: Shape = CPU) -> tuple[str, str]:
        demand = self.book.head(self.book.queues[need(shape)])
        self._number += 1
        self.book.served(demand)
        demand.held.add(f"l-{self._number}")
        self.book.refresh(demand)
        self.held[demand.caller] = self.held.get(demand.caller, 0) + 1
        self.book.set_held("", demand.caller, self.held[demand.caller])
        self.book.check()
        return demand.caller, demand.key

    def take(self, count: int) -> str:
        return " ".join(self.serve()[0] for _ in range(count))


def test_callers_take_turns_in_the_order_they_came() -> None:
    served = Served()
    for caller in "abc":
        served.add(caller, "k", 3)
    assert served.take(9) == "a b c a b c a b c"
    assert not served.book.queues


def test_a_newcomer_catches_up_with_those_who_hold_more() -> None:
    served = Served()
    served.add("a", "k", 9)
    assert served.take(3) == "a a a"
    served.add("b", "k", 9)
    assert served.take(5) == "b b b a b"


def test_demands_of_one_caller_take_turns_as_well() -> None:
    served = Served()
    served.add("a", "x", 3)
    served.add("a", "y", 3)
    assert "".join(served.serve()[1] for _ in range(6)) == "xyxyxy"


def test_what_is_held_in_one_queue_counts_in_the_other() -> None:
    served = Served()
    served.add("a", "cpu", 2)
    served.take(2)
    served.add("a", "gpu", 2, GPU)
    served.add("b", "gpu", 1, GPU)
    assert served.serve(GPU)[0] == "b"


def test_a_demand_that_shrinks_pauses_or_moves_leaves_its_queue() -> None:
    served = Served()
    first, second = served.add("a", "x", 2), served.add("b", "y", 2)
    first.count = 0
    served.book.refresh(first)
    assert served.take(2) == "b b"
    second.held.clear()
    second.not_before = 5.0
    served.book.refresh(second)
    assert not served.book.queues
    second.not_before = 0.0
    served.book.move(second, (need(GPU),), GPU)
    assert list(served.book.queues) == [need(GPU)]
    served.book.remove(second)
    assert not served.book.queues
    served.book.check()


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 3)), max_size=60
    )
)
def test_any_changes_keep_the_queues_in_step_and_small(changes: list[tuple[str, str, int]]) -> None:
    book = DemandBook()
    for number, (caller, key, count) in enumerate(changes * 20):
        demand = book.find(caller, key)
        if demand is None:
            book.add(caller, key, need(), CPU, count)
        else:
            demand.turn = number
            demand.count = count
            book.refresh(demand)
        book.set_held("", caller, number % 7)
        book.check()
    for queue in book.queues.values():
        assert queue.entries() <= 500, "stale entries pile up"
