"""Ray's ``ray.util``, as far as it is here; each name loads on first use.

Owns: the table of names. Must never: import anything by itself.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "get_current_placement_group": "guactors.util.placement_group",
    "get_placement_group": "guactors.util.placement_group",
    "placement_group_table": "guactors.util.placement_group",
    "remove_placement_group": "guactors.util.placement_group",
}
"""Where each name is defined. ``placement_group`` is a module, which may be called like Ray's
function of that name."""

_MODULES = ("placement_group", "scheduling_strategies")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"guactors.util.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'guactors.util' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
