"""Fences by cgroups of either version.

Owns: the groups of workers. Must never: touch a group that is not one of those.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from guactors.messages import Limits
from guactors.runtimes.cgroup import Group
from guactors.runtimes.cgroup_places import Places, find_places, sweep

log = logging.getLogger("guactors.provider")

_CLOSE_WITHIN: Final = 0.5


class CgroupFences:
    """:class:`~guactors.runtimes.fences.Fences`."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.guarantee = places.guarantee
        self._groups: dict[str, Group] = {}
        self._left: list[Group] = []
        """Groups that could not be removed yet: the last process in there is ending."""

    def put(self, worker: str, pid: int, limits: Limits) -> None:
        """See the port."""
        self._tidy()
        group = self._groups[worker] = Group(self._places, worker, limits)
        try:
            group.add(pid)
        except OSError:
            self.remove(worker)
            raise

    def broken_by(self, worker: str) -> str:
        """See the port."""
        group = self._groups.get(worker)
        return group.out_of_memory() if group is not None else ""

    def remove(self, worker: str) -> None:
        """See the port."""
        group = self._groups.pop(worker, None)
        if group is not None:
            self._left.append(group)
        self._tidy()

    def close(self) -> None:
        """See the port."""
        for worker in list(self._groups):
            self.remove(worker)
        deadline = time.monotonic() + _CLOSE_WITHIN
        while self._left and time.monotonic() < deadline:
            time.sleep(0.005)
            self._tidy()
        for group in self._left:
            log.warning("the cgroups %s are still in use and stay", group.paths)

    def _tidy(self) -> None:
        self._left = [group for group in self._left if not group.try_remove()]


def find_cgroups(
    mount: Path = Path("/sys/fs/cgroup"), cgroups: Path = Path("/proc/self/cgroup")
) -> CgroupFences | None:
    """Fences, where there are cgroups for us. Removes what dead processes of ours left there."""
    places = find_places(mount, cgroups)
    if places is None:
        return None
    sweep(places)
    return CgroupFences(places)
