"""Which adapter runs what, and which of them this machine has something for.

Owns: the names of the runtimes, and where drivers of others are looked for. Must never: load an
adapter that nobody asks for, or start a process to find out.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from guactors.errors import GuactorsError, RuntimeMissing, UsageError
from guactors.home import home
from guactors.runtimes.base import Probe

if TYPE_CHECKING:
    from guactors.images.store import ImageStore
    from guactors.runtimes.base import Runtime
    from guactors.runtimes.external.manifest import Found

NATIVE: Final = "native"
DRIVERS: Final = "drivers"
"""Of GU_HOME: the directory of manifests; GU_DRIVERS names others before it."""


class Adapter(Struct, frozen=True):
    """Where it is, and the systems it is written for."""

    place: str
    systems: tuple[str, ...] = ("linux",)

    @property
    def here(self) -> bool:
        """Whether this is one of them."""
        return sys.platform in self.systems


ADAPTERS: Final = {
    NATIVE: Adapter("native.driver:NativeRuntime", ("linux", "darwin", "win32")),
    "docker": Adapter("docker.driver:DockerRuntime", ("linux", "darwin")),
    "qemu": Adapter("qemu.driver:QemuRuntime", ("linux", "darwin", "win32")),
    "firecracker": Adapter("firecracker.guests:FirecrackerRuntime"),
}
"""Our own, by name."""


def open_runtime(name: str, images: Callable[[], ImageStore]) -> Runtime:
    """The adapter of that name; ``images`` opens the store that has what it is to run. Raises
    RuntimeMissing."""
    adapter = ADAPTERS.get(name)
    if adapter is None:
        return _external(name, images)
    if not adapter.here:
        raise RuntimeMissing(f"the runtime {name!r} does not run on {sys.platform}")
    runtime: Runtime = _load(adapter.place)(images)
    return runtime


def _load(place: str) -> Any:
    module, _, kind = place.partition(":")
    return getattr(import_module(f"guactors.runtimes.{module}"), kind)


def probe_runtime(name: str, images: Callable[[], ImageStore]) -> Probe:
    """What it says of itself here; one that cannot even be opened is not usable. Never raises."""
    try:
        runtime = open_runtime(name, images)
        try:
            return runtime.probe()
        finally:
            runtime.close()
    except (GuactorsError, OSError) as error:
        return Probe(False, reason=str(error))


def usual_runtimes() -> list[str]:
    """What this machine seems to have, besides the native one: a look at files only. Whether it
    works, ``Runtime.probe`` says."""
    try:
        home()
    except (UsageError, OSError):  # whoever needs it says so; without it there is the native one
        return []
    found = [name for name, look in _LOOKS.items() if ADAPTERS[name].here and look()]
    if any(Path(one).is_dir() for one in _driver_directories()):
        found += find_external().drivers
    return found


def find_external() -> Found:
    """The drivers of others on this machine."""
    from guactors.runtimes.external.manifest import find_drivers

    return find_drivers(_driver_directories())


def _driver_directories() -> list[str]:
    named = os.environ.get("GU_DRIVERS", "")
    return [*(one for one in named.split(os.pathsep) if one), str(home() / DRIVERS)]


def _external(name: str, images: Callable[[], ImageStore]) -> Runtime:
    found = find_external()
    driver = found.drivers.get(name)
    if driver is None or sys.platform == "win32":
        known = ", ".join([*ADAPTERS, *found.drivers])
        refused = "".join(f"; {reason}" for reason in found.refused)
        raise RuntimeMissing(f"there is no runtime {name!r} here, there are {known}{refused}")
    if sys.platform != "win32":
        from guactors.runtimes.external.driver import ExternalRuntime

        return ExternalRuntime(driver, images)
    raise RuntimeMissing(f"the runtime {name!r}: drivers do not run on {sys.platform} yet")


def _has_docker() -> bool:
    from guactors.runtimes.docker.socket import find_socket

    try:
        return os.access(find_socket(), os.R_OK | os.W_OK)
    except RuntimeMissing:
        return False


def guest_packages() -> Path:
    """Where the packages lie that guests of virtual machines are made of."""
    return home() / "guest-packages"


def _has_qemu() -> bool:
    from guactors.runtimes.qemu.found import qemu_path

    return qemu_path() is not None and _has_guest()


def _has_firecracker() -> bool:
    found = shutil.which("firecracker") is not None and os.access("/dev/kvm", os.W_OK)
    return found and _has_guest()


def _has_guest() -> bool:
    return any(guest_packages().glob("linux-image-*.deb"))


_LOOKS: Final = {"docker": _has_docker, "qemu": _has_qemu, "firecracker": _has_firecracker}
