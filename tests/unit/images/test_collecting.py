"""Which images go when the store is full (``images/collecting.py``)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.images.collecting import Candidate, victims

NAMES = "abcdef"
candidates = st.lists(
    st.builds(
        Candidate,
        id=st.uuids().map(str),
        last_used=st.integers(0, 5).map(float),
        blobs=st.frozensets(st.sampled_from(NAMES), min_size=1),
        pinned=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda image: image.id,
)


def image(id: str, blobs: str, last_used: float, *, pinned: bool = False) -> Candidate:
    return Candidate(id, last_used, frozenset(blobs), pinned)


def freed(images: Iterable[Candidate], gone: list[Candidate], sizes: dict[str, int]) -> int:
    """By definition: what nobody has any more who is left."""
    kept = {name for one in images if one not in gone for name in one.blobs}
    return sum(sizes.get(name, 0) for name in {n for one in gone for n in one.blobs} - kept)


@pytest.mark.parametrize(
    ("images", "excess", "expected"),
    [
        ([], 0, []),
        ([], 1, None),
        ([image("1", "a", 2), image("2", "b", 1)], 0, []),
        ([image("1", "a", 2), image("2", "b", 1)], 10, ["2"]),
        ([image("1", "a", 2), image("2", "b", 1)], 11, ["2", "1"]),
        ([image("1", "a", 2), image("2", "b", 1)], 21, None),
        ([image("1", "a", 2), image("2", "b", 1, pinned=True)], 10, ["1"]),
        ([image("1", "a", 2), image("2", "b", 1, pinned=True)], 20, None),
        # One that shares all with an image in use would go for nothing.
        ([image("1", "a", 3), image("2", "b", 1), image("3", "b", 4, pinned=True)], 10, ["1"]),
        # Those that share a blob go together or not at all.
        ([image("1", "a", 1), image("2", "a", 2), image("3", "b", 3)], 10, ["1", "2"]),
        ([image("1", "a", 1), image("2", "bc", 2), image("3", "a", 3)], 20, ["2"]),
    ],
)
def test_choice(images: list[Candidate], excess: int, expected: list[str] | None) -> None:
    found = victims(images, dict.fromkeys(NAMES, 10), excess)
    assert (None if found is None else [one.id for one in found]) == expected


@given(candidates, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 20)), st.integers(-1, 60))
def test_enough_and_not_more(images: list[Candidate], sizes: dict[str, int], excess: int) -> None:
    found = victims(images, sizes, excess)
    if found is None:
        assert freed(images, [one for one in images if not one.pinned], sizes) < excess
        return
    assert not any(one.pinned for one in found)
    assert freed(images, found, sizes) >= excess
    for one in found:
        rest = [other for other in found if other is not one]
        assert freed(images, rest, sizes) < excess, "one went that was not needed"
