"""Looking inside a grid of real processes: from the session itself, and by ``gu`` from another
process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors.errors import ActorDied, UsageError, WorkerDied
from guactors.runtimes.spy import find_spy
from guactors.util import state
from guactors.util.placement_group import placement_group, remove_placement_group
from tests import leaks
from tests.command import eventually, refused
from tests.command import gu as command
from tests.unit.test_trace import check_format

pytestmark = pytest.mark.may_keep(*leaks.KINDS)


@gu.remote
def ok(number: int = 0) -> int:
    return number


@gu.remote
def fails() -> None:
    raise LookupError("nothing here")


@gu.remote
def child() -> None:
    time.sleep(0.01)


@gu.remote
class Parent:
    """An actor, because the calls that a worker makes are listed as long as it lives."""

    def make(self, count: int, name: str = "child") -> None:
        gu.get([child.options(name=name).remote() for _ in range(count)])


@gu.remote
class Gate:
    """Waits until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def wait_here(self) -> None:
        self.opened.wait()

    def pid(self) -> int:
        return os.getpid()


@gu.remote
def hold_the_interpreter(path: str) -> None:
    import re
    from pathlib import Path

    Path(path).write_text(str(os.getpid()))
    re.match(r"(a+)+$", "a" * 60 + "b")


def counts(name: str) -> dict[str, int]:
    """The states of all calls of a function of this session."""
    summary = state.summarize_tasks()["cluster"]["summary"]
    found: dict[str, int] = summary[name]["state_counts"]
    return found


def only(name: str, **query: Any) -> list[state.State]:
    return state.list_tasks(filters=[("name", "=", name)], detail=True, **query)


# --- from the session -----------------------------------------------------------------------------


def test_calls_with_their_outcome_place_and_times(grid: None) -> None:
    before = time.time() * 1e3
    refs = [ok.options(name="well").remote(n) for n in range(50)]
    gu.get(refs)
    with pytest.raises(LookupError):
        gu.get(fails.remote())
    assert counts("well") == {"FINISHED": 50}
    rows = only("well", limit=0)
    assert len({row.task_id for row in rows}) == 50
    assert {row.worker_id for row in rows} & {row.worker_id for row in state.list_workers()}
    assert {row.node_id for row in rows} == {node.node_id for node in state.list_nodes()}
    (node,) = state.list_nodes(filters=[("state", "=", "alive")], sort="node_id")
    assert state.get_node(node.node_id).resources_total["CPU"] == 2.0  # type: ignore[union-attr]
    assert state.list_nodes(filters=[("state", "=", "DEAD")]) == []
    for row in rows:
        times = [row.creation_time_ms, row.sent_time_ms, row.start_time_ms, row.end_time_ms]
        assert times == sorted(times)
        assert before - 1 <= times[0]
        assert times[-1] <= time.time() * 1e3 + 1
    (failed,) = only("fails")
    assert (failed.state, failed.error_type) == ("FAILED", "LookupError")
    assert state.get_task(failed.task_id) == failed
    assert state.get_task("0" * 32) is None


