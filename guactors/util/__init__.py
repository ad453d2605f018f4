"""Tools beside the core of the API, under the names and paths that Ray has for them.

Owns: the table of what is where. Must never: load any of it before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE: dict[str, str] = {
    "state": "guactors.util.state:",
}
"""Name -> ``module:attribute``, or ``module:`` for the module itself; one line a name."""


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'guactors.util' has no attribute {name!r}")
    module, _, attribute = where.partition(":")
    found = import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
