"""Which adapter runs what.

Owns: the names of the runtimes. Must never: load an adapter that nobody asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final

from guactors.errors import RuntimeMissing

if TYPE_CHECKING:
    from guactors.images.store import ImageStore
    from guactors.runtimes.base import Runtime

NATIVE: Final = "native"
ADAPTERS: Final = {
    NATIVE: "guactors.runtimes.native.driver:NativeRuntime",
}
"""Those that run programs, by name."""


def open_runtime(name: str, images: Callable[[], ImageStore]) -> Runtime:
    """The adapter of that name; ``images`` opens the store that has what it is to run. Raises
    RuntimeMissing."""
    place = ADAPTERS.get(name)
    if place is None:
        raise RuntimeMissing(f"there is no runtime {name!r}, there are {', '.join(ADAPTERS)}")
    module, _, adapter = place.partition(":")
    runtime: Runtime = getattr(import_module(module), adapter)(images)
    return runtime
