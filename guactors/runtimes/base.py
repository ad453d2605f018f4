"""The port of runtimes: what runs programs, containers and machines, each in an instance.

Owns: the protocols that every adapter implements, the words they use, and what they promise. Must
never: start a process, import an adapter, or decide who may run what (``security/`` does).

An adapter is a :class:`Runtime`, which says what it can and makes :class:`Driver` objects, one an
instance. Nobody but ``runtimes/instance.py`` uses a Driver: it adds what is the same for all of
them, the life of an instance (``life.py``), its clock and the limit of its disk.

Promises of every driver, checked by ``tests/contract/test_runtime.py``:

* after ``close`` nothing of the instance is left: no process, group, mount, container or file;
* all that a program wrote is read before its :class:`Exit`, nothing is lost however slow the reader
  is, and how much is held for him is bounded; the two streams are never mixed;
* an Exit is told once both streams have ended, or :data:`LINGER` seconds after the program did, for
  something that it left behind may hold them open;
* a path leads nowhere but into the instance: not by ``..``, and not by a link.

Threads: any thread may use an object; a call blocks only the thread that makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Final, Protocol

from msgspec import Struct

from guactors.messages import Limits

LINGER: Final = 1.0
"""Seconds that output is still waited for after a program has ended."""
CHUNK: Final = 65536
"""Bytes of output read at a time, at most."""


class Capability(StrEnum):
    """What an adapter may be able to do. What it is not, it refuses by name."""

    HOST = "host"
    """Runs programs of the machine itself, without an image."""
    IMAGE = "image"
    """Runs images."""
    PRIVATE = "private"
    """Programs see no file, process or network of the machine."""
    PAUSE = "pause"
    """Stops all of it for a while."""
    SAVE = "save"
    """Writes all of it to a file, gives its memory back, and goes on from there."""
    TTY = "tty"
    USER = "user"
    """Runs programs as other users."""
    CPU = "cpu"
    MEMORY = "memory"
    PIDS = "pids"
    DISK = "disk"
    """Limits that are held for all processes together."""
    MOUNT = "mount"
    """Shows directories of the machine to programs, for reading."""
    NETWORK = "network"
    """Can be given a network of its own; without one it has none."""


class Probe(Struct, frozen=True):
    """Whether a runtime works on this machine. ``reason``: why not, and what to do; ``facts``: what
    else there is to know, by name (``accel``, ``limits``, ...)."""

    usable: bool
    version: str = ""
    reason: str = ""
    facts: dict[str, str] = {}


class Mount(Struct, frozen=True):
    """A directory of the machine that all of the instance may read, at ``target`` in there, both
    from the root. In a virtual machine it is a disk: what the directory holds when the instance is
    made; and ``source`` may be a squashfs file instead."""

    source: str
    target: str


class Spec(Struct, frozen=True):
    """What an instance is to be. ``instance``: its id; ``owner``: the id of the provider whose it
    is; ``directory``: its own on this machine, which exists and holds all that it keeps on disk;
    ``image``: the id of one in the store, empty for programs of the machine; ``env``: of all its
    programs, added to the image's; ``network``: ``none`` or ``host``; ``options``: of the adapter,
    see its module."""

    instance: str
    owner: str
    directory: str
    image: str = ""
    limits: Limits = Limits()
    env: dict[str, str] = {}
    network: str = "none"
    mounts: tuple[Mount, ...] = ()
    options: dict[str, Any] = {}


class Where(Struct, frozen=True):
    """What the programs of a worker run in. ``root``: the directory of the unpacked ``image``, or
    of the store that has it, see ``Bind``."""

    runtime: str = "python"
    root: str = ""
    image: str = ""
    limits: Limits | None = None


class Size(Struct, frozen=True):
    """Of a terminal, in characters."""

    rows: int = 24
    columns: int = 80


class Command(Struct, frozen=True):
    """A program to run. ``cwd``: a path in the instance, empty for its own directory; ``user``:
    ``uid:gid`` or a name in there, empty for its own; ``stdin``: whether ``write`` is going to be
    called, else its input is empty; ``tty``: it gets a terminal of that size, and all it says comes
    on stream 1; ``main``: the instance is there for it, and all else in there ends with it."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    cwd: str = ""
    user: str = ""
    stdin: bool = False
    tty: Size | None = None
    main: bool = False


