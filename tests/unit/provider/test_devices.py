"""Devices by index: who gets which, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guactors.accelerators import devices_of, environment
from guactors.errors import Death
from guactors.messages import (
    Bind,
    DropGroups,
    GroupSpec,
    KeepGroups,
    LeaseStarted,
    Leave,
    Offer,
    Placing,
    StopActor,
    StopLease,
)
from guactors.provider_state.devices import DeviceBook
from guactors.provider_state.workers import Binding, Job
from tests.unit.provider.bench import Bench, start_lease


def gpus(bench: Bench, worker: str) -> list[str]:
    """What the worker was bound to."""
    (bind,) = bench.told(worker, Bind)
    return bind.devices["GPU"]


def bench_with(count: float, **more: object) -> Bench:
    bench = Bench(warm=0, resources={"CPU": 8.0, "GPU": count}, **more)
    bench.all_up()
    return bench


def run(bench: Bench, name: str, amount: float) -> str:
    """A lease with so many GPUs; its worker."""
    bench.lease(name, resources={"CPU": 1.0, "GPU": amount} if amount else {"CPU": 1.0})
    bench.all_up()
    return bench.said(LeaseStarted)[-1].worker


def test_whole_ones_are_exclusive_and_fractions_share_one() -> None:
    bench = bench_with(4)
    given = [gpus(bench, run(bench, f"l-{i}", n)) for i, n in enumerate((0.5, 1, 0.5, 2, 0))]
    assert given == [["0"], ["1"], ["0"], ["2", "3"], []]


def test_the_fullest_that_has_room_is_shared() -> None:
    bench = bench_with(2)
    given = [gpus(bench, run(bench, f"l-{i}", n)) for i, n in enumerate((0.5, 0.75, 0.25, 0.5))]
    assert given == [["0"], ["1"], ["1"], ["0"]]


def test_ids_may_be_named_and_other_kinds_are_counted_as_well() -> None:
    bench = Bench(
        warm=0,
        resources={"CPU": 8.0, "GPU": 2.0, "port": 2.0},
        devices={"GPU": ["GPU-7f", "GPU-80"], "port": ["9000", "9001"]},
    )
    bench.lease("l-1", resources={"GPU": 1.0, "port": 2.0})
    bench.all_up()
    (bind,) = bench.told("w-1", Bind)
    assert bind.devices == {"GPU": ["GPU-7f"], "port": ["9000", "9001"]}
    assert environment(bind.devices) == {
        "CUDA_VISIBLE_DEVICES": "GPU-7f",
        "GU_VISIBLE_PORT": "9000,9001",
    }


def test_a_provider_without_devices_says_nothing_about_them() -> None:
    bench = Bench(warm=0)
    bench.lease("l-1")
    bench.all_up()
    assert bench.told("w-1", Bind)[0].devices == {}


def test_a_worker_that_had_a_device_ends_and_only_then_it_goes_on() -> None:
    bench = bench_with(1)
    first = run(bench, "l-1", 1)
    bench.hub(StopLease("l-1", kill=False))
    assert bench.told(first, Leave)
    bench.lease("l-2", resources={"CPU": 1.0, "GPU": 1.0})
    bench.all_up()
    # Its memory may still be on the device.
    assert len(bench.said(LeaseStarted)) == 0
    bench.pass_time(5.0)
    assert bench.killed[first]
    assert not bench.said(LeaseStarted)
    bench.ends(first)
    bench.all_up()
    (started,) = bench.said(LeaseStarted)
    assert gpus(bench, started.worker) == ["0"]


def test_a_worker_without_a_device_is_used_again() -> None:
    bench = bench_with(1)
    first = run(bench, "l-1", 0)
    bench.hub(StopLease("l-1", kill=False))
    assert run(bench, "l-2", 0) == first


def test_an_order_that_never_got_a_worker_gives_its_device_back() -> None:
    bench = bench_with(1)
    bench.lease("l-1", resources={"GPU": 1.0})
    bench.hub(StopLease("l-1", kill=True))
    assert gpus(bench, run(bench, "l-2", 1)) == ["0"]


def test_a_crashed_actor_gives_its_device_back() -> None:
    bench = bench_with(1)
    bench.actor("a-1", resources={"GPU": 1.0})
    (worker,) = bench.all_up()
    bench.alive(worker)
    assert gpus(bench, worker) == ["0"]
    bench.actor("a-2", resources={"GPU": 1.0})
    assert bench.all_up() == []
    bench.ends(worker, Death("signal", signal=11))
    (other,) = bench.all_up()
    assert gpus(bench, other) == ["0"]
    bench.hub(StopActor("a-2", "killed", False))
    assert other in bench.killed


def test_the_group_is_part_of_what_a_worker_is_bound_to() -> None:
    bench = Bench(warm=0)
    bench.lease("l-1", place=Placing(group="g-1", capture=True))
    bench.all_up()
    (bind,) = bench.told("w-1", Bind)
    assert (bind.group, bind.capture) == ("g-1", True)
    bench.hub(StopLease("l-1", kill=False))
    bench.said(LeaseStarted)
    bench.lease("l-2")
    assert bench.all_up() == ["w-2"], "code outside of the group would be captured"


def test_kept_groups_are_told_before_the_offer() -> None:
    bench = Bench(warm=0)
    specs = [GroupSpec(f"g-{i}", "s-1", "c-1", [{"CPU": 1.0}], "PACK") for i in range(3)]
    bench.hub(KeepGroups(specs))
    bench.hub(DropGroups(["g-1"]))
    bench.hub_down()
    bench.hub_up()
    words = [x for x in bench.to_hub if isinstance(x, KeepGroups | Offer)]
    assert [type(word) for word in words] == [KeepGroups, Offer]
    assert words[0] == KeepGroups([specs[0], specs[2]])


def test_ids_follow_what_is_offered() -> None:
    assert devices_of({"GPU": 3.0}, {}) == {"GPU": ["0", "1", "2"]}
    assert devices_of({"GPU": 1.0}, {"GPU": ["4", "5"]}) == {"GPU": ["4"]}
    assert devices_of({"CPU": 1.0}, {"GPU": ["4"]}) == {}


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from((0.1, 0.3, 0.5, 1.0, 2.0))), max_size=60)
)
def test_no_device_is_given_out_twice(steps: list[tuple[int, float]]) -> None:
    book = DeviceBook({"GPU": ["0", "1", "2"]})
    held: dict[str, tuple[tuple[str, ...], float]] = {}
    for number, amount in steps:
        name = f"l-{number}"
        if name in held:
            book.release(name)
            del held[name]
        else:
            order = start_lease(name, resources={"GPU": amount})
            job = book.equip(Job(order, Binding("s-1"), 0.0))
            if job is not None:
                held[name] = job.binding.devices[0][1], amount
        book.check()
        for id in "012":
            assert sum(min(1.0, n) for ids, n in held.values() if id in ids) <= 1.0001
    for name in held:
        book.release(name)
    assert book.equip(Job(start_lease("l-x", resources={"GPU": 3.0}), Binding("s-1"), 0.0))
