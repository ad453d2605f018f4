"""What one call of each of Ray's rows does, written once for both sides.

Owns: the workloads. ``ray`` in here is whichever module runs them: guactors or Ray; nothing in this
file may ask which. Must never: time (``ray_side``) or judge (``ratios``); need more than numpy and
the module under test.

A workload gets a Stage and returns Work: what to repeat, for how much one repetition counts, and
what must come back, so that a wrong answer is not a fast one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import ratios

MANY = 1000
CLIENT_TASKS = 10_000
CLIENT_CALLS = 5000
CROWDS = 4
SERVERS = max(1, (os.cpu_count() or 1) // 2)
OK = b"ok"
MIB = 2**20
REFS = 10_000
RETURNS = 3000


@dataclass(frozen=True)
class Work:
    """``once`` is repeated and counts as ``each``; ``right`` says whether what it returned is what
    it should."""

    once: Callable[[], Any]
    each: float = 1.0
    right: Callable[[Any], bool] = lambda _: True


class Stage:
    """The module under test, the remote functions and classes of the rows, and the actors that a
    row makes, which end with it."""

    def __init__(self, ray: ModuleType) -> None:
        self.ray = ray
        self._actors: list[Any] = []
        self._tasks()
        self._classes()

    def _tasks(self) -> None:
        ray = self.ray

        @ray.remote
        def small_value() -> bytes:
            return OK

        @ray.remote
        def put_small() -> int:
            for _ in range(100):
                ray.put(0)
            return 100

        @ray.remote
        def put_large() -> int:
            for _ in range(10):
                ray.put(np.zeros(10 * MIB, dtype=np.int64))
            return 10

        @ray.remote
        def object_containing_refs() -> list[Any]:
            return [ray.put(1) for _ in range(REFS)]

        @ray.remote
        def call_actors(actors: list[Any], count: int) -> int:
            refs = [actors[i % len(actors)].small_value.remote() for i in range(count)]
            return len(ray.get(refs))

        self.small_value = small_value
        self.put_small, self.put_large = put_small, put_large
        self.object_containing_refs, self.call_actors = object_containing_refs, call_actors

    def _classes(self) -> None:
        ray, small_value = self.ray, self.small_value

        @ray.remote(num_cpus=0)
        class Actor:
            def small_value(self) -> bytes:
                return OK

            def small_value_arg(self, x: object) -> bytes:
                return OK

            def small_value_batch(self, n: int) -> int:
                return len(ray.get([small_value.remote() for _ in range(n)]))

        @ray.remote(num_cpus=0)
        class AsyncActor:
            async def small_value(self) -> bytes:
                return OK

            async def small_value_with_arg(self, x: object) -> bytes:
                return OK

        @ray.remote(num_cpus=0)
        class Client:
            def __init__(self, servers: Any) -> None:
                self.servers = servers if isinstance(servers, list) else [servers]

            def small_value_batch(self, n: int) -> int:
                refs = []
                for server in self.servers:
                    refs.extend([server.small_value.remote() for _ in range(n)])
                return len(ray.get(refs))

            def small_value_batch_arg(self, n: int) -> int:
                x = ray.put(0)
                refs = []
                for server in self.servers:
                    refs.extend([server.small_value_arg.remote(x) for _ in range(n)])
                return len(ray.get(refs))

        self.actor, self.async_actor, self.client = Actor, AsyncActor, Client

    def make(self, cls: Any, *args: Any, **options: Any) -> Any:
        """An actor that ends with the row."""
        made = (cls.options(**options) if options else cls).remote(*args)
        self._actors.append(made)
        return made

    def clear(self) -> None:
        """End the actors of the row."""
        while self._actors:
            self.ray.kill(self._actors.pop())


Workload = Callable[[Stage], Work]
WORKLOADS: dict[str, Workload] = {}


def row(name: str) -> Callable[[Workload], Workload]:
    """Registers the workload of a row of ``ratios.ROWS``."""
    assert name in ratios.BY_NAME, name

    def keep(workload: Workload) -> Workload:
        WORKLOADS[name] = workload
        return workload

    return keep


def all_ok(count: int) -> Callable[[Any], bool]:
    return lambda got: got == [OK] * count


@row("single client get calls (Plasma Store)")
def get_calls(stage: Stage) -> Work:
    ray, ref = stage.ray, stage.ray.put(0)
    return Work(lambda: ray.get(ref), right=lambda got: got == 0)


@row("single client put calls (Plasma Store)")
def put_calls(stage: Stage) -> Work:
    put = stage.ray.put
    return Work(lambda: put(0))


@row("multi client put calls (Plasma Store)")
def multi_put_calls(stage: Stage) -> Work:
    ray, put_small = stage.ray, stage.put_small
    return Work(
        lambda: ray.get([put_small.remote() for _ in range(10)]),
        1000,
        lambda got: got == [100] * 10,
    )


@row("single client put gigabytes")
def put_gigabytes(stage: Stage) -> Work:
    put, array = stage.ray.put, np.zeros(100 * MIB, dtype=np.int64)
    return Work(lambda: put(array), 8 * 0.1)


@row("multi client put gigabytes")
def multi_put_gigabytes(stage: Stage) -> Work:
    ray, put_large = stage.ray, stage.put_large
    return Work(
        lambda: ray.get([put_large.remote() for _ in range(10)]), 10 * 8 * 0.1,
        lambda got: got == [10] * 10,
    )  # fmt: skip


@row("single client tasks and get batch")
def tasks_and_get_batch(stage: Stage) -> Work:
    ray, small_value = stage.ray, stage.small_value

    def once() -> list[bytes]:
        submitted = [small_value.remote() for _ in range(MANY)]
        return list(ray.get(submitted))

    return Work(once, right=all_ok(MANY))


@row("single client get object containing 10k refs")
def get_object_with_refs(stage: Stage) -> Work:
    ray, ref = stage.ray, stage.object_containing_refs.remote()
    return Work(lambda: ray.get(ref), right=lambda got: ray.get(got[-1]) == 1 and len(got) == REFS)


@row("single client wait 1k refs")
def wait_refs(stage: Stage) -> Work:
    ray, small_value = stage.ray, stage.small_value

    def once() -> int:
        rest = [small_value.remote() for _ in range(MANY)]
        fetch_local, seen = True, 0
        for _ in range(MANY):
            ready, rest = ray.wait(rest, fetch_local=fetch_local)
            seen += len(ready)
            fetch_local = False
        return seen

    return Work(once, right=lambda got: got == MANY)


@row("single client tasks sync")
def tasks_sync(stage: Stage) -> Work:
    ray, small_value = stage.ray, stage.small_value
    return Work(lambda: ray.get(small_value.remote()), right=lambda got: got == OK)


@row("single client tasks async")
def tasks_async(stage: Stage) -> Work:
    ray, small_value = stage.ray, stage.small_value
    return Work(
        lambda: ray.get([small_value.remote() for _ in range(MANY)]), MANY, all_ok(MANY)
    )  # fmt: skip


@row("multi client tasks async")
def multi_tasks_async(stage: Stage) -> Work:
    ray, actors = stage.ray, [stage.make(stage.actor) for _ in range(CROWDS)]
    return Work(
        lambda: ray.get([actor.small_value_batch.remote(CLIENT_TASKS) for actor in actors]),
        CLIENT_TASKS * CROWDS, lambda got: got == [CLIENT_TASKS] * CROWDS,
    )  # fmt: skip


def calls_sync(stage: Stage, cls: Any) -> Work:
    ray, actor = stage.ray, stage.make(cls)
    return Work(lambda: ray.get(actor.small_value.remote()), right=lambda got: got == OK)


def calls_async(stage: Stage, cls: Any, **options: Any) -> Work:
    ray, actor = stage.ray, stage.make(cls, **options)
    return Work(
        lambda: ray.get([actor.small_value.remote() for _ in range(MANY)]), MANY, all_ok(MANY)
    )  # fmt: skip


def one_to_many(stage: Stage, cls: Any) -> Work:
    ray = stage.ray
    client = stage.make(stage.client, [stage.make(cls) for _ in range(SERVERS)])
    count = CLIENT_CALLS * SERVERS
    return Work(
        lambda: ray.get(client.small_value_batch.remote(CLIENT_CALLS)), count,
        lambda got: got == count,
    )  # fmt: skip


def many_to_many(stage: Stage, cls: Any) -> Work:
    ray, call_actors = stage.ray, stage.call_actors
    actors = [stage.make(cls) for _ in range(SERVERS)]
    return Work(
        lambda: ray.get([call_actors.remote(actors, CLIENT_CALLS) for _ in range(CROWDS)]),
        CLIENT_CALLS * CROWDS, lambda got: got == [CLIENT_CALLS] * CROWDS,
    )  # fmt: skip


row("1:1 actor calls sync")(lambda stage: calls_sync(stage, stage.actor))
row("1:1 actor calls async")(lambda stage: calls_async(stage, stage.actor))
row("1:1 actor calls concurrent")(
    lambda stage: calls_async(stage, stage.actor, max_concurrency=16)
)  # fmt: skip
row("1:n actor calls async")(lambda stage: one_to_many(stage, stage.actor))
row("n:n actor calls async")(lambda stage: many_to_many(stage, stage.actor))
row("1:1 async-actor calls sync")(lambda stage: calls_sync(stage, stage.async_actor))
row("1:1 async-actor calls async")(lambda stage: calls_async(stage, stage.async_actor))
row("1:n async-actor calls async")(lambda stage: one_to_many(stage, stage.async_actor))
row("n:n async-actor calls async")(lambda stage: many_to_many(stage, stage.async_actor))


@row("n:n actor calls with arg async")
def calls_with_ref(stage: Stage) -> Work:
    ray = stage.ray
    clients = [stage.make(stage.client, stage.make(stage.actor)) for _ in range(SERVERS)]
    return Work(
        lambda: ray.get([client.small_value_batch_arg.remote(MANY) for client in clients]),
        MANY * SERVERS, lambda got: got == [MANY] * SERVERS,
    )  # fmt: skip


@row("1:1 async-actor calls with args async")
def async_calls_with_args(stage: Stage) -> Work:
    ray, actor = stage.ray, stage.make(stage.async_actor)
    return Work(
        lambda: ray.get([actor.small_value_with_arg.remote(i) for i in range(MANY)]), MANY,
        all_ok(MANY),
    )  # fmt: skip


@row("placement group create/removal")
def placement_groups(stage: Stage) -> Work:
    util = stage.ray.util

    def once() -> bool:
        groups = [util.placement_group(bundles=[{"custom": 0.001}]) for _ in range(100)]
        made = [group.wait(timeout_seconds=30) for group in groups]
        for group in groups:
            util.remove_placement_group(group)
        return all(made)

    return Work(once, 100, bool)


@row("get of a stored 100 MiB array")
def get_array(stage: Stage) -> Work:
    ray, ref = stage.ray, stage.ray.put(np.ones(100 * MIB, dtype=np.uint8))
    return Work(lambda: ray.get(ref), right=lambda got: int(got.sum()) == 100 * MIB)


@row("actor create, call, kill")
def actor_lives(stage: Stage) -> Work:
    ray, cls = stage.ray, stage.actor

    def once() -> bytes:
        actor = cls.remote()
        got = ray.get(actor.small_value.remote())
        ray.kill(actor)
        return bytes(got)

    return Work(once, right=lambda got: got == OK)


@row("task with a 1 MiB array as argument")
def array_argument(stage: Stage) -> Work:
    ray, array = stage.ray, np.ones(MIB, dtype=np.uint8)

    @ray.remote
    def size_of(value: Any) -> int:
        return int(value.nbytes)

    return Work(lambda: ray.get(size_of.remote(array)), right=lambda got: got == MIB)


@row("task returning a 1 MiB array")
def array_result(stage: Stage) -> Work:
    ray = stage.ray

    @ray.remote
    def make() -> Any:
        return np.ones(MIB, dtype=np.uint8)

    return Work(lambda: ray.get(make.remote()), right=lambda got: int(got.sum()) == MIB)


@row("task with 10,000 refs as arguments")
def many_arguments(stage: Stage) -> Work:
    ray = stage.ray
    refs = [ray.put(i) for i in range(REFS)]

    @ray.remote
    def total(*values: int) -> int:
        return sum(values)

    return Work(lambda: ray.get(total.remote(*refs)), right=lambda got: got == sum(range(REFS)))


@row("task with 3,000 returns")
def many_returns(stage: Stage) -> Work:
    ray = stage.ray

    @ray.remote(num_returns=RETURNS)
    def numbers() -> tuple[int, ...]:
        return tuple(range(RETURNS))

    return Work(lambda: ray.get(numbers.remote()), right=lambda got: got == list(range(RETURNS)))


@row("get of 10,000 objects")
def get_many(stage: Stage) -> Work:
    ray, refs = stage.ray, [stage.ray.put(i) for i in range(REFS)]
    return Work(lambda: ray.get(refs), right=lambda got: got == list(range(REFS)))
