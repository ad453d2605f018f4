"""The launcher: readiness, errors, restarts, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
from msgspec.structs import replace

from guactors.config import HubConfig, NodeConfig, ProviderConfig
from guactors.errors import HubUnreachable
from guactors.home import host_id, new_run_dir
from guactors.messages import Endpoint
from guactors.runtimes.launch import NodeProcess, launch_node
from tests.contract.process_watch import await_true, gone, read_pid

MODULE = "tests.integration.stand_in_node"
pytestmark = pytest.mark.needs("linux", "fork")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    path = new_run_dir()
    yield path
    for file in path.glob("*") if path.exists() else ():
        file.unlink()
    if path.exists():
        path.rmdir()


def node_config(
    run_dir: Path, *, hub: str = "h-1", provider: str = "box", embedded: bool = True
) -> NodeConfig:
    return NodeConfig(
        HubConfig(hub, ["tcp://127.0.0.1:0"], str(run_dir)),
        [ProviderConfig("p-1", provider, [], {"CPU": 1.0}, str(run_dir))],
        embedded=embedded,
    )


@contextmanager
def launched(config: NodeConfig) -> Iterator[NodeProcess]:
    node = launch_node(config, timeout=10.0, module=MODULE)
    try:
        yield node
    finally:
        node.close()


def everything(node: NodeProcess, run_dir: Path) -> list[int]:
    """Pids of launcher, hub, provider, zygote, worker, and the worker's child."""
    child = read_pid(run_dir / "w-family-1.child")
    below = [one.pid for one in psutil.Process(node.pid).children(recursive=True)]
    assert child in below
    assert len(below) == 5
    return [node.pid, *below]


def test_all_is_ready_and_close_leaves_nothing(run_dir: Path) -> None:
    with launched(node_config(run_dir)) as node:
        assert node.alive()
        assert [one.control for one in node.hub_endpoints] == ["tcp://127.0.0.1:4711"]
        assert sorted(node.pids) == ["h-1", "p-1"]
        pids = everything(node, run_dir)
    assert not node.alive()
    assert all(gone(pid) for pid in pids)
    node.close()


def test_the_configuration_is_not_in_argv_and_the_log_is_private(run_dir: Path) -> None:
    with launched(node_config(run_dir)) as node:
        for pid in everything(node, run_dir)[:-1]:
            assert str(run_dir) not in " ".join(psutil.Process(pid).cmdline())
        assert stat.S_IMODE((run_dir / "node.log").stat().st_mode) == 0o600


@pytest.mark.parametrize(("hub", "provider"), [("h-fail", "box"), ("h-1", "fail")])
def test_one_that_cannot_start_is_an_error_with_its_reason(
    run_dir: Path, hub: str, provider: str
) -> None:
    with pytest.raises(HubUnreachable, match="fail has no address") as caught:
        launch_node(node_config(run_dir, hub=hub, provider=provider), module=MODULE)
    assert "Traceback" in str(caught.value)


def test_one_that_is_never_ready_is_a_timeout(run_dir: Path) -> None:
    with pytest.raises(HubUnreachable, match="not ready in time: 2 processes"):
        launch_node(node_config(run_dir, hub="h-mute"), module=MODULE, timeout=0.5)


def test_a_launcher_that_cannot_start_shows_its_log(run_dir: Path) -> None:
    with pytest.raises(HubUnreachable, match="No module named"):
        launch_node(node_config(run_dir), module="tests.no_such_node")


def test_one_deaf_to_sigterm_does_not_hold_up_the_end(run_dir: Path) -> None:
    with launched(node_config(run_dir, hub="h-stubborn", provider="stubborn")) as node:
        pids = everything(node, run_dir)
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize("victim", ["launcher", "provider"])
def test_kill_9_leaves_nothing_below(run_dir: Path, victim: str) -> None:
    with launched(node_config(run_dir)) as node:
        pids = everything(node, run_dir)
        if victim == "launcher":
            os.kill(node.pid, signal.SIGKILL)
        else:
            pids = [one.pid for one in psutil.Process(node.pids["p-1"]).children(recursive=True)]
            os.kill(node.pids["p-1"], signal.SIGKILL)
        await_true(lambda: all(gone(pid) for pid in pids), "all below end", within=1.0)


def test_a_killed_hub_comes_back_where_it_was(run_dir: Path) -> None:
    with launched(node_config(run_dir)) as node:
        os.kill(node.pids["h-1"], signal.SIGKILL)
        first = node.next_report(10.0)
        assert first is not None
        assert (first["role"], first["event"]) == ("hub", "ended")
        assert "signal 9" in first["text"]
        second = node.next_report(10.0)
        assert second is not None
        assert (second["name"], second["event"]) == ("h-1", "ready")
        assert second["listen"] == ["tcp://127.0.0.1:4711"]


