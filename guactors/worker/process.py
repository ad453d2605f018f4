"""The worker as a whole: sockets, links to callers and to the provider, and what is shared by its
threads.

Owns: the data lane, the worker's lock, and every send. Must never: run user code (``runners`` do),
or hold the lock while it does.

Locks, in the order in which they may be taken: session lock, ``lock`` (intake, outbox, data lane),
``control_lock`` (control lanes).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from guactors import messages as m
from guactors.assigned import take_assignment
from guactors.config import WorkerConfig
from guactors.context import Place, set_place
from guactors.errors import ProtocolError
from guactors.home import host_id
from guactors.ids import fresh
from guactors.options import inherited
from guactors.refs import present_session, set_session_factory
from guactors.session import Session
from guactors.transport import open_transport
from guactors.transport.base import Frame, Lane, LinkFull, Listener, SendError
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.transport.poller import Poller
from guactors.versions import own_versions
from guactors.worker.admission import Admission
from guactors.worker.backpressure import Brakes
from guactors.worker.binding import bind_code, unbind_code
from guactors.worker.bouncing import Bouncing
from guactors.worker.callers import Callers
from guactors.worker.control import MOST_FAULTS, Control
from guactors.worker.environment import Setup
from guactors.worker.execution import Code
from guactors.worker.intake import DRAIN_EVERY, Intake, Item
from guactors.worker.keeping import hand_over
from guactors.worker.outbox import BATCH, PATIENCE, Outbox
from guactors.worker.printing import name_streams
from guactors.worker.serving import keep_borrowed
from guactors.worker.sharing import Sharing
from guactors.worker.stack import dump_path, listen
from guactors.worker.trust import Trust

if TYPE_CHECKING:
    from guactors.worker.runners import Runner

DRAIN = 256
SWITCH_INTERVAL = 0.001
"""Seconds after which a running call lets the control thread have the interpreter: Python's default
of 5 ms is as much as an urgent message may take in all."""
# Made before workers are forked: it takes longer than all else that a worker does at its start.
_DECODER: Decoder[m.Message] = Decoder(m.CallerToWorker)


class Worker:
    """One worker process; ``run`` is its life."""

    def __init__(self, config: WorkerConfig, lifeline: int) -> None:
        self.config = config
        self.lock = threading.Lock()
        self.control_lock = threading.Lock()
        self.poller = Poller()
        self.intake = Intake()
        self.outbox = Outbox(time.time() - time.monotonic())
        self.control = Control(self, lifeline)
        self.admission = Admission(self)
        self.sharing = Sharing()
        where = f"on worker {config.worker} of provider {config.provider_name}"
        tell = self.control.tell_provider
        trust = Trust(where, self.admission.caller, tell, config.owner)
        self.code = Code(trust, self.admission.expelled, keep_borrowed)
        self.setup = Setup(where)
        self.code.prepare = self.setup.check
        self.callers = Callers(self)
        self.brakes = Brakes(self)
        self.spec: m.ActorSpec | None = None
        self.session_id = ""
        self.namespace = ""
        self.terms: m.Terms | None = None
        self.to_load: m.LoadActor | None = None
        self.leaving = False
        self.exiting = False
        """The actor ends: what still runs or waits is answered no more."""
        self.exit_status = 0
        self.bouncing = Bouncing(self)
        self.early: set[tuple[str, int]] = set()
        self.for_session: deque[tuple[str, m.Message, Sequence[Frame]]] = deque()
        self.main_thread = threading.get_ident()
        self.runner: Runner
        self._homes: dict[str, Listener] = {}
        self._greeted: set[str] = set()
        """Links whose data lane is up."""
        self._backlog: dict[str, deque[tuple[Lane, list[Frame]]]] = {}
        self._drained_at = 0.0
        self._transport = open_transport(config.identity)
        self.listeners = self._listen()
        self.data_fds = [fd for one in self.listeners for fd in one.filenos(Lane.DATA)]
        for fd in self.data_fds:
            self.poller.add(fd)

    def _listen(self) -> list[Listener]:
        place = f"ipc://{self.config.run_dir}/{self.config.worker}"
        listeners = [self._transport.listen(f"{place}.c", data_address=f"{place}.d")]
        if self.config.listen_host:
            free, doors = f"tcp://{self.config.listen_host}:0", self.admission.doors
            listeners.append(self._transport.listen(free, data_address=free, doors=doors))
        return listeners

    def endpoints(self) -> list[m.Endpoint]:
        """Where callers find this worker."""
        host = host_id()
        return [
            m.Endpoint(e.control, e.data, e.server_key, host, self.sharing.store_id)
            for e in (one.endpoint for one in self.listeners)
        ]

    def hello(self) -> m.Hello:
        """How this process introduces itself to its provider."""
        config = self.config
        return m.Hello(
            config.worker,
            "worker",
            own_versions(),
            os.getpid(),
            host_id(),
            transport=config.identity.client_public,
        )

    def run(self) -> int:
        """Serve until told to leave; the exit status."""
        from guactors.worker.runners import SyncRunner

        name_streams()
        listen(dump_path(self.config.run_dir, self.config.worker))
        sys.setswitchinterval(SWITCH_INTERVAL)
        place = Place(self.config.provider, self.config.worker, labels=self.config.labels)
        set_place(place, self.callers)
        set_session_factory(self._open_session)
        runner: Any = SyncRunner(self)
        self.control.start(self._transport)
        try:
            while runner is not None:
                runner = runner.run()
            hand_over(self)
        finally:
            self._close()
        return self.exit_status

    def _close(self) -> None:
        set_session_factory(None)
        session = present_session()
        if session is not None:
            session.close()
        with self.lock:
            self.flush()
        unbind_code(self.code)
        self.control.close()
        for listener in self.listeners:
            listener.close()
        self._transport.close()
        self.poller.close()
        self.sharing.close()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()

    def _open_session(self) -> Session:
        """The session of user code that calls others from in here."""
        from guactors.context import running
        from guactors.worker.blocking import BlockingHost

        config = self.config
        hello = m.Hello(
            fresh("caller"), "caller", own_versions(), os.getpid(), host_id(), self.session_id,
            False, config.worker, self.namespace, transport=config.identity.client_public,
            store=self.sharing.store_id,
        )  # fmt: skip
        host = BlockingHost(self)
        session = Session(self._transport, config.hub, hello, config.timing, echo=False, host=host)
        host.session = session
        session.send_neighbour = self.send
        if self.setup.env is not None:
            session.environments.adopt(self.setup.env.word)
        session.terms = inherited(self.terms)
        session.current_parent = lambda: getattr(running.get(), "key", None)
        session.lookout.link_owner = self.callers.name_of
        session.start()
        return session

    # --- the data lane; self.lock is held ---------------------------------------------------------

    def next_item(self, now: float) -> Item | None:
        """The next call to run, or None. A caller's first call can overtake the provider's Bind; it
        waits, or what it calls in turn would belong to no session."""
        mailbox = self.intake.mailbox
        if not mailbox or now - self._drained_at > DRAIN_EVERY:
            self.drain(now, all_of_it=bool(mailbox))
        # Drained in any case: a descriptor with news nobody takes would never let us sleep.
        return mailbox.take() if self.session_id else None

    def drain(self, now: float, *, all_of_it: bool = True) -> None:
        """Accept what has arrived on the data lane; or only until there is a call to run, whose
        caller would else wait for a look that mostly finds nothing."""
        self._drained_at = now
        mailbox = self.intake.mailbox
        for listener in self.listeners:
            receive = listener.receive
            for _ in range(DRAIN):
                got = receive(Lane.DATA)
                if got is None:
                    break
                self._on_data(listener, got[0], got[2], now)
                if mailbox and not all_of_it:
                    break
        if self._backlog:
            for link in list(self._backlog):
                self._resend(link)

    def _on_data(self, listener: Listener, link: str, frames: Sequence[Frame], now: float) -> None:
        try:
            message, buffers = _DECODER.decode(frames)
        except ProtocolError as error:
            self.control.fault(listener, link, error)
            return
        if self.control.faults and self.control.faults[link] > MOST_FAULTS:
            return
        if type(message) is m.Calls:
            calls = message.calls
            if link not in self._homes:
                return  # gone or expelled: nobody waits for the answers
            if self.bouncing.refuses():
                ids = [call.id for call in calls]
                self.send(link, m.Bounced(ids, True, self.bouncing.retiring), ())
                return
            self.intake.add(link, calls, buffers, now)
            if self.early:
                self.control.cancel_early(link, calls)
        elif type(message) is m.Define:
            self.code.define(message, link)
            self.callers.granted(link, message.resources)
        elif type(message) is m.Hello:
            self._homes[link] = listener
            self._greeted.add(link)
            self.callers.met(link, message.peer)
            self.admission.met(link, listener)
            self.sharing.met(link, message)
        elif type(message) is m.Halted:
            self.bouncing.halted(link)
        elif type(message) is m.Unused:
            self.sharing.on_unused(link, message.blocks)
        elif isinstance(message, m.Object | m.BlockChunk):
            self.for_session.append((link, message, buffers))

    def finish(
        self, item: Item, reply: m.Reply, buffers: Sequence[Frame], now: float, began: float
    ) -> None:
        """A call that began then has ended: answer now, or with the next ones."""
        if item.call.stored is not None or item.call.deps:
            # Before its caller hears of it, who may recycle what the call used.
            self.sharing.settle()
        outbox = self.outbox
        if not (outbox.count or self.intake.mailbox):
            times = outbox.times(began, now)
            self._send_data(item.link, [encode(m.Replies([reply], times)), *buffers])
            return
        outbox.add(item.link, reply, buffers, now, began)
        if (
            not self.intake.mailbox
            or outbox.count >= BATCH
            or now - outbox.since > PATIENCE
            or item.call.priority > 0
        ):
            self.flush()

    def flush(self) -> None:
        """Send every waiting reply."""
        if self.outbox.count:
            for link, message, buffers in self.outbox.take():
                self._send_data(link, [encode(message), *buffers])

    def _send_data(self, link: str, frames: list[Frame]) -> None:
        listener = self._homes.get(link)
        if listener is None:
            return
        if link not in self._greeted or (self._backlog and link in self._backlog):
            self._backlog.setdefault(link, deque()).append((Lane.DATA, frames))
            return
        try:
            listener.send(link, Lane.DATA, frames)  # type: ignore[arg-type]
        except LinkFull:
            self._backlog.setdefault(link, deque()).append((Lane.DATA, frames))
        except SendError:
            self.control.suspect(link)

    def _resend(self, link: str) -> None:
        waiting = self._backlog.pop(link, deque())
        for _, frames in waiting:
            self._send_data(link, frames)

    # --- sending from any thread ------------------------------------------------------------------

    def send(self, link: str, message: m.Message, buffers: Sequence[Frame]) -> None:
        """To a caller. On the data lane the lock must not be held, unless by the drain itself."""
        if lane_of(message) is Lane.CONTROL:
            self.control.send(link, message)
            return
        with self.lock:
            self._send_data(link, [encode(message), *buffers])
        if threading.get_ident() != self.main_thread:
            self.poller.wake()

    def stream(self, link: str, message: m.Message, buffers: Sequence[Frame]) -> None:
        """A stream's item; replies finished before it leave first."""
        with self.lock:
            self.flush()
            self._send_data(link, [encode(message), *buffers])
            if self.sharing.gave:
                # What was read may be used again for what comes.
                self.drain(time.monotonic())
        if threading.get_ident() != self.main_thread:
            # The send may have consumed the signal of an arrival.
            self.poller.wake()

    def lend(self, link: str, refs: Sequence[Any]) -> list[m.RefWord]:
        """Lend references inside a result to the caller that gets it."""
        session = present_session()
        if session is None:
            return []
        with session.lock:
            return session.core.objects.lend([ref.id for ref in refs], link)

    def serve_session(self) -> bool:
        """Hand the session what arrived for it; whether there was anything. Without the lock."""
        if not self.for_session:
            return False
        # What it sends may consume the signal of an arrival on the data lane.
        self.poller.wake()
        while self.for_session:
            link, message, buffers = self.for_session.popleft()
            if link in self.admission.expelled:
                continue
            session = present_session()
            if session is not None:
                session.on_neighbour(link, message, buffers)
            elif isinstance(message, m.Fetch):
                self.send(link, self.control.unknown(message), ())
        return True

    def bind(self, message: m.Bind) -> None:
        """The provider says whom this worker is for. The session comes last: with it, calls begin
        to run."""
        self.admission.doors.admit(message.keys)
        bind_code(self, message)
        take_assignment(message)
        self.namespace = message.namespace
        self.terms = message.terms
        self.session_id = message.session
        self.poller.wake()

    def on_link_gone(self, link: str) -> None:
        """A caller is gone, and with it the interest in its calls."""
        with self.lock:
            self._homes.pop(link, None)
            self._greeted.discard(link)
            self._backlog.pop(link, None)
            self.intake.forget(link)
            self.admission.forget(link)
            self.callers.forget(link)
        self.control.forget(link)
        self.brakes.forget(link)
        self.sharing.lost(link)
        session = present_session()
        if session is not None:
            session.on_neighbour_lost(link)

    def known_links(self) -> list[tuple[str, Listener]]:
        """Every caller's link with the listener it came by."""
        with self.lock:
            return list(self._homes.items())

    def home(self, link: str, listener: Listener, hello: m.Hello) -> None:
        """A caller introduced itself on the control lane."""
        with self.lock:
            self._homes.setdefault(link, listener)
            self.admission.met(link, listener)
            self.sharing.met(link, hello)

    def home_of(self, link: str) -> Listener | None:
        return self._homes.get(link)

    # --- ends -------------------------------------------------------------------------------------

    def exit_actor(self) -> None:
        """End this actor for good; those who wait for it hear so from the hub. Any thread."""
        self.control.tell_provider(m.Goodbye("released"))
        self.exiting = self.leaving = True
        self.poller.wake()
        self.runner.wake()

    def loaded(self, error: bytes) -> None:
        """Tell the provider how the constructor ended."""
        assert self.spec is not None
        self.control.tell_provider(m.ActorLoaded(self.spec.actor, error))
