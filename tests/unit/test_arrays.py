"""Pickles of arrays that are made once are those that would have been made each time."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from guactors import arrays, values

PLAIN = "?bBhHiIlLqQefdgFDG"


def alike(kind: str) -> list[Any]:
    made = [np.arange(24).reshape(shape).astype(kind) for shape in ((24,), (4, 6), (2, 3, 4))]
    for array in list(made):
        made.append(array.copy())
        made[-1].flags.writeable = False
    return made


@pytest.mark.parametrize("kind", PLAIN)
def test_it_is_what_pickle_says(kind: str) -> None:
    for _ in range(2):
        for array in alike(kind):
            buffers: list[pickle.PickleBuffer] = []
            whole = pickle.dumps(array, 5, buffer_callback=buffers.append)
            assert arrays.without_bytes(array) == whole
            assert len(buffers) == 1


class Sub(np.ndarray):
    pass


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 6)).T,
        np.zeros(24)[::2],
        np.zeros(24, dtype=">i4"),
        np.zeros(24, dtype=[("a", "i4"), ("b", "f8")]),
        np.zeros(24, dtype="M8[s]"),
        np.zeros(24, dtype="S7"),
        np.zeros(24, dtype=np.dtype("i4", metadata={"unit": "m"})),
    ],
)
def test_what_may_say_more_is_not_remembered(array: Any) -> None:
    arrays.without_bytes(np.zeros(24, dtype="i4"))
    assert arrays.without_bytes(array) is None


def test_subclasses_and_objects_are_not_plain() -> None:
    assert arrays.is_plain(np.zeros(3))
    assert not arrays.is_plain(np.zeros(3).view(Sub))
    assert not arrays.is_plain(np.zeros(3, dtype=object))
    assert not arrays.is_plain([1.0])


def test_what_is_remembered_is_bounded() -> None:
    for size in range(2 * arrays.MOST):
        assert arrays.without_bytes(np.zeros(size)) is not None
    assert len(arrays._known) <= arrays.MOST


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("writeable", [True, False])
def test_large_arrays_survive_the_round(order: Any, writeable: bool) -> None:
    array = np.asarray(np.arange(65_536.0).reshape(256, 256), order=order)
    array.flags.writeable = writeable
    packed = values.pack(array, lambda: "it")
    assert len(packed.buffers) == 1
    np.testing.assert_array_equal(values.unpack(packed.data, packed.buffers), array)
