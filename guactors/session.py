"""One process's line to the grid: the shell around the caller core.

Owns: the lock, the links, and the meeting of threads with the core. Called by ``api`` and, in a
worker, by user code through ``api``. Must never: decide anything about work (the core does).
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from guactors import values
from guactors.actor_registry import ActorRegistry
from guactors.caller.actors import RemoteActor
from guactors.caller.core import CallerCore
from guactors.caller.effects import Dial, Hangup, Hurry, NeedDepot, SendHub, SendPeer
from guactors.caller.lookout import Lookout
from guactors.caller.tasks import Task
from guactors.config import Timing
from guactors.credentials import Credentials
from guactors.env_client import Environments
from guactors.errors import GuactorsError, HubUnreachable, SessionClosed, UnknownOption
from guactors.hub_line import HubLine
from guactors.messages import (
    AskGrid,
    Endpoint,
    Fault,
    Grid,
    Hello,
    Inquiry,
    Message,
    Output,
    Tally,
    ToQuestion,
)
from guactors.peer_links import PeerLinks
from guactors.printing import LineFolder
from guactors.pump import Host, Pump
from guactors.session_depots import SessionDepots
from guactors.session_questions import Questions
from guactors.session_store import SessionStore
from guactors.session_values import SessionValues
from guactors.transport.base import Frame, Link, Transport

if TYPE_CHECKING:
    from guactors.security.keys import SecretKey

SendNeighbour = Callable[[str, Message, Sequence[Frame]], None]
MOST_RELEASED = 256
"""References that may wait to be dropped."""
CLOCK_SET = 0.1
"""Seconds by which the clock is wrong only where somebody has set it."""
RETRY_FULL = 0.001
"""Seconds until a message that found its link full is tried again."""


class Session:
    """``hello`` says who we are, ``credentials`` prove it; ``echo``: print what workers print
    (None: not), ``fold``: fold equal lines. ``close`` settles everything that is pending."""

    provider = ""
    """The provider of the grid that this process started itself."""

    def __init__(
        self,
        transport: Transport,
        hub: Sequence[Endpoint],
        hello: Hello,
        timing: Timing,
        *,
        credentials: Credentials = Credentials(),  # noqa: B008 - frozen, and of nobody
        echo: bool = True,
        fold: bool = True,
        host: Host | None = None,
    ) -> None:
        hello = credentials.introduce(hello)
        self.code_signers: list[SecretKey] = []
        """Keys that sign the functions and classes this session sends."""
        self.hub_address = hub[0].control if hub else ""
        self.peer = hello.peer
        self.id = hello.session
        self.namespace = hello.namespace
        self.core = CallerCore(
            self.peer, linger=timing.linger, retry_error=_wants_retry, store=hello.store
        )
        self.lookout = Lookout(self.core, self.id, root=hello.root)
        self._store = SessionStore(self.core, shared=host is not None or not hello.store)
        self._depots = SessionDepots(self)
        self.released: deque[int] = deque()
        self.abandoned: deque[int] = deque()
        self.orphans: deque[RemoteActor] = deque()
        self.send_neighbour: SendNeighbour | None = None
        self.current_parent: Callable[[], object] | None = None
        self.on_close: list[Callable[[], None]] = []
        self._transport = transport
        self.pump = Pump(f"guactors-{self.peer}", self._service, self._receive)
        self.pump.host = host
        self.lock = self.pump.lock
        """Held while the core is touched."""
        self.values = SessionValues(self)
        self.actors = ActorRegistry(self)
        self.environments = Environments(self)
        self._folder = LineFolder(fold=fold)
        self._echo = echo
        self._next_tick = self._epoch = 0.0
        self.terms: Mapping[str, Any] = {}  # what its calls have that say nothing else
        self._closed = False
        self.refused: GuactorsError | None = None
        """Why the hub wants no more of us."""
        self._links = PeerLinks(
            transport,
            self.pump.poller,
            hello,
            on_message=self._on_peer_message,
            on_lost=self._on_link_lost,
        )
        self._hub = self._line(hub, hello, timing, credentials)
        self.questions = Questions(self._hub, self.pump)

    def _line(
        self, hub: Sequence[Endpoint], hello: Hello, timing: Timing, credentials: Credentials
    ) -> HubLine:
        return HubLine(
            self._transport,
            hub,
            hello,
            timing,
            prove=partial(credentials.prove, hello),
            on_up=self._on_hub_up,
            on_refused=self._on_refused,
            on_message=self._on_hub_message,
            watch=self._watch,
            unwatch=self._unwatch,
        )

    # --- life -----------------------------------------------------------------------------------

    def start(self, timeout: float | None = None) -> None:
        """Dial the hub; with a ``timeout`` wait for its welcome. Raises HubUnreachable, AuthFailed
        or VersionMismatch."""
        self.pump.start()
        if timeout is None:
            self.pump.kick()
            return
        hub = self._hub
        up = self.pump.wait(lambda: hub.up or hub.refusal is not None, timeout)
        if hub.refusal is not None:
            self.close()
            raise hub.refusal
        if not up:
            self.close()
            raise hub.unreachable()

    def close(self) -> None:
        """End the session here: say goodbye, settle what is pending, close the links."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            if rows := self.lookout.tally():
                self._hub.send(Tally(rows))
            self.core.close()
            self.values.notify()
            self._hub.close()
            self._links.close()
            if self._echo:
                self._write(self._folder.due(0.0, everything=True))
        self.pump.close()
        self._store.close()
        for callback in self.on_close:
            callback()

    def _on_hub_up(self) -> None:
        self.core.on_hub_up(time.monotonic())
        self.questions.on_hub_up()

    def _on_refused(self, error: GuactorsError) -> None:
        """The hub shut us out: whatever waits ends now, and what comes later does not begin."""
        self.core.close(error)
        self.refused = error
        self.questions.refuse(error)
        self.values.notify()

    def _over(self) -> GuactorsError:
        """Why nothing can be called any more."""
        if self.refused is None:
            return SessionClosed("the session has ended; call init() again")
        return type(self.refused)(str(self.refused))

    @property
    def closed(self) -> bool:
        return self._closed

    def _watch(self, link: Link) -> None:
        for fd in link.filenos():
            self.pump.poller.add(fd)

    def _unwatch(self, link: Link) -> None:
        for fd in link.filenos():
            self.pump.poller.remove(fd)

    # --- one round of service, under the lock ---------------------------------------------------

    def _receive(self, ready: Sequence[int]) -> float:
        """Only take in what workers answered. The seconds until ``_service`` is due, negative when
        it is due now because of what came."""
        links, objects = self._links, self.core.objects
        if len(self.released) > MOST_RELEASED or self._store.borrowing:
            return -1.0
        if links.drain(ready) or links.strangers or objects.effects or objects.settled:
            return -1.0
        if self.core.dirty or self._hub.suspect or self.pump.host is not None or links.unsent:
            return -1.0
        return 0.0 if links.suspects else self._next_tick - time.monotonic()

    def _service(self, ready: list[int]) -> float | None:
        if self._closed:
            return None
        core = self.core
        if self.released or self.abandoned or self.orphans:
            self._drop_released()
        if self._store.borrowing:
            self._store.tell_unused()
        if self.pump.host is not None:
            self.pump.host.serve()
        links, hub = self._links, self._hub
        more = links.drain(ready)
        now = time.monotonic()
        if now >= self._next_tick or hub.suspect or links.strangers:
            wake = hub.service(now)
            core.on_tick(now)
            self._store.on_tick(now)
            due = core.next_wake(now)
            self._next_tick = min(wake, due) if due is not None else wake
            if self._echo:
                self._write(self._folder.due(now))
        core.flush()
        if core.objects.effects:
            self._apply()
        if core.objects.settled or core.groups.news:
            core.groups.news = False
            self.values.notify()
        if links.unsent:
            return RETRY_FULL
        if more or hub.suspect or links.suspects:
            return 0.0
        return max(self._next_tick - now, 0.0)

    def watch_host(self, fds: Sequence[int]) -> None:
        """The worker's main thread waits here: serve its descriptors too."""
        for fd in fds:
            self.pump.poller.add(fd)

    def unwatch_host(self, fds: Sequence[int]) -> None:
        """It goes on and serves them itself."""
        for fd in fds:
            self.pump.poller.remove(fd)

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
        self._store.tell_unused()

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
            elif type(effect) is NeedDepot:
                self._depots.make(effect)
            elif type(effect) is Hurry:
                self._next_tick = min(self._next_tick, effect.at)
                self.pump.hurry(effect.at)

    def _to_neighbour(self, effect: SendPeer) -> None:
        if self.send_neighbour is not None:
            self.send_neighbour(effect.peer, effect.message, effect.buffers)

    def _on_peer_message(self, peer: str, message: Message, buffers: Sequence[Frame]) -> None:
        self.core.on_peer(peer, message, buffers, time.monotonic())

    def _on_link_lost(self, peer: str, why: str) -> None:
        self.core.on_link_down(peer, time.monotonic(), why)

    def _on_hub_message(self, message: Message) -> None:
        if isinstance(message, Output):
            if self._echo:
                self._write(self._folder.on_output(message, time.monotonic()))
        elif isinstance(message, ToQuestion) or (isinstance(message, Fault) and message.request):
            self.questions.on_answer(message)
        elif isinstance(message, Inquiry):
            self._hub.send(self.lookout.answer(message, self._clock()))
        else:
            self.core.on_hub(message, time.monotonic())

    def _clock(self) -> float:
        """What turns our seconds into those of the epoch; the same each time, unless somebody sets
        the machine's clock: the same moment is to be shown the same way."""
        clock = time.time() - time.monotonic()
        if abs(clock - self._epoch) > CLOCK_SET:
            self._epoch = clock
        return self._epoch

    def _write(self, lines: list[tuple[int, str]]) -> None:
        for stream, line in lines:
            print(line, file=sys.stdout if stream == 1 else sys.stderr, flush=True)

    def after_core(self) -> None:
        """Carry out what the core decided after a direct call; the lock must be held."""
        core = self.core
        if core.dirty and not core.flush_urgent():
            self.pump.kick()
        if core.objects.effects:
            self._apply()
            self.pump.rouse_leader()
        if core.objects.settled:
            self.values.notify()

    # --- neighbours: callers that dialled this process --------------------------------------------

    def on_neighbour(self, peer: str, message: Message, buffers: Sequence[Frame]) -> None:
        """A Fetch, Release or Object that came in by the worker's own listener."""
        with self.lock:
            self.core.on_peer(peer, message, buffers, time.monotonic())
            self.core.flush()
            self._apply()
            self.values.notify()

    def settle_releases(self) -> None:
        """A call's loans ended: give back now, the lender counts on it."""
        with self.lock:
            self._drop_released()
            self._apply()
            self.pump.rouse_leader()

    def on_neighbour_lost(self, peer: str) -> None:
        with self.lock:
            self.core.on_link_down(peer, time.monotonic())
            self.after_core()

    # --- requests to the hub ----------------------------------------------------------------------

    def ask(self, make: Callable[[int], Message], timeout: float = 60.0) -> Any:
        """See ``Questions.ask``."""
        return self.questions.ask(make, timeout)

    def unreachable(self) -> HubUnreachable:
        """The error for whoever waited for the hub in vain."""
        return self._hub.unreachable()

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

    # --- calls ------------------------------------------------------------------------------------

    def new_ids(self, returns: int) -> int:
        """Result entries for a call; the lock must be held."""
        return self.core.objects.new(max(1, returns))

    def submit_plain(
        self,
        home: Any,
        fn: bytes,
        method: str,
        name: str,
        priority: int,
        retries: int,
        retry_errors: object,
    ) -> int:
        """A call without arguments and with one result, the most frequent kind: its object id."""
        with self.lock:
            id = self.core.objects.new_one()
            task = Task(
                id, fn, method, name, priority=priority, retries=retries, retry_errors=retry_errors
            )
            self.submit(home, task)
        return id

    def submit(self, home: Any, task: Task) -> None:
        """Hand a call to the core; the lock must be held."""
        if self._closed or self.refused is not None:
            raise self._over()
        if self._store.borrowing:
            self._drop_released()  # the worker can write where the last result was
        if self.current_parent is not None:
            task.parent = self.current_parent()
        self.core.submit(home, task, time.monotonic())
        self.after_core()

    def cancel(self, id: int, *, force: bool, recursive: bool) -> None:
        with self.lock:
            entry = self.core.objects.entries.get(id)
            task = entry.task if entry is not None else None
            if force and task is not None and isinstance(task.home, RemoteActor):
                raise UnknownOption("cancel(force=True) is for tasks; use kill() to end an actor")
            self.core.cancel(id, time.monotonic(), force=force, recursive=recursive)
            self.after_core()

    def cancel_children(self, parent: object) -> None:
        """Cancel everything that the call ``parent`` submitted and that still runs."""
        with self.lock:
            self.core.cancel_children(parent, time.monotonic())
            self.after_core()


def _wants_retry(task: Task, data: bytes) -> bool:
    wanted: Any = task.retry_errors
    return values.retriable(data, wanted)