def test_a_killed_provider_comes_back_as_another(run_dir: Path) -> None:
    with launched(node_config(run_dir)) as node:
        os.kill(node.pids["p-1"], signal.SIGKILL)
        events = [node.next_report(10.0), node.next_report(10.0)]
        assert [one["event"] for one in events if one] == ["ended", "ready"]
        assert [one["name"] == "p-1" for one in events if one] == [True, False]


OWNER = """
import sys, msgspec
from guactors.config import NodeConfig
from guactors.runtimes.launch import launch_node
config = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=NodeConfig)
node = launch_node(config, module=sys.argv[1])
if sys.argv[2] == "detach":
    node.detach()
elif sys.argv[2] == "forked":
    import os
    if os.fork() == 0:
        import time
        os.closerange(0, 3)
        time.sleep(300)
        os._exit(0)
print(node.pid, flush=True)
if sys.argv[2] != "detach":
    import time
    time.sleep(300)
"""


@contextmanager
def owner(config: NodeConfig, how: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that launched a node, and the pid of the node."""
    command = [sys.executable, "-c", OWNER, MODULE, how]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    popen = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert popen.stdin is not None
    assert popen.stdout is not None
    below: list[psutil.Process] = []
    try:
        popen.stdin.write(msgspec.msgpack.encode(config))
        popen.stdin.close()
        pid = int(popen.stdout.readline())
        below = psutil.Process(popen.pid).children(recursive=True)
        yield popen, pid
    finally:
        popen.kill()
        popen.wait()
        popen.stdout.close()
        for process in below:
            if process.is_running():
                process.kill()


@pytest.mark.parametrize("how", ["stay", "forked"])
def test_an_embedded_node_ends_with_a_killed_owner(run_dir: Path, how: str) -> None:
    """Even if a forked child of the owner still holds the lifeline."""
    with owner(node_config(run_dir), how) as (popen, pid):
        below = [pid, *(one.pid for one in psutil.Process(pid).children(recursive=True))]
        popen.kill()
        await_true(lambda: all(gone(one) for one in below), "the node ends", within=2.0)


def test_a_detached_node_outlives_its_launcher_and_ends_by_sigterm(run_dir: Path) -> None:
    with owner(node_config(run_dir, embedded=False), "detach") as (popen, pid):
        assert popen.wait(10.0) == 0
        node = psutil.Process(pid)
        below = [pid, *(one.pid for one in node.children(recursive=True))]
        assert len(below) == 6
        assert os.getsid(pid) == pid
        node.terminate()
        await_true(lambda: all(gone(one) for one in below), "the node ends", within=2.0)


@pytest.mark.parametrize("killed", [False, True])
def test_scratch_directories_go_with_the_node(run_dir: Path, killed: bool) -> None:
    with launched(replace(node_config(run_dir), scratch=[str(run_dir)])) as node:
        assert run_dir.exists()
        if killed:
            below = psutil.Process(node.pid).children(recursive=True)
            os.kill(node.pid, signal.SIGKILL)
            await_true(lambda: all(gone(one.pid) for one in below), "all below end")
    assert not run_dir.exists()


def test_members_get_the_import_path_of_an_embedding_process(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with launched(node_config(run_dir)) as node:
        os.kill(node.pids["p-1"], signal.SIGKILL)
        reports = [node.next_report(10.0), node.next_report(10.0)]
        assert [one["path"] for one in reports if one and one["event"] == "ready"] == [sys.path]


def test_a_provider_without_an_address_joins_the_hub_beside_it(run_dir: Path) -> None:
    with launched(node_config(run_dir)) as node:
        os.kill(node.pids["p-1"], signal.SIGKILL)
        reports = [node.next_report(10.0), node.next_report(10.0)]
        hubs = [one["hub"] for one in reports if one and one["event"] == "ready"]
        assert hubs == [["tcp://127.0.0.1:4711"]]


def test_the_real_hub_and_provider_come_up_and_go(run_dir: Path) -> None:
    address = f"ipc://{run_dir}/hub"
    hub = HubConfig("h-1", [address], str(run_dir))
    joins = [Endpoint(address, address, host=host_id())]
    provider = ProviderConfig("p-1", "box", joins, {"CPU": 1.0}, str(run_dir))
    config = NodeConfig(hub, [provider], embedded=True, scratch=[str(run_dir)])
    node = launch_node(config, timeout=20.0)
    try:
        assert [one.control for one in node.hub_endpoints] == [address]
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        assert len(processes) >= 5, "launcher, hub, provider, zygote, a warm worker"
        for one in processes:
            assert str(run_dir) not in " ".join(one.cmdline())
    finally:
        node.close()
    assert all(gone(one.pid) for one in processes)
    assert not run_dir.exists()
