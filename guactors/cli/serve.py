"""``gu hub`` and ``gu provider``: one of each in the foreground, until a signal ends it.

Owns: the settings they start with. Must never: hold what they do: ``hub_actor`` and
``provider_actor`` have that.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from guactors.cli.console import fail, log_in_lines, note
from guactors.cli.network import check_free, check_tcp, is_loopback, join_address, outward_host
from guactors.cli.options import parse_pairs, parse_size
from guactors.config import HubConfig, ProviderConfig
from guactors.grid_client import GridClient
from guactors.grid_file import (
    HubAddress,
    find_hub,
    remove_grid_file,
    running_grid,
    write_grid_file,
)
from guactors.home import home, hub_identity, new_run_dir, private_directory
from guactors.ids import fresh
from guactors.machine import detect_resources
from guactors.messages import Endpoint
from guactors.transport.addresses import TCP, split_tcp
from guactors.transport.zmq_link import new_keypair

HUB_PORT = 61621
Report = Callable[[dict[str, Any]], None]

Data = Annotated[
    Path | None,
    typer.Option("--data", help="Directory for keys and state.", show_default="GU_HOME"),
]


def hub(
    listen: Annotated[
        str,
        typer.Option(callback=check_tcp, help="Where it listens; 0.0.0.0 for every network."),
    ] = f"tcp://127.0.0.1:{HUB_PORT}",
    data: Data = None,
) -> None:
    """Run the hub in the foreground. The first line of its output is the address to join it, which
    is a secret: who has it may use the grid."""
    from guactors.hub_actor import run_hub_process

    check_free(listen)
    log_in_lines()
    identity = hub_identity(new_keypair, private_directory(data) if data else home())
    with _run_dir() as run_dir:
        config = HubConfig(
            hub=fresh("hub"),
            listen=[f"ipc://{run_dir}/hub", listen],
            run_dir=run_dir,
            identity=identity,
        )
        if is_loopback(split_tcp(listen)[0]):
            note("only this machine can join; --listen tcp://0.0.0.0:61621 opens it to others")
        try:
            run_hub_process(config, _hub_report(identity.member_secret, run_dir))
        finally:
            _forget()


def provider(
    hub: Annotated[
        str,
        typer.Option(
            "--hub",
            envvar="GU_ADDRESS",
            help="gu://HOST:PORT?key=..., or auto: the hub that this user runs on this machine.",
        ),
    ],
    name: Annotated[str | None, typer.Option(show_default="host name")] = None,
    cpus: Annotated[float | None, typer.Option(min=0.0, show_default="all")] = None,
    memory: Annotated[
        str | None, typer.Option(help="Such as 4GiB or 512MB.", show_default="all")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="NAME=VALUE; may be repeated.")
    ] = None,
    data: Data = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Keep trying if the hub does not answer at first.")
    ] = False,
) -> None:
    """Offer this machine to a grid, in the foreground."""
    from guactors.provider_actor import run_provider_process

    log_in_lines()
    resources = detect_resources()
    if cpus is not None:
        resources["CPU"] = cpus
    if memory is not None:
        resources["memory"] = float(parse_size(memory))
    labels = parse_pairs(label or [], "--label")
    if data:
        private_directory(data)
    target = find_hub(hub)
    if not wait:
        # Also the moment to learn of a wrong key, before anything is started.
        with GridClient(hub) as client:
            client.grid()
    with _run_dir() as run_dir:
        config = ProviderConfig(
            provider=fresh("provider"),
            name=name or socket.gethostname().split(".")[0],
            hub=target.endpoints,
            resources=resources,
            run_dir=run_dir,
            labels=labels,
            listen_host=_listen_host(target),
            identity=target.identity,
        )
        run_provider_process(config, _provider_report(config.name, target.shown))


@contextmanager
def _run_dir() -> Iterator[str]:
    run_dir = str(new_run_dir())
    try:
        yield run_dir
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


def _hub_report(member_secret: str, run_dir: str) -> Report:
    def report(event: dict[str, Any]) -> None:
        if event["event"] == "error":
            fail(str(event["text"]))
        if event["event"] != "ready":
            return
        endpoints = [Endpoint(**one) for one in event["endpoints"]]
        address = join_address(endpoints, member_secret)
        typer.echo(address)
        _remember(address, endpoints, run_dir)

    return report


def _provider_report(name: str, hub: str) -> Report:
    def report(event: dict[str, Any]) -> None:
        if event["event"] == "error":
            fail(str(event["text"]))
        if event["event"] == "ready":
            typer.echo(f"provider {name} serves the hub at {hub}")

    return report


def _remember(address: str, endpoints: list[Endpoint], run_dir: str) -> None:
    """So that the other commands and ``auto`` find this hub, unless they have another."""
    known = running_grid()
    if known is None:
        write_grid_file(address, endpoints, os.getpid(), run_dir, {"hub": os.getpid()})
    else:
        note(f"auto stands for the grid of pid {known.pid}, not for this hub")


def _forget() -> None:
    remove_grid_file(os.getpid())


def _listen_host(target: HubAddress) -> str:
    """Where workers listen on TCP: nowhere if the hub is only for this machine."""
    hosts = [
        split_tcp(endpoint.control)[0]
        for endpoint in target.endpoints
        if endpoint.control.startswith(TCP)
    ]
    away = [host for host in hosts if not is_loopback(host)]
    return outward_host(away[0]) if away else ""
