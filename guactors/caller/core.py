"""The door to the caller's thinking: events in, effects out.

Owns: the order of things between objects, leases, actors and streams. Called by ``session.py`` under
its lock, by the simulation directly. Must never: do I/O, read a clock, unpickle a user's value.
"""

from __future__ import annotations

import heapq
import pickle
from collections.abc import Callable

from guactors.caller.actors import ActorBook, RemoteActor, death_of
from guactors.caller.effects import Effect, SendHub, SendPeer
from guactors.caller.leases import Demand, Lease, LeaseBook
from guactors.caller.objects import ObjectTable
from guactors.caller.streams import Stream
from guactors.caller.targets import Target
from guactors.caller.tasks import STREAM, Buffers, Task, shape_key
from guactors.errors import (
    CallTimeout,
    Death,
    ProviderLost,
    SessionClosed,
    TaskCancelled,
    Unschedulable,
    WorkerDied,
)
from guactors.messages import (
    ActorUpdate,
    Bounced,
    CancelCall,
    DeathReport,
    Define,
    DemandInfeasible,
    Fetch,
    HeldLeases,
    KillActor,
    LeaseGranted,
    LeaseLost,
    LeaseRecalled,
    Message,
    Object,
    Release,
    Replies,
    Reply,
    ReturnLease,
    SetDemand,
    Shape,
    StreamItem,
    Unblocked,
    WatchActor,
)

DOUBT = 2.0
"""Seconds a call on a broken link waits for the hub to say how its worker died."""


class Doubt:
    """A lease whose link broke, and the calls that wait for the cause."""

    __slots__ = ("lease", "since", "tasks")

    def __init__(self, lease: str, since: float, tasks: list[Task]) -> None:
        self.lease = lease
        self.since = since
        self.tasks = tasks


