"""Patterns that programs are made of."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, deque
from typing import Any

import numpy as np

import guactors as ray

ray.init(num_cpus=2, resources={"licence": 1})


@ray.remote
def work(item: int) -> int:
    return item + 1


# Nested tasks: a divide and conquer sort.
@ray.remote
def quick_sort(values: list[int]) -> list[int]:
    if len(values) < 200:
        return sorted(values)
    pivot = values[0]
    below = quick_sort.remote([v for v in values[1:] if v < pivot])
    above = quick_sort.remote([v for v in values[1:] if v >= pivot])
    return [*ray.get(below), pivot, *ray.get(above)]


shuffled = [(i * 7919) % 1009 for i in range(1009)]
assert ray.get(quick_sort.remote(shuffled)) == sorted(shuffled)

# No more than ten tasks under way.
pending: list[Any] = []
results = []
for i in range(60):
    if len(pending) >= 10:
        ready, pending = ray.wait(pending, num_returns=1)
        results += ray.get(ready)
    pending.append(work.remote(i))
results += ray.get(pending)
assert sorted(results) == list(range(1, 61))

# Results in the order in which they end.
unfinished = [work.remote(i) for i in range(10)]
finished = []
while unfinished:
    done, unfinished = ray.wait(unfinished)
    finished += ray.get(done)
assert sorted(finished) == list(range(1, 11))


# A tree of actors: supervisors make workers.
@ray.remote(num_cpus=0.1)
class Worker:
    def __init__(self, number: int) -> None:
        self.number = number

    def work(self, item: int) -> int:
        return self.number * item


@ray.remote(num_cpus=0.1)
class Supervisor:
    def __init__(self, workers: int) -> None:
        self.workers = [Worker.remote(i) for i in range(workers)]

    def work(self, item: int) -> int:
        return sum(ray.get([worker.work.remote(item) for worker in self.workers]))


supervisors = [Supervisor.remote(3) for _ in range(2)]
assert ray.get([s.work.remote(5) for s in supervisors]) == [15, 15]


# Pipelining: the next item is fetched while this one is worked on.
@ray.remote
class Queue:
    def __init__(self, items: int) -> None:
        self.items = deque(range(items))

    def next(self) -> int | None:
        return self.items.popleft() if self.items else None


@ray.remote
class Pipelined:
    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def run(self) -> list[int]:
        done = []
        coming = self.queue.next.remote()
        while (item := ray.get(coming)) is not None:
            coming = self.queue.next.remote()
            done.append(item * 2)
        return done


queue = Queue.remote(20)
halves = ray.get([Pipelined.remote(queue).run.remote() for _ in range(2)])
assert sorted(halves[0] + halves[1]) == list(range(0, 40, 2))


# Map and reduce, the parts as several results.
@ray.remote(num_returns=2)
def map_words(text: str) -> list[Counter[str]]:
    parts = [Counter[str](), Counter[str]()]
    for word in text.split():
        parts[len(word) % 2][word] += 1
    return parts


@ray.remote
def reduce_words(*counts: Counter[str]) -> Counter[str]:
    return sum(counts, Counter())


texts = ["one two three", "two three four", "three four five"]
mapped = [map_words.remote(text) for text in texts]
even, odd = ray.get([reduce_words.remote(*[m[i] for m in mapped]) for i in range(2)])
assert even + odd == Counter(" ".join(texts).split())


# A signal that many tasks wait for.
@ray.remote(num_cpus=0)
class Signal:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def send(self) -> None:
        self.event.set()

    async def wait(self) -> None:
        await self.event.wait()


@ray.remote(num_cpus=0.25)
def after(signal: Any) -> str:
    ray.get(signal.wait.remote())
    return "go"


signal = Signal.remote()
waiting = [after.remote(signal) for _ in range(4)]
assert ray.wait(waiting, timeout=0.2)[0] == []
signal.send.remote()
assert ray.get(waiting, timeout=30) == ["go"] * 4


# A resource that only one task has at a time.
@ray.remote(num_cpus=0.1, resources={"licence": 1})
def licensed() -> tuple[float, float]:
    begin = time.monotonic()
    time.sleep(0.02)
    return begin, time.monotonic()


spans = sorted(ray.get([licensed.remote() for _ in range(4)]))
assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


# A parameter server and its workers.
@ray.remote
class Parameters:
    def __init__(self, size: int) -> None:
        self.values = np.zeros(size)

    def add(self, gradient: Any) -> Any:
        self.values = self.values + gradient
        return self.values

    def get(self) -> Any:
        return self.values


@ray.remote
def step(parameters: Any, rounds: int) -> None:
    for _ in range(rounds):
        values = ray.get(parameters.get.remote())
        ray.get(parameters.add.remote(np.ones(values.shape)))


parameters = Parameters.remote(10)
ray.get([step.remote(parameters, 3) for _ in range(4)])
assert (ray.get(parameters.get.remote()) == 12).all()


# Small tasks in batches.
@ray.remote
def batch(items: list[int]) -> list[int]:
    return [item * item for item in items]


squares = ray.get([batch.remote(list(range(i, i + 100))) for i in range(0, 1000, 100)])
assert [x for part in squares for x in part] == [i * i for i in range(1000)]

# What there is.
assert ray.cluster_resources()["CPU"] == 2
assert ray.cluster_resources()["licence"] == 1
assert ray.nodes()[0]["Alive"]
context = ray.get_runtime_context()
assert context.get_job_id()
assert context.namespace
ray.shutdown()

# The first call starts a grid by itself.
assert ray.get(work.remote(1)) == 2
assert ray.is_initialized()
ray.init(ignore_reinit_error=True)
print("done")
