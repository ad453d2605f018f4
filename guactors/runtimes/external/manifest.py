"""The manifest of a driver: what it is called, how it is started, what it says it can.

Owns: the form of ``*.gu-driver.json``, the search for them, and their checks. Must never: start a
driver, or use a manifest that somebody else could have written.
"""

from __future__ import annotations

import os
import platform
import re
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from guactors.errors import UsageError
from guactors.runtimes.base import Capability
from guactors.runtimes.external.words import DEADLINES, PROTOCOL

SUFFIX: Final = ".gu-driver.json"
FORMAT: Final = "guactors.driver/1"
MOST: Final = 65536
"""Bytes of a manifest."""
BUILT_IN: Final = frozenset({
    "native", "docker", "podman", "qemu", "vm", "firecracker", "external", "python",
})  # fmt: skip
"""Names that no driver may have."""
HELD: Final = frozenset({
    Capability.CPU, Capability.MEMORY, Capability.PIDS, Capability.DISK,
})  # fmt: skip
"""Limits: a driver names those that it holds itself."""
VERBS: Final = frozenset({"probe", "reap", "stats"})
"""Capabilities that are verbs of the protocol and no capabilities of a runtime."""
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_LONGEST: Final = 86400.0
_OPEN: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
"""A pipe in the place of a manifest must not stop us."""

Word = Annotated[str, Meta(max_length=4096)]
Short = Annotated[str, Meta(min_length=1, max_length=64)]


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """``command``: run in the manifest's directory. ``capabilities``: of ``Capability``, ``probe``,
    ``reap`` and ``stats``. ``platforms``: ``linux``, ``linux-x86_64``, ``any``. ``limits``:
    ``host``, its programs are its descendants and are held with it; ``driver``, it holds those
    limits that are among its capabilities. ``image``: how it wants images, ``directory`` or
    ``file``. ``deadlines``: seconds, by verb, where the usual ones do not do."""

    format: Literal["guactors.driver/1"]
    name: Short
    version: Short
    protocol: int
    command: Annotated[list[Word], Meta(min_length=1, max_length=64)]
    capabilities: Annotated[list[Short], Meta(max_length=32)]
    platforms: Annotated[list[Short], Meta(min_length=1, max_length=16)]
    limits: Literal["host", "driver"] = "host"
    image: Literal["", "directory", "file"] = ""
    deadlines: Annotated[dict[str, float], Meta(max_length=32)] = {}
    description: Annotated[str, Meta(max_length=1000)] = ""


class Driver(Struct, frozen=True):
    """A manifest and where it was found."""

    manifest: Manifest
    path: Path

    @property
    def name(self) -> str:
        """Of the runtime."""
        return self.manifest.name

    def deadline(self, verb: str) -> float:
        """Seconds until it must have answered."""
        return self.manifest.deadlines.get(verb, DEADLINES[verb])


class Found(Struct, frozen=True):
    """``drivers``: by name; ``refused``: why others are not among them, each with its file."""

    drivers: dict[str, Driver]
    refused: list[str]


def find_drivers(directories: Iterable[str | Path]) -> Found:
    """All in these directories. Of two with one name in two directories the first counts; two in
    one directory are both refused. A directory that does not exist has none."""
    drivers: dict[str, Driver] = {}
    refused: list[str] = []
    for directory in directories:
        here: dict[str, list[Driver]] = {}
        for path in sorted(Path(directory).glob(f"*{SUFFIX}")):
            try:
                found = read_driver(path)
            except UsageError as error:
                refused.append(str(error))
                continue
            here.setdefault(found.name, []).append(found)
        for name, several in here.items():
            if len(several) > 1:
                files = " and ".join(one.path.name for one in several)
                refused.append(f"{directory}: {files} are both called {name!r}: rename one")
            else:
                drivers.setdefault(name, several[0])
    return Found(drivers, refused)


def read_driver(path: str | Path) -> Driver:
    """The driver of that manifest. Raises UsageError, which names the file."""
    path = Path(os.path.abspath(path))
    try:
        with os.fdopen(os.open(path, _OPEN), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MOST + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path}: is no file")
    if sys.platform != "win32" and mode & stat.S_IWOTH:
        raise UsageError(f"{path}: everybody may write it: chmod o-w {path.name}")
    return Driver(parse(data, str(path)), path)


def parse(data: bytes, what: str) -> Manifest:
    """The content of a manifest. ``what``: its file, for messages. Raises UsageError."""
    if len(data) > MOST:
        raise UsageError(f"{what}: has more than {MOST} bytes")
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise UsageError(f"{what}: {error}") from None
    for fault in _faults(found):
        raise UsageError(f"{what}: {fault}")
    return found


def runs_on(platforms: Iterable[str], system: str = "", machine: str = "") -> bool:
    """Whether these are for a system (this one) such as ``linux`` and a machine (this one) such as
    ``x86_64``."""
    system, machine = system or sys.platform, machine or platform.machine()
    return any(word in {"any", system, f"{system}-{machine}"} for word in platforms)


def _faults(found: Manifest) -> Iterable[str]:
    if not _NAME.fullmatch(found.name):
        yield f"name {found.name!r}: small letters, digits and '-', a letter first, at most 32"
    if found.name in BUILT_IN:
        yield f"name {found.name!r}: is that of a runtime of guactors: choose another"
    if found.protocol != PROTOCOL:
        yield f"protocol {found.protocol}: this guactors speaks {PROTOCOL}"
    if not found.command[0] or any("\0" in word for word in found.command):
        yield "command: no program, or a zero byte"
    unknown = sorted(set(found.capabilities) - set(Capability) - VERBS)
    if unknown:
        yield f"capabilities: nobody knows {', '.join(unknown)}"
    if not {"host", "image"} & set(found.capabilities):
        yield "capabilities: 'host' or 'image', or it can run nothing"
    if ("image" in found.capabilities) != bool(found.image):
        yield "image: 'directory' or 'file', if and only if 'image' is among the capabilities"
    held = sorted(HELD & set(found.capabilities))
    if found.limits == "host" and held:
        yield f"capabilities: {', '.join(held)} are the host's with limits 'host': leave them out"
    if len(set(found.capabilities)) != len(found.capabilities):
        yield "capabilities: one of them twice"
    for verb, seconds in found.deadlines.items():
        if verb not in DEADLINES:
            yield f"deadlines: there is no verb {verb!r}"
        if not 0 < seconds <= _LONGEST:
            yield f"deadlines: {verb} of {seconds} s, where at most {_LONGEST:g} are allowed"
