"""How a session comes about: join a grid, or launch one of our own.

Owns: the way from ``init``'s arguments to a connected Session, and the end of an embedded grid.
Loaded at the first ``init``, so that ``import guactors`` stays light.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guactors.config import HubConfig, NodeConfig, ProviderConfig, Timing
from guactors.credentials import Credentials
from guactors.errors import UsageError
from guactors.home import host_id, new_run_dir
from guactors.ids import fresh
from guactors.machine import detect_resources
from guactors.messages import Endpoint, Hello
from guactors.runtimes.launch import NodeProcess, launch_node

if TYPE_CHECKING:
    from guactors.security.keys import SecretKey
    from guactors.session import Session


def open_session(
    address: str | None,
    *,
    num_cpus: float | None,
    num_gpus: float | None,
    resources: dict[str, float],
    labels: dict[str, str],
    namespace: str | None,
    key: str | None,
    signers: Sequence[str],
    echo: bool,
    fold: bool,
    timeout: float,
) -> Session:
    """A session that the hub has welcomed. Raises as ``init``."""
    keys = [_signer(one) for one in signers]
    if address is not None:
        if num_cpus is not None or num_gpus is not None or resources or labels:
            raise UsageError(
                "num_cpus, num_gpus, resources and labels describe an embedded grid; a grid that "
                "is joined has its own"
            )
        from guactors.grid_file import find_hub

        hub = find_hub(_join_form(address), key)
        session = _connect(hub.endpoints, hub.credentials, namespace, echo, fold, timeout)
        session.code_signers = keys
        return session
    if key is not None:
        raise UsageError("key= says who you are to a hub elsewhere: give its address too")
    run_dir = new_run_dir()
    provider = _provider(num_cpus, num_gpus, resources, labels, str(run_dir))
    node = _launch(provider, run_dir, max(timeout, 30.0))
    try:
        session = _connect(node.hub_endpoints, Credentials(), namespace, echo, fold, timeout)
    except BaseException:
        _remove(node, run_dir)
        raise
    session.code_signers = keys
    session.provider = provider.provider
    session.on_close.append(lambda: _remove(node, run_dir))
    return session


def _join_form(address: str) -> str:
    """``tcp://HOST:PORT?hub=...`` is taken for the join address that it means."""
    if address.startswith("tcp://"):
        return f"gu://{address.removeprefix('tcp://')}"
    return address


def _signer(given: str) -> SecretKey:
    from guactors.security.key_files import find_key, load_key
    from guactors.security.keys import Kind

    path = find_key(given, Kind.SIGNER)
    assert path is not None, "it is given"
    return load_key(path, Kind.SIGNER).secret


def _connect(
    endpoints: list[Endpoint],
    credentials: Credentials,
    namespace: str | None,
    echo: bool,
    fold: bool,
    timeout: float,
) -> Session:
    from guactors.objects.place import pin
    from guactors.session import Session
    from guactors.transport import open_transport
    from guactors.versions import own_versions

    session_id = fresh("session")
    hello = Hello(
        fresh("caller"),
        "caller",
        own_versions(),
        os.getpid(),
        host_id(),
        session_id,
        True,
        "driver",
        # An anonymous namespace per session, as in Ray.
        namespace or session_id,
        store=pin().id,
    )
    transport = open_transport(credentials.identity)
    session = Session(
        transport, endpoints, hello, Timing(), credentials=credentials, echo=echo, fold=fold
    )
    session.on_close.append(transport.close)
    session.start(timeout)
    return session


def _provider(
    num_cpus: float | None,
    num_gpus: float | None,
    extra: dict[str, float],
    labels: dict[str, str],
    run_dir: str,
) -> ProviderConfig:
    resources = {**detect_resources(), **extra}
    if num_cpus is not None:
        resources["CPU"] = float(num_cpus)
    if num_gpus is not None:
        resources["GPU"] = float(num_gpus)
    return ProviderConfig(fresh("provider"), "local", [], resources, run_dir, labels)


def _launch(provider: ProviderConfig, run_dir: Path, timeout: float) -> NodeProcess:
    hub = HubConfig(fresh("hub"), [f"ipc://{run_dir}/hub"], str(run_dir))
    try:
        node = launch_node(
            NodeConfig(hub, [provider], embedded=True), timeout=timeout, meanwhile=_warm_up
        )
    except BaseException:
        shutil.rmtree(run_dir, ignore_errors=True)
        raise
    return node


def _warm_up() -> None:
    """Import what a session needs."""
    for module in ("guactors.session", "guactors.transport.zmq_link", "guactors.versions"):
        importlib.import_module(module)


def _remove(node: NodeProcess, run_dir: Path) -> None:
    node.close()
    shutil.rmtree(run_dir, ignore_errors=True)
