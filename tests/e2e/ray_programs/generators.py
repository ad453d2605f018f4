"""Streams: items that are there before the call has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np

import guactors as ray

ray.init(num_cpus=2)


@ray.remote
def count(items: int) -> Iterator[int]:
    yield from range(items)


assert [ray.get(ref) for ref in count.remote(5)] == [0, 1, 2, 3, 4]

stream = count.remote(2)
assert isinstance(stream, ray.ObjectRefGenerator)
assert ray.get(next(stream)) == 0
assert ray.get(next(stream)) == 1
try:
    next(stream)
    raise AssertionError("there is no third item")
except StopIteration:
    pass
ray.get(stream.completed())
assert stream.is_finished()


# An error comes as one more item.
@ray.remote
def fails_in_the_middle() -> Iterator[int]:
    yield 1
    raise ValueError("no more")


refs = list(fails_in_the_middle.remote())
assert ray.get(refs[0]) == 1
try:
    ray.get(refs[1])
    raise AssertionError("it failed")
except ValueError:
    pass


# Blocks of a large whole, never all of them in memory.
@ray.remote(num_returns="streaming", _generator_backpressure_num_objects=2)
def blocks(number: int) -> Iterator[Any]:
    for i in range(number):
        yield np.full(100_000, i)


@ray.remote
def mean(block: Any) -> float:
    return float(block.mean())


assert ray.get([mean.remote(block) for block in blocks.remote(6)]) == [0, 1, 2, 3, 4, 5]


# Actors stream as well, with threads or coroutines.
@ray.remote
class Source:
    def numbers(self, items: int) -> Iterator[int]:
        yield from range(items)


@ray.remote
class AsyncSource:
    async def numbers(self, items: int) -> AsyncIterator[int]:
        for i in range(items):
            await asyncio.sleep(0)
            yield i


for actor in (Source.remote(), AsyncSource.remote(), Source.options(max_concurrency=2).remote()):
    assert ray.get(list(actor.numbers.remote(3))) == [0, 1, 2]
    limited = actor.numbers.options(_generator_backpressure_num_objects=1).remote(3)
    assert ray.get(list(limited)) == [0, 1, 2]


async def read() -> list[int]:
    return [await ref async for ref in count.remote(3)]


assert asyncio.run(read()) == [0, 1, 2]


# Several streams, whichever has an item.
def merged(streams: list[Any]) -> list[int]:
    found = []
    while streams:
        ready, streams = ray.wait(streams, num_returns=1)
        for one in ready:
            try:
                found.append(ray.get(next(one)))
                streams.append(one)
            except StopIteration:
                pass
    return found


assert sorted(merged([count.remote(3), count.remote(4)])) == [0, 0, 1, 1, 2, 2, 3]


# A task reads another's stream.
@ray.remote
def consume() -> int:
    return sum(ray.get(ref) for ref in count.remote(10))


assert ray.get(consume.remote()) == 45
print("done")
