"""Actor handles: where each actor is, what waits for it, and what its death means for each call.

Owns: per actor the order of calls, the incarnation they went to, the grace in which a broken link
waits for the hub's word on what happened. Must never: choose a provider (the hub does).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from guactors.caller.effects import Dial, Effect, Hangup, SendHub
from guactors.caller.objects import ObjectTable
from guactors.caller.targets import Target
from guactors.caller.task_log import TaskLog
from guactors.caller.tasks import Task
from guactors.errors import (
    MEMORY_CAUSES,
    ActorDied,
    ActorKilled,
    ActorOutOfMemory,
    ActorUnavailable,
    Death,
    GuactorsError,
    PermissionDenied,
    RuntimeEnvSetupError,
    TooManyPending,
)
from guactors.messages import (
    UNKNOWN_HERE,
    ActorUpdate,
    CreateActor,
    DeathReport,
    KillActor,
    WatchActor,
)

DOUBT = 2.0
"""Seconds a call on a broken link waits for the hub to say what became of the actor."""
WINDOW = 4096
"""Unanswered calls one caller may have at one actor; more wait here, not in the actor's memory."""
NOT_ALLOWED = frozenset({"refused", "revoked"})
ON_PURPOSE = frozenset({"killed", "released", "session_ended", "group_removed"})


class RemoteActor:
    """One actor as this process knows it. ``state`` as in ActorUpdate; ``creation`` is kept until
    the hub confirms it, ``ending`` until it says that the actor is dead: both are told again after
    a relink. ``concurrency``: calls it runs at a time, 0 where that is not known here.
    ``unordered``: calls that wait for their arguments are ``parked`` beside the queue, and others
    overtake them. ``most_pending``: unanswered calls it may have from here, -1 for any number."""

    __slots__ = (
        "broken_at", "broken_why", "concurrency", "creation", "death", "ending", "error", "handles",
        "id", "incarnation", "most_pending", "name", "parked", "queue", "shared", "state", "target",
        "unordered",
    )  # fmt: skip

    def __init__(self, id: str, name: str) -> None:
        self.id = id
        self.name = name
        self.state = "pending"
        self.incarnation = -1
        self.target: Target | None = None
        self.queue: deque[Task] = deque()
        self.death: Death | None = None
        self.error = b""
        self.broken_at = 0.0
        self.broken_why = ""
        self.creation: CreateActor | None = None
        self.ending: KillActor | None = None
        self.handles = 0
        self.shared = False
        self.concurrency = 0
        self.unordered = False
        self.most_pending = -1
        self.parked: dict[int, Task] = {}

    def pending(self) -> int:
        """Calls from here that are not answered."""
        sent = len(self.target.in_flight) if self.target is not None else 0
        return sent + len(self.queue) + len(self.parked)

    def take_waiting(self) -> list[Task]:
        """Everything that has not left yet, taken out."""
        waiting = [*self.queue, *self.parked.values()]
        self.queue.clear()
        self.parked.clear()
        return waiting

    def unqueue(self, task: Task) -> bool:
        """Take out a call that has not left yet; whether it was in the queue."""
        if self.parked.pop(task.id, None) is not None or task not in self.queue:
            return False
        self.queue.remove(task)
        return True

    def __repr__(self) -> str:
        return f"<RemoteActor {self.id} {self.name} {self.state} #{self.incarnation}>"