def test_limits_filters_and_orders_are_those_of_the_source(grid: None) -> None:
    gu.get([ok.options(name=f"part{n % 2}").remote(n) for n in range(40)])
    found = state.list_tasks(filters=[("name", "~", "PART")], limit=7, sort="-task_id")
    ids = [row.task_id for row in state.list_tasks(filters=[("name", "~", "part")], limit=0)]
    assert [row.task_id for row in found] == sorted(ids, reverse=True)[:7]
    with pytest.raises(UsageError, match="did you mean 'name'"):
        state.list_tasks(filters=[("nmae", "=", "f")])
    with pytest.raises(UsageError, match="like"):
        state.list_tasks(filters=["name=f"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="did you mean 'tasks'"):
        state.list_rows("task")
    with pytest.raises(UsageError, match="negative"):
        state.list_tasks(limit=-1)


def test_calls_inside_calls_know_their_parent(grid: None) -> None:
    parent = Parent.remote()
    gu.get(parent.make.remote(1))
    (above,) = only("Parent.make")
    (below,) = only("child")
    assert below.parent_task_id == above.task_id
    assert below.caller_id != above.caller_id
    assert below.job_id == above.job_id
    assert below.duration_ms >= 10
    assert above.start_time_ms <= below.creation_time_ms


def test_calls_of_an_actor_that_is_gone_are_still_counted(grid: None) -> None:
    parent = Parent.remote()
    gu.get(parent.make.remote(30, "nested"))
    assert counts("nested") == {"FINISHED": 30}
    assert len(only("nested")) == 30
    del parent
    eventually(lambda: not only("nested"), "the actor is gone, and its records with it")
    assert counts("nested") == {"FINISHED": 30}


def test_a_running_call_and_what_waits_behind_it(grid: None) -> None:
    gate = Gate.remote()
    waiting = [gate.wait_here.remote(), gate.wait_here.remote()]
    eventually(lambda: counts("Gate.wait_here").get("RUNNING") == 1, "the first runs")
    assert counts("Gate.wait_here") == {"RUNNING": 1, "SUBMITTED_TO_WORKER": 1}
    (actor,) = state.list_actors(filters=[("class_name", "=", "Gate"), ("state", "=", "ALIVE")])
    assert state.get_actor(actor.actor_id)["node_id"] == actor.node_id  # type: ignore[index]
    later = ok.options(name="later").remote(waiting[0])
    assert counts("later") == {"PENDING_ARGS_AVAIL": 1}
    objects = state.list_objects(filters=[("name", "=", "Gate.wait_here")], limit=0, detail=True)
    assert [row.state for row in objects] == ["PENDING", "PENDING"]
    assert sorted(row.task_references for row in objects) == [0, 1]
    gu.kill(gate)
    with pytest.raises(ActorDied):
        gu.get(waiting[1])
    with pytest.raises(ActorDied):
        gu.get(later)
    assert counts("Gate.wait_here") == {"FAILED": 2}
    assert {row.error_type for row in only("Gate.wait_here")} == {"ActorKilled"}


def test_a_put_object_is_listed_while_it_is_held(grid: None) -> None:
    ref = gu.put(b"x" * 5000)
    (row,) = state.get_objects(ref.hex())
    assert row.object_size >= 5000
    assert (row.state, row.where, row.local_references) == ("READY", "inline", 1)
    large = gu.put(b"x" * 500_000)
    (row,) = state.get_objects(large.hex())
    assert row.object_size >= 500_000
    assert row.where in ("store", "spilled")
    id = ref.hex()
    del ref
    eventually(lambda: state.get_objects(id) == [], "the object is gone")


def test_a_trace_of_the_session(grid: None, tmp_path: Path) -> None:
    parent = Parent.remote()
    gu.get(parent.make.remote(3))
    assert gu.timeline(str(tmp_path / "trace.json")) is None
    events = json.loads((tmp_path / "trace.json").read_text())
    check_format(events)
    spans = [event for event in events if event["ph"] == "X"]
    assert {"Parent.make", "child"} <= {event["name"] for event in spans}
    assert sum(event["ph"] == "s" for event in events) >= 3
    again = gu.timeline()
    assert again is not None
    assert len([event for event in again if event["ph"] == "X"]) == len(spans)


# --- stacks ---------------------------------------------------------------------------------------


def test_the_stack_of_an_actor_that_waits(grid: None) -> None:
    gate = Gate.options(name="gate").remote()
    pid = gu.get(gate.pid.remote())
    ref = gate.wait_here.remote()
    eventually(lambda: counts("Gate.wait_here").get("RUNNING") == 1, "it runs")
    for which in ("gate", "Gate", str(pid)):
        main = state.get_stacks(which)[0]
        assert main.pid == pid
        assert main.stack.startswith("MainThread\n")
        assert "self.opened.wait()" in main.stack
    with pytest.raises(UsageError, match="no worker, actor or process 'nobody'"):
        state.get_stacks("nobody")
    gu.kill(gate)
    with pytest.raises(ActorDied):
        gu.get(ref)


def test_coroutines_of_an_async_actor(grid: None) -> None:
    @gu.remote
    class Waiter:
        async def wait_long(self) -> None:
            import asyncio

            await asyncio.sleep(3600)

    waiter = Waiter.options(name="waiter").remote()
    refs = [waiter.wait_long.remote() for _ in range(2)]
    eventually(lambda: counts("Waiter.wait_long").get("RUNNING") == 2, "both run")
    texts = [row.stack for row in state.get_stacks("waiter")]
    shown = [text for text in texts if text.startswith("coroutine of Waiter.wait_long")]
    assert len(shown) == 2
    assert all("await asyncio.sleep(3600)" in text for text in shown)
    gu.kill(waiter)
    with pytest.raises(ActorDied):
        gu.get(refs)


def test_a_worker_whose_interpreter_is_held_is_told_by_a_signal(grid: None, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    ref = hold_the_interpreter.options(max_retries=0).remote(str(path))
    eventually(lambda: path.exists() and bool(path.read_text()), "it runs")
    pid = path.read_text()

    def in_the_match() -> bool:
        (row,) = state.get_stacks(pid)[:1]
        return bool(row.by == "signal") and "in hold_the_interpreter" in row.stack

    eventually(in_the_match, "the dump shows who called the C function")
    os.kill(int(pid), signal.SIGKILL)
    with pytest.raises(WorkerDied):
        gu.get(ref)


def test_many_calls_are_counted_exactly(grid: None) -> None:
    """The long form of this, with a million, is ``python -m benchmarks.million``."""
    for _ in range(10):
        gu.get([ok.options(name="many").remote(n) for n in range(2000)])
    assert counts("many") == {"FINISHED": 20_000}
    assert len(only("many", limit=0)) == 20_000


# --- from another process -------------------------------------------------------------------------

PROGRAM = """
import sys, time
import guactors as gu

@gu.remote
def quick(n):
    return n

@gu.remote
def bad():
    raise ValueError("no")

@gu.remote(num_cpus=2)
def late():
    time.sleep(3600)

@gu.remote
class Sleeper:
    def nap(self):
        time.sleep(3600)

gu.init("auto")
from guactors.util.placement_group import placement_group
group = placement_group([{"room": 1}], strategy="SPREAD", name="wide")
gu.get([quick.remote(n) for n in range(300)])
try:
    gu.get(bad.remote())
except ValueError:
    pass
sleeper = Sleeper.options(name="sleeper").remote()
ref = sleeper.nap.remote()
queue = [late.remote() for _ in range(3)]
print("here", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, run_root: Path) -> Iterator[str]:
    """GU_HOME of a grid with a program on it that has made calls, and waits."""
    home = str(tmp_path_factory.mktemp("looked-at"))
    command("up", "--cpus", "2", GU_HOME=home)
    try:
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "GU_HOME": home},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "here\n"
            yield home
            process.stdin.close()
            assert process.wait(30) == 0
    finally:
        command("down", GU_HOME=home)


def records(home: str, *args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command(*args, "--json", GU_HOME=home).stdout)
    return found


def test_gu_list_tasks(program: str) -> None:
    failed = records(program, "list", "tasks", "--filter", "state=failed", "--detail")
    assert [(row["name"], row["error_type"]) for row in failed] == [("bad", "ValueError")]
    shown = command("list", "tasks", "--limit", "5", GU_HOME=program)
    assert len(shown.stdout.splitlines()) == 6
    assert shown.stdout.split()[:4] == ["TASK", "ID", "NAME", "STATE"]
    assert "5 of 305 rows are shown" in shown.stderr
    newest = records(program, "list", "tasks", "-f", "name~quick", "--sort", "-creation_time_ms",
                     "--limit", "3", "--detail")  # fmt: skip
    made = [row["creation_time_ms"] for row in newest]
    assert made == sorted(made, reverse=True)
    assert len(made) == 3


@pytest.mark.parametrize(
    ("what", "some"),
    [
        ("actors", {"class_name": "Sleeper", "name": "sleeper", "state": "ALIVE"}),
        ("workers", {"class_name": "Sleeper", "state": "HOSTING"}),
        ("objects", {"state": "PENDING", "name": "Sleeper.nap"}),
        ("sessions", {"name": "driver", "callers": 1}),
        ("leases", {"state": "GRANTED", "required_resources": {"CPU": 2.0}}),
        ("placement-groups", {"name": "wide", "state": "PENDING", "bundles": "{room: 1}"}),
        ("demand", {"kind": "lease", "required_resources": {"CPU": 2.0}, "infeasible": False}),
    ],
)
def test_gu_list(program: str, what: str, some: dict[str, Any]) -> None:
    rows = records(program, "list", what, "--detail")
    assert any(row.items() >= some.items() for row in rows), rows
    assert command("list", what, GU_HOME=program).stdout.splitlines()


def test_placement_groups_in_python(grid: None) -> None:
    group = placement_group([{"CPU": 1}], name="one")
    assert group.wait(20)
    (row,) = state.list_placement_groups(filters=[("name", "=", "one")], detail=True)
    assert (row.placement_group_id, row.state, row.bundles) == (group.id, "CREATED", "{CPU: 1}")
    remove_placement_group(group)


def test_gu_list_says_what_is_wrong(program: str) -> None:
    assert "did you mean 'tasks'?" in refused("list", "task", GU_HOME=program)
    assert "did you mean 'state'?" in refused("list", "tasks", "-f", "stat=x", GU_HOME=program)
    assert "is no filter" in refused("list", "tasks", "-f", "failed", GU_HOME=program)


def test_gu_summary_and_status(program: str) -> None:
    found = json.loads(command("summary", "tasks", "--json", GU_HOME=program).stdout)
    assert found["total_tasks"] == 305
    assert found["summary"]["quick"] == {"FINISHED": 300}
    assert found["summary"]["late"] == {"RUNNING": 1, "PENDING_NODE_ASSIGNMENT": 2}
    shown = command("summary", "tasks", GU_HOME=program).stdout.splitlines()
    assert shown[0].split()[:2] == ["FUNCTION", "TOTAL"]
    assert shown[1].split()[:2] == ["quick", "300"]
    status = command("status", GU_HOME=program).stdout
    assert "waiting for leases of CPU=2\n" in status
    (demand,) = json.loads(command("status", "--json", GU_HOME=program).stdout)["demand"]
    assert demand["required_resources"] == {"CPU": 2.0}


def test_gu_timeline(program: str, tmp_path: Path) -> None:
    out = tmp_path / "trace.json"
    said = command("timeline", "--out", str(out), GU_HOME=program)
    assert "301 calls are in" in said.stderr
    events = json.loads(out.read_text())
    check_format(events)
    on_stdout = command("timeline", "--out", "-", GU_HOME=program).stdout
    assert len(json.loads(on_stdout)) == len(events)
    nothing = command("timeline", "-o", "-", "--session", "s-none", GU_HOME=program).stdout
    assert json.loads(nothing) == []


def test_gu_stack(program: str) -> None:
    for which in ("sleeper", "Sleeper"):
        shown = command("stack", which, GU_HOME=program).stdout
        assert "in nap" in shown
        assert "(by itself)" in shown
    rows = records(program, "stack")
    assert any("in nap" in row["stack"] for row in rows)
    pid = str(rows[0]["pid"])
    assert {row["pid"] for row in records(program, "stack", pid)} == {rows[0]["pid"]}
    assert "no worker, actor or process" in refused("stack", "nobody", GU_HOME=program)


def test_gu_stack_native_shows_frames_of_c_or_says_what_is_missing(program: str) -> None:
    if find_spy() is None:
        assert "pip install" in refused("stack", "sleeper", "--native", GU_HOME=program)
    else:
        shown = command("stack", "sleeper", "--native", GU_HOME=program).stdout
        assert "(by py-spy)" in shown
        assert "MainThread" in shown
