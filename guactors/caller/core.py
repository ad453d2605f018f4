"""The door to the caller's thinking: events in, effects out.

Owns: the order of things between objects, leases, actors and streams. Called by ``session.py``
under its lock, by the simulation directly. Must never: do I/O, read a clock, unpickle a user's
value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from guactors.caller.actors import ActorBook, RemoteActor, death_of
from guactors.caller.answers import Answers
from guactors.caller.away import Away
from guactors.caller.cancelling import Cancelling
from guactors.caller.deadlines import left
from guactors.caller.demands import Demand
from guactors.caller.doubts import Doubts
from guactors.caller.effects import Effect, SendHub
from guactors.caller.endings import Endings
from guactors.caller.entries import Entry
from guactors.caller.groups import GroupBook
from guactors.caller.leases import LeaseBook
from guactors.caller.objects import ObjectTable
from guactors.caller.patience import Patience
from guactors.caller.remote_values import RemoteValues
from guactors.caller.standing import StandingCalls
from guactors.caller.streams import Stream
from guactors.caller.targets import Target
from guactors.caller.task_log import DEPENDENCY_FAILED, TaskLog
from guactors.caller.tasks import STREAM, Buffers, Task, shape_key
from guactors.errors import Death, GuactorsError
from guactors.messages import (
    ActorUpdate,
    Bounced,
    DeathReport,
    Define,
    DemandInfeasible,
    Fetch,
    GroupsAre,
    HeldLeases,
    KillActor,
    LeaseDue,
    LeaseGranted,
    LeaseLost,
    LeaseRecalled,
    LeaseResumed,
    LeaseSuspended,
    Message,
    Object,
    RefWord,
    Release,
    Replies,
    ReturnLease,
    Shape,
    StreamItem,
    Unblocked,
    WatchActor,
)


class CallerCore:
    """Everything one calling process knows. ``retry_error(task, data)`` tells whether a user's
    pickled error is one the task wants to be retried for, ``pack_refs`` pickles references."""

    def __init__(
        self,
        me: str,
        *,
        linger: float = 0.5,
        patience: float = 10.0,
        retry_error: Callable[[Task, bytes], bool] = lambda task, data: False,
        store: str = "",
        pack_refs: Callable[[list[RefWord]], bytes] = lambda words: b"",
    ) -> None:
        self.me = me
        self.objects = ObjectTable(me, store)
        self.objects.on_ready = self._on_ready
        self.blobs: dict[bytes, Define] = {}
        self.leases = LeaseBook(self.objects, self.blobs, linger)
        self.log = TaskLog()
        self.log.now = lambda: self._now
        self.actors = ActorBook(self.objects, self.log)
        self.dirty: list[Target] = []
        self.leases.dirty = self.actors.dirty = self.dirty
        self.endings = Endings(self.objects, self.log, pack_refs)
        self.streams = self.endings.streams
        self.cancelling = Cancelling(
            self.objects, self.leases, self.endings, self._target, self._make_way
        )
        self.standing = StandingCalls(
            self.leases, self.actors, self.endings, self.cancelling, lambda: self._now
        )
        self.remote = RemoteValues(
            self.objects, self.actors, self.endings, self._resubmit, lambda: self._now
        )
        self.leases.gather = self.remote.gather
        self.leases.now = lambda: self._now
        self.actors.gather = self.remote.gather_firmly
        self.answers = Answers(
            self.objects, self.leases, self.actors, self.endings, self.remote, self.log,
            retry_error,
        )  # fmt: skip
        self.doubts = Doubts(self.objects, self.leases, self.endings)
        self.patience = Patience(self.objects, self.leases, self.actors, self.endings, patience)
        self.groups = GroupBook(self.objects, patience)
        self.hub_up = False
        self._releasing: dict[str, RemoteActor] = {}
        self._now = 0.0

    # --- what the user asks -----------------------------------------------------------------

    def demand(self, shape: Shape) -> Demand:
        """The demand of this shape, made on first use."""
        key = shape_key(shape)
        demand = self.leases.demands.get(key)
        if demand is None:
            if self.groups.unsaid:
                self.groups.flush()  # the demand may be about one of them
            demand = self.leases.demands[key] = Demand(key, shape)
        return demand

    def submit(self, home: Demand | RemoteActor, task: Task, now: float) -> None:
        """A new call; its result entries exist already."""
        self._now = task.made = now
        task.home = home
        if type(home) is RemoteActor and home.most_pending > 0:
            self.actors.check_room(home, task)
        objects = self.objects
        objects.entries[task.id].task = task
        special = task.deadline or task.due or task.lent or task.deps or task.stillness
        if task.returns == 1 and not special:
            # The common case, spared the questions below.
            if type(home) is RemoteActor:
                self.actors.submit(home, task, now)
            elif type(home) is Demand:
                self.leases.submit(home, task, now)
            return
        if task.returns == STREAM:
            self.endings.streams[task.id] = Stream(
                task.window, gather=task.gather, goes_on=task.goes_on
            )
        if task.deadline or task.due:
            self.cancelling.watch(task)
        for id in task.lent:
            objects.hold(id)
        ready = objects.depend(task) if task.deps else True
        if task.stillness is not None and self.standing.submitted(task):
            return
        if isinstance(home, RemoteActor):
            self.actors.submit(home, task, now)
            if home.state == "dead":
                self.endings.end_stream(task)
                self.endings.finish(task)
        elif ready:
            self.leases.submit(home, task, now)

    def want(self, entries: Iterable[Entry], now: float) -> bool:
        """Somebody here waits for these: have what was lent to us, and what is away, come; whether
        that takes anything."""
        self._now = now
        for entry in entries:
            entry.wanted = True
            if entry.origin is not None:
                self.objects.need(entry.id)
            if isinstance(entry.data, Away):
                self.objects.bring(entry.id, entry.data)
        return bool(self.objects.effects)

    def _resubmit(self, task: Task, ready: bool) -> None:
        if type(task.home) is RemoteActor:
            self.actors.submit(task.home, task, self._now)
            if task.home.state == "dead":
                self.endings.finish(task)
        elif ready:
            self.leases.submit(task.home, task, self._now)

    def _on_ready(self, task: Task) -> None:
        """The last dependency came; a failed one is the task's own outcome. A call whose result
        nobody wants any more still runs: it may have been made for what it does; one that was
        cancelled does not."""
        home = task.home
        wanted = any(id in self.objects.entries for id in task.results())
        if task.fault or (wanted and self.endings.settled(task)):
            self.endings.finish(task)
        elif any(self.objects.entries[id].error for id in task.deps):
            failed = next(i for i in task.deps if self.objects.entries[i].error)
            entry = self.objects.entries[failed]
            if type(home) is RemoteActor:
                home.unqueue(task)
            for id in task.results():
                self.objects.settle(id, entry.data or b"", entry.buffers, error=True)
            self.log.on_end(task, DEPENDENCY_FAILED)
            self.endings.end_stream(task)
            self.endings.finish(task)
            self._make_way(task)
        elif type(home) is RemoteActor:
            self.actors.on_ready(home, task, self._now)
        else:
            self.leases.submit(home, task, self._now)

    def _make_way(self, task: Task) -> None:
        """It waits no longer, and those behind it may go."""
        if type(task.home) is RemoteActor:
            self.actors.dispatch(task.home, self._now)

    def cancel(self, id: int, now: float, *, force: bool = False, recursive: bool = True) -> None:
        """End the call that makes this object, if it is still under way."""
        self._now = now
        self.cancelling.cancel(id, now, force=force, recursive=recursive)

    def cancel_children(self, parent: object, now: float) -> None:
        """Cancel every unfinished call that was made by the call ``parent``."""
        self._now = now
        self.cancelling.cancel_children(parent, now)

    def close(self, why: GuactorsError | None = None) -> None:
        """The session ends: everything pending is settled, with ``why`` if there is a reason."""
        self.endings.close(why)
        self.leases.clear()
        self.actors.clear()
        self.objects.close()

    def kill_actor(self, actor: RemoteActor, *, no_restart: bool, now: float) -> None:
        """End it. With ``no_restart`` it is dead for this process from here on."""
        self._now = now
        self.actors.end(actor.id, KillActor(actor.id, no_restart))
        if no_restart:
            report = DeathReport("killed", "kill() was called")
            self._on_actor(ActorUpdate(actor.id, "dead", actor.incarnation, death=report), now)

    def fail_actor(self, actor: RemoteActor, error: bytes, now: float) -> None:
        """It cannot be made, because of this pickled ``error``."""
        report = DeathReport("creation_failed", "an argument of its constructor failed")
        self._on_actor(
            ActorUpdate(actor.id, "dead", actor.incarnation, death=report, error=error), now
        )

    def _on_actor(self, message: ActorUpdate, now: float) -> None:
        for task in self.actors.on_update(message, now):
            self.endings.end_stream(task)
            self.endings.finish(task)
        actor = self.actors.actors.get(message.actor)
        if actor is not None:
            self.standing.on_actor(actor)
            self.remote.on_actor(actor)

    def release_actor(self, actor: RemoteActor) -> None:
        """The last handle is gone: end the actor when its calls are answered."""
        self._releasing[actor.id] = actor
        self._release_idle()

    def _release_idle(self) -> None:
        for actor in list(self._releasing.values()):
            busy = actor.pending()
            if actor.handles or actor.state == "dead":
                del self._releasing[actor.id]
            elif actor.state == "alive" and not busy:
                del self._releasing[actor.id]
                self.actors.end(actor.id, KillActor(actor.id, released=True))

    # --- the hub ------------------------------------------------------------------------------

    def on_hub_up(self, now: float) -> None:
        """A fresh link: tell everything again, in absolute terms."""
        self.hub_up, self._now = True, now
        self.standing.on_hub_up()
        send = [*self.groups.told_again(), SendHub(HeldLeases(list(self.leases.by_id)))]
        send += [
            SendHub(self.leases.told(demand))
            for demand in self.leases.demands.values()  # a zero, too, may have been lost
        ]
        send += [SendHub(LeaseDue(x.id, left(x.due, now))) for x in self.leases.due()]
        for actor in self.actors.actors.values():
            if actor.creation is not None:
                send.append(SendHub(actor.creation))
            elif actor.state != "dead":
                send.append(SendHub(WatchActor(actor.id)))
            if actor.ending is not None:
                send.append(SendHub(actor.ending))
        # What the core wanted to say while there was no link is covered by the above, except
        # for returns and kills, which are said again.
        kept = [e for e in self.objects.effects if not isinstance(e, SendHub) or _must_say(e)]
        self.objects.effects[:] = [*send, *kept]

    def on_hub(self, message: Message, now: float) -> None:
        """Any message of the hub that concerns work."""
        self._now = now
        match message:
            case LeaseGranted():
                self.leases.on_granted(message, now)
            case LeaseRecalled(lease):
                if lease in self.leases.by_id:
                    self.leases.on_recalled(self.leases.by_id[lease], now)
            case LeaseLost(lease, report):
                self.doubts.lost(lease, death_of(report) or Death("link_lost"), now)
            case LeaseSuspended(lease, standing):
                self.standing.on_lease(lease, standing)
            case LeaseResumed(lease):
                self.standing.on_lease(lease, None)
            case ActorUpdate():
                self.patience.on_hope(message.actor)
                if message.state == "dead":
                    self.actors.ended(message.actor)
                self._on_actor(message, now)
            case DemandInfeasible(key, reason, kind):
                self.patience.on_infeasible(key, reason, kind, now)
            case GroupsAre(groups):
                self.groups.on_updates(groups, now)

    # --- workers ------------------------------------------------------------------------------

    def on_peer(self, peer: str, message: Message, buffers: Buffers, now: float) -> None:
        """Any message of a worker, or of a neighbour that dialled us."""
        self._now = now
        if type(message) is Replies:
            target = self._target(peer)
            if target is not None:
                self.answers.on_replies(peer, target, message, buffers, now)
            if self.objects.missed:
                self.remote.on_missed()
            return
        match message:
            case StreamItem():
                self.endings.on_item(peer, message, buffers)
                self.remote.on_missed()
            case Bounced():
                self.standing.on_bounced(peer, message, now)
            case Unblocked():
                self.standing.on_unblocked(peer, now)
            case Fetch(request, ref, whole):
                self.objects.fetches.on_fetch(peer, request, ref, whole=whole)
            case Release(refs):
                self.objects.on_release(peer, refs)
            case Object(request, value):
                self.objects.fetches.on_object(peer, request, value, buffers)
            case _:
                self.remote.on_message(peer, message, buffers)

    def _target(self, peer: str) -> Target | None:
        lease = self.leases.by_peer.get(peer)
        if lease is not None:
            return lease.target
        actor = self.actors.by_peer.get(peer)
        return actor.target if actor is not None else None

    def forget_stream(self, call: int, now: float) -> None:
        """Nobody reads the stream any more: drop what came, stop what runs."""
        stream = self.endings.streams.pop(call, None)
        if stream is not None:
            if not stream.finished:
                self.cancelling.cancel(call, now)
            for id in stream.items:
                self.objects.drop(id)
        self.objects.drop(call)

    # --- loss ---------------------------------------------------------------------------------

    def on_link_down(self, peer: str, now: float, why: str = "") -> None:
        """The link to a worker, or a neighbour's link to us, is gone."""
        self._now = now
        lease = self.leases.by_peer.get(peer)
        actor = self.actors.by_peer.get(peer)
        self.leases.linked.discard(peer)
        if lease is not None:
            self.doubts.broke(lease, now, why)
        elif actor is not None:
            self.actors.on_link_down(actor, now, why)
        self.objects.on_neighbour_lost(peer)

    # --- time ---------------------------------------------------------------------------------

    def on_tick(self, now: float) -> None:
        """Deadlines, lingering leases, doubts and hopeless demands that are due."""
        self._now = now
        self.cancelling.on_tick(now)
        self.leases.on_tick(now)
        self.doubts.on_tick(now)
        for task in self.actors.on_tick(now):
            self.endings.end_stream(task)
            self.endings.finish(task)
        self.patience.on_tick(now)
        self.groups.on_tick(now)
        self.remote.on_tick(now)

    def next_wake(self, now: float) -> float | None:
        """When ``on_tick`` is due next, or None."""
        wakes = (
            self.cancelling.next_wake(),
            self.leases.next_wake(now),
            self.doubts.next_wake(),
            self.actors.next_wake(),
            self.patience.next_wake(),
            self.groups.next_wake(),
            self.remote.next_wake(now),
        )
        return min((wake for wake in wakes if wake is not None), default=None)

    # --- effects ------------------------------------------------------------------------------

    def flush_urgent(self) -> bool:
        """As ``flush``, but only if an outbox should leave now rather than with the next calls."""
        for target in self.dirty:
            if target.urgent():
                self.flush()
                return True
        return False

    def flush(self) -> None:
        """Turn every outbox into a frame."""
        if self.groups.unsaid:
            self.groups.flush()
        for target in self.dirty:
            self.objects.effects += target.flush()
        self.dirty.clear()
        if self._releasing:
            self._release_idle()

    def take_effects(self) -> list[Effect]:
        """What is to be done now, in order; each effect is handed out once."""
        effects = self.objects.effects
        if not effects:
            return []
        taken = effects[:]
        effects.clear()
        return taken

    def check(self) -> None:
        """Invariants, for tests and the simulation."""
        self.objects.check()
        self.groups.check()
        self.standing.check()
        self.leases.check()


def _must_say(effect: SendHub) -> bool:
    return isinstance(effect.message, ReturnLease | KillActor)
