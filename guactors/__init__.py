"""guactors: remote functions, actors and programs on your own machines.

::

    import guactors as gu

    @gu.remote
    def square(x):
        return x * x

    gu.init()
    print(gu.get([square.remote(i) for i in range(10)]))

Owns: the narrow door. Names load on first use, so that the import costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guactors import actor, exceptions, util
    from guactors.api import (
        ActorClass,
        ActorHandle,
        ObjectRef,
        ObjectRefGenerator,
        RemoteFunction,
        available_resources,
        cancel,
        cluster_resources,
        get,
        get_actor,
        get_gpu_ids,
        get_runtime_context,
        init,
        is_initialized,
        kill,
        method,
        nodes,
        put,
        remote,
        shutdown,
        timeline,
        wait,
    )
    from guactors.deployment import Deployment, deploy
    from guactors.foresight import explain, plan
    from guactors.integrations.mapping import map  # noqa: A004 - Python's, on a grid
    from guactors.reservations import Reservation, reserve

__version__ = "0.1.0"

__all__ = [
    "ActorClass",
    "ActorHandle",
    "Deployment",
    "ObjectRef",
    "ObjectRefGenerator",
    "RemoteFunction",
    "Reservation",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "deploy",
    "exceptions",
    "explain",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "map",
    "method",
    "nodes",
    "plan",
    "put",
    "remote",
    "reserve",
    "shutdown",
    "timeline",
    "util",
    "wait",
]


_ELSEWHERE = {
    "Deployment": "guactors.deployment",
    "Reservation": "guactors.reservations",
    "deploy": "guactors.deployment",
    "explain": "guactors.foresight",
    "map": "guactors.integrations.mapping",
    "plan": "guactors.foresight",
    "reserve": "guactors.reservations",
}
"""Homes of the names that are not in ``api``."""
_MODULES = frozenset({"actor", "exceptions", "util"})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"guactors.{name}")
    if name in __all__:
        value = getattr(import_module(_ELSEWHERE.get(name, "guactors.api")), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'guactors' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
