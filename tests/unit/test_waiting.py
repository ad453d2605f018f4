"""When enough are ready, and what it costs to ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guactors.waiting import Enough


@given(st.data())
def test_it_says_what_counting_says(data: st.DataObject) -> None:
    most = data.draw(st.integers(1, 30))
    count = data.draw(st.integers(1, most))
    there: set[int] = set()
    enough = Enough(range(most), count, there.__contains__)
    for id in data.draw(st.permutations(range(most))):
        assert enough() is (len(there) >= count)
        there.add(id)
    assert enough()


def test_waiting_for_all_looks_at_each_about_once() -> None:
    most = 10_000
    there: set[int] = set()
    looks = 0

    def ready(id: int) -> bool:
        nonlocal looks
        looks += 1
        return id in there

    enough = Enough(range(most), most, ready)
    for id in range(most):
        assert not enough()
        there.add(id)
    assert enough()
    assert looks < 4 * most
