"""Ray's ``ray.util``: the same names at the same places.

Owns: nothing; each name lives elsewhere and loads on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ActorPool": "guactors.integrations.actor_pool",
    "get_current_placement_group": "guactors.util.placement_group",
    "get_placement_group": "guactors.util.placement_group",
    "inspect_serializability": "guactors.integrations.serializability",
    "placement_group_table": "guactors.util.placement_group",
    "remove_placement_group": "guactors.util.placement_group",
}
"""Name -> the module it is in. ``placement_group`` is a module that can be called as well, as Ray's
function of that name."""
_MODULES = (
    "actor_pool", "check_serialize", "joblib", "multiprocessing", "placement_group", "queue",
    "scheduling_strategies", "state",
)  # fmt: skip
"""Modules of this package."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"guactors.util.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'guactors.util' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