class Output(Struct, frozen=True):
    """What a program wrote to its ``stream`` 1 or 2."""

    stream: int
    data: bytes


class Exit(Struct, frozen=True):
    """How a program ended: by itself with ``code``, or by ``signal``. ``reason`` says who ended it,
    empty for itself or its like: ``memory_limit``, ``disk_limit``, ``wall_limit``, ``closed`` (its
    instance was), ``lost`` (its instance was, see ``detail``)."""

    code: int | None
    signal: int | None = None
    reason: str = ""
    detail: str = ""


class Stats(Struct, frozen=True):
    """What an instance has used, None where nobody counts it. Seconds and bytes."""

    cpu_seconds: float | None = None
    memory: int | None = None
    memory_peak: int | None = None
    disk: int | None = None
    read: int | None = None
    written: int | None = None
    received: int | None = None
    sent: int | None = None
    processes: int | None = None


class Process(Protocol):
    """A program that was started in an instance."""

    def read(self, timeout: float | None) -> Output | Exit | None:
        """What it says next, None when that is nothing within ``timeout`` seconds. Exit is the
        last, and every ``read`` after it the same."""

    def write(self, data: bytes) -> None:
        """To its standard input; blocks while that is full. Nothing happens once it is closed."""

    def close_input(self) -> None:
        """Its standard input ends here; idempotent."""

    def resize(self, size: Size) -> None:
        """Its terminal has that size now; nothing where it has none."""

    def signal(self, number: int) -> None:
        """To it and all that it started; nothing once it has ended."""

    def close(self) -> None:
        """End it, if it lives, and forget it; what it said and nobody read is lost. Idempotent."""


class Driver(Protocol):
    """One instance, as an adapter knows it. Raises InstanceLost where it is not there any more,
    whatever it was asked; and UsageError for what the caller got wrong."""

    def start(self) -> None:
        """Make it ready for programs."""

    def exec(self, command: Command) -> Process:
        """Start a program. Raises ProgramNotStarted."""

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """Write a file, whose directory is made; or unpack a tar into the directory ``path``."""

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """The content of a file; or a tar of it, or of a directory and all that is in it."""

    def pause(self) -> None:
        """Everything in it stands still when this returns."""

    def resume(self) -> None:
        """It goes on."""

    def save(self, path: str) -> None:
        """Write it to the file, paused; its memory is free when this returns, and the driver of no
        more use but for ``close``. ``Runtime.restore`` makes another one, in which its programs go
        on; but they have nobody any more: who has their Process gets an Exit with the reason
        ``closed``, and what they say from there on is dropped."""

    def stats(self) -> Stats:
        """What it has used so far."""

    def disk_used(self) -> int | None:
        """Bytes that it has written to its own directory or disk; None where that is limited by
        other means."""

    def lost(self) -> str:
        """Why it is not there any more; empty while it is. Never blocks for long."""

    def stop(self, grace: float) -> None:
        """Ask everything in it to end, and end what is left after so many seconds."""

    def close(self) -> None:
        """End it at once and leave nothing of it, but ``Spec.directory``; idempotent."""


class Runtime(Protocol):
    """An adapter, on this machine."""

    name: str
    capabilities: frozenset[Capability]

    def probe(self) -> Probe:
        """Whether it works here. May take seconds; the answer may be remembered."""

    def create(self, spec: Spec) -> Driver:
        """A new instance, in which nothing runs. Raises RuntimeMissing where this machine cannot,
        ImageRefused, and UsageError for a Spec that asks for what it is not capable of."""

    def restore(self, spec: Spec, path: str) -> Driver:
        """An instance that goes on where ``save`` stopped it, and runs. Raises as ``create``."""

    def reap(self, owner: str) -> list[str]:
        """End what a provider of that id, which is dead, has left: the names of what was ended."""

    def close(self) -> None:
        """Give up what all its instances share; there are none any more. Idempotent."""
