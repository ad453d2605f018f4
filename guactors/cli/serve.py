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
from msgspec.structs import replace

from guactors.cli.console import fail, log_in_lines, note
from guactors.cli.lending import (
    Available,
    BusyAfter,
    BusyLoad,
    Dwell,
    IdleAfter,
    IdleCommand,
    IdleSource,
    LeaveAfter,
    WhenIdle,
    lending,
)
from guactors.cli.network import (
    check_free,
    check_hub,
    check_tcp,
    is_loopback,
    join_address,
    outward_host,
)
from guactors.cli.offers import Cpus, Devices, Gpus, Labels, Memory, Resources, Runtimes, offered
from guactors.cli.web import Http, HttpCert, HttpKey, HttpName, WebDoor, web_options
from guactors.config import HubConfig, ProviderConfig
from guactors.grid_file import (
    HubAddress,
    provider_address,
    remove_grid_file,
    running_grid,
    write_grid_file,
)
from guactors.home import home, new_run_dir, private_directory
from guactors.hub_keys import HubKeys, hub_keys
from guactors.ids import fresh
from guactors.machine import memory_threshold
from guactors.messages import Endpoint
from guactors.provider_policy import read_policy
from guactors.transport.addresses import TCP, split_tcp

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
    owner: Annotated[
        list[str] | None,
        typer.Option(
            "--owner",
            help="An owner's public key; may be repeated.",
            show_default="the owner key of GU_HOME, made if there is none",
        ),
    ] = None,
    http: Http = None,
    http_name: HttpName = None,
    http_cert: HttpCert = None,
    http_key: HttpKey = None,
) -> None:
    """Run the hub in the foreground. The first line of its output is the address to join it: who
    has it may knock, and an owner says who comes in (gu key approve, gu key invite)."""
    from guactors.hub_actor import run_hub_process

    check_free(listen)
    door = WebDoor(web_options(http, http_name, http_cert, http_key))
    log_in_lines()
    keys = hub_keys(owner or (), private_directory(data) if data else None)
    if keys.made_owner:
        note(f"made the owner's key of this hub: {keys.made_owner}; keep a copy where it is safe")
    with _run_dir() as run_dir, door:
        config = HubConfig(
            hub=fresh("hub"),
            listen=[f"ipc://{run_dir}/hub", listen],
            run_dir=run_dir,
            identity=keys.identity,
            seal=keys.seal,
            owners=keys.owners,
            data=str(private_directory((data or home()) / "hub")),
        )
        if is_loopback(split_tcp(listen)[0]):
            note("only this machine can join; --listen tcp://0.0.0.0:61621 opens it to others")
        try:
            run_hub_process(config, _hub_report(keys, run_dir, door))
        finally:
            _forget()


Hub = Annotated[
    str,
    typer.Option(
        "--hub",
        envvar="GU_ADDRESS",
        help="gu://HOST:PORT?hub=..., or auto: the hub that this user runs on this machine.",
    ),
]
Policy = Annotated[
    Path | None,
    typer.Option(
        help="What may run here at most, besides the grants of the grid's owner.",
        show_default="policy.json in the data directory, if it is there",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Keep trying if the hub does not answer at first.")
]


def provider(
    hub: Hub,
    name: Annotated[str | None, typer.Option(show_default="host name")] = None,
    cpus: Cpus = None,
    memory: Memory = None,
    gpus: Gpus = None,
    resource: Resources = None,
    device: Devices = None,
    label: Labels = None,
    runtime: Runtimes = None,
    data: Data = None,
    policy: Policy = None,
    available: Available = "",
    when_idle: WhenIdle = False,
    idle_source: IdleSource = "",
    idle_command: IdleCommand = "",
    idle_after: IdleAfter = None,
    busy_after: BusyAfter = None,
    busy_load: BusyLoad = None,
    dwell: Dwell = None,
    leave_after: LeaveAfter = None,
    wait: Wait = False,
) -> None:
    """Offer this machine to a grid, in the foreground."""
    from guactors.provider_actor import run_provider_process

    log_in_lines()
    offer = offered(cpus, memory, gpus, resource, device, label, runtime)
    lent = lending(
        available, when_idle=when_idle, idle_source=idle_source, idle_command=idle_command,
        idle_after=idle_after, busy_after=busy_after, busy_load=busy_load, dwell=dwell,
        leave_after=leave_after,
    )  # fmt: skip
    name = name or socket.gethostname().split(".")[0]
    here = private_directory(data) if data else home()
    target = provider_address(hub, name, here)
    if not wait:
        check_hub(target)
    with _run_dir() as run_dir:
        config = replace(
            _joining(target, here, policy),
            name=name,
            resources=offer.resources,
            run_dir=run_dir,
            labels=offer.labels,
            devices=offer.devices,
            runtimes=offer.runtimes,
            patient=wait,
            lending=lent,
        )
        run_provider_process(config, _provider_report(config.name, target.shown))


def _joining(target: HubAddress, here: Path, policy: Path | None) -> ProviderConfig:
    """A provider of this hub, with the keys and the policy of the directory ``here``."""
    own = target.credentials
    return ProviderConfig(
        provider=fresh("provider"),
        name="",
        hub=target.endpoints,
        resources={},
        run_dir="",
        listen_host=_listen_host(target),
        identity=own.identity,
        seal=own.seal,
        hub_key=own.hub_key,
        invitation=own.invitation,
        policy=read_policy(policy, here, target.owner) if own.seal.key else b"",
        data=str(private_directory(here / "provider")),
        memory_threshold=memory_threshold(),
    )


@contextmanager
def _run_dir() -> Iterator[str]:
    run_dir = str(new_run_dir())
    try:
        yield run_dir
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


def _hub_report(keys: HubKeys, run_dir: str, door: WebDoor) -> Report:
    def report(event: dict[str, Any]) -> None:
        if event["event"] == "error":
            fail(str(event["text"]))
        if event["event"] != "ready":
            return
        endpoints = [Endpoint(**one) for one in event["endpoints"]]
        address = join_address(endpoints, keys)
        typer.echo(address)
        _remember(address, endpoints, run_dir)
        door.open(endpoints)

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
    """Where workers listen on TCP: for a hub of this machine where only it can reach them, and
    nowhere if that hub is of the same user."""
    hosts = [
        split_tcp(endpoint.control)[0]
        for endpoint in target.endpoints
        if endpoint.control.startswith(TCP)
    ]
    away = [host for host in hosts if not is_loopback(host)]
    if away:
        return outward_host(away[0])
    return "127.0.0.1" if target.credentials.seal.key else ""
