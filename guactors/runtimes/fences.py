"""Limits on what one worker's processes may take, kept by the system and not by good will.

Owns: the port :class:`Fences`, the choice of an adapter for this machine, and the weaker adapters.
Must never: decide who gets which limits (``provider_state`` does).
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Protocol

from guactors.messages import Limits

log = logging.getLogger("guactors.provider")


class Fences(Protocol):
    """All fences of one provider, by worker. Threads: one thread uses an object."""

    guarantee: str
    """``cgroup-v1`` and ``cgroup-v2``: processor time and memory are held, and whoever takes more
    memory is ended; ``rlimit``: whoever takes more memory gets MemoryError, processor time is not
    held; ``none``."""

    def put(self, worker: str, pid: int, limits: Limits) -> None:
        """From here on the process and what it starts are held to the limits. Raises OSError."""

    def broken_by(self, worker: str) -> str:
        """Why the worker was ended for its memory, empty if it was not."""

    def remove(self, worker: str) -> None:
        """Its process is gone: nothing of the fence remains, and nothing that runs in it."""

    def close(self) -> None:
        """As ``remove`` for all."""


class RlimitFences:
    """What each process may allocate; not how much all of a worker's do together."""

    guarantee = "rlimit"

    def put(self, worker: str, pid: int, limits: Limits) -> None:
        """See the port."""
        if sys.platform == "linux" and limits.memory:
            import resource

            resource.prlimit(pid, resource.RLIMIT_DATA, (limits.memory, limits.memory))
        if limits.cpu:
            log.warning("processor time of %s cannot be limited here: no cgroups", worker)

    def broken_by(self, worker: str) -> str:
        """See the port."""
        del worker
        return ""

    def remove(self, worker: str) -> None:
        """See the port."""

    def close(self) -> None:
        """See the port."""


class NoFences(RlimitFences):
    """For systems that let nobody limit another process."""

    guarantee = "none"

    def put(self, worker: str, pid: int, limits: Limits) -> None:
        """See the port."""
        del pid
        log.warning("%s cannot be held to %s here: the system has no means", worker, limits)


def find_fences() -> Fences:
    """The strongest there are. GU_LIMITS (``cgroup``, ``rlimit``, ``none``) wants others."""
    wanted = os.environ.get("GU_LIMITS", "")
    if sys.platform != "linux":
        return NoFences()
    if wanted == "none":
        return NoFences()
    if wanted != "rlimit":
        from guactors.runtimes.cgroups import find_cgroups

        found = find_cgroups()
        if found is not None:
            return found
    return RlimitFences()
