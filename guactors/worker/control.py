"""The control lane's thread: it answers while user code runs.

Owns: the control sockets of the worker's listeners and the link to the provider. Must never: run
user code, or take longer than a moment.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from guactors.errors import OwnerDied, ProtocolError
from guactors.messages import (
    Admit,
    AskStack,
    Bind,
    Bounced,
    BringValue,
    Call,
    CallerToWorker,
    CancelCall,
    DropValues,
    Expel,
    Fault,
    Fetch,
    Goodbye,
    GoOn,
    Hello,
    KeepBlock,
    Keeping,
    Leave,
    LoadActor,
    Message,
    Object,
    Ping,
    Pong,
    ProviderToWorker,
    Quit,
    ReadBlock,
    ReadValue,
    Release,
    StackIs,
    Stand,
    StreamTaken,
    TakeBack,
    Value,
    Welcome,
    WorkerReady,
)
from guactors.refs import present_session
from guactors.transport.base import (
    Frame,
    Lane,
    Link,
    LinkFull,
    LinkState,
    Listener,
    SendError,
    Transport,
)
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.transport.poller import Poller
from guactors.versions import own_versions
from guactors.worker.keeping import keeps
from guactors.worker.outbox import PATIENCE
from guactors.worker.stack import dump

if TYPE_CHECKING:
    from guactors.worker.process import Worker

LONGEST = 5.0
YIELD = 0.00002
MOST_YIELDS = 100
"""How long, and how often, the main thread steps aside while the control thread is at work."""
MOST_FAULTS = 16
"""Messages that are not ours before a link is neither answered nor heard any more."""
MOST_EARLY = 10_000
"""Cancellations remembered that overtook their calls, or came too late."""
WATCH = 0.002
"""Seconds between two looks at unsent replies while the main thread is busy."""
# Made before workers are forked, as in process.py.
_FROM_CALLERS: Decoder[Message] = Decoder(CallerToWorker)
_FROM_PROVIDER: Decoder[Message] = Decoder(ProviderToWorker)


class Control:
    """The thread and its sockets."""

    def __init__(self, worker: Worker, lifeline: int) -> None:
        self._worker = worker
        self._lifeline = lifeline
        self._poller = Poller()
        self._link: Link | None = None
        self._watching = False
        self._kept = False
        self._serving = threading.Lock()
        self._suspects: list[str] = []
        self.faults: Counter[str] = Counter()
        self._open: set[str] = set()
        """Links whose Hello came on this lane."""
        self._held: dict[str, deque[Message]] = {}
        """Messages whose lane is not open yet, or full."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="guactors-control", daemon=True)

    def start(self, transport: Transport) -> None:
        """Dial the provider, say that the worker is ready, start the thread."""
        worker = self._worker
        if self._lifeline >= 0:
            self._poller.add(self._lifeline)
        for listener in worker.listeners:
            for fd in listener.filenos(Lane.CONTROL):
                self._poller.add(fd)
        link = self._link = transport.dial(worker.config.endpoint)
        for fd in link.filenos():
            self._poller.add(fd)
        hello = encode(worker.hello())
        for lane in Lane:
            link.send(lane, [hello])
        link.send(Lane.CONTROL, [encode(WorkerReady(worker.endpoints()))])
        self._thread.start()

    def close(self) -> None:
        """End the thread and close the link."""
        self._stopping = True
        self._poller.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)
        if self._link is not None:
            self._link.close()

    # --- sending, from any thread -----------------------------------------------------------------

    def send(self, link: str, message: Message) -> None:
        """To a caller, control lane."""
        listener = self._worker.home_of(link)
        if listener is None:
            return
        with self._worker.control_lock:
            self._in_turn(listener, link, message)
        if threading.current_thread() is not self._thread:
            self._poller.wake()

    def _in_turn(self, listener: Listener, link: str, message: Message) -> None:
        """Now, or behind what waits for its lane. The control lock is held."""
        if link in self._held or link not in self._open:
            self._held.setdefault(link, deque()).append(message)
            return
        try:
            listener.send(link, Lane.CONTROL, [encode(message)])  # type: ignore[arg-type]
        except LinkFull:
            self._held.setdefault(link, deque()).append(message)
        except SendError:
            self._suspects.append(link)

    def _resend(self) -> None:
        """Try again what found its link full, or not yet there: a caller's two connections come up
        one by one, and its first call may run before this lane knows it."""
        for link in list(self._held):
            listener = self._worker.home_of(link)
            with self._worker.control_lock:
                if listener is not None and link in self._open:
                    for message in self._held.pop(link, ()):
                        self._in_turn(listener, link, message)

    def forget(self, link: str) -> None:
        """The link is gone."""
        with self._worker.control_lock:
            self._open.discard(link)
            self._held.pop(link, None)

    def tell_provider(self, message: Message) -> None:
        """To the provider."""
        with self._worker.control_lock:
            if self._link is not None:
                try:
                    self._link.send(lane_of(message), [encode(message)])
                except SendError:
                    return  # the provider is gone, the lifeline ends this process
        if threading.current_thread() is not self._thread:
            self._poller.wake()

    def suspect(self, link: str) -> None:
        """A send to the link failed; it is looked at by the thread."""
        self._suspects.append(link)
        self._poller.wake()

    def watch_outbox(self) -> None:
        """The main thread runs calls while replies wait: see that they leave in time."""
        if not self._watching:
            self._watching = True
            self._poller.wake()

    def fault(self, listener: Listener, link: str, error: ProtocolError) -> None:
        """Count and answer what is not ours; who keeps sending it is treated as gone."""
        with self._worker.control_lock:
            self.faults[link] += 1
            if self.faults[link] > MOST_FAULTS:
                self.suspect(link)
                return
            try:
                fault = Fault("ProtocolError", str(error)[:1000])
                listener.send(link, Lane.CONTROL, [encode(fault)])  # type: ignore[arg-type]
            except SendError:
                return  # whoever sent it is gone

    def unknown(self, message: Fetch) -> Object:
        """The answer to a Fetch for something this worker never had."""
        error = OwnerDied(f"worker {self._worker.config.worker} does not hold {message.ref}")
        return Object(message.request, Value(pickle.dumps(error, 5), 0, True))

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        worker = self._worker
        while not self._stopping:
            ready = self._poller.wait(WATCH if self._watching or self._held else LONGEST)
            if self._stopping:
                return
            if self._lifeline in ready:
                os._exit(1)
            with self._serving:
                for listener in worker.listeners:
                    self._serve_callers(listener)
                    self._look_after(listener)
                self._serve_provider()
                if self._watching:
                    self._watch()
                if self._held:
                    self._resend()
                while self._suspects:
                    worker.on_link_gone(self._suspects.pop())
                worker.serve_session()
                worker.sharing.tick(time.monotonic())
                if self._kept and not keeps(worker):
                    self._kept = False
                    self.tell_provider(Keeping(False))

    def glance(self) -> None:
        """For the main thread between two calls, now and then: read the control lane in this
        thread's stead. A thread that keeps releasing the interpreter's lock for moments only, as
        the main thread does while it receives and answers, can keep another from it for long."""
        if self._serving.acquire(blocking=False):
            try:
                for listener in self._worker.listeners:
                    self._serve_callers(listener)
            finally:
                self._serving.release()
            return
        for _ in range(MOST_YIELDS):
            time.sleep(YIELD)
            if not self._serving.locked():
                return

    def _watch(self) -> None:
        worker = self._worker
        with worker.lock:
            if worker.outbox.count and time.monotonic() - worker.outbox.since > PATIENCE:
                worker.flush()
                worker.poller.wake()
            if not worker.outbox.count and not worker.intake.mailbox:
                self._watching = False

    def _serve_callers(self, listener: Listener) -> None:
        while True:
            with self._worker.control_lock:
                got = listener.receive(Lane.CONTROL)
            if got is None:
                break
            try:
                message, buffers = _FROM_CALLERS.decode(got[2])
            except ProtocolError as error:
                self.fault(listener, got[0], error)
                continue
            if self.faults and self.faults[got[0]] > MOST_FAULTS:
                continue
            if got[0] in self._worker.admission.expelled:
                continue
            self._on_caller(listener, got[0], message, buffers)

    def _look_after(self, listener: Listener) -> None:
        with self._worker.control_lock:
            disturbed = listener.disturbed()
        if disturbed:
            self._probe()

    def _probe(self) -> None:
        """Some caller's connection broke: sending to each finds out whose."""
        for link, _ in self._worker.known_links():
            self.send(link, Ping(0))

    def _on_caller(
        self, listener: Listener, link: str, message: Message, buffers: Sequence[Frame]
    ) -> None:
        worker = self._worker
        match message:
            case Hello():
                worker.home(link, listener, message)
                with worker.control_lock:
                    self._open.add(link)
                self.send(link, Welcome(worker.config.worker, own_versions()))
            case Ping(number):
                self.send(link, Pong(number))
            case CancelCall():
                self._cancel(link, message)
            case TakeBack(count):
                with worker.lock:
                    worker.drain(time.monotonic())
                    ids = worker.intake.take_back(link, count)
                self.send(link, Bounced(ids))
                worker.poller.wake()
            case StreamTaken(call, taken):
                worker.brakes.on_taken(link, call, taken)
            case Fetch() | Release() | KeepBlock() | BringValue() | DropValues() | ReadValue():
                worker.for_session.append((link, message, buffers))
            case ReadBlock():
                worker.send(link, *worker.sharing.chunk(link, message))
            case Goodbye():
                self._suspects.append(link)
            case _:
                pass

    def _cancel(self, link: str, message: CancelCall) -> None:
        from guactors.worker.execution import ended_early, failure

        worker = self._worker
        with worker.lock:
            worker.drain(time.monotonic())
            item = worker.intake.cancel(link, message.call)
            if item is not None:
                item.timed_out = message.timeout
                name = worker.code.name(item.call)
                reply, _ = failure(item, ended_early(item, name), name)
                worker.outbox.add(link, reply, (), time.monotonic())
                worker.flush()
            elif (
                not worker.runner.cancel(link, message.call, timeout=message.timeout)
                and len(worker.early) < MOST_EARLY
            ):
                worker.early.add((link, message.call))
        worker.poller.wake()
        session = present_session()
        if message.recursive and session is not None:
            session.cancel_children((link, message.call))

    def cancel_early(self, link: str, calls: Sequence[Call]) -> None:
        """Calls whose cancellation overtook them. The worker's lock is held."""
        from guactors.worker.execution import ended_early, failure

        for call in calls:
            if (link, call.id) in self._worker.early:
                self._worker.early.discard((link, call.id))
                item = self._worker.intake.cancel(link, call.id)
                if item is not None:
                    name = self._worker.code.name(call)
                    reply, _ = failure(item, ended_early(item, name), name)
                    self._worker.outbox.add(link, reply, (), time.monotonic())

    def interrupt_main(self) -> None:
        """Make the main thread look at its running call's cancellation."""
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(self._worker.main_thread, signal.SIGINT)
        else:
            import _thread

            _thread.interrupt_main()

    def _serve_provider(self) -> None:
        link = self._link
        assert link is not None
        while True:
            with self._worker.control_lock:
                got = link.receive()
            if got is None:
                break
            try:
                message, _ = _FROM_PROVIDER.decode(got[1])
            except ProtocolError:
                # Our own provider talks nonsense: end, and be reported as dead.
                os._exit(1)
            self._on_provider(message)
        if link.state() is LinkState.DOWN and not self._stopping:
            os._exit(1)

    def _on_provider(self, message: Message) -> None:
        worker = self._worker
        match message:
            case Ping(number):
                self.tell_provider(Pong(number))
            case Bind():
                worker.bind(message)
            case Admit(keys):
                worker.admission.doors.admit(keys)
            case Stand(number):
                worker.bouncing.stand(number)
            case GoOn():
                worker.bouncing.go_on()
            case AskStack(number):
                self.tell_provider(StackIs(number, dump(worker.runner.coroutines())))
            case Expel(keys):
                worker.admission.expel(keys)
            case LoadActor():
                worker.to_load = message
                worker.poller.wake()
            case Quit(grace):
                worker.bouncing.quit(grace)
            case Leave(graceful, if_unused):
                if not graceful:
                    os._exit(0)
                if if_unused and keeps(worker):
                    self._kept = True
                    self.tell_provider(Keeping(True))
                    return
                worker.leaving = True
                worker.poller.wake()
                worker.runner.wake()
            case _:
                pass
