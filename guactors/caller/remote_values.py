"""Values that other machines keep for us: when they come here, and what is done when they are lost.

Owns: the decision to bring a value, to leave it and send the call there, or to have it made again.
Must never: move bytes itself (``away`` does), or choose a machine for a call (``leases`` do).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Final

from guactors.caller.away import Away, Bringing
from guactors.caller.endings import Endings
from guactors.caller.lineage import Lineage
from guactors.caller.objects import ObjectTable
from guactors.caller.tasks import Buffers, Task
from guactors.errors import GuactorsError, ObjectLost
from guactors.messages import BlockChunk

LOOK: Final = 5.0
"""Seconds between two looks whether values on their way still come."""


class RemoteValues:
    """``resubmit(task, ready)``: run a call once more; ``ready``: its dependencies are there.
    ``now()``: when the present event came."""

    def __init__(
        self,
        objects: ObjectTable,
        endings: Endings,
        resubmit: Callable[[Task, bool], None],
        now: Callable[[], float],
    ) -> None:
        self._objects = objects
        self._endings = endings
        self._resubmit = resubmit
        self._now = now
        self.lineage = Lineage()
        self.bringing = bringing = Bringing(objects.effects)
        bringing.arrived = objects.come
        bringing.failed = self._fail
        bringing.lost = self._lost
        objects.bring = self._bring
        objects.on_left = self._left
        objects.on_keeper_lost = self._keeper_lost
        endings.on_away = self.lineage.keep

    # --- bringing -----------------------------------------------------------------------------

    def gather_here(self, task: Task) -> bool:
        """Whether all that the task depends on is here; else it is brought. For calls that must not
        be overtaken: a neighbour that finds a value gone would have them sent once more."""
        far = [id for id in task.deps if not self._objects.is_here(id)]
        self.fetch_for(task, far)
        return not far

    def gather(self, task: Task, neighbour: str) -> bool:
        """Whether the task can go to the neighbour as things are; else what the neighbour cannot
        reach is brought here, and the task is ready when it is."""
        far = [id for id in task.deps if not self._objects.within_reach(id, neighbour)]
        self.fetch_for(task, far)
        return not far

    def fetch_for(self, task: Task, ids: list[int]) -> None:
        """Have these brought here, or made again; the task is ready when they are."""
        objects = self._objects
        for id in ids:
            entry = objects.entries[id]
            task.unmet += 1
            entry.dependents = [*(entry.dependents or ()), task]
        for id in ids:
            away = objects.entries[id].data
            if isinstance(away, Away):
                self._bring(id, away)

    def on_chunk(self, peer: str, message: BlockChunk, buffers: Buffers) -> None:
        """Bytes of a value."""
        self.bringing.on_chunk(peer, message, buffers, self._now())

    def on_leaving(self, neighbour: str) -> None:
        """It ends soon: what it keeps for us comes here."""
        if neighbour in self._objects.kept_at:
            for id, entry in self._objects.entries.items():
                if isinstance(entry.data, Away) and entry.data.giver == neighbour:
                    self._bring(id, entry.data)

    def on_tick(self, now: float) -> None:
        """Neighbours that keep what they do not send are given up."""
        if self.bringing:
            self.bringing.on_tick(now)

    def next_wake(self, now: float) -> float | None:
        """When to look for neighbours that do not send."""
        return now + LOOK if self.bringing else None

    def _bring(self, id: int, away: Away) -> None:
        self.bringing.bring(id, away, self._now())

    def _left(self, id: int) -> None:
        """The value is here, or nobody wants it: the call that made it is not needed, unless it is
        being made again for another result."""
        self.bringing.forget(id)
        task = self.lineage.let_go(id)
        if task is not None and not self._running(task):
            self._endings.finish(task)

    # --- loss ---------------------------------------------------------------------------------

    def on_missed(self) -> None:
        """Values were gone when we heard of them."""
        missed, self._objects.missed = self._objects.missed, []
        for id, why in missed:
            if self._objects.is_away(id):
                self._lost(id, why)

    def _keeper_lost(self, neighbour: str) -> None:
        """What it kept for us is gone with it."""
        self.bringing.on_source_lost(neighbour, self._now())
        for id, entry in list(self._objects.entries.items()):
            if isinstance(entry.data, Away) and entry.data.giver == neighbour:
                self._lost(id, f"{neighbour} is gone")

    def _lost(self, id: int, why: str) -> None:
        self.bringing.forget(id)
        task = self.lineage.maker(id)
        running = task is not None and self._running(task)
        if task is None or task.cancelled or task.fault or not (running or task.retries):
            reason = (
                f"the memory that held the value is gone ({why}), and it cannot be made again: it "
                "came of an actor or a stream, or of a call that has no retries left or whose "
                "arguments were too large to be kept"
            )
            self._fail(id, ObjectLost(reason))
            return
        self.lineage.let_go(id)
        self._objects.unsettle(id, task)
        if running:
            return
        task.retries -= task.retries > 0
        task.attempt += 1
        task.peer = ""
        self._resubmit(task, self._await_again(task))

    def _running(self, task: Task) -> bool:
        """Whether the call is under way again already."""
        entries = (self._objects.entries.get(id) for id in task.results())
        return any(entry is not None and entry.data is None for entry in entries)

    def _await_again(self, task: Task) -> bool:
        """Whether all that the task depends on is there; some of it may be made again as well."""
        task.unmet = 0
        for id in task.deps:
            entry = self._objects.entries[id]
            if entry.data is None:
                task.unmet += 1
                entry.dependents = [*(entry.dependents or ()), task]
        return not task.unmet

    def _fail(self, id: int, error: GuactorsError) -> None:
        self._objects.come(id, pickle.dumps(error, 5), error=True)
