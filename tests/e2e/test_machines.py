"""Large values on a hub and three providers that share no memory: kept where they were made, copied
to where they are needed, brought from all that have them, whoever is killed meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import guactors as gu
from guactors import errors
from guactors.objects import place
from guactors.objects.sweeping import arenas_in
from guactors.refs import current_session
from guactors.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests import leaks
from tests.command import eventually
from tests.e2e.keyed_grid import KeyedGrid

pytestmark = [
    pytest.mark.usefixtures("session"),
    pytest.mark.may_keep(*leaks.KINDS),
    pytest.mark.timeout(120),
]
NAMES = ("one", "two", "three")
MIB = 1 << 20
COUNT = 4 * MIB
"""Of float64: 32 MiB, eight chunks."""


@pytest.fixture(scope="module")
def grid(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KeyedGrid]:
    home = tmp_path_factory.mktemp("machines-home")
    before = leaks.take(home, run_root)
    with KeyedGrid(tmp_path_factory.mktemp("machines")) as grid:
        for name in NAMES:
            grid.add_provider(name)
        yield grid
    found = leaks.settle(before, home, run_root, leaks.KINDS)
    stores = [place._place_of(grid.root / name).directory for name in (*NAMES, "four")]
    found += [f"shared memory: {directory}" for directory in stores if directory.exists()]
    if found:
        pytest.fail("the grid left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture
def session(grid: KeyedGrid) -> Iterator[None]:
    with grid.session(grid.add_app(providers=["*"], actions=["submit", "read_stats"])):
        yield


def nodes() -> dict[str, str]:
    """Provider ids by their names."""
    return {node["NodeName"]: node["NodeID"] for node in gu.nodes()}


def at(name: str) -> dict[str, Any]:
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(nodes()[name], soft=False)}


def held(grid: KeyedGrid, name: str) -> int:
    """Bytes of large values in the memory of that machine."""
    directory = place._place_of(grid.root / name).directory
    return sum(entry.stat().st_blocks * 512 for entry in arenas_in(directory))


@gu.remote
def numbers(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float64)


@gu.remote(num_returns=2)
def numbered(count: int) -> tuple[int, np.ndarray]:
    return os.getpid(), np.arange(count, dtype=np.float64)


@gu.remote
def total(array: np.ndarray) -> tuple[str, float]:
    return gu.get_runtime_context().get_node_id() or "", float(array.sum())


@gu.remote
def of_box(box: list[Any]) -> float:
    return float(gu.get(box[0]).sum())


@gu.remote
class Shelf:
    def make(self, count: int) -> np.ndarray:
        return np.ones(count)

    def total(self, array: np.ndarray) -> float:
        return float(array.sum())


TOTAL = float(COUNT * (COUNT - 1) // 2)


def copies(ref: Any) -> int:
    """Machines that have a copy of the value."""
    return len(current_session().core.objects.places.copies.get(ref._id, ()))  # type: ignore[union-attr]


def test_a_value_goes_to_each_machine_once(grid: KeyedGrid) -> None:
    ref = gu.put(np.arange(COUNT, dtype=np.float64))
    calls = [total.options(**at(name)).remote(ref) for name in NAMES for _ in range(4)]
    got = gu.get(calls, timeout=60)
    assert [value for _, value in got] == [TOTAL] * 12
    assert {node for node, _ in got} == set(nodes().values())
    assert copies(ref) == 3
    for name in NAMES:
        assert held(grid, name) < 3 * 8 * COUNT
    del ref, calls
    eventually(lambda: not any(held(grid, name) for name in NAMES), "copies are given back")


def test_a_result_goes_from_machine_to_machine() -> None:
    ref = numbers.options(**at("one")).remote(COUNT)
    got = gu.get([total.options(**at(name)).remote(ref) for name in ("two", "three")], timeout=60)
    assert [value for _, value in got] == [TOTAL] * 2
    entry = current_session().core.objects.entries[ref._id]  # type: ignore[union-attr]
    assert type(entry.data).__name__ == "Away", "it did not come here"
    assert gu.get(ref, timeout=30)[-1] == COUNT - 1


def test_calls_go_where_their_values_are() -> None:
    names = {id: name for name, id in nodes().items()}
    for number, name in enumerate(NAMES, 1):
        ref = numbers.options(**at(name)).remote(COUNT)
        gu.wait([ref], fetch_local=False, timeout=30)
        # Each with an amount of its own, for which there is no worker yet.
        where, _ = gu.get(total.options(num_cpus=0.1 * number).remote(ref), timeout=30)
        assert names[where] == name


def test_actors_and_nested_references() -> None:
    made = Shelf.options(**at("one")).remote()
    ref = made.make.remote(COUNT)
    user = Shelf.options(**at("two")).remote()
    assert gu.get([user.total.remote(ref) for _ in range(3)], timeout=60) == [COUNT] * 3
    box = gu.put([ref])
    assert gu.get(of_box.options(**at("three")).remote(box), timeout=60) == COUNT
    assert gu.get(of_box.options(**at("three")).remote([ref]), timeout=60) == COUNT


def test_a_value_outlives_the_worker_that_made_it() -> None:
    pid, ref = numbered.options(max_retries=0, **at("one")).remote(COUNT)
    gu.wait([ref], fetch_local=False, timeout=30)
    os.kill(gu.get(pid, timeout=30), signal.SIGKILL)
    assert gu.get(total.options(**at("two")).remote(ref), timeout=60)[1] == TOTAL
    assert gu.get(ref, timeout=60)[-1] == COUNT - 1


def test_a_value_outlives_the_actor_that_made_it() -> None:
    shelf = Shelf.options(**at("two")).remote()
    ref = shelf.make.remote(COUNT)
    gu.wait([ref], fetch_local=False, timeout=30)
    gu.kill(shelf)
    assert gu.get(ref, timeout=60).sum() == COUNT


def depot_pids() -> list[int]:
    """Of this session's depots."""
    handles = list(current_session()._depots._handles)  # type: ignore[union-attr]
    pids = [handle.__ray_call__.remote(lambda _: os.getpid()) for handle in handles]
    found = []
    for pid in gu.wait(pids, num_returns=len(pids), timeout=1)[0]:
        with contextlib.suppress(errors.ActorDied):
            found.append(gu.get(pid))
    return found


