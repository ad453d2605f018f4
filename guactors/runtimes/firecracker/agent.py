"""What is needed of the agent in a guest, whoever wrote it.

Owns: the port :class:`Agent`, how one is opened, and what a guest is made of. Must never: know the
frames that an agent speaks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

from msgspec import Struct

from guactors.runtimes.base import Command, Process, Spec, Stats


class Agent(Protocol):
    """One instance from the inside. Promises as :class:`~guactors.runtimes.base.Driver`, as far as
    these go; raises InstanceLost where the stream has ended or the agent does not answer."""

    def exec(self, command: Command) -> Process:
        """Start a program."""

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """Write a file or a tree."""

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """Read a file or a tree."""

    def stats(self) -> Stats:
        """What is known inside."""

    def stop(self, grace: float) -> None:
        """End all programs."""

    def pause(self) -> None:
        """What was written is on the disks when this returns. The machine stands still next, and
        no answer is to be expected until ``resume``."""

    def resume(self) -> None:
        """The machine goes on: its clock is behind."""

    def restored(self) -> None:
        """The guest was saved and goes on, maybe elsewhere and not for the first time: set its
        clock, renew its randomness, announce its address."""

    def close(self) -> None:
        """Give up the stream; its programs are told as ended. Idempotent."""


OpenAgent: TypeAlias = Callable[[socket.socket, Spec, float], Agent]
"""Say hello on a connected stream (which is the agent's from here on, also if this raises), of an
instance, within so many seconds. Raises InstanceLost, ProtocolError, VersionMismatch."""


def empty_disk(path: Path, size: int) -> None:
    """A new file of so many bytes, none of them written."""
    with path.open("xb") as file:
        file.truncate(size)


class Guest(Struct, frozen=True):
    """What a machine boots. ``kernel``: an uncompressed ELF file; ``initrd``: what mounts
    ``/dev/vda`` (read-only) with ``/dev/vdb`` (to be written) over it, and starts the agent;
    ``arguments``: of the kernel, all of them; ``port``: where the agent listens (vsock);
    ``make_disk``: makes the file behind ``/dev/vdb``, of so many bytes; ``own_mib``: memory that
    it wants for itself, beside what programs may have."""

    kernel: str
    initrd: str
    arguments: str
    port: int
    open_agent: OpenAgent
    make_disk: Callable[[Path, int], None] = empty_disk
    own_mib: int = 0
