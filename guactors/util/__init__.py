"""Ray's ``ray.util``: the same names at the same places.

Owns: nothing; each name lives elsewhere and loads on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ActorPool": "guactors.integrations.actor_pool",
    "inspect_serializability": "guactors.integrations.serializability",
}
"""Name -> the module it is in."""
_MODULES = ("actor_pool", "check_serialize", "joblib", "multiprocessing", "queue")
"""Modules of this package."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"guactors.util.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'guactors.util' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