class ActorBook:
    """All actors this process holds handles of."""

    def __init__(self, objects: ObjectTable, log: TaskLog) -> None:
        self.objects = objects
        self.log = log
        self.actors: dict[str, RemoteActor] = {}
        self.by_peer: dict[str, RemoteActor] = {}
        self.dirty: list[Target] = []
        self.gather: Callable[[Task], bool] = lambda task: True
        """Has brought here what a call depends on and a neighbour cannot reach; whether all can be
        told to it already."""

    @property
    def effects(self) -> list[Effect]:
        return self.objects.effects

    def watch(self, id: str, name: str) -> RemoteActor:
        """A handle arrived or was found; ask the hub for the actor's state once."""
        actor = self.actors.get(id)
        if actor is None:
            actor = self.actors[id] = RemoteActor(id, name)
            self.effects.append(SendHub(WatchActor(id)))
        return actor

    def add(self, id: str, name: str) -> RemoteActor:
        """An actor that this process is about to make."""
        actor = self.actors[id] = RemoteActor(id, name)
        return actor

    def create(self, actor: RemoteActor, message: CreateActor) -> None:
        """Have the hub make it; told again after a relink until the hub has confirmed it."""
        actor.creation = message
        self.effects.append(SendHub(message))

    def end(self, id: str, message: KillActor) -> None:
        """Have the hub end it; an end for good is told again after a relink."""
        actor = self.actors.get(id)
        if (
            actor is not None
            and message.no_restart
            and (actor.ending is None or not message.released)
        ):
            actor.ending = message
        self.effects.append(SendHub(message))

    def ended(self, id: str) -> None:
        """The hub knows of its end."""
        if id in self.actors:
            self.actors[id].ending = None

    def forget(self, actor: RemoteActor) -> None:
        """It was never made."""
        self.actors.pop(actor.id, None)

    def check_room(self, actor: RemoteActor, task: Task) -> None:
        """Raises TooManyPending where the actor has as many calls from here as it allows; the new
        call is forgotten."""
        if actor.pending() < actor.most_pending:
            return
        for id in task.results():
            self.objects.drop(id)
        raise TooManyPending(
            f"{actor.name}.{task.method} was not called: {actor.pending()} calls to this actor are "
            f"unanswered, as many as its max_pending_calls={actor.most_pending}; wait for some"
        )

    def submit(self, actor: RemoteActor, task: Task, now: float) -> None:
        """Queue a call; it leaves when all before it have left and its dependencies are there."""
        if actor.state == "dead":
            self.refuse(actor, task)
            return
        queue = actor.queue
        target = actor.target
        if (
            target is not None
            and not (target.lost or queue or task.unmet)
            and len(target.in_flight) < WINDOW
            and (not task.deps or self.objects.all_here)
        ):
            # The common case: nothing waits before it, and the actor is there.
            if not target.outbox:
                self.dirty.append(target)
            target.add(task, self.objects, {}, now)
            return
        if task.unmet and actor.unordered:
            actor.parked[task.id] = task
            return
        self._enqueue(actor, task)
        self.dispatch(actor, now)

    def on_ready(self, actor: RemoteActor, task: Task, now: float) -> None:
        """The arguments of a call are there."""
        if actor.parked.pop(task.id, None) is not None:
            self._enqueue(actor, task)
        self.dispatch(actor, now)

    @staticmethod
    def _enqueue(actor: RemoteActor, task: Task) -> None:
        queue = actor.queue
        if queue and queue[-1].priority < task.priority:
            place = next(i for i, other in enumerate(queue) if other.priority < task.priority)
            queue.insert(place, task)
        else:
            queue.append(task)

    def dispatch(self, actor: RemoteActor, now: float) -> None:
        target = actor.target
        if target is None or target.lost:
            return
        queue = actor.queue
        while queue and queue[0].unmet == 0:
            if len(target.in_flight) >= WINDOW and queue[0].priority <= target.lowest:
                break
            if not (self.objects.all_here or self.gather(queue[0])):
                break
            if not target.outbox:
                self.dirty.append(target)
            target.add(queue.popleft(), self.objects, {}, now)

    def refuse(self, actor: RemoteActor, task: Task) -> None:
        """Settle a call to a dead actor with its cause of death."""
        if actor.error:
            for id in task.results():
                self.objects.settle(id, actor.error, error=True)
            self.log.on_end(task, ActorDied.__name__)
            return
        death = actor.death or Death("released")
        call = f"{actor.name}.{task.method}" if task.method else actor.name
        error: GuactorsError
        if death.cause in NOT_ALLOWED:
            error = PermissionDenied(f"the actor of {call} may not run: {death.detail}")
        elif death.cause == "env_failed":
            error = RuntimeEnvSetupError(f"the actor of {call}: {death.detail}")
        elif death.cause in ON_PURPOSE:
            error = ActorKilled(f"the actor of {call} is gone", death)
        elif death.cause in MEMORY_CAUSES:
            error = ActorOutOfMemory(f"the actor of {call} is gone", death)
        else:
            error = ActorDied(f"the actor of {call} is gone", death)
        for id in task.results():
            self.objects.fail(id, error)
        self.log.on_end(task, type(error).__name__)

    def clear(self) -> None:
        """Calls wait no more, for the session ends."""
        for actor in self.actors.values():
            actor.queue.clear()
            actor.parked.clear()
            if actor.target is not None:
                actor.target.in_flight.clear()

    # --- events -----------------------------------------------------------------------------

    def on_update(self, message: ActorUpdate, now: float) -> list[Task]:
        """The hub's word. Returns calls that are settled now and need no more bookkeeping."""
        actor = self.actors.get(message.actor)
        if actor is None:
            return []
        if actor.state == "dead":
            self._dead_is_final(actor, message)
            return []
        # Dead is final, and a new hub that never met the actor does not know its number.
        if message.incarnation < actor.incarnation and message.state != "dead":
            return []
        actor.creation = None
        if message.state == "alive":
            return self._alive(actor, message, now)
        if message.state == "pending":
            actor.state = "pending"
            return []
        actor.state = message.state
        actor.death = death_of(message.death)
        actor.error = message.error
        over = self._owed(actor, actor.death)
        if message.state == "dead":
            for task in actor.take_waiting():
                self.refuse(actor, task)
                over.append(task)
        return over

    def _dead_is_final(self, actor: RemoteActor, message: ActorUpdate) -> None:
        """A provider that was away when the actor was ended may tell a hub that was not there then
        of one that lives: nobody could end it but those who know."""
        known = actor.death
        if message.state != "dead" and known is not None and known.detail != UNKNOWN_HERE:
            self.effects.append(SendHub(KillActor(actor.id)))

    def _alive(self, actor: RemoteActor, message: ActorUpdate, now: float) -> list[Task]:
        over: list[Task] = []
        actor.state = "alive"
        if actor.target is not None:
            # Of a broken link the hub may know less than we do: on_tick ends the doubt.
            if message.incarnation == actor.incarnation:
                return over
            over = self._owed(actor, Death("link_lost", "replaced by a restart"))
        actor.incarnation = message.incarnation
        actor.target = Target(message.worker, message.endpoints, message.provider)
        self.objects.places.meet(message.worker, message.endpoints, message.provider)
        actor.broken_at = 0.0
        self.by_peer[message.worker] = actor
        self.effects.append(Dial(message.worker, message.endpoints))
        self.dispatch(actor, now)
        return over

    def _owed(self, actor: RemoteActor, death: Death | None) -> list[Task]:
        """The present incarnation is over: retry what may be retried, settle the rest."""
        target = actor.target
        if target is None:
            return []
        actor.target = None
        self.by_peer.pop(target.peer, None)
        self.effects.append(Hangup(target.peer))
        owed = sorted(target.in_flight.values(), key=lambda task: task.id)
        target.in_flight.clear()
        target.outbox.clear()
        target.lost = True
        again, over = [], []
        for task in owed:
            if actor.state != "dead" and task.retries != 0 and not task.cancelled:
                task.retries -= task.retries > 0
                task.attempt += 1
                again.append(task)
                continue
            over.append(task)
            if actor.state == "dead":
                self.refuse(actor, task)
            else:
                error = ActorUnavailable(f"{actor.name}.{task.method} was lost", death)
                for id in task.results():
                    self.objects.fail(id, error)
                self.log.on_end(task, type(error).__name__)
        actor.queue.extendleft(reversed(again))
        # The link is closed from this side: nobody else will say that its loans are over.
        self.objects.on_neighbour_lost(target.peer)
        return over

    def on_link_down(self, actor: RemoteActor, now: float, why: str = "") -> None:
        """The link broke. The hub knows more: give it a moment, see :data:`DOUBT`."""
        if actor.target is not None:
            actor.target.lost = True
            actor.broken_at = now
            actor.broken_why = why
            self.effects.append(SendHub(WatchActor(actor.id)))

    def on_tick(self, now: float) -> list[Task]:
        """Links in doubt for too long: the calls are lost, the actor is dialled again."""
        over: list[Task] = []
        for actor in self.actors.values():
            if actor.broken_at and now - actor.broken_at >= DOUBT:
                actor.broken_at = 0.0
                over += self._owed(
                    actor, Death("link_lost", actor.broken_why or "no word from the hub")
                )
                self.effects.append(SendHub(WatchActor(actor.id)))
        return over

    def next_wake(self) -> float | None:
        return min((a.broken_at + DOUBT for a in self.actors.values() if a.broken_at), default=None)


def death_of(report: DeathReport | None) -> Death | None:
    """The wire form as the public record."""
    if report is None:
        return None
    return Death(
        report.cause, report.detail, report.exit_code, report.signal, report.stderr_tail,
        report.rss_bytes, report.worker, report.provider,
    )  # fmt: skip
