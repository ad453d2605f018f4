"""Calls that stand still with the worker or actor that has them, or come back from it before.

Owns: who is told of the standstill and whose clock stops, where the caller of a call said so
(``Task.stillness``). Must never: make anything stand still or go on (hub and provider do), or ask
anything of a call without such a word.

``raises``: a call to an actor that stands still is not sent, and ends in Suspended; so do those
that wait here for such an actor. One that was sent goes on when there is room, and stays as it is:
only whoever waits for its value is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from guactors.caller.actors import ActorBook, RemoteActor
from guactors.caller.cancelling import Cancelling
from guactors.caller.endings import Endings
from guactors.caller.leases import LeaseBook
from guactors.caller.tasks import Task
from guactors.errors import Suspended, TaskCancelled
from guactors.messages import Bounced, Standing


class StandingCalls:
    """``now``: the time of the present event."""

    def __init__(
        self,
        leases: LeaseBook,
        actors: ActorBook,
        endings: Endings,
        cancelling: Cancelling,
        now: Callable[[], float],
    ) -> None:
        self._objects = endings.objects
        self._leases = leases
        self._endings = endings
        self._cancelling = cancelling
        self._now = now
        self._actors = actors
        self._stood: set[str] = set()
        """Actors that stand still."""
        self.used = False
        """Some call has had a stillness."""
        self.news = False
        """Something began to stand still, or goes on: those who wait for it look again."""
        leases.on_left = self.go_on

    # --- what is so -----------------------------------------------------------------------------

    def why(self, task: Task) -> Standing | None:
        """Why the call stands still; None where it does not."""
        home = task.home
        if type(home) is RemoteActor:
            return home.standing
        lease = self._leases.by_peer.get(task.peer)
        return lease.standing if lease is not None else None

    def stands(self, id: int) -> bool:
        """Whether the call that is to make this object stands still."""
        task = self._objects.entries[id].task
        return task is not None and self.why(task) is not None

    def minds(self, id: int) -> bool:
        """Whether who waits for this object is to be told when its call stands still."""
        entry = self._objects.entries.get(id)
        task = entry.task if entry is not None else None
        return task is not None and task.stillness is not None and task.stillness.raises

    def told(self, id: int) -> Suspended | None:
        """What who waits for this object is told now; None where it is to wait."""
        task = self._objects.entries[id].task if self.minds(id) else None
        found = self.why(task) if task is not None else None
        if task is None or found is None:
            return None
        return _error(
            f"{_name(task)} has begun and stands still", found, self._where(task),
            "it goes on when there is room: get() it again, or cancel() it",
        )  # fmt: skip

    def _where(self, task: Task) -> str:
        home = task.home
        if type(home) is RemoteActor:
            return home.target.provider if home.target is not None else ""
        lease = self._leases.by_peer.get(task.peer)
        return lease.target.provider if lease is not None else ""

    # --- what happens ---------------------------------------------------------------------------

    def submitted(self, task: Task) -> bool:
        """A new call, of which something was said. Whether it ended at once."""
        self.used = True
        for id in task.results():
            self._objects.entries[id].task = task
        home = task.home
        if type(home) is not RemoteActor or home.standing is None:
            return False
        if self._refused(home, home.standing, task):
            return True
        self._stop_clock(task)
        return False

    def on_actor(self, actor: RemoteActor) -> None:
        """The hub has told how it fares."""
        standing = actor.standing
        if (standing is not None) == (actor.id in self._stood):
            return
        sent = list(actor.target.in_flight.values()) if actor.target is not None else []
        if standing is None:
            self._stood.discard(actor.id)
            self.go_on([*sent, *actor.queue, *actor.parked.values()])
            return
        self._stood.add(actor.id)
        self._stand(sent)
        for task in [*actor.queue, *actor.parked.values()]:
            if task.stillness is not None and not self._refused(actor, standing, task):
                self._stop_clock(task)

    def on_hub_up(self) -> None:
        """A fresh link: what stands still is said again, that it goes on may have been lost."""
        for lease in list(self._leases.by_id.values()):
            if lease.standing is not None:
                self.on_lease(lease.id, None)

    def on_lease(self, lease: str, standing: Standing | None) -> None:
        """It stands still, or, with None, goes on."""
        known = self._leases.by_id.get(lease)
        if known is None:
            return
        tasks = known.target.in_flight.values()
        if standing is None:
            self.go_on(tasks)
        else:
            self._stand(tasks)
        self._leases.on_suspended(known, standing)

    def on_bounced(self, peer: str, message: Bounced, now: float) -> None:
        """Calls that were not begun come back."""
        lease, actor = self._leases.by_peer.get(peer), self._actors.by_peer.get(peer)
        cancelled: list[Task] = []
        if lease is not None:
            cancelled = self._leases.on_bounced(lease, message, now)
        elif actor is not None:
            cancelled = self._actors.on_bounced(actor, message)
        for task in cancelled:
            self._endings.fail(task, TaskCancelled(f"{_name(task)} was cancelled"))

    def on_unblocked(self, peer: str, now: float) -> None:
        """Calls are welcome there again."""
        lease, actor = self._leases.by_peer.get(peer), self._actors.by_peer.get(peer)
        if lease is not None:
            self._leases.on_unblocked(lease, now)
        elif actor is not None and actor.target is not None:
            actor.target.blocked = False
            self._actors.dispatch(actor, now)

    def _stand(self, tasks: Iterable[Task]) -> None:
        self.news = True
        for task in tasks:
            if task.stillness is not None:
                self._stop_clock(task)

    def _refused(self, actor: RemoteActor, standing: Standing, task: Task) -> bool:
        """Whether the call, which was not sent, does not want to wait, and has ended."""
        if task.stillness is None or not task.stillness.raises:
            return False
        actor.unqueue(task)
        error = _error(
            f"{_name(task)} was not sent: {actor.id} stands still", standing, self._where(task),
            'call it again later, or with on_suspended="wait"',
        )  # fmt: skip
        self._endings.fail(task, error)
        return True

    # --- clocks ---------------------------------------------------------------------------------

    def _stop_clock(self, task: Task) -> None:
        found = task.stillness
        if found is not None and not found.counts and task.deadline and not found.since:
            found.since = self._now()

    def go_on(self, tasks: Iterable[Task]) -> None:
        """They stand still no longer, or wait elsewhere now."""
        self.news = True
        for task in tasks:
            found = task.stillness
            if found is not None and found.since:
                task.deadline += self._now() - found.since
                found.since = 0.0
                self._cancelling.watch(task)

    def check(self) -> None:
        """Only of what stands still the clock stands."""
        for entry in self._objects.entries.values():
            task = entry.task
            if task is not None and task.stillness is not None and task.stillness.since:
                assert entry.data is not None or self.why(task) is not None, task


def _name(task: Task) -> str:
    return task.name or task.method


def _error(what: str, standing: Standing, where: str, advice: str) -> Suspended:
    since = datetime.fromtimestamp(standing.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    place = f" on {where}" if where else ""
    whom = f" ({standing.by})" if standing.by else ""
    text = f"{what}{place} since {since}, {standing.reason}{whom}; {advice}"
    return Suspended(text, standing.by, standing.since, standing.reason)
