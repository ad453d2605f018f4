"""How a session comes about: join a grid, or launch one of our own.

Owns: the way from ``init``'s arguments to a connected Session, and the end of an embedded grid.
Loaded at the first ``init``, so that ``import guactors`` stays light.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from guactors.config import HubConfig, NodeConfig, ProviderConfig, Timing
from guactors.credentials import Credentials
from guactors.errors import UsageError
from guactors.home import host_id, new_run_dir
from guactors.ids import fresh
from guactors.machine import detect_resources, find_gpus, find_labels, memory_threshold
from guactors.messages import Endpoint, Hello
from guactors.objects.base import LARGE
from guactors.objects.place import MEMORY_BOUND
from guactors.runtimes.choice import usual_runtimes
from guactors.runtimes.launch import NodeProcess, launch_node

if TYPE_CHECKING:
    from guactors.security.keys import SecretKey
    from guactors.session import Session
    from guactors.terms import Terms


class Offer(Struct, frozen=True):
    """What an embedded grid is to have; what is not said is found out."""

    cpus: float | None
    gpus: float | None
    resources: dict[str, float]
    labels: dict[str, str]
    memory: int | None

    def said(self) -> bool:
        """Whether anything is."""
        return self != Offer(None, None, {}, {}, None)


def open_session(
    address: str | None,
    offer: Offer,
    terms: Terms,
    *,
    key: str | None,
    signers: Sequence[str],
    echo: bool,
    fold: bool,
    timeout: float,
) -> Session:
    """A session that the hub has welcomed. Raises as ``init``."""
    keys = [_signer(one) for one in signers]
    if address is not None:
        if offer.said():
            raise UsageError(
                "num_cpus, num_gpus, object_store_memory, resources and labels describe an "
                "embedded grid; a grid that is joined has its own"
            )
        from guactors.grid_file import find_hub

        hub = find_hub(_join_form(address), key)
        session = _connect(hub.endpoints, hub.credentials, terms, echo, fold, timeout)
        session.code_signers = keys
        return session
    if key is not None:
        raise UsageError("key= says who you are to a hub elsewhere: give its address too")
    restore = _bound_store(offer.memory)
    try:
        session = _embedded(
            offer,
            lambda endpoints: _connect(endpoints, Credentials(), terms, echo, fold, timeout),
            max(timeout, 30.0),
        )
    except BaseException:
        restore()
        raise
    session.code_signers = keys
    session.on_close.append(restore)
    return session


def _embedded(
    offer: Offer, connect: Callable[[list[Endpoint]], Session], timeout: float
) -> Session:
    run_dir = new_run_dir()
    provider = _provider(offer, str(run_dir))
    node = _launch(provider, run_dir, timeout)
    try:
        session = connect(node.hub_endpoints)
    except BaseException:
        _remove(node, run_dir)
        raise
    session.provider = provider.provider
    session.on_close.append(lambda: _remove(node, run_dir))
    return session


def _bound_store(bytes_: int | None) -> Callable[[], None]:
    """Have this process and those it starts use so much shared memory at the most; what takes that
    back."""
    if bytes_ is None:
        return lambda: None
    if isinstance(bytes_, bool) or not isinstance(bytes_, int) or bytes_ < LARGE:
        raise UsageError(f"object_store_memory={bytes_!r} is not a number of bytes from {LARGE:,}")
    before = os.environ.get(MEMORY_BOUND)
    os.environ[MEMORY_BOUND] = str(bytes_)

    def restore() -> None:
        if before is None:
            os.environ.pop(MEMORY_BOUND, None)
        else:
            os.environ[MEMORY_BOUND] = before

    return restore


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
    terms: Terms,
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
        terms.namespace or session_id,
        store=pin().id,
        share=terms.share,
        quota=terms.quota or {},
    )
    transport = open_transport(credentials.identity)
    session = Session(
        transport, endpoints, hello, Timing(), credentials=credentials, echo=echo, fold=fold
    )
    session.on_close.append(transport.close)
    session.start(timeout)
    return session


def _provider(offer: Offer, run_dir: str) -> ProviderConfig:
    resources = {**detect_resources(), **offer.resources}
    if offer.cpus is not None:
        resources["CPU"] = float(offer.cpus)
    gpus = find_gpus()
    if offer.gpus is not None:
        resources["GPU"] = float(offer.gpus)
    named = {"GPU": [gpu.id for gpu in gpus]} if len(gpus) >= resources.get("GPU", 0.0) else {}
    return ProviderConfig(
        fresh("provider"), "local", [], resources, run_dir, {**find_labels(gpus), **offer.labels},
        memory_threshold=memory_threshold(), devices=named, runtimes=usual_runtimes(),
    )  # fmt: skip


def _launch(provider: ProviderConfig, run_dir: Path, timeout: float) -> NodeProcess:
    place = str(run_dir)
    hub = HubConfig(fresh("hub"), [f"ipc://{run_dir}/hub"], place, spool=f"{place}/spool")
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