def test_depots_that_are_killed_cost_nothing_but_time() -> None:
    """The value can be made again, and so can all its copies."""
    ref = numbers.options(max_retries=-1, **at("one")).remote(COUNT)
    killed: set[int] = set()
    for _ in range(4):
        calls = [total.options(max_retries=-1, **at(name)).remote(ref) for name in NAMES]
        threading.Event().wait(0.05 * len(killed))  # somewhere in the middle
        for pid in set(depot_pids()) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        assert [value for _, value in gu.get(calls, timeout=60)] == [TOTAL] * 3
    assert len(killed) >= 3
    assert gu.get(ref, timeout=60)[-1] == COUNT - 1


def test_a_machine_that_is_lost_while_others_pull_from_it(grid: KeyedGrid, run_root: Path) -> None:
    before = set(run_root.glob("gu-*"))
    grid.add_provider("four")
    own = set(run_root.glob("gu-*")) - before
    eventually(lambda: "four" in nodes(), "it is there")
    ref = numbers.options(max_retries=2, num_cpus=0).remote(COUNT)
    made = Shelf.options(**at("four")).remote()
    lost = made.make.remote(COUNT)
    gu.wait([lost, ref], num_returns=2, fetch_local=False, timeout=30)
    calls = [total.options(max_retries=2, **at(name)).remote(lost) for name in NAMES]
    for process in psutil.process_iter(["cmdline"]):
        if "four" in (process.info["cmdline"] or ()):
            process.kill()
    for call in calls:
        try:
            assert gu.get(call, timeout=60)[1] == COUNT
        except errors.ObjectLost as error:
            assert "actor" in str(error)  # noqa: PT017
    assert gu.get(ref, timeout=60)[-1] == COUNT - 1
    for directory in own:
        shutil.rmtree(directory)  # its sockets, which went with the machine
    grid.add_provider("four")  # it sweeps what is left in shared memory