class CallerCore:
    """Everything one calling process knows. ``retry_error(task, data)`` tells whether a user's
    pickled error is one the task wants to be retried for."""

    def __init__(
        self,
        me: str,
        *,
        linger: float = 0.5,
        patience: float = 10.0,
        retry_error: Callable[[Task, bytes], bool] = lambda task, data: False,
    ) -> None:
        self.me = me
        self.patience = patience
        self.retry_error = retry_error
        self.objects = ObjectTable(me)
        self.objects.on_ready = self._on_ready
        self.blobs: dict[bytes, Define] = {}
        self.leases = LeaseBook(self.objects, self.blobs, linger)
        self.actors = ActorBook(self.objects)
        self.dirty: list[Target] = []
        self.leases.dirty = self.actors.dirty = self.dirty
        self.streams: dict[int, Stream] = {}
        self.doubts: dict[str, Doubt] = {}
        self.hub_up = False
        self._deadlines: list[tuple[float, int]] = []
        self._infeasible_actors: dict[str, tuple[float, str]] = {}
        self._releasing: dict[str, RemoteActor] = {}
        self._now = 0.0

    # --- what the user asks -----------------------------------------------------------------

    def demand(self, shape: Shape) -> Demand:
        """The demand of this shape, made on first use."""
        key = shape_key(shape)
        demand = self.leases.demands.get(key)
        if demand is None:
            demand = self.leases.demands[key] = Demand(key, shape)
        return demand

    def submit(self, home: Demand | RemoteActor, task: Task, now: float) -> None:
        """A new call; its result entries exist already."""
        self._now = now
        task.home = home
        objects = self.objects
        objects.entries[task.id].task = task
        if task.returns == 1 and not (task.deadline or task.lent or task.deps):
            # The common case, spared the questions below.
            if type(home) is RemoteActor:
                self.actors.submit(home, task, now)
            elif type(home) is Demand:
                self.leases.submit(home, task, now)
            return
        if task.returns == STREAM:
            self.streams[task.id] = Stream()
        if task.deadline:
            heapq.heappush(self._deadlines, (task.deadline, task.id))
        for id in task.lent:
            objects.hold(id)
        ready = objects.depend(task) if task.deps else True
        if isinstance(home, RemoteActor):
            self.actors.submit(home, task, now)
        elif ready:
            self.leases.submit(home, task, now)

    def _on_ready(self, task: Task) -> None:
        """The last dependency came; a failed one is the task's own outcome."""
        home = task.home
        if self.objects.entries.get(task.id) is None or self._settled(task):
            self._finish(task)
        elif any(self.objects.entries[id].error for id in task.deps):
            failed = next(i for i in task.deps if self.objects.entries[i].error)
            entry = self.objects.entries[failed]
            if type(home) is RemoteActor and task in home.queue:
                home.queue.remove(task)
            for id in task.results():
                self.objects.settle(id, entry.data or b"", entry.buffers, error=True)
            self._end_stream(task)
            self._finish(task)
        elif type(home) is RemoteActor:
            self.actors.dispatch(home, self._now)
        else:
            self.leases.submit(home, task, self._now)

    def cancel(self, id: int, now: float, *, force: bool = False, recursive: bool = True) -> None:
        """End the call that makes this object, if it is still under way."""
        self._now = now
        entry = self.objects.entries.get(id)
        task = entry.task if entry is not None else None
        if task is None or self._settled(task):
            return
        error = TaskCancelled(f"{task.name or task.method} was cancelled")
        if self._unqueue(task):
            self._fail(task, error)
            return
        task.cancelled = True
        lease = self.leases.by_peer.get(task.peer)
        if force and lease is not None:
            self._fail(task, error, finish=False)
            self._abandon(lease, now)
        else:
            self._cancel_on_wire(task, recursive=recursive)

    def _cancel_on_wire(self, task: Task, *, timeout: bool = False, recursive: bool = True) -> None:
        message = CancelCall(task.id, timeout, recursive)
        self.objects.effects.append(SendPeer(task.peer, message))

    def _abandon(self, lease: Lease, now: float) -> None:
        """Have the worker killed; what else it held starts again elsewhere, uncharged."""
        others = [t for t in self.leases.remove(lease) if not t.cancelled]
        self.objects.effects.append(SendHub(ReturnLease(lease.id, dead=True)))
        for task in others:
            task.attempt += 1
        self.leases.requeue(self.leases.demands[lease.key], others, now)

    def _unqueue(self, task: Task) -> bool:
        """Take a call out of wherever it waits on this side; False when it is on the wire."""
        home = task.home
        if task.peer:
            target = self._target(task.peer)
            return target is not None and target.forget(task)
        if task in home.queue:
            home.queue.remove(task)
        return True

    def cancel_children(self, parent: object, now: float) -> None:
        """Cancel every unfinished call that was made by the call ``parent``."""
        for entry in list(self.objects.entries.values()):
            if entry.task is not None and entry.task.parent == parent:
                self.cancel(entry.id, now)

    def kill_actor(self, actor: RemoteActor, *, no_restart: bool, now: float) -> None:
        """End it. With ``no_restart`` it is dead for this process from here on."""
        self._now = now
        self.objects.effects.append(SendHub(KillActor(actor.id, no_restart)))
        if no_restart:
            report = DeathReport("killed", "kill() was called")
            self._on_actor(ActorUpdate(actor.id, "dead", actor.incarnation, death=report), now)

    def _on_actor(self, message: ActorUpdate, now: float) -> None:
        for task in self.actors.on_update(message, now):
            self._end_stream(task)
            self._finish(task)

    def release_actor(self, actor: RemoteActor) -> None:
        """The last handle is gone: end the actor when its calls are answered."""
        self._releasing[actor.id] = actor
        self._release_idle()

    def _release_idle(self) -> None:
        for actor in list(self._releasing.values()):
            busy = actor.queue or (actor.target is not None and actor.target.in_flight)
            if actor.handles or actor.state == "dead":
                del self._releasing[actor.id]
            elif actor.state == "alive" and not busy:
                del self._releasing[actor.id]
                self.objects.effects.append(SendHub(KillActor(actor.id, released=True)))

    # --- the hub ------------------------------------------------------------------------------

    def on_hub_up(self, now: float) -> None:
        """A fresh link: tell everything again, in absolute terms."""
        self.hub_up = True
        send = [SendHub(HeldLeases(list(self.leases.by_id)))]
        for demand in self.leases.demands.values():
            if demand.told:
                send.append(SendHub(SetDemand(demand.key, demand.shape, demand.told)))
        for actor in self.actors.actors.values():
            if actor.creation is not None:
                send.append(SendHub(actor.creation))
            elif actor.state != "dead":
                send.append(SendHub(WatchActor(actor.id)))
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
                death = death_of(report) or Death("link_lost")
                if lease in self.leases.by_id:
                    self._lease_broke(self.leases.by_id[lease], now)
                self._resolve_doubt(lease, death)
            case ActorUpdate():
                self._infeasible_actors.pop(message.actor, None)
                self._on_actor(message, now)
            case DemandInfeasible(key, reason):
                if key in self.leases.demands:
                    self.leases.demands[key].infeasible_since = now
                    self.leases.demands[key].reason = reason
                elif key in self.actors.actors:
                    self._infeasible_actors[key] = (now, reason)
            case _:
                pass

    # --- workers ------------------------------------------------------------------------------

    def on_peer(self, peer: str, message: Message, buffers: Buffers, now: float) -> None:
        """Any message of a worker, or of a neighbour that dialled us."""
        self._now = now
        if type(message) is Replies:
            self._on_replies(peer, message.replies, buffers, now)
            return
        match message:
            case StreamItem():
                self._on_item(peer, message, buffers)
            case Bounced(calls, blocked):
                lease = self.leases.by_peer.get(peer)
                if lease is not None:
                    for task in self.leases.on_bounced(lease, calls, blocked, now):
                        self._fail(task, TaskCancelled(f"{task.name} was cancelled"))
            case Unblocked():
                lease = self.leases.by_peer.get(peer)
                if lease is not None:
                    self.leases.on_unblocked(lease, now)
            case Fetch(request, ref):
                self.objects.on_fetch(peer, request, ref)
            case Release(refs):
                self.objects.on_release(peer, refs)
            case Object(request, value):
                self.objects.on_object(peer, request, value, buffers)
            case _:
                pass

    def _target(self, peer: str) -> Target | None:
        lease = self.leases.by_peer.get(peer)
        if lease is not None:
            return lease.target
        actor = self.actors.by_peer.get(peer)
        return actor.target if actor is not None else None

    def _on_replies(self, peer: str, replies: list[Reply], buffers: Buffers, now: float) -> None:
        target = self._target(peer)
        if target is None:
            return
        position = 0
        fn = b""
        first_sent = 0.0
        count = 0
        for reply in replies:
            task = target.in_flight.get(reply.id)
            if task is None or task.attempt != reply.attempt:
                position += sum(value.buffers for value in reply.values)
                continue
            del target.in_flight[reply.id]
            if not count:
                fn, first_sent = task.fn, task.sent_at
            count += 1
            position = self._settle(peer, task, reply, buffers, position)
        if not count:
            return
        since = max(target.last_reply, first_sent)
        target.last_reply = now
        lease = self.leases.by_peer.get(peer)
        if lease is not None:
            self.leases.measure(fn, (now - since) / count)
            self.leases.on_replied(lease, now)
            return
        actor = self.actors.by_peer.get(peer)
        if actor is not None and actor.queue:
            self.actors.dispatch(actor, now)

    def _settle(self, peer: str, task: Task, reply: Reply, buffers: Buffers, position: int) -> int:
        """Settle one answered call; the position of the next reply's buffers."""
        objects = self.objects
        values = reply.values
        if values and values[0].error:
            value = values[0]
            end = position + value.buffers
            if task.retry_errors is not None and self._retry_error(task, value.data):
                return end
            contains = objects.borrow(value.refs, peer) if value.refs else None
            for id in task.results():
                objects.settle(id, value.data, buffers[position:end], error=True, contains=contains)
            position = end
        elif task.returns == STREAM:
            objects.settle(task.id, values[0].data if values else b"")
        else:
            id = task.id
            for value in values:
                end = position + value.buffers
                contains = objects.borrow(value.refs, peer) if value.refs else None
                objects.settle(id, value.data, buffers[position:end], contains=contains)
                position = end
                id += 1
        if task.returns == STREAM:
            self._end_stream(task)
        if task.deps or task.lent:
            self._finish(task)
        return position

    def _retry_error(self, task: Task, data: bytes) -> bool:
        if task.retries == 0 or task.cancelled or not self.retry_error(task, data):
            return False
        task.retries -= task.retries > 0
        self._again(task)
        return True

    def _again(self, task: Task) -> None:
        task.attempt += 1
        task.peer = ""
        if type(task.home) is RemoteActor:
            task.home.queue.appendleft(task)
            self.actors.dispatch(task.home, self._now)
        else:
            self.leases.requeue(task.home, [task], self._now)

    def _on_item(self, peer: str, message: StreamItem, buffers: Buffers) -> None:
        stream = self.streams.get(message.call)
        contains = self.objects.borrow(message.value.refs, peer) if message.value.refs else None
        if stream is None or stream.finished or message.index < stream.received:
            for id in contains or ():
                self.objects.drop(id)
            return
        stream.received += 1
        id = self.objects.new()
        value = message.value
        self.objects.settle(id, value.data, buffers, error=value.error, contains=contains)
        stream.items.append(id)
        self._stream_news(message.call)

    def _stream_news(self, call: int) -> None:
        entry = self.objects.entries.get(call)
        if entry is not None and entry.watched:
            self.objects.settled.append(call)

    def _end_stream(self, task: Task) -> None:
        stream = self.streams.get(task.id)
        if stream is not None:
            stream.finished = True

    def forget_stream(self, call: int, now: float) -> None:
        """Nobody reads the stream any more: drop what came, stop what runs."""
        stream = self.streams.pop(call, None)
        if stream is not None:
            if not stream.finished:
                self.cancel(call, now)
            for id in stream.items:
                self.objects.drop(id)
        self.objects.drop(call)

    # --- loss ---------------------------------------------------------------------------------

    def on_link_down(self, peer: str, now: float) -> None:
        """The link to a worker, or a neighbour's link to us, is gone."""
        self._now = now
        lease = self.leases.by_peer.get(peer)
        actor = self.actors.by_peer.get(peer)
        if lease is not None:
            self._lease_broke(lease, now)
        elif actor is not None:
            self.actors.on_link_down(actor, now)
        self.objects.on_neighbour_lost(peer)

    def _lease_broke(self, lease: Lease, now: float) -> None:
        """Retry what may be retried at once; the rest waits for the cause."""
        owed = self.leases.remove(lease)
        again, doubtful = [], []
        for position, task in enumerate(owed):
            if task.retries == 0 or task.cancelled:
                doubtful.append(task)
                continue
            if position == 0:
                task.retries -= task.retries > 0
            task.attempt += 1
            task.peer = ""
            again.append(task)
        self.doubts[lease.id] = Doubt(lease.id, now, doubtful)
        self.leases.requeue(self.leases.demands[lease.key], again, now)

    def _resolve_doubt(self, lease: str, death: Death) -> None:
        doubt = self.doubts.pop(lease, None)
        if doubt is None:
            return
        self.objects.effects.append(SendHub(ReturnLease(lease, dead=True)))
        kind = ProviderLost if death.cause == "provider_lost" else WorkerDied
        for task in doubt.tasks:
            if task.cancelled:
                self._fail(task, TaskCancelled(f"{task.name} was cancelled"))
            else:
                self._fail(task, kind(f"the worker that ran {task.name} ended", death))

    def _settled(self, task: Task) -> bool:
        entry = self.objects.entries.get(task.id)
        return entry is None or entry.data is not None

    def _fail(self, task: Task, error: Exception, *, finish: bool = True) -> None:
        data = pickle.dumps(error, 5)
        for id in task.results():
            self.objects.settle(id, data, error=True)
        self._end_stream(task)
        if finish:
            self._finish(task)

    def _finish(self, task: Task) -> None:
        """The call needs its arguments no more."""
        for id in task.deps:
            self.objects.drop(id)
        for id in task.lent:
            self.objects.drop(id)
        task.deps = task.lent = ()

    def close(self) -> None:
        """The session ends: everything pending is settled."""
        for entry in list(self.objects.entries.values()):
            if entry.data is None:
                name = (entry.task.name or entry.task.method) if entry.task else "the object"
                self.objects.fail(entry.id, SessionClosed(f"the session ended before {name} did"))
        for stream in self.streams.values():
            stream.finished = True

    # --- time ---------------------------------------------------------------------------------

    def on_tick(self, now: float) -> None:
        """Deadlines, lingering leases, doubts and hopeless demands that are due."""
        self._now = now
        while self._deadlines and self._deadlines[0][0] <= now:
            _, id = heapq.heappop(self._deadlines)
            entry = self.objects.entries.get(id)
            if entry is not None and entry.task is not None and entry.data is None:
                self._time_out(entry.task)
        self.leases.on_tick(now)
        for doubt in list(self.doubts.values()):
            if now - doubt.since >= DOUBT:
                self._resolve_doubt(doubt.lease, Death("link_lost", "no word from the hub"))
        for task in self.actors.on_tick(now):
            self._end_stream(task)
            self._finish(task)
        self._give_up(now)

    def _time_out(self, task: Task) -> None:
        error = CallTimeout(f"{task.name or task.method} did not finish within its timeout")
        if self._unqueue(task):
            self._fail(task, error)
            return
        task.cancelled = True
        self._cancel_on_wire(task, timeout=True)
        self._fail(task, error, finish=False)

    def _give_up(self, now: float) -> None:
        for demand in self.leases.demands.values():
            since = demand.infeasible_since
            if since and not demand.leases and now - since >= self.patience:
                demand.infeasible_since = 0.0
                demand.told = 0
                self.objects.effects.append(SendHub(SetDemand(demand.key, demand.shape, 0)))
                while demand.queue:
                    task = demand.queue.popleft()
                    self._fail(task, Unschedulable(f"{task.name}: {demand.reason}"))
        for id, (since, reason) in list(self._infeasible_actors.items()):
            if now - since >= self.patience:
                del self._infeasible_actors[id]
                actor = self.actors.actors[id]
                actor.state = "dead"
                actor.error = pickle.dumps(Unschedulable(f"actor {actor.name}: {reason}"), 5)
                self.objects.effects.append(SendHub(KillActor(id)))
                while actor.queue:
                    task = actor.queue.popleft()
                    self.actors.refuse(actor, task)
                    self._finish(task)

    def next_wake(self, now: float) -> float | None:
        """When ``on_tick`` is due next, or None."""
        wakes = [self._deadlines[0][0]] if self._deadlines else []
        wakes += [doubt.since + DOUBT for doubt in self.doubts.values()]
        wakes += [since + self.patience for since, _ in self._infeasible_actors.values()]
        for wake in (self.leases.next_wake(now), self.actors.next_wake()):
            if wake is not None:
                wakes.append(wake)
        for demand in self.leases.demands.values():
            if demand.infeasible_since and not demand.leases:
                wakes.append(demand.infeasible_since + self.patience)
        return min(wakes, default=None)

    # --- effects ------------------------------------------------------------------------------

    def urgent(self) -> bool:
        """Whether an outbox should leave now rather than with the next ones."""
        for target in self.dirty:
            if target.urgent():
                return True
        return False

    def flush(self) -> None:
        """Turn every outbox into a frame."""
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
        for peer, lease in self.leases.by_peer.items():
            assert lease.target.peer == peer
            assert self.leases.by_id[lease.id] is lease
            for task in lease.target.in_flight.values():
                assert task.peer == peer, task
        for demand in self.leases.demands.values():
            for task in demand.queue:
                assert task.unmet == 0, task


def _must_say(effect: SendHub) -> bool:
    return isinstance(effect.message, ReturnLease | KillActor)
