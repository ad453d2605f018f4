"""Too little memory: who is ended, what is said, and that nobody else is."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from guactors.messages import ActorEnded, LeaseEnded, LeaseStarted, StopLease
from guactors.provider_state import MeasureMemory, Memory
from tests.unit.provider.bench import Bench, start_actor
from tests.unit.provider.test_images import only

GIB = 1 << 30


def looks(bench: Bench) -> list[MeasureMemory]:
    return only(bench, MeasureMemory)


def bench_of(**options: Any) -> Bench:
    return Bench(warm=0, memory_threshold=0.9, resources={"CPU": 8.0}, **options)


def lease(bench: Bench, name: str) -> str:
    """It runs; its worker."""
    bench.pass_time(0.01)
    bench.lease(name)
    bench.all_up()
    return [one.worker for one in bench.said(LeaseStarted)][-1]


def actor(bench: Bench, name: str, max_restarts: int = 0) -> str:
    bench.pass_time(0.01)
    bench.warrant()
    order = start_actor(name)
    bench.hub(replace(order, spec=replace(order.spec, max_restarts=max_restarts)))
    (worker,) = bench.all_up()
    bench.alive(worker, name)
    return worker


def full(bench: Bench, held: dict[str, int], used: float = 9.5) -> list[str]:
    """The machine is seen to be full; who is killed for it."""
    before = dict(bench.killed)
    bench.do(bench.core.on_memory(Memory(int(used * GIB), 10 * GIB, held), bench.now))
    return [worker for worker in bench.killed if worker not in before]


def test_nobody_looks_while_nobody_works() -> None:
    bench = bench_of()
    bench.pass_time(10)
    assert looks(bench) == []
    worker = lease(bench, "l-1")
    bench.pass_time(1)
    found = looks(bench)
    assert 4 <= len(found) <= 5
    assert found[0] == MeasureMemory({worker: 77}, 0.9)
    bench.hub(StopLease("l-1"))
    looks(bench)
    bench.pass_time(1)
    assert len(looks(bench)) <= 1


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0])
def test_it_can_be_off(threshold: float) -> None:
    bench = Bench(warm=0, memory_threshold=threshold)
    lease(bench, "l-1")
    bench.pass_time(2)
    assert looks(bench) == []


def test_below_the_threshold_nobody_is_ended() -> None:
    bench = bench_of()
    worker = lease(bench, "l-1")
    assert full(bench, {worker: 9 * GIB}, used=9.0) == []


def test_the_newest_lease_goes_before_any_actor() -> None:
    bench = bench_of()
    first, second = lease(bench, "l-1"), lease(bench, "l-2")
    third, fourth = actor(bench, "a-1", -1), actor(bench, "a-2")
    held = dict.fromkeys([first, second, third, fourth], GIB)
    assert full(bench, held) == [second]
    bench.ends(second)
    assert full(bench, held) == [first]
    bench.ends(first)
    assert full(bench, held) == [third]
    bench.ends(third)
    assert full(bench, held) == [fourth]


def test_an_idle_worker_goes_first() -> None:
    bench = bench_of()
    idle, busy = lease(bench, "l-1"), lease(bench, "l-2")
    bench.hub(StopLease("l-1"))
    assert full(bench, {idle: GIB, busy: 2 * GIB}) == [idle]
    assert bench.killed[idle] == "released"


def test_whoever_holds_next_to_nothing_is_spared() -> None:
    bench = bench_of()
    large, small = actor(bench, "a-1"), lease(bench, "l-1")
    assert full(bench, {large: 8 * GIB, small: GIB // 2}) == [large]


def test_one_end_at_a_time() -> None:
    bench = bench_of()
    first, second = lease(bench, "l-1"), lease(bench, "l-2")
    held = {first: GIB, second: GIB}
    assert full(bench, held) == [second]
    assert full(bench, held) == []
    looks(bench)
    bench.pass_time(0.9)
    assert looks(bench) == []
    bench.ends(second)
    bench.pass_time(0.2)
    assert len(looks(bench)) == 1
    assert full(bench, held) == [first]


def test_what_is_said_names_everything() -> None:
    bench = bench_of()
    small, large = lease(bench, "l-1"), actor(bench, "a-1")
    assert full(bench, {small: 2 * GIB, large: 4 * GIB}) == [small]
    bench.ends(small)
    (ended,) = bench.said(LeaseEnded)
    assert ended.death.cause == "out_of_memory"
    for part in (
        "tester had 9.50 of 10.00 GiB of memory in use, more than 90%",
        f"worker {small} held 2048 MiB",
        f"most is held by the actor Counter (worker {large}): 4096 MiB",
        "memory=",
        "limits=",
        "num_cpus=",
    ):
        assert part in ended.death.detail
    assert full(bench, {large: 4 * GIB}) == [large]
    bench.ends(large)
    (over,) = bench.said(ActorEnded)
    assert over.death.cause == "out_of_memory"
    assert "it held most" in over.death.detail


def test_those_who_have_gone_meanwhile_are_passed_over() -> None:
    bench = bench_of()
    worker = lease(bench, "l-1")
    assert full(bench, {"w-gone": 8 * GIB, worker: 2 * GIB}) == [worker]
    assert full(bench, {}) == []
