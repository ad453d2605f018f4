"""A worker process in the simulation: what ``worker.process``, ``control``, ``blocking`` and
``runners`` do with their threads, around the real Intake and Outbox.

Owns: its links and the calls that run. The control lane is served at once; the data lane only when
the main thread would look at it. Must never: run a call that the caller was told will not run.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from guactors import messages as m
from guactors.errors import CallTimeout, Death, GuactorsError, ObjectLost, OwnerDied, TaskCancelled
from guactors.transport.base import Frame, Lane, LinkState, SendError
from guactors.transport.doors import KeySet
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.worker.backpressure import Brakes
from guactors.worker.bouncing import PATIENCE
from guactors.worker.intake import Intake, Item
from guactors.worker.outbox import BATCH, Outbox
from tests.sim.caller import DEPOT, SimCaller
from tests.sim.clock import ProcessClock
from tests.sim.doorway import Doorway
from tests.sim.network import LANES, SimLink, SimListener, SimTransport
from tests.sim.program import Program, UserError
from tests.sim.running import Crash, Interrupted, Running

if TYPE_CHECKING:
    from guactors.caller.tasks import Task
    from tests.sim.world import World

BLOCK_AFTER = 0.001
WATCH = 0.002
_CALLERS: Decoder[m.Message] = Decoder(m.CallerToWorker)
_PROVIDER: Decoder[m.Message] = Decoder(m.ProviderToWorker)
Reap = Callable[[str, Death], None]


class SimWorker:
    """One worker process; ``reap`` is told of its end."""

    def __init__(
        self, world: World, worker: str, host: str, home: m.Endpoint, reap: Reap, user: str = ""
    ) -> None:
        self.id = worker
        self.clock = ProcessClock(world.clock)
        self.session_id = ""
        self.spec: m.ActorSpec | None = None
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
        self._to_load: m.LoadActor | None = None
        self._loading = False
        self._leaving = False
        self._kept = False
        self._handing = False
        self._blocked = False
        self._standing = 0
        self._unhalted: set[str] = set()
        self._due = False
        self._doors = KeySet()
        self.transport = SimTransport(world.network, worker, host, self._news, user)
        self._listener = self.transport.listen(f"inproc://{worker}", doors=self._doors)
        self._doorway = Doorway(self.clock, self._listener, self._nudge)
        self.brakes = Brakes(self)  # type: ignore[arg-type]  # all it asks is home_of
        self._link = self.transport.dial(home)
        hello = m.Hello(worker, "worker", world.versions, 1, host)
        for lane in LANES:
            self._link.send(lane, [encode(hello)])
        self._tell_provider(m.WorkerReady([self._endpoint()]))
        world.workers[worker] = self

    def _endpoint(self) -> m.Endpoint:
        return msgspec.structs.replace(self._listener.endpoint, store=self._host)

    # --- ends -----------------------------------------------------------------------------------

    def power_off(self) -> None:
        """Its machine is gone: nobody is left to break its links."""
        self.dead = self._doorway.closed = self.transport.dead = True
        self._world.workers.pop(self.id, None)
        self._forget_memory()

    def _forget_memory(self) -> None:
        memory = self._world.memory
        memory.gone(self.id)
        if self.session is not None:
            memory.gone(self.session.peer)

    def vanish(self, death: Death | None = None) -> None:
        """The process is gone, from one moment to the next."""
        if self.dead:
            return
        self.dead = self._doorway.closed = True
        self._world.note(f"worker {self.id} is gone")
        self.transport.close()
        self._world.workers.pop(self.id, None)
        self._forget_memory()
        self._reap(self.id, death or Death("exited", exit_code=1))

    def _exit(self) -> None:
        """It ends in good order, when others have fetched what it keeps for them."""
        if self._world.memory.has(self.id):
            if not self._handing:
                self._handing = True
                self._flush()
                self._tell_provider(m.Keeping(True))
                for link in self._world.memory.takers(self.id):
                    self._doorway.send(link, m.Leaving())
            return
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
            for link in list(self._doorway.peers):
                self._doorway.send(link, m.Ping(0))
        while not self.dead and (received := self._link.receive()) is not None:
            self._on_provider(_PROVIDER.decode(received[1])[0])
        if not self.dead and self._link.state() is LinkState.DOWN:
            self.vanish()
        while self._doorway.suspects:
            self._on_link_gone(self._doorway.suspects.pop())
        if self._handing and not self.dead and not self._world.memory.has(self.id):
            self._exit()
        if self._kept and not self.dead and not self._keeps():
            self._kept = False
            self._tell_provider(m.Keeping(False))

    def _on_caller(self, link: str, message: m.Message, buffers: Sequence[Frame]) -> None:
        match message:
            case m.Hello(peer):
                self._doorway.greet(link, peer, Lane.CONTROL)
                self._doorway.send(link, m.Welcome(self.id, self._world.versions))
            case m.Ping(number):
                self._doorway.send(link, m.Pong(number))
            case m.CancelCall():
                self._cancel(link, message)
            case m.TakeBack(count):
                self._drain()
                self._doorway.send(link, m.Bounced(self._intake.take_back(link, count)))
            case m.StreamTaken(call, taken):
                self.brakes.on_taken(link, call, taken)
            case (
                m.Fetch() | m.Release() | m.KeepBlock() | m.BringValue() | m.DropValues()
                | m.ReadValue()
            ):  # fmt: skip
                self._for_session(link, message, buffers)
            case m.ReadBlock():
                self._read(link, message)
            case m.Goodbye():
                self._doorway.suspects.append(link)

    def _on_provider(self, message: m.Message) -> None:
        match message:
            case m.Ping(number):
                self._tell_provider(m.Pong(number))
            case m.Bind(session, keys=keys):
                self._doors.admit(keys)
                self.session_id = session
                self._nudge()
            case m.Admit(keys):
                self._doors.admit(keys)
            case m.Expel(keys):
                self._doors.expel(keys)
            case m.Stand(number):
                self._stand(number)
            case m.GoOn():
                self._standing = 0
                if not self._blocked:
                    self._welcome()
            case m.LoadActor():
                self._to_load = message
                self._nudge()
            case m.Quit():
                self._quit()
            case m.Leave(graceful, if_unused):
                if not graceful:
                    self.vanish(Death("exited", exit_code=0))
                    return
                if if_unused and self._keeps():
                    self._kept = True
                    self._tell_provider(m.Keeping(True))
                    return
                self._leaving = True
                self._nudge()

    def _cancel(self, link: str, message: m.CancelCall) -> None:
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

    def _answer(self, outcome: tuple[m.Reply, list[bytes]], link: str) -> None:
        self._outbox.add(link, outcome[0], outcome[1], self.clock.now)
        self._flush()

    def _for_session(self, link: str, message: m.Message, buffers: Sequence[Frame]) -> None:
        if self.session is not None:
            self.session.on_neighbour(link, message, buffers)
        elif isinstance(message, m.Fetch):
            error = OwnerDied(f"worker {self.id} does not hold {message.ref}")
            value = m.Value(pickle.dumps(error, 5), 0, True)
            self._doorway.send(link, m.Object(message.request, value))

    def _keeps(self) -> bool:
        lends = self.session is not None and self.session.core.objects.lends()
        return lends or self._world.memory.has(self.id)

    def home_of(self, link: str) -> str | None:
        """The link, while its caller is there."""
        return link if link in self._doorway.peers else None

    def _on_link_gone(self, link: str) -> None:
        self._doorway.forget(link)
        self._world.memory.link_gone(self.id, link)
        self.brakes.forget(link)
        self._intake.forget(link)
        if self.session is not None:
            self.session.on_neighbour_lost(link)

    # --- the data lane --------------------------------------------------------------------------

    def _drain(self) -> None:
        now = self.clock.now
        while (got := self._listener.receive(Lane.DATA)) is not None:
            link, _, frames = got
            message, buffers = _CALLERS.decode(frames)
            if isinstance(message, m.Calls):
                self._on_calls(link, message.calls, buffers, now)
            elif isinstance(message, m.Hello):
                self._doorway.greet(link, message.peer, Lane.DATA)
            elif isinstance(message, m.Object | m.BlockChunk):
                self._for_session(link, message, buffers)
            elif isinstance(message, m.Halted):
                self._halted(link)
            elif isinstance(message, m.Unused):
                self._world.memory.unused(self.id, link, message.blocks)

    def _on_calls(
        self, link: str, calls: list[m.Call], buffers: Sequence[Frame], now: float
    ) -> None:
        if (self._blocked or self._standing) and self.spec is None:
            self._doorway.send(link, m.Bounced([call.id for call in calls], True))
            return
        self._intake.add(link, calls, buffers, now)
        for call in calls:
            if (link, call.id) in self._early:
                self._early.discard((link, call.id))
                item = self._intake.cancel(link, call.id)
                if item is not None:
                    self._answer(Running(item).failure(_ended_early(item)), link)

    # --- sending --------------------------------------------------------------------------------

    def stream(self, link: str, message: m.Message) -> None:
        """A stream's item; replies finished before it leave first."""
        self._flush()
        self._doorway.send(link, message)

    def keep(self, link: str, data: bytes) -> m.Stored:
        """A result stays here."""
        return self._world.memory.keep(self.id, self._host, link, data)

    def look(self, word: m.Stored) -> bytes | None:
        """A value in this machine's memory."""
        return self._world.memory.look(self._host, word)

    def _read(self, link: str, ask: m.ReadBlock) -> None:
        data = self._world.memory.read(self.id, link, ask)
        if data is None:
            self._doorway.send(link, m.BlockChunk(ask.request, ask.offset))
        else:
            chunk = m.BlockChunk(ask.request, ask.offset, crc32(data))
            self._doorway.send(link, chunk, [data])

    def _tell_provider(self, message: m.Message) -> None:
        try:
            self._link.send(lane_of(message), [encode(message)])
        except SendError:
            self._nudge()

    def _flush(self) -> None:
        if self._outbox.count and not self.dead:
            for link, message, buffers in self._outbox.take():
                self._doorway.send(link, message, buffers)

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
        if any(dep.stored is not None and self.look(dep.stored) is None for dep in item.call.deps):
            item.missing = True
            self._world.ledger.missed(self._doorway.peers.get(item.link, item.link), item.call)
            self._finish(running, running.failure(ObjectLost("its memory is gone")))
            return
        if item.expires and self.clock.now >= item.expires:
            late = CallTimeout(f"{running.program.uid} was still queued when its timeout passed")
            self._finish(running, running.failure(late))
            return
        if self._outbox.count:
            self.clock.after(WATCH, self._flush)
        self._world.ledger.started(self, self._doorway.peers.get(item.link, item.link), item.call)
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
        self._tell_provider(m.Blocked(True))
        for link in list(self._doorway.peers):
            self._doorway.send(link, m.Bounced(bounced.get(link, []), True))

    def _unblock(self, running: Running) -> None:
        if running.told:
            running.told = self._blocked = False
            self._tell_provider(m.Blocked(False))
            if not self._standing:
                self._welcome()

    def _welcome(self) -> None:
        for link in list(self._doorway.peers):
            self._doorway.send(link, m.Unblocked())

    def _stand(self, number: int) -> None:
        """As ``Bouncing.stand``: in steps, for here nobody can wait."""
        self._standing = number
        self._flush()
        self._drain()
        bounced = self._intake.bounce_all()
        self._unhalted = set(self._doorway.peers)
        for link in self._unhalted:
            self._doorway.send(link, m.Bounced(bounced.get(link, []), True, False, True))
        self._look_for_halted(number, self.clock.now + PATIENCE)

    def _quit(self) -> None:
        """What waits goes back, and it leaves after what runs, if it has the time."""
        self._leaving = True
        if self.spec is None:
            self._standing = self._standing or -1
            self._drain()
            bounced = self._intake.bounce_all()
            for link in list(self._doorway.peers):
                self._doorway.send(link, m.Bounced(bounced.get(link, []), True, True))
        self._nudge()

    def _look_for_halted(self, number: int, until: float) -> None:
        if self._standing != number or self.dead:
            return
        self._drain()
        if self._unhalted and self.clock.now < until:
            self.clock.after(WATCH / 4, lambda: self._look_for_halted(number, until))
        else:
            self._tell_provider(m.Stood(number))

    def _halted(self, link: str) -> None:
        self._unhalted.discard(link)

    def _finish(self, running: Running, outcome: tuple[m.Reply, list[bytes]]) -> None:
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

    def _load(self, message: m.LoadActor) -> None:
        self._to_load = None
        self.spec = message.spec
        seconds, ends = pickle.loads(message.payload)
        self._loading = True
        self.clock.after(seconds, lambda: self._loaded(ends))

    def _loaded(self, ends: str) -> None:
        if self.dead or self.spec is None:
            return
        self._loading = False
        if self.spec.class_name == DEPOT:
            self.open_session()
        error = pickle.dumps(UserError("constructor"), 5) if ends == "raise" else b""
        self._tell_provider(m.ActorLoaded(self.spec.actor, error))
        self._places = max(1, self.spec.max_concurrency)
        self._nudge()

    # --- what user code asks ----------------------------------------------------------------------

    def open_session(self) -> SimCaller:
        """The nested caller, made at its first use."""
        if self.session is None:
            world = self._world
            hello = m.Hello(
                world.fresh("caller"), "caller", world.versions, 1, self._host, self.session_id,
                name=self.id, transport=self.transport.user,
            )  # fmt: skip
            self.session = SimCaller(
                world, self.transport, hello, self._doorway.send, clock=self.clock
            )
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
