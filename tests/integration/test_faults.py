"""Deaths at the worst moment on a real grid of a hub and two providers: who notices, what goes
on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import guactors as gu
from guactors import errors
from guactors.grid_file import GridFile, read_grid_file
from guactors.integrations import Executor
from guactors.runtimes.program import run_program
from guactors.util import placement_group_table
from guactors.util.placement_group import placement_group, remove_placement_group
from guactors.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests import leaks
from tests.command import ended

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


class Grid:
    """A running ``gu up``, by its processes."""

    def __init__(self, file: GridFile) -> None:
        self.file = file
        self.node = psutil.Process(file.pid)

    def pid(self, prefix: str) -> int:
        """Of the hub (``h-``) or the first provider (``p-``)."""
        return next(pid for peer, pid in self.file.pids.items() if peer.startswith(prefix))

    def provider_pid(self, provider: str) -> int:
        return self.file.pids[provider]


@pytest.fixture
def grid(gu_home: Path, permanent_threads: None) -> Iterator[Grid]:
    gu_command("up", "--providers", "2", "--cpus", "2")
    file = read_grid_file()
    assert file is not None
    gu.init("auto")
    yield Grid(file)
    gu.shutdown()
    gu_command("down")


def gu_command(*args: str) -> None:
    command = [sys.executable, "-m", "guactors.cli.main", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.02)
    return value


@gu.remote
class Keeper:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def where(self) -> tuple[str, int]:
        return gu.get_runtime_context().get_node_id() or "", os.getpid()

    def nap(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"


@gu.remote
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@gu.remote
def place() -> str:
    return gu.get_runtime_context().get_node_id() or ""


def test_without_a_hub_what_is_placed_goes_on_and_the_rest_waits_for_a_new_one(grid: Grid) -> None:
    keeper = Keeper.remote()
    assert gu.get(keeper.add.remote()) == 1
    running = nap.remote(0.5)
    assert gu.wait([running], timeout=0.1) == ([], [running])
    os.kill(grid.pid("h-"), signal.SIGSTOP)  # keep it down for a while: a dead one is replaced
    assert gu.get(keeper.add.remote(), timeout=5) == 2
    assert gu.get(running, timeout=5) == "slept"
    waiting = Keeper.remote()
    late = waiting.add.options(timeout=0.5).remote()
    began = time.monotonic()
    with pytest.raises(errors.CallTimeout):
        gu.get(late, timeout=10)
    assert time.monotonic() - began < 2
    os.kill(grid.pid("h-"), signal.SIGKILL)
    assert gu.get(waiting.add.remote(), timeout=30) == 1
    assert gu.get(keeper.add.remote(), timeout=5) == 3
    assert gu.get([nap.remote(0.01) for _ in range(8)], timeout=30) == ["slept"] * 8


def test_without_a_hub_executors_and_maps_go_on(grid: Grid) -> None:
    """They ask it every second how large the grid is, and must not wait for the answer."""
    seconds = 0.02

    def rest(_: int) -> float:
        time.sleep(seconds)
        return time.monotonic()

    with Executor() as executor:
        many = [executor.submit(rest, i) for i in range(600)]
        mapped = gu.map(rest, range(600), chunk=1)
        until(lambda: sum(future.done() for future in many) > 20)
        next(mapped)
        os.kill(grid.pid("h-"), signal.SIGSTOP)
        stopped = time.monotonic()
        done = [future.result(timeout=30) for future in many]
        assert len(list(mapped)) == 599
        assert max(done) - stopped > 1.5, "over before anybody asked"
        assert time.monotonic() - stopped < 25
        os.kill(grid.pid("h-"), signal.SIGCONT)


def test_a_dead_provider_s_tasks_run_elsewhere_and_its_actors_restart(grid: Grid) -> None:
    stays = Keeper.options(max_restarts=1, max_task_retries=1).remote()
    provider, _ = gu.get(stays.where.remote())
    mortal = Keeper.options(provider=provider).remote()
    gu.get(mortal.add.remote())
    tasks = [nap.remote(0.3) for _ in range(12)]
    gu.wait(tasks, timeout=5)
    os.kill(grid.provider_pid(provider), signal.SIGKILL)
    assert gu.get(tasks, timeout=40) == ["slept"] * 12
    with pytest.raises(errors.ActorDied):
        gu.get(mortal.nap.remote(0), timeout=30)
    assert gu.get(stays.add.remote(), timeout=30) == 1


@pytest.mark.parametrize("victim", ["worker", "provider"])
def test_a_program_ends_with_what_runs_it(grid: Grid, victim: str) -> None:
    """Its own daemon too, its directory, and its groups in the kernel."""
    script = "setsid sleep 63.5 & cat /proc/self/cgroup; echo end $PPID $$ $! $PWD; wait"
    stream = gu.remote(run_program).options(max_retries=0).remote(["sh", "-c", script], {}, "")
    said = b""
    while b"end" not in said or not said.endswith(b"\n"):
        kind, data = gu.get(next(stream))
        assert kind == "out"
        said += data
    *groups, end = said.decode().splitlines()
    pids, directory = [int(word) for word in end.split()[1:4]], end.split()[4]
    above = {one.pid for one in psutil.Process(pids[0]).parents()}
    provider = next(pid for pid in grid.file.pids.values() if pid in above)
    os.kill(pids[0] if victim == "worker" else provider, signal.SIGKILL)
    with pytest.raises(errors.PeerLost):
        gu.get(list(stream))
    until(lambda: all(map(ended, pids)) and not os.path.exists(directory))
    names = {line.rpartition("/")[2] for line in groups if "/guactors-" in line}
    until(lambda: not [path for name in names for path in Path("/sys/fs/cgroup").glob(f"*/{name}")])


def test_a_placement_group_survives_a_hub_and_a_provider(grid: Grid) -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="SPREAD")
    assert group.wait(20)
    homes = placement_group_table(group)["bundles_to_node_id"]
    assert homes[0] != homes[1]
    inside = PlacementGroupSchedulingStrategy(group, 0)
    keeper = Keeper.options(max_restarts=1, scheduling_strategy=inside).remote()
    assert gu.get(keeper.where.remote(), timeout=20)[0] == homes[0]
    os.kill(grid.pid("h-"), signal.SIGKILL)
    until(lambda: placement_group_table(group).get("state") == "CREATED")
    assert placement_group_table(group)["bundles_to_node_id"] == homes
    assert gu.get(keeper.add.remote(), timeout=20) == 1
    assert gu.get(place.options(scheduling_strategy=inside).remote(), timeout=20) == homes[0]
    os.kill(grid.provider_pid(homes[0]), signal.SIGKILL)
    until(lambda: placement_group_table(group)["bundles_to_node_id"].get(0) not in (None, homes[0]))
    assert gu.get(place.options(scheduling_strategy=inside).remote(), timeout=20) != homes[0]
    remove_placement_group(group)
    assert group.id in str(until(lambda: death_of(keeper)))


def death_of(keeper: Any) -> errors.ActorDied | None:
    """How a call to it ends: the removal of a group reaches those in it by way of their provider,
    and a call that was faster still gets its answer."""
    try:
        gu.get(keeper.add.remote(), timeout=30)
    except errors.ActorDied as error:
        return error
    return None


def test_a_killed_caller_leaves_nothing_running_but_detached_actors(
    grid: Grid, tmp_path: Path
) -> None:
    script = textwrap.dedent(
        """
        import os, sys, time
        import guactors as gu
        gu.init("auto", namespace="shared")
        @gu.remote
        class Held:
            def pid(self):
                return os.getpid()
        @gu.remote
        def work(path):
            open(path, "w").write(str(os.getpid()))
            time.sleep(600)
        stay = Held.options(name="stay", lifetime="detached").remote()
        go = Held.remote()
        refs = [work.remote(sys.argv[1] + "/w")]
        while not os.path.exists(sys.argv[1] + "/w"):
            time.sleep(0.01)
        pids = [gu.get(go.pid.remote()), int(open(sys.argv[1] + "/w").read())]
        print(gu.get(stay.pid.remote()), *pids, flush=True)
        time.sleep(600)
        """
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert caller.stdout is not None
        stay, *gone = map(int, caller.stdout.readline().split())
    finally:
        caller.kill()
        caller.wait()
        caller.stdout.close()
    began = time.monotonic()
    until(lambda: not any(psutil.pid_exists(pid) for pid in gone), 5)
    assert time.monotonic() - began < 1.0
    actor = gu.get_actor("stay", namespace="shared")
    assert gu.get(actor.pid.remote(), timeout=10) == stay
    gu.kill(actor)
    until(lambda: not psutil.pid_exists(stay))


def test_stopped_processes_are_noticed(grid: Grid) -> None:
    provider = next(peer for peer in grid.file.pids if peer.startswith("p-"))
    pid = grid.provider_pid(provider)
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: _state(provider) == "silent", 10)
        assert gu.get([place.remote() for _ in range(2)], timeout=20)
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: _state(provider) == "up", 10)


def _state(provider: str) -> str:
    from guactors.grid_client import GridClient

    with GridClient("auto") as client:
        return next((p.state for p in client.grid().peers if p.peer == provider), "gone")


def test_a_stopped_caller_is_noticed(grid: Grid) -> None:
    script = (
        "import guactors as gu, time; gu.init('auto'); print('in', flush=True); time.sleep(600)"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "in\n"
        os.kill(caller.pid, signal.SIGSTOP)
        until(lambda: "silent" in _callers(caller.pid), 10)
    finally:
        caller.kill()
        caller.wait()
        assert caller.stdout is not None
        caller.stdout.close()
    until(lambda: "up" not in _callers(caller.pid), 10)


def _callers(pid: int) -> list[str]:
    from guactors.grid_client import GridClient

    with GridClient("auto") as client:
        return [p.state for p in client.grid().peers if p.role == "caller" and p.pid == pid]
