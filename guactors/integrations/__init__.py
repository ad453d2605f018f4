"""guactors behind interfaces that programs know already: executors, pools, joblib, queues, maps.

Owns: doors, nothing else. What is here uses guactors as any program could, by its public names.
Names load on first use; what needs another package (joblib, tqdm) imports it only then.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "ActorPool": "guactors.integrations.actor_pool",
    "Executor": "guactors.integrations.executor",
    "Pool": "guactors.integrations.pool",
    "Queue": "guactors.integrations.queue",
    "inspect_serializability": "guactors.integrations.serializability",
    "map": "guactors.integrations.mapping",
}

__all__ = ["ActorPool", "Executor", "Pool", "Queue", "inspect_serializability", "map"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'guactors.integrations' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value
