"""Who calls this worker, by link: what a call is named there, and what its lease holds.

Owns: these two facts of each link. Must never: decide who may call (``admission`` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from guactors.context import Running
from guactors.refs import grid_name
from guactors.worker.intake import Item

if TYPE_CHECKING:
    from guactors.worker.process import Worker


class Callers:
    """Implements ``context.Host``."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._peers: dict[str, str] = {}
        self._granted: dict[str, Mapping[str, float]] = {}

    def met(self, link: str, peer: str) -> None:
        """A caller introduced itself. The worker's lock is held."""
        self._peers[link] = peer

    def granted(self, link: str, resources: Mapping[str, float]) -> None:
        """What the caller's lease holds. The worker's lock is held."""
        self._granted[link] = resources

    def forget(self, link: str) -> None:
        """The link is gone. The worker's lock is held."""
        self._peers.pop(link, None)
        self._granted.pop(link, None)

    def task_id(self, call: Running) -> str:
        """As the port says."""
        assert isinstance(call, Item)
        return grid_name(self._peers.get(call.link, ""), call.call.id)

    def assigned(self, call: Running | None) -> Mapping[str, float]:
        """As the port says."""
        spec = self._worker.spec
        if spec is not None:
            return spec.shape.resources
        return self._granted.get(call.link, {}) if isinstance(call, Item) else {}
