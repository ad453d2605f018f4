"""Actors: state, handles, names, concurrency, death."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import guactors as ray

ray.init(num_cpus=2, namespace="programs")


@ray.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def increment(self) -> int:
        self.value += 1
        return self.value

    def get(self) -> int:
        return self.value


counters = [Counter.remote() for _ in range(3)]
assert ray.get([counter.increment.remote() for counter in counters]) == [1, 1, 1]
assert ray.get([counters[0].increment.remote() for _ in range(5)]) == [2, 3, 4, 5, 6]
assert ray.get(Counter.options(num_cpus=0.5).remote(start=10).get.remote()) == 10


# A handle goes wherever a value goes.
@ray.remote
def increment_often(counter: Any, times: int) -> None:
    ray.get([counter.increment.remote() for _ in range(times)])


shared = Counter.remote()
ray.get([increment_often.remote(shared, 10) for _ in range(4)])
assert ray.get(shared.get.remote()) == 40


class Base:
    def who(self) -> str:
        return type(self).__name__


@ray.remote
class Derived(Base):
    @ray.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return 1, 2

    @staticmethod
    def fixed() -> str:
        return "fixed"


derived = Derived.remote()
assert ray.get(derived.who.remote()) == "Derived"
assert ray.get(derived.pair.remote()) == [1, 2]
assert ray.get(derived.pair.options(num_returns=1).remote()) == (1, 2)
assert ray.get(derived.fixed.remote()) == "fixed"
assert ray.get(ray.remote(Base).remote().who.remote()) == "Base"

# Names.
keeper = Counter.options(name="keeper", lifetime="detached").remote(5)
assert ray.get(ray.get_actor("keeper").increment.remote()) == 6
assert ray.get(ray.get_actor("keeper", namespace="programs").get.remote()) == 6
again = Counter.options(name="keeper", get_if_exists=True).remote()
assert ray.get(again.get.remote()) == 6
try:
    Counter.options(name="keeper").remote()
    raise AssertionError("the name is taken")
except ValueError:
    pass
ray.kill(keeper)
try:
    ray.get(again.get.remote())
    raise AssertionError("it was killed")
except ray.exceptions.RayActorError:
    pass
try:
    ray.get_actor("nobody")
    raise AssertionError("nobody has this name")
except ValueError:
    pass


# Async actors run their calls side by side.
@ray.remote
class Meeting:
    def __init__(self) -> None:
        self.everybody = asyncio.Event()
        self.here = 0

    async def join(self, expected: int) -> int:
        self.here += 1
        if self.here == expected:
            self.everybody.set()
        await self.everybody.wait()
        return self.here

    async def ask(self, other: Any) -> Any:
        return await other.get.remote()

    async def gather(self, refs: list[Any]) -> list[Any]:
        return list(await asyncio.gather(*refs))


meeting = Meeting.remote()
assert ray.get([meeting.join.remote(20) for _ in range(20)], timeout=30) == [20] * 20
assert ray.get(meeting.ask.remote(shared)) == 40
assert ray.get(meeting.gather.remote([shared.get.remote() for _ in range(2)])) == [40, 40]


async def from_outside() -> list[int]:
    return list(await asyncio.gather(*[shared.get.remote() for _ in range(3)]))


assert asyncio.run(from_outside()) == [40, 40, 40]


# Threads.
@ray.remote(max_concurrency=3)
class Barrier:
    def __init__(self) -> None:
        self.barrier = threading.Barrier(3)

    def wait(self) -> bool:
        self.barrier.wait(20)
        return True


barrier = Barrier.remote()
assert ray.get([barrier.wait.remote() for _ in range(3)], timeout=30) == [True] * 3


# Concurrency groups: one group's calls do not wait for another's.
@ray.remote(concurrency_groups={"io": 2, "compute": 1})
class Grouped:
    def __init__(self) -> None:
        self.gate = asyncio.Event()

    @ray.method(concurrency_group="io")
    async def read(self) -> str:
        await self.gate.wait()
        return "read"

    @ray.method(concurrency_group="compute")
    async def crunch(self) -> str:
        return "crunched"

    async def open(self) -> None:
        self.gate.set()


grouped = Grouped.remote()
reads = [grouped.read.remote() for _ in range(2)]
assert ray.get(grouped.crunch.remote(), timeout=30) == "crunched"
elsewhere = grouped.read.options(concurrency_group="compute").remote()
ray.get(grouped.open.remote())
assert ray.get([*reads, elsewhere], timeout=30) == ["read"] * 3


# Pending calls are counted for each handle.
@ray.remote(max_pending_calls=2)
class Busy:
    def nap(self, seconds: float) -> None:
        time.sleep(seconds)


busy = Busy.remote()
naps = [busy.nap.remote(0.3) for _ in range(2)]
try:
    busy.nap.remote(0)
    raise AssertionError("two calls are pending")
except ray.exceptions.PendingCallsLimitExceeded:
    pass
ray.get(naps)


# Crashes, restarts, and ends of one's own.
@ray.remote(max_restarts=1, max_task_retries=1)
class Fragile:
    def pid(self) -> int:
        return os.getpid()

    def was_restarted(self) -> bool:
        return ray.get_runtime_context().was_current_actor_reconstructed


fragile = Fragile.remote()
process = ray.get(fragile.pid.remote())
ray.kill(fragile, no_restart=False)
while ray.get(fragile.pid.remote(), timeout=30) == process:
    pass
assert ray.get(fragile.was_restarted.remote())


@ray.remote
class Leaver:
    def leave(self) -> None:
        ray.actor.exit_actor()

    def stay(self) -> str:
        return "here"


leaver = Leaver.remote()
assert ray.get(leaver.stay.remote()) == "here"
leaver.leave.remote()
try:
    ray.get(leaver.stay.remote(), timeout=30)
    raise AssertionError("it left")
except ray.exceptions.RayActorError:
    pass
terminated = Leaver.remote()
last = terminated.stay.remote()
terminated.__ray_terminate__.remote()
assert ray.get(last) == "here"


@ray.remote
class Unmade:
    def __init__(self) -> None:
        raise RuntimeError("no")

    def ping(self) -> None: ...


try:
    ray.get(Unmade.remote().ping.remote(), timeout=30)
    raise AssertionError("it could not be made")
except (ray.exceptions.RayError, RuntimeError):
    pass


@ray.remote
class Aware:
    def me(self) -> tuple[Any, str]:
        context = ray.get_runtime_context()
        return context.current_actor, context.get_actor_id()


aware = Aware.remote()
itself, name = ray.get(aware.me.remote())
assert itself == aware
assert name
print("done")
