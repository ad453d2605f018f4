"""A worker process in the simulation: what ``worker.process``, ``control``, ``blocking`` and
``runners`` do with their threads, around the real Intake and Outbox.

Owns: its links and the calls that run. The control lane is served at once; the data lane only when
the main thread would look at it. Must never: run a call that the caller was told will not run.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from guactors.errors import CallTimeout, Death, GuactorsError, OwnerDied, TaskCancelled
from guactors.messages import (
    ActorLoaded,
    ActorSpec,
    Bind,
    Blocked,
    Bounced,
    Call,
    CallerToWorker,
    Calls,
    CancelCall,
    Endpoint,
    Fetch,
    Goodbye,
    Hello,
    Leave,
    LoadActor,
    Message,
    Object,
    Ping,
    Pong,
    ProviderToWorker,
    Release,
    Reply,
    TakeBack,
    Unblocked,
    Value,
    Welcome,
    WorkerReady,
)
from guactors.transport.base import Frame, Lane, LinkFull, LinkState, SendError
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.worker.intake import Intake, Item
from guactors.worker.outbox import BATCH, Outbox
from tests.sim.caller import SimCaller
from tests.sim.network import LANES, SimLink, SimListener, SimTransport
from tests.sim.program import Program, UserError
from tests.sim.running import Crash, Interrupted, Running

if TYPE_CHECKING:
    from guactors.caller.tasks import Task
    from tests.sim.world import World

BLOCK_AFTER = 0.001
WATCH = 0.002
_CALLERS: Decoder[Message] = Decoder(CallerToWorker)
_PROVIDER: Decoder[Message] = Decoder(ProviderToWorker)
Reap = Callable[[str, Death], None]


class SimWorker:
    """One worker process; ``reap`` is told of its end."""

    def __init__(
        self, world: World, worker: str, provider: str, host: str, home: Endpoint, reap: Reap
    ) -> None:
        self.id = worker
        self.clock = world.clock
        self.session_id = ""
        self.spec: ActorSpec | None = None
        self.incarnation = 0
        self.session: SimCaller | None = None
        self.running: list[Running] = []
        self.dead = False
        self._world = world
        self._reap = reap
        self._host = host
        self._places = 1
        self._intake = Intake()
        self._outbox = Outbox()
        self._early: set[tuple[str, int]] = set()
        self._homes: dict[str, str] = {}
        self._backlog: dict[str, deque[tuple[Lane, list[Frame]]]] = {}
        self._open: set[str] = set()
        self._suspects: list[str] = []
        self._to_load: LoadActor | None = None
        self._loading = False
        self._leaving = False
        self._blocked = False
        self._due = False
        self.transport = SimTransport(world.network, worker, host, self._news)
        self._listener = self.transport.listen(f"inproc://{worker}")
        self._link = self.transport.dial(home)
        hello = Hello(worker, "worker", world.versions, 1, host)
        for lane in LANES:
            self._link.send(lane, [encode(hello)])
        self._tell_provider(WorkerReady([self._listener.endpoint]))
        world.workers[worker] = self

    # --- ends -----------------------------------------------------------------------------------

    def vanish(self, death: Death | None = None) -> None:
        """The process is gone, from one moment to the next."""
        if self.dead:
            return
        self.dead = True
        self._world.note(f"worker {self.id} is gone")
        self.transport.close()
        self._world.workers.pop(self.id, None)
        self._reap(self.id, death or Death("exited", exit_code=1))

    def _exit(self) -> None:
        """It ends in good order."""
        if self.session is not None:
            self.session.close()
        self._flush()
        self._link.close()
        self.vanish(Death("exited", exit_code=0))

    # --- service --------------------------------------------------------------------------------

    def _news(self, source: SimLink | SimListener) -> None:
        if source is self._listener or source is self._link:
            self._nudge()
        elif self.session is not None:
            self.session.news(source)

    def _nudge(self) -> None:
        if not self._due:
            self._due = True
            self.clock.after(0.0, self._service)

    def _service(self) -> None:
        """Both threads look; which is first is chance."""
        self._due = False
        threads = [self._control, self._main]
        if self._world.rng.random() < 0.5:
            threads.reverse()
        for look in threads:
            if not self.dead:
                look()

    # --- the control thread ---------------------------------------------------------------------

    def _control(self) -> None:
        while not self.dead and (got := self._listener.receive(Lane.CONTROL)) is not None:
            message, buffers = _CALLERS.decode(got[2])
            self._on_caller(got[0], message, buffers)
        if self._listener.disturbed():
            for link in list(self._homes):
                self._send_control(link, Ping(0))
        while not self.dead and (received := self._link.receive()) is not None:
            self._on_provider(_PROVIDER.decode(received[1])[0])
        if not self.dead and self._link.state() is LinkState.DOWN:
            self.vanish()
        while self._suspects:
            self._on_link_gone(self._suspects.pop())

    def _on_caller(self, link: str, message: Message, buffers: Sequence[Frame]) -> None:
        match message:
            case Hello(peer):
                self._homes.setdefault(link, peer)
                self._open.add(link)
                self._resend()
                self._send_control(link, Welcome(self.id, self._world.versions))
            case Ping(number):
                self._send_control(link, Pong(number))
            case CancelCall():
                self._cancel(link, message)
            case TakeBack(count):
                self._drain()
                self._send_control(link, Bounced(self._intake.take_back(link, count)))
            case Fetch() | Release():
                self._for_session(link, message, buffers)
            case Goodbye():
                self._suspects.append(link)

    def _on_provider(self, message: Message) -> None:
        match message:
            case Ping(number):
                self._tell_provider(Pong(number))
            case Bind(session):
                self.session_id = session
                self._nudge()
            case LoadActor():
                self._to_load = message
                self._nudge()
            case Leave(graceful):
                if not graceful:
                    self.vanish(Death("exited", exit_code=0))
                    return
                self._leaving = True
                self._nudge()

    def _cancel(self, link: str, message: CancelCall) -> None:
        self._drain()
        item = self._intake.cancel(link, message.call)
        running = next(
            (r for r in self.running if r.item.link == link and r.item.call.id == message.call),
            None,
        )
        if item is not None:
            item.timed_out = message.timeout
            self._answer(Running(item).failure(_ended_early(item)), link)
        elif running is not None:
            running.item.timed_out = message.timeout
            running.item.cancelled = True
            if running.item.call.fn:
                late = self._world.rng.random() * 0.002
                self.clock.after(late, lambda: self._step(running, Interrupted()))
        else:
            self._early.add((link, message.call))
        if message.recursive and self.session is not None:
            self.session.cancel_children((link, message.call))

    def _answer(self, outcome: tuple[Reply, list[bytes]], link: str) -> None:
        self._outbox.add(link, outcome[0], outcome[1], self.clock.now)
        self._flush()

    def _for_session(self, link: str, message: Message, buffers: Sequence[Frame]) -> None:
        if self.session is not None:
            self.session.on_neighbour(link, message, buffers)
        elif isinstance(message, Fetch):
            error = OwnerDied(f"worker {self.id} does not hold {message.ref}")
            value = Value(pickle.dumps(error, 5), 0, True)
            self.send(link, Object(message.request, value), ())

    def _on_link_gone(self, link: str) -> None:
        self._homes.pop(link, None)
        self._backlog.pop(link, None)
        self._open.discard(link)
        self._intake.forget(link)
        if self.session is not None:
            self.session.on_neighbour_lost(link)

    # --- the data lane --------------------------------------------------------------------------

    def _drain(self) -> None:
        now = self.clock.now
        while (got := self._listener.receive(Lane.DATA)) is not None:
            link, _, frames = got
            message, buffers = _CALLERS.decode(frames)
            if isinstance(message, Calls):
                self._on_calls(link, message.calls, buffers, now)
            elif isinstance(message, Hello):
                self._homes[link] = message.peer
            elif isinstance(message, Object):
                self._for_session(link, message, buffers)
        self._resend()

    def _resend(self) -> None:
        for link in sorted(self._backlog.keys() & self._open):
            for lane, frames in self._backlog.pop(link):
                self._send_frames(link, lane, frames)

    def _on_calls(self, link: str, calls: list[Call], buffers: Sequence[Frame], now: float) -> None:
        if self._blocked and self.spec is None:
            self._send_control(link, Bounced([call.id for call in calls], True))
            return
        self._intake.add(link, calls, buffers, now)
        for call in calls:
            if (link, call.id) in self._early:
                self._early.discard((link, call.id))
                item = self._intake.cancel(link, call.id)
                if item is not None:
                    self._answer(Running(item).failure(_ended_early(item)), link)

    # --- sending --------------------------------------------------------------------------------

    def send(self, link: str, message: Message, buffers: Sequence[Frame]) -> None:
        """To a caller that dialled us."""
        if self.dead:
            return
        if lane_of(message) is Lane.CONTROL:
            self._send_control(link, message)
        else:
            self._send_frames(link, Lane.DATA, [encode(message), *buffers])

    def stream(self, link: str, message: Message) -> None:
        """A stream's item; replies finished before it leave first."""
        self._flush()
        self.send(link, message, ())

    def _send_control(self, link: str, message: Message) -> None:
        self._send_frames(link, Lane.CONTROL, [encode(message)])

    def _send_frames(self, link: str, lane: Lane, frames: list[Frame]) -> None:
        if link not in self._homes:
            return
        held = self._backlog.get(link)
        if held or (lane is Lane.CONTROL and link not in self._open):
            self._backlog.setdefault(link, deque()).append((lane, frames))
            return
        try:
            self._listener.send(link, lane, frames)  # type: ignore[arg-type]
        except LinkFull:
            self._backlog.setdefault(link, deque()).append((lane, frames))
            self.clock.after(0.005, self._retry)
        except SendError:
            self._suspects.append(link)
            self._nudge()

    def _retry(self) -> None:
        if not self.dead:
            self._resend()

    def _tell_provider(self, message: Message) -> None:
        try:
            self._link.send(lane_of(message), [encode(message)])
        except SendError:
            self._nudge()

    def _flush(self) -> None:
        if self._outbox.count and not self.dead:
            for link, message, buffers in self._outbox.take():
                self._send_frames(link, Lane.DATA, [encode(message), *buffers])

    # --- the main thread ------------------------------------------------------------------------

    def _main(self) -> None:
        hosting = self._places == 1 and any(running.waiting for running in self.running)
        if not self.running or self._places > 1 or hosting:
            self._drain()
        if self._loading or not (self.session_id or self._leaving):
            return
        while len(self.running) < self._places and not self.dead:
            item = self._intake.mailbox.take()
            if item is None:
                break
            self._execute(item)
        if self.dead or self.running:
            return
        self._flush()
        if self._to_load is not None:
            self._load(self._to_load)
        elif self._leaving:
            self._exit()

    def _execute(self, item: Item) -> None:
        running = Running(item)
        if item.expires and self.clock.now >= item.expires:
            late = CallTimeout(f"{running.program.uid} was still queued when its timeout passed")
            self._finish(running, running.failure(late))
            return
        if self._outbox.count:
            self.clock.after(WATCH, self._flush)
        self._world.ledger.started(self, self._homes.get(item.link, item.link), item.call)
        self.running.append(running)
        running.start(self)
        self._step(running)

    def _step(self, running: Running, error: BaseException | None = None) -> None:
        """Let the user's code go on."""
        if running.over or self.dead:
            return
        running.turn += 1
        running.waiting.clear()
        self._unblock(running)
        try:
            wanted = running.steps.throw(error) if error is not None else next(running.steps)
        except StopIteration as stop:
            self._finish(running, stop.value)
        except Crash:
            self.vanish(Death("exited", exit_code=3))
        except Interrupted:
            self._finish(running, running.failure(_ended_early(running.item)))
        except (GuactorsError, UserError) as raised:
            self._finish(running, running.failure(raised))
        else:
            if isinstance(wanted, list):
                self._wait(running, wanted)
            else:
                turn = running.turn
                self.clock.after(wanted, lambda: self._wake(running, turn))

    def _wake(self, running: Running, turn: int) -> None:
        if running.turn == turn:
            self._step(running)

    def _wait(self, running: Running, ids: list[int]) -> None:
        assert self.session is not None
        running.waiting = set(ids)
        turn = running.turn
        for id in set(ids):
            self.session.when_there(id, partial(self._arrived, running, turn))
        if self._places == 1:
            self._nudge()
        if self.spec is None:
            self.clock.after(BLOCK_AFTER, lambda: self._block(running, turn))

    def _arrived(self, running: Running, turn: int, id: int) -> None:
        if running.turn == turn and id in running.waiting:
            running.waiting.discard(id)
            if not running.waiting:
                self._step(running)

    def _block(self, running: Running, turn: int) -> None:
        if running.turn != turn or self.dead:
            return
        running.told = self._blocked = True
        self._flush()
        self._drain()
        bounced = self._intake.bounce_all()
        self._tell_provider(Blocked(True))
        for link in list(self._homes):
            self._send_control(link, Bounced(bounced.get(link, []), True))

    def _unblock(self, running: Running) -> None:
        if running.told:
            running.told = self._blocked = False
            self._tell_provider(Blocked(False))
            for link in list(self._homes):
                self._send_control(link, Unblocked())

    def _finish(self, running: Running, outcome: tuple[Reply, list[bytes]]) -> None:
        if running in self.running:
            self.running.remove(running)
            # A reply leaves before the call's references are given back.
            self._outbox.add(running.item.link, outcome[0], outcome[1], self.clock.now)
            running.release()
        else:
            self._outbox.add(running.item.link, outcome[0], outcome[1], self.clock.now)
        if self._outbox.count >= BATCH or not self._intake.mailbox:
            self._flush()
        self._nudge()

    # --- actors ---------------------------------------------------------------------------------

    def _load(self, message: LoadActor) -> None:
        self._to_load = None
        self.spec, self.incarnation = message.spec, message.incarnation
        seconds, ends = pickle.loads(message.payload)
        self._loading = True
        self.clock.after(seconds, lambda: self._loaded(ends))

    def _loaded(self, ends: str) -> None:
        if self.dead or self.spec is None:
            return
        self._loading = False
        error = pickle.dumps(UserError("constructor"), 5) if ends == "raise" else b""
        self._tell_provider(ActorLoaded(self.spec.actor, error))
        self._places = max(1, self.spec.max_concurrency)
        self._nudge()

    # --- what user code asks ----------------------------------------------------------------------

    def open_session(self) -> SimCaller:
        """The nested caller, made at its first use."""
        if self.session is None:
            world = self._world
            hello = Hello(
                world.fresh("caller"), "caller", world.versions, 1, self._host, self.session_id,
                name=self.id,
            )  # fmt: skip
            self.session = SimCaller(world, self.transport, hello, self.send)
        return self.session

    def promises(self, peer: str, task: Task) -> None:
        """A nested call is about to be made."""
        self._world.ledger.promised(peer, task)

    def crashes(self, program: Program) -> bool:
        """Whether this run of it ends the process."""
        return self._world.ledger.crashed(program.uid) <= program.crashes


def _ended_early(item: Item) -> Exception:
    if item.timed_out:
        return CallTimeout(f"call {item.call.id} did not finish within its timeout")
    return TaskCancelled(f"call {item.call.id} was cancelled")
