"""Free bytes of an arena: what is taken never overlaps, what comes back joins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.objects.space import PAGE, Backing, Space, rounded

STEPS = st.lists(st.tuples(st.booleans(), st.integers(1, 6 * PAGE)), max_size=60)


@given(STEPS)
def test_what_is_taken_never_overlaps(steps: list[tuple[bool, int]]) -> None:
    space = Space(64 * PAGE)
    taken: dict[int, int] = {}
    for take, number in steps:
        if take:
            start = space.take(number)
            if start is not None:
                size = rounded(number)
                assert all(
                    start + size <= other or other + length <= start
                    for other, length in taken.items()
                )
                taken[start] = size
            else:
                assert rounded(number) > largest_gap(taken, space.size)
        elif taken:
            start = sorted(taken)[number % len(taken)]
            space.give(start, taken.pop(start))
        space.check()
        assert space.used == sum(taken.values())
    for start, size in taken.items():
        space.give(start, size)
    assert space.take(space.size) == 0, "all of it is one span again"


def largest_gap(taken: dict[int, int], size: int) -> int:
    ends = [0, *(start + length for start, length in sorted(taken.items()))]
    starts = [*sorted(taken), size]
    return max(start - end for start, end in zip(starts, ends, strict=True))


def test_the_lowest_span_is_taken_first() -> None:
    space = Space(8 * PAGE)
    first, second = space.take(PAGE), space.take(PAGE)
    assert (first, second) == (0, PAGE)
    space.give(0, PAGE)
    assert space.take(1) == 0


@pytest.mark.parametrize(("start", "size"), [(0, PAGE), (8 * PAGE, PAGE), (7 * PAGE, 2 * PAGE)])
def test_what_is_free_or_elsewhere_cannot_come_back(start: int, size: int) -> None:
    space = Space(8 * PAGE)
    with pytest.raises(ValueError, match="free already"):
        space.give(start, size)


def test_pages_are_missing_until_they_are_promised_and_again_when_given_back() -> None:
    backing = Backing(8 * PAGE)
    assert backing.missing(0, 8 * PAGE) == 8 * PAGE
    backing.promised(PAGE, PAGE + 1)
    assert backing.missing(0, 4 * PAGE) == 2 * PAGE
    assert backing.missing(PAGE, 2 * PAGE) == 0
    backing.promised(2 * PAGE, PAGE, is_so=False)
    assert backing.missing(PAGE, 2 * PAGE) == PAGE
