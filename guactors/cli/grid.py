"""``gu up`` and ``gu down``: a whole grid on this machine in the background, and its end.

Owns: how many of what is started. Must never: start a process itself (``runtimes.launch`` does), or
signal one that is not the recorded one.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Annotated

import psutil
import typer

from guactors.cli.console import fail, note, print_json, waiting
from guactors.cli.network import (
    check_free,
    check_tcp,
    is_loopback,
    join_address,
    outward_host,
)
from guactors.cli.options import AsJson
from guactors.cli.web import Http, HttpCert, HttpKey, HttpName, WebOptions, web_options
from guactors.config import HubConfig, NodeConfig, ProviderConfig
from guactors.grid_client import GridClient
from guactors.grid_file import (
    AUTO,
    GridFile,
    remove_grid_file,
    running_grid,
    write_grid_file,
)
from guactors.home import home, new_run_dir, private_directory
from guactors.hub_keys import hub_keys
from guactors.ids import fresh
from guactors.machine import detect_resources, find_gpus, find_labels, memory_threshold
from guactors.runtimes.choice import usual_runtimes
from guactors.runtimes.launch import launch_node
from guactors.transport.addresses import split_tcp

START_WITHIN = 30.0
END_WITHIN = 5.0
_LOOK_EVERY = 0.05


def up(
    providers: Annotated[int, typer.Option(min=1, max=64, help="How many providers.")] = 1,
    cpus: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="CPUs that each offers.", show_default="this machine's, shared out"
        ),
    ] = None,
    listen: Annotated[
        str,
        typer.Option(callback=check_tcp, help="Where the hub listens, port 0: any free one."),
    ] = "tcp://127.0.0.1:0",
    http: Http = None,
    http_name: HttpName = None,
    http_cert: HttpCert = None,
    http_key: HttpKey = None,
    as_json: AsJson = False,
) -> None:
    """Start a hub and providers on this machine, in the background."""
    running = running_grid()
    if running is not None:
        fail(f"a grid is up already (pid {running.pid}); gu status shows it, gu down ends it")
    check_free(listen)
    web = web_options(http, http_name, http_cert, http_key)
    with waiting(f"starting a hub and {providers} provider(s)"):
        grid, url = _start(providers, cpus, listen, web)
        _await_providers(providers)
    if as_json:
        found = {"address": grid.address, "pid": grid.pid, "pids": grid.pids, "http": url}
        print_json(found)
        return
    typer.echo(f"hub and {providers} provider(s) are up, pid {grid.pid}")
    if url:
        note(f"HTTP at {url}")
    note('gu status shows the grid, gu down ends it; programs find it with gu.init("auto")')
    note(f"others find it at {grid.address}")
    note("let them in: gu key invite, or gu key approve; say what they may: gu grant create")


def down() -> None:
    """End the grid that this user runs on this machine."""
    grid = running_grid()
    process = grid.process() if grid else None
    if grid is None or process is None:
        note("no grid of this user runs here")
        return
    with waiting("ending the grid"):
        _end(process)
    remove_grid_file(grid.pid)
    typer.echo(f"the grid of pid {grid.pid} is down")


def _start(
    providers: int, cpus: float | None, listen: str, web: WebOptions | None
) -> tuple[GridFile, str]:
    """The grid, and the URL of its HTTP server, empty without one."""
    keys = hub_keys()
    run_dir = str(new_run_dir())
    there = detect_resources()
    share = {name: value / providers for name, value in there.items()}
    share["CPU"] = cpus or max(1.0, there["CPU"] // providers)
    gpus = [gpu.id for gpu in find_gpus()]
    devices = [{"GPU": gpus[number::providers]} if gpus else {} for number in range(providers)]
    host = socket.gethostname().split(".")[0]
    config = NodeConfig(
        hub=HubConfig(
            hub=fresh("hub"),
            listen=[f"ipc://{run_dir}/hub", listen],
            run_dir=run_dir,
            identity=keys.identity,
            seal=keys.seal,
            owners=keys.owners,
            data=str(private_directory(home() / "hub")),
        ),
        providers=[
            ProviderConfig(
                provider=fresh("provider"),
                name=host if providers == 1 else f"{host}-{number}",
                hub=[],
                resources={**share, **{kind: float(len(x)) for kind, x in own.items()}},
                run_dir=run_dir,
                listen_host="" if is_loopback(split_tcp(listen)[0]) else outward_host(),
                hub_key=keys.seal.key,
                data=str(private_directory(home() / "provider")),
                memory_threshold=memory_threshold(),
                labels=find_labels(),
                devices=own,
                runtimes=usual_runtimes(),
            )
            for number, own in enumerate(devices, 1)
        ],
        scratch=[run_dir],
        web=web.settings([]) if web is not None else b"",
    )
    node = launch_node(config, timeout=START_WITHIN, log=home() / "grid.log")
    try:
        address = join_address(node.hub_endpoints, keys)
        grid = write_grid_file(address, node.hub_endpoints, node.pid, run_dir, node.pids)
    except BaseException:
        node.close()
        raise
    node.detach()
    return grid, node.url


def _await_providers(count: int) -> None:
    """Until the hub counts so many providers; what it counts can be used."""
    deadline = time.monotonic() + START_WITHIN
    with GridClient(AUTO) as client:
        while time.monotonic() < deadline:
            peers = client.grid().peers
            if sum(peer.role == "provider" and bool(peer.total) for peer in peers) >= count:
                return
            time.sleep(_LOOK_EVERY)
    fail(f"not all of the {count} providers joined the hub; see {home() / 'grid.log'}")


def _end(process: psutil.Process) -> None:
    """Ask the launcher to end its grid; after END_WITHIN kill it and all below it."""
    family = [process, *process.children(recursive=True)]
    process.terminate()
    left = _wait_gone(family)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    left = _wait_gone(left)
    if left:
        fail(f"these processes do not end: {', '.join(str(one.pid) for one in left)}")


def _wait_gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still live after END_WITHIN seconds. What is dead and not reaped is gone: they
    are no children of ours, and whoever has to reap them may take its time."""
    deadline = time.monotonic() + END_WITHIN
    while True:
        processes = [process for process in processes if _lives(process)]
        if not processes or time.monotonic() > deadline:
            return processes
        time.sleep(_LOOK_EVERY / 2)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
