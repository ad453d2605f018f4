"""One process's line to the grid: the shell around the caller core.

Owns: the lock, the links, and the meeting of threads with the core. Called by ``api`` and, in a
worker, by user code through ``api``. Must never: decide anything about work (the core does).
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from guactors import values
from guactors.caller.actors import RemoteActor
from guactors.caller.core import CallerCore
from guactors.caller.effects import Dial, Hangup, SendHub, SendPeer
from guactors.caller.tasks import Task
from guactors.config import Timing
from guactors.errors import GetTimeout, GuactorsError, NameTaken, SessionClosed, UsageError
from guactors.hub_line import HubLine
from guactors.messages import (
    ActorSpec,
    AskGrid,
    CreateActor,
    Endpoint,
    Fault,
    Found,
    Grid,
    Hello,
    Info,
    Message,
    Output,
    RefWord,
)
from guactors.peer_links import PeerLinks
from guactors.printing import LineFolder
from guactors.pump import Host, Pump
from guactors.refs import ObjectRef
from guactors.transport.base import Frame, Link, Transport

SendNeighbour = Callable[[str, Message, Sequence[Frame]], None]
RETRY_FULL = 0.001
"""Seconds until a message that found its link full is tried again."""
_ANSWERS = (Found, Grid, Info)


class Session:
    """``hello`` says who we are; ``echo``: print what workers print (None: not), ``fold``: fold equal
    lines. ``close`` settles everything that is pending."""

    def __init__(
        self,
        transport: Transport,
        hub: Sequence[Endpoint],
        hello: Hello,
        timing: Timing,
        *,
        echo: bool = True,
        fold: bool = True,
        host: Host | None = None,
    ) -> None:
        self.peer = hello.peer
        self.id = hello.session
        self.namespace = hello.namespace
        self.core = CallerCore(self.peer, linger=timing.linger, retry_error=_wants_retry)
        self.released: deque[int] = deque()
        self.abandoned: deque[int] = deque()
        self.orphans: deque[RemoteActor] = deque()
        self.send_neighbour: SendNeighbour | None = None
        self.current_parent: Callable[[], object] | None = None
        self.on_close: list[Callable[[], None]] = []
        self._transport = transport
        self._pump = Pump(f"guactors-{self.peer}", self._service, self._receive)
        self._pump.host = host
        self._futures: dict[int, list[Future[Any]]] = {}
        self._requests: dict[int, Message | None] = {}
        self._request_ids = itertools.count(1)
        self._folder = LineFolder(fold=fold)
        self._echo = echo
        self._next_tick = 0.0
        self._closed = False
        self._links = PeerLinks(
            transport,
            self._pump.poller,
            hello,
            on_message=self._on_peer_message,
            on_lost=self._on_link_lost,
        )
        self._hub = HubLine(
            transport,
            hub,
            hello,
            timing,
            on_up=lambda: self.core.on_hub_up(time.monotonic()),
            on_message=self._on_hub_message,
            watch=self._watch,
            unwatch=self._unwatch,
        )

    # --- life -----------------------------------------------------------------------------------

    def start(self, timeout: float | None = None) -> None:
        """Dial the hub; with a ``timeout`` wait for its welcome. Raises HubUnreachable, AuthFailed
        or VersionMismatch."""
        self._pump.start()
        if timeout is None:
            self._pump.kick()
            return
        hub = self._hub
        up = self._pump.wait(lambda: hub.up or hub.refusal is not None, timeout)
        if hub.refusal is not None:
            self.close()
            raise hub.refusal
        if not up:
            self.close()
            raise hub.unreachable()

    def close(self) -> None:
        """End the session here: say goodbye, settle what is pending, close the links."""
        with self._pump.lock:
            if self._closed:
                return
            self._closed = True
            self.core.close()
            self._notify()
            self._hub.close()
            self._links.close()
            if self._echo:
                self._write(self._folder.due(0.0, everything=True))
        self._pump.close()
        for callback in self.on_close:
            callback()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def lock(self) -> threading.RLock:
        """Held while the core is touched."""
        return self._pump.lock

    def _watch(self, link: Link) -> None:
        for fd in link.filenos():
            self._pump.poller.add(fd)

    def _unwatch(self, link: Link) -> None:
        for fd in link.filenos():
            self._pump.poller.remove(fd)

    # --- one round of service, under the lock ---------------------------------------------------

    def _receive(self, ready: list[int]) -> bool:
        """Only take in what a worker answered. True when nothing else has to be done about it now;
        otherwise ``_service`` goes on with it."""
        if self._closed:
            return False
        core = self.core
        more = self._links.drain(ready)
        objects = core.objects
        return not (
            more or self._links.strangers or objects.effects or objects.settled or core.dirty
        )

    def _service(self, ready: list[int]) -> float | None:
        if self._closed:
            return None
        core = self.core
        if self.released or self.abandoned or self.orphans:
            self._drop_released()
        if self._pump.host is not None:
            self._pump.host.serve()
        links, hub = self._links, self._hub
        more = links.drain(ready)
        now = time.monotonic()
        if now >= self._next_tick or hub.suspect or links.strangers:
            wake = hub.service(now)
            core.on_tick(now)
            due = core.next_wake(now)
            self._next_tick = min(wake, due) if due is not None else wake
            if self._echo:
                self._write(self._folder.due(now))
        core.flush()
        if core.objects.effects:
            self._apply()
        if core.objects.settled:
            self._notify()
        if links.backed_up():
            return RETRY_FULL
        if more or hub.suspect or links.suspect():
            return 0.0
        return max(self._next_tick - now, 0.0)

    def watch_host(self, fds: Sequence[int]) -> None:
        """The worker's main thread waits here: serve its descriptors too."""
        for fd in fds:
            self._pump.poller.add(fd)

    def unwatch_host(self, fds: Sequence[int]) -> None:
        """It goes on and serves them itself."""
        for fd in fds:
            self._pump.poller.remove(fd)

    def _drop_released(self) -> None:
        released, drop = self.released, self.core.objects.drop
        while released:
            drop(released.popleft())
        while self.abandoned:
            self.core.forget_stream(self.abandoned.popleft(), time.monotonic())
        while self.orphans:
            actor = self.orphans.popleft()
            if not actor.shared and actor.handles == 0:
                self.core.release_actor(actor)

    def _apply(self) -> None:
        links = self._links
        for effect in self.core.take_effects():
            if type(effect) is SendPeer:
                if not links.send(effect.peer, effect.message, effect.buffers):
                    self._to_neighbour(effect)
            elif type(effect) is SendHub:
                self._hub.send(effect.message)
            elif type(effect) is Dial:
                links.dial(effect.peer, effect.endpoints)
            elif type(effect) is Hangup:
                links.hang_up(effect.peer)

    def _to_neighbour(self, effect: SendPeer) -> None:
        if self.send_neighbour is not None:
            self.send_neighbour(effect.peer, effect.message, effect.buffers)

    def _notify(self) -> None:
        settled, self.core.objects.settled = self.core.objects.settled, []
        for id in settled:
            for future in self._futures.pop(id, ()):
                self._resolve(future, id)
        self._pump.news()

    def _resolve(self, future: Future[Any], id: int) -> None:
        if not future.set_running_or_notify_cancel():
            return
        if self.core.objects.entries[id].data is None:
            future.set_result(None)  # a stream has news
            return
        try:
            future.set_result(self._value(id))
        except BaseException as error:
            future.set_exception(error)

    def _on_peer_message(self, peer: str, message: Message, buffers: Sequence[Frame]) -> None:
        self.core.on_peer(peer, message, buffers, time.monotonic())

    def _on_link_lost(self, peer: str) -> None:
        self.core.on_link_down(peer, time.monotonic())

    def _on_hub_message(self, message: Message) -> None:
        if isinstance(message, Output):
            if self._echo:
                self._write(self._folder.on_output(message, time.monotonic()))
        elif isinstance(message, _ANSWERS) or (isinstance(message, Fault) and message.request):
            if message.request in self._requests:
                self._requests[message.request] = message
                self._pump.news()
        else:
            self.core.on_hub(message, time.monotonic())

    def _write(self, lines: list[tuple[int, str]]) -> None:
        for stream, line in lines:
            print(line, file=sys.stdout if stream == 1 else sys.stderr, flush=True)

    def after_core(self) -> None:
        """Carry out what the core decided after a direct call; the lock must be held."""
        core = self.core
        if core.dirty:
            if core.urgent():
                core.flush()
            else:
                self._pump.kick()
        if core.objects.effects:
            self._apply()
        if core.objects.settled:
            self._notify()

    # --- neighbours: callers that dialled this process --------------------------------------------

    def on_neighbour(self, peer: str, message: Message, buffers: Sequence[Frame]) -> None:
        """A Fetch, Release or Object that came in by the worker's own listener."""
        with self.lock:
            self.core.on_peer(peer, message, buffers, time.monotonic())
            self.core.flush()
            self._apply()
            if self.core.objects.settled:
                self._notify()

    def settle_releases(self) -> None:
        """A call's loans ended: give back now, the lender counts on it."""
        with self.lock:
            self._drop_released()
            self._apply()

    def on_neighbour_lost(self, peer: str) -> None:
        with self.lock:
            self.core.on_link_down(peer, time.monotonic())
            self.after_core()

    # --- requests to the hub ----------------------------------------------------------------------

    def ask(self, make: Callable[[int], Message], timeout: float = 60.0) -> Any:
        """Send ``make(request)`` and return the answer. Raises the error class a Fault names,
        HubUnreachable when none came."""
        request = next(self._request_ids)
        with self.lock:
            self._requests[request] = None
            self._hub.send(make(request))
        try:
            self._pump.wait(lambda: self._requests[request] is not None, timeout)
        finally:
            answer = self._requests.pop(request)
        if answer is None:
            raise self._hub.unreachable()
        if isinstance(answer, Fault):
            raise _error_of(answer)
        return answer

    def nodes(self) -> list[dict[str, Any]]:
        """The providers of the grid, with Ray's keys."""
        grid: Grid = self.ask(AskGrid)
        return [
            {
                "NodeID": peer.peer,
                "Alive": peer.state != "lost",
                "NodeName": peer.name,
                "NodeManagerAddress": peer.address,
                "Resources": dict(peer.total),
                "Free": dict(peer.free),
                "Labels": dict(peer.labels),
            }
            for peer in grid.info.peers
            if peer.role == "provider"
        ]

    # --- values -----------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef:
        """An immutable copy of ``value``."""
        packed = values.pack(value, lambda: "the value given to put()")
        with self.lock:
            objects = self.core.objects
            id = objects.new()
            contains = [ref.id for ref in packed.refs]
            for inner in contains:
                objects.hold(inner)
            objects.settle(id, packed.data, packed.buffers, contains=contains)
        return ObjectRef(id, self)

    def get_one(self, id: int, timeout: float | None) -> Any:
        """The value of one object; raises its error, or GetTimeout."""
        entry = self.core.objects.entries[id]
        if entry.data is None:
            if entry.origin is not None:
                self._await([id], timeout)
            elif not self._pump.wait(lambda: entry.data is not None, timeout):
                raise self._late(1, 1, timeout)
        if entry.error:
            raise values.unpack_error(entry.data or b"")
        return values.unpack(entry.data or b"", entry.buffers)

    def get_many(self, ids: Sequence[int], timeout: float | None) -> list[Any]:
        """Values in order; raises as soon as one of them has failed."""
        entries = self.core.objects.entries
        if any(entries[id].data is None for id in ids):
            self._await(ids, timeout)
            for id in ids:
                if entries[id].data is not None and entries[id].error:
                    raise values.unpack_error(entries[id].data or b"")
        return [self._value(id) for id in ids]

    def _await(self, ids: Sequence[int], timeout: float | None) -> None:
        entries = self.core.objects.entries
        with self.lock:
            wanted = [entries[id] for id in ids if entries[id].data is None]
            for entry in wanted:
                entry.watched = True
                if entry.origin is not None:
                    self.core.objects.need(entry.id)
        if not wanted:
            return
        position = 0

        def done() -> bool:
            nonlocal position
            while position < len(wanted):
                if wanted[position].data is None:
                    return bool(self._failed_among(wanted, position))
                if wanted[position].error:
                    return True
                position += 1
            return True

        if not self._pump.wait(done, timeout):
            waiting = sum(entry.data is None for entry in wanted)
            raise self._late(waiting, len(ids), timeout)

    def _late(self, waiting: int, count: int, timeout: float | None) -> GuactorsError:
        if self._closed:
            return SessionClosed("the session ended while get() waited")
        return GetTimeout(
            f"{waiting} of {count} objects were not there after {timeout} s; "
            "the calls go on, get() them again or cancel() them"
        )

    def _failed_among(self, wanted: Sequence[Any], start: int) -> bool:
        """Whether a later one failed already: looked for only when something settled."""
        settled = len(wanted) - start
        if settled > 64:
            # Scanning a long list each round would be quadratic; errors there surface in order.
            return False
        return any(entry.error for entry in wanted[start:])

    def _value(self, id: int) -> Any:
        entry = self.core.objects.entries[id]
        if entry.error:
            raise values.unpack_error(entry.data or b"")
        return values.unpack(entry.data or b"", entry.buffers)

    def wait(
        self, ids: Sequence[int], count: int, timeout: float | None
    ) -> tuple[list[int], list[int]]:
        """(ready, not ready), in order, when ``count`` are ready or time is up."""
        entries = self.core.objects.entries
        with self.lock:
            for id in ids:
                entries[id].watched = True
                if entries[id].origin is not None:
                    self.core.objects.need(id)

        def done() -> bool:
            ready = 0
            for id in ids:
                if entries[id].data is not None:
                    ready += 1
                    if ready >= count:
                        return True
            return False

        if not done():
            self._pump.wait(done, timeout)
        ready = [id for id in ids if entries[id].data is not None][:count]
        chosen = set(ready)
        return ready, [id for id in ids if id not in chosen]

    def future(self, id: int) -> Future[Any]:
        """A future for one object."""
        future: Future[Any] = Future()
        with self.lock:
            entry = self.core.objects.entries[id]
            if entry.data is None:
                entry.watched = True
                self._futures.setdefault(id, []).append(future)
                if entry.origin is not None:
                    self.core.objects.need(id)
                    self.after_core()
                self.core.objects.hold(id)
                future.add_done_callback(lambda _: self.released.append(id))
                self._pump.kick()
                return future
        self._resolve(future, id)
        return future

    def word(self, id: int) -> RefWord:
        """The grid-wide name of an object."""
        return self.core.objects.word(id)

    def share(self, id: int) -> ObjectRef:
        """One more reference to an object."""
        with self.lock:
            self.core.objects.hold(id)
        return ObjectRef(id, self)

    def arrived(self, owner: str, object: int) -> ObjectRef:
        """A reference that was unpickled here."""
        with self.lock:
            return ObjectRef(self.core.objects.stray(RefWord(owner, object)), self)

    # --- calls --------------------------------------------------------------------------------------

    def new_ids(self, returns: int) -> int:
        """Result entries for a call; the lock must be held."""
        return self.core.objects.new(max(1, returns))

    def submit(self, home: Any, task: Task) -> None:
        """Hand a call to the core; the lock must be held."""
        if self._closed:
            raise SessionClosed("the session has ended; call init() again")
        if self.current_parent is not None:
            task.parent = self.current_parent()
        self.core.submit(home, task, time.monotonic())
        self.after_core()

    def cancel(self, id: int, *, force: bool, recursive: bool) -> None:
        with self.lock:
            entry = self.core.objects.entries.get(id)
            task = entry.task if entry is not None else None
            if force and task is not None and isinstance(task.home, RemoteActor):
                raise UsageError("cancel(force=True) is for tasks; use kill() to end an actor")
            self.core.cancel(id, time.monotonic(), force=force, recursive=recursive)
            self.after_core()

    def cancel_children(self, parent: object) -> None:
        """Cancel everything that the call ``parent`` submitted and that still runs."""
        with self.lock:
            self.core.cancel_children(parent, time.monotonic())
            self.after_core()

    # --- actors -------------------------------------------------------------------------------------

    def new_actor(self, spec: ActorSpec) -> RemoteActor:
        """The record of an actor about to be made; calls to it may be queued at once."""
        with self.lock:
            return self.core.actors.add(spec.actor, spec.class_name)

    def create_actor(self, actor: RemoteActor, spec: ActorSpec, payload: bytes, wait: bool) -> None:
        """Have it made; with ``wait`` until the hub has accepted it. Raises NameTaken."""
        request = next(self._request_ids)
        message = CreateActor(request, spec, payload)
        with self.lock:
            if wait:
                self._requests[request] = None
            self.core.actors.create(actor, message)
            self.after_core()
        if not wait:
            return

        def done() -> bool:
            return actor.creation is None or self._requests[request] is not None

        try:
            if not self._pump.wait(done, 60.0):
                raise self._hub.unreachable()
        finally:
            fault = self._requests.pop(request)
        if isinstance(fault, Fault):
            with self.lock:
                self.core.actors.forget(actor)
            raise _error_of(fault)

    def when_ready(self, ids: Sequence[int], then: Callable[[], None]) -> None:
        """Call ``then`` once all objects are there: now, or later on the serving thread."""
        entries = self.core.objects.entries
        pending = [id for id in ids if entries[id].data is None]
        if not pending:
            then()
            return
        left = len(pending)

        def one_less(_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                then()

        for id in pending:
            self.future(id).add_done_callback(one_less)

    def raw(self, id: int) -> tuple[bytes, list[bytes]]:
        """A ready value as bytes; raises its error."""
        entry = self.core.objects.entries[id]
        if entry.error:
            raise values.unpack_error(entry.data or b"")
        return entry.data or b"", [bytes(buffer) for buffer in entry.buffers]

    def watch_actor(self, id: str, name: str) -> RemoteActor:
        """The record of an actor whose handle arrived."""
        with self.lock:
            actor = self.core.actors.watch(id, name)
            self.after_core()
        self._pump.kick()
        return actor

    def share_actor(self, actor: RemoteActor) -> None:
        """Its handle leaves this process: the last handle here no longer ends it."""
        actor.shared = True

    def handle_gone(self, actor: RemoteActor) -> None:
        """The maker's last handle is gone. Runs in any thread at any time: leave a note."""
        if not actor.shared:
            self.orphans.append(actor)

    def kill_actor(self, actor: RemoteActor, *, no_restart: bool) -> None:
        """End an actor now."""
        with self.lock:
            self.core.kill_actor(actor, no_restart=no_restart, now=time.monotonic())
            self.after_core()

    # --- streams ------------------------------------------------------------------------------------

    def next_item(self, call: int, timeout: float | None) -> ObjectRef | None:
        """The next item of a stream, None at its end; the call's error comes as a last item."""
        self._watch_stream(call)
        if not self._pump.wait(lambda: self.item_ready(call), timeout):
            if self._closed:
                raise SessionClosed("the session ended while a stream was read")
            raise GetTimeout(f"the stream had no item for {timeout} s")
        return self._take_item(call)

    async def next_item_async(self, call: int) -> ObjectRef | None:
        import asyncio

        self._watch_stream(call)
        while not self.item_ready(call):
            future: Future[Any] = Future()
            with self.lock:
                if not self.item_ready(call):
                    self._futures.setdefault(call, []).append(future)
                else:
                    break
            self._pump.kick()
            await asyncio.wait([asyncio.wrap_future(future)])
        return self._take_item(call)

    def _watch_stream(self, call: int) -> None:
        with self.lock:
            self.core.objects.entries[call].watched = True

    def item_ready(self, call: int) -> bool:
        """Whether an item, or the end, is there."""
        stream = self.core.streams[call]
        return bool(stream.items) or stream.finished

    def stream_finished(self, call: int) -> bool:
        stream = self.core.streams[call]
        return stream.finished and not stream.items

    def _take_item(self, call: int) -> ObjectRef | None:
        with self.lock:
            stream = self.core.streams[call]
            if stream.items:
                return ObjectRef(stream.items.popleft(), self)
            entry = self.core.objects.entries[call]
            if entry.error and not stream.told:
                stream.told = True
                self.core.objects.hold(call)
                return ObjectRef(call, self)
            return None


def _error_of(fault: Fault) -> GuactorsError:
    kinds: dict[str, type[GuactorsError]] = {"NameTaken": NameTaken, "UsageError": UsageError}
    return kinds.get(fault.kind, GuactorsError)(fault.detail)


def _wants_retry(task: Task, data: bytes) -> bool:
    wanted: Any = task.retry_errors
    return values.retriable(data, wanted)
