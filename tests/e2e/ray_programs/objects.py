"""Objects: storing, sharing, nesting, capturing."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

import guactors as ray

ray.init(num_cpus=2)

# Anything can be stored, and is a copy from then on.
words = ["a", "b"]
stored = ray.put(words)
words.append("c")
assert ray.get(stored) == ["a", "b"]
assert ray.get([ray.put(i) for i in range(3)]) == [0, 1, 2]

# Large arrays are shared, so nobody may write into them.
array = np.arange(1_000_000, dtype=np.float64)
big = ray.put(array)
seen = ray.get(big)
assert (seen == array).all()
assert not seen.flags.writeable


@ray.remote
def column_sum(matrix: Any, column: int) -> float:
    assert not matrix.flags.writeable
    return float(matrix.reshape(1000, 1000)[:, column].sum())


sums = ray.get([column_sum.remote(big, i) for i in range(4)])
assert sums == [float(array.reshape(1000, 1000)[:, i].sum()) for i in range(4)]


@ray.remote
def ones(count: int) -> Any:
    return np.ones(count)


assert ray.get(ones.remote(500_000)).sum() == 500_000
assert ray.get(ray.remote(np.sum).remote(ones.remote(500_000))) == 500_000


# As an argument of its own a ref is replaced by its value, inside something it is not.
@ray.remote
def kinds(direct: Any, wrapped: dict[str, Any]) -> tuple[str, str]:
    return type(direct).__name__, type(wrapped["ref"]).__name__


assert ray.get(kinds.remote(stored, {"ref": stored})) == ("list", "ObjectRef")


# Refs can be returned, stored, and found again through several layers.
@ray.remote
def make_refs() -> list[Any]:
    return [ray.put("inner"), double.remote(21)]


@ray.remote
def double(x: int) -> int:
    return 2 * x


inner, doubled = ray.get(make_refs.remote())
assert (ray.get(inner), ray.get(doubled)) == ("inner", 42)
nested = ray.put({"refs": [ray.put(1), ray.put([ray.put(2)])]})
outer = ray.get(nested)
assert ray.get(outer["refs"][0]) == 1
assert ray.get(ray.get(outer["refs"][1])[0]) == 2


@ray.remote
def dig(box: dict[str, Any]) -> int:
    found: int = ray.get(ray.get(box["refs"][1])[0])
    return found


assert ray.get(dig.remote(nested)) == 2

# Code may refer to stored values, too.
table = ray.put({"x": 1, "y": 2})


@ray.remote
def look_up(key: str) -> int:
    return int(ray.get(table)[key])


assert ray.get([look_up.remote(key) for key in "xy"]) == [1, 2]


@ray.remote
class Index:
    def __init__(self, parts: list[Any]) -> None:
        self.parts = ray.get(parts)

    def find(self, key: str) -> int:
        return int(ray.get(table)[key] + sum(self.parts))


assert ray.get(Index.remote([ray.put(10), ray.put(20)]).find.remote("x")) == 31

# Refs are values themselves: equal, hashable, of one length.
assert stored == next(iter({stored, stored}))
assert len(stored.hex()) == len(big.hex())
assert ray.get(stored.future().result() and stored) == ["a", "b"]

# Many objects at once.
many = ray.get([double.remote(i) for i in range(1000)])
assert many == [2 * i for i in range(1000)]
everything = ray.remote(lambda *values: len(values)).remote(*[ray.put(i) for i in range(500)])
assert ray.get(everything) == 500

for wrong in (1, "ref", [1]):
    try:
        ray.get(wrong)
        raise AssertionError(f"{wrong!r} is no ref")
    except (TypeError, ValueError):
        pass
try:
    ray.put(threading.Lock())
    raise AssertionError("a lock cannot be stored")
except TypeError:
    pass
print("done")
