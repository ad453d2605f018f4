"""Grids to measure on that ``gu.init()`` alone does not give.

Owns: a grid launched with settings of our own, and this process's session on it. Must never: leave
anything behind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

import guactors as gu
from guactors.cli.network import join_address
from guactors.config import HubConfig, NodeConfig, ProviderConfig
from guactors.grid_file import AUTO, write_grid_file
from guactors.home import new_run_dir, private_directory
from guactors.hub_keys import hub_keys
from guactors.ids import fresh
from guactors.runtimes.launch import launch_node

HOST = "127.0.0.1"


@contextmanager
def launched(*, cpus: float = 2.0, warm: int = 1, workers_on_tcp: bool = False) -> Iterator[None]:
    """A hub and one provider that keeps ``warm`` unbound workers; ``init`` and ``shutdown`` are
    included. With ``workers_on_tcp`` its workers listen on TCP as well; whoever sets
    GU_TRANSPORT=tcp calls them there, encrypted."""
    run_dir = str(new_run_dir())
    with tempfile.TemporaryDirectory(prefix="gu-home-") as home:
        before = os.environ.get("GU_HOME")
        os.environ["GU_HOME"] = home
        keys = hub_keys()
        listen = [f"ipc://{run_dir}/hub", f"tcp://{HOST}:0"]
        provider = ProviderConfig(
            fresh("provider"),
            "bench",
            [],
            {"CPU": cpus},
            run_dir,
            listen_host=HOST if workers_on_tcp else "",
            warm=warm,
            hub_key=keys.seal.key,
        )
        hub = HubConfig(
            fresh("hub"), listen, run_dir, keys.identity, owners=keys.owners, seal=keys.seal,
            data=str(private_directory(Path(home) / "hub")),
        )  # fmt: skip
        try:
            node = launch_node(NodeConfig(hub, [provider], embedded=True, scratch=[run_dir]))
            try:
                address = join_address(node.hub_endpoints, keys)
                write_grid_file(address, node.hub_endpoints, node.pid, run_dir, node.pids)
                gu.init(AUTO, log_to_driver=False)
                yield
            finally:
                gu.shutdown()
                node.close()
        finally:
            shutil.rmtree(run_dir, ignore_errors=True)
            if before is None:
                del os.environ["GU_HOME"]
            else:
                os.environ["GU_HOME"] = before


def wire_to(worker_pid: int) -> str:
    """``tcp`` when this process has a TCP connection to that worker, else ``ipc``."""
    ports = {
        one.laddr.port
        for one in psutil.Process(worker_pid).net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }
    dialled = {one.raddr.port for one in psutil.Process().net_connections("tcp") if one.raddr}
    return "tcp" if ports & dialled else "ipc"
