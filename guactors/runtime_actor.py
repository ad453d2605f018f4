"""One running instance, as an actor: today a Python worker, one RuntimeActor each.

Owns: the instance's identity, its line to the provider, its statistics, and messages that wait for
room on the line. Must never: decide anything; ``provider_state`` does, through the parent.

Everything of one instance passes through here in the order in which it was read, so that what a
worker said last is heard before its death is told.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct, field

from guactors.actors import Actor
from guactors.config import WorkerConfig
from guactors.errors import ProtocolError
from guactors.ids import LinkKey
from guactors.messages import Fault, Limits, Message, WorkerToProvider
from guactors.runtimes.workers import Ended, OutputLines, ProcessEvent, Started, WorkerProcesses
from guactors.transport.base import Frame, Lane, LinkFull, Listener, PeerGone
from guactors.transport.frames import Decoder, encode, lane_of

log = logging.getLogger("guactors.provider")

LAST_WORDS = 0.02
"""Seconds between a worker's end and its telling, for what it said last is still in the socket."""
RETRY = 0.02
"""Seconds until a full line is tried again."""
MOST_WAITING = 10_000
MOST_FAULTS = 16

_DECODER: Decoder[Message] = Decoder(WorkerToProvider)


class Deliver(Struct, frozen=True):
    """Send it to the instance."""

    message: Message


class Linked(Struct, frozen=True):
    """The instance's Hello came on this lane of this link."""

    key: LinkKey
    lane: Lane


class Arrived(Struct, frozen=True):
    """Frames of the instance."""

    frames: Sequence[Frame]


class Limit(Struct, frozen=True):
    """Hold its process to these limits."""

    limits: Limits


class Halt(Struct, frozen=True):
    """Stop its processes, which keep what they have, or let them go on."""

    stop: bool


class Kill(Struct, frozen=True):
    """End its process group now."""

    cause: str


class AskStatistics(Struct, frozen=True):
    """Answered with :class:`RuntimeStatistics`."""


class Said(Struct, frozen=True):
    """To the parent: the instance said this."""

    worker: str
    message: Message


class Happened(Struct, frozen=True):
    """To the parent: this happened to the instance's process."""

    event: ProcessEvent


class Unlinked(Struct, frozen=True):
    """To the parent: there is no line to the instance any more."""

    worker: str


class RuntimeStatistics(Struct):
    """``started`` and ``linked``: seconds on the system's clock, 0 until then."""

    worker: str
    pid: int = 0
    asked: float = 0.0
    started: float = 0.0
    linked: float = 0.0
    received: int = 0
    sent: int = 0
    lines: int = 0
    dropped_lines: int = 0
    faults: int = 0


class _Line(Struct):
    key: LinkKey | None = None
    lanes: set[Lane] = field(default_factory=set)
    waiting: deque[Message] = field(default_factory=deque)


class _Retry(Struct, frozen=True):
    pass


class RuntimeActor(Actor):
    """``processes`` and ``listener`` belong to the parent, which calls ``nudged`` gives a chance to
    read after each send (descriptors are edge-like)."""

    def __init__(
        self,
        config: WorkerConfig,
        processes: WorkerProcesses,
        listener: Listener,
        nudge: Callable[[], None],
    ) -> None:
        self._config = config
        self._processes = processes
        self._listener = listener
        self._nudge = nudge
        self._line = _Line()
        self._retrying = False
        self.statistics = RuntimeStatistics(config.worker)

    def on_start(self) -> None:
        """The instance's life begins with ours."""
        self.statistics.asked = self.context.now()
        self._processes.start(self._config)
        self._nudge()

    def receive(self, message: object) -> RuntimeStatistics | None:
        """See the message classes of this module."""
        match message:
            case Deliver(said):
                self._line.waiting.append(said)
                self._flush()
            case Arrived(frames):
                self._arrived(frames)
            case Linked(key, lane):
                self._linked(key, lane)
            case Started() | Ended() | OutputLines():
                self._happened(message)
            case Limit(limits):
                self._processes.limit(self._config.worker, limits)
            case Kill(cause):
                log.info("worker %s is killed: %s", self._config.worker, cause)
                self._processes.kill(self._config.worker)
                self._nudge()
            case Halt(stop):
                carry_out = self._processes.freeze if stop else self._processes.thaw
                carry_out(self._config.worker)
                self._nudge()
            case Happened():
                self._tell(message)
            case _Retry():
                self._retrying = False
                self._flush()
            case AskStatistics():
                return self.statistics
        return None

    # --- the line -------------------------------------------------------------------------------

    def _linked(self, key: LinkKey, lane: Lane) -> None:
        if self._line.key != key:
            self._line = _Line(key, set(), self._line.waiting)
        self._line.lanes.add(lane)
        self.statistics.linked = self.context.now()
        self._flush()

    def _arrived(self, frames: Sequence[Frame]) -> None:
        try:
            message, _ = _DECODER.decode(frames)
        except ProtocolError as fault:
            self._fault(fault)
            return
        self.statistics.received += 1
        self._tell(Said(self._config.worker, message))

    def _fault(self, fault: ProtocolError) -> None:
        self.statistics.faults += 1
        log.warning("worker %s sent what is not ours: %s", self._config.worker, fault)
        if self.statistics.faults >= MOST_FAULTS:
            self._unlink()
            return
        self._line.waiting.append(Fault(type(fault).__name__, str(fault)[:1000]))
        self._flush()

    def _flush(self) -> None:
        """Send what can be sent. A lane is used only after the worker's Hello came on it: before,
        the listener may not know the peer yet, although its dialling side is up."""
        line = self._line
        held: deque[Message] = deque()
        while line.waiting and line.key is not None:
            message = line.waiting.popleft()
            lane = lane_of(message)
            if lane not in line.lanes or any(lane_of(earlier) is lane for earlier in held):
                held.append(message)
                continue
            try:
                self._listener.send(line.key, lane, [encode(message)])
            except LinkFull:
                held.append(message)
                self._retry()
            except PeerGone:
                self._unlink()
                return
            else:
                self.statistics.sent += 1
        held.extend(line.waiting)
        line.waiting = held
        self._nudge()
        if len(held) > MOST_WAITING:
            log.error("worker %s does not read what it is sent", self._config.worker)
            self._unlink()

    def _unlink(self) -> None:
        self._line = _Line()
        self._tell(Unlinked(self._config.worker))

    def _retry(self) -> None:
        if not self._retrying:
            self._retrying = True
            self.context.schedule(RETRY, _Retry())

    # --- the process ----------------------------------------------------------------------------

    def _happened(self, event: ProcessEvent) -> None:
        match event:
            case Started(pid=pid):
                self.statistics.pid = pid
                log.info("worker %s started, pid %d", self._config.worker, pid)
                self.statistics.started = self.context.now()
            case OutputLines(lines=lines, dropped=dropped):
                self.statistics.lines += len(lines)
                self.statistics.dropped_lines += dropped
            case Ended(death=death) if death.cause == "exited" and self._line.key is not None:
                self.context.schedule(LAST_WORDS, Happened(event))
                return
        self._tell(Happened(event))

    def _tell(self, message: Said | Happened | Unlinked) -> None:
        parent = self.context.parent
        assert parent is not None, "a RuntimeActor is always somebody's child"
        parent.tell(message)
