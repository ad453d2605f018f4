"""The hub's sockets: listeners in, listeners out, and what does not fit through at once.

Owns: the listeners, which link is on which of them, the outboxes. Must never: know what a message
means, or block. Part of the HubActor's shell, apart from it only in the file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from guactors.errors import ProtocolError
from guactors.ids import LinkKey
from guactors.messages import Endpoint, FromStranger, Message, Output, ToHub, Welcome
from guactors.outbox_state import Outboxes
from guactors.scheduling.events import (
    Arrived,
    BadFrame,
    Disturbed,
    Event,
    HandshakesFailed,
    LinkGone,
)
from guactors.transport.addresses import TCP
from guactors.transport.base import Frame, Lane, LinkFull, Listener, PeerGone, Transport
from guactors.transport.doors import AllBut
from guactors.transport.frames import Decoder, encode, lane_of

log = logging.getLogger("guactors.hub")

BATCH = 256
"""Messages read from one listener before the others, and the actors, get their turn."""
MOST_PENDING = 5000
"""Messages read and not yet thought about, at which reading pauses: the rest waits in the peers."""
PAUSE = 0.005
RETRY = 0.01
"""Seconds until a full link is tried again."""
MOST_STRANGERS = 10_000
"""Links remembered with their listener; beyond that, forgotten ones must speak first again."""

STRANGER_BYTES = 1 << 20
"""Of a message before its sender was let in: a Proof with its statements."""
_DECODER: Decoder[Message] = Decoder(ToHub)
_STRANGERS: Decoder[Message] = Decoder(FromStranger, max_header=STRANGER_BYTES, max_frames=1)


Hear = Callable[[Event, Lane | None], None]
"""Gets an event per arrival, with its lane or None, on the loop's thread."""


class Wire:
    """Made inside a running loop; owns ``transport``."""

    def __init__(self, transport: Transport) -> None:
        self.dropped_output = 0
        self._transport = transport
        self._doors = AllBut()
        self._hear: Hear = _deaf
        self._pending: Callable[[], int] = int
        self._listeners: list[Listener] = []
        self._strangers: dict[LinkKey, Listener] = {}
        self._members: dict[LinkKey, Listener] = {}
        """Links that were welcomed; those of strangers are forgotten where they are too many."""
        self._outboxes = Outboxes()
        self._due: set[int] = set()
        self._disturbed: set[int] = set()
        self._refused: dict[int, int] = {}
        """Failed handshakes and dropped messages of each listener that were told of."""
        self._retry: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def bind(self, addresses: list[str]) -> list[Endpoint]:
        """Bind them all; raises what ``Transport.listen`` raises. A TCP port serves both lanes: a
        join address names one."""
        for address in addresses:
            data = "" if address.startswith(TCP) else None
            listener = self._transport.listen(address, data_address=data, doors=self._doors)
            self._listeners.append(listener)
        return [listener.endpoint for listener in self._listeners]

    def serve(self, hear: Hear, pending: Callable[[], int]) -> None:
        """Begin to read; ``pending`` tells how many events are still to be thought about."""
        self._hear, self._pending = hear, pending
        for index, listener in enumerate(self._listeners):
            for fd in listener.filenos():
                self._loop.add_reader(fd, self._read, index)
            self._soon(index)

    def close(self) -> None:
        """Unbind everything; idempotent."""
        if self._retry is not None:
            self._retry.cancel()
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            for fd in listener.filenos():
                self._loop.remove_reader(fd)
            listener.close()
        self._transport.close()

    # --- in -------------------------------------------------------------------------------------

    def _soon(self, index: int, delay: float = 0.0) -> None:
        """Read again without being called by the descriptor, which only tells of changes."""
        if index in self._due:
            return
        self._due.add(index)
        again = partial(self._read_due, index)
        if delay:
            self._loop.call_later(delay, again)
        else:
            self._loop.call_soon(again)

    def _read_due(self, index: int) -> None:
        self._due.discard(index)
        self._read(index)

    def _read(self, index: int) -> None:
        if index >= len(self._listeners):
            return
        listener = self._listeners[index]
        if self._pending() > MOST_PENDING:
            self._soon(index, PAUSE)
            return
        # Asked before the messages are read and told after them: what a broken connection still had
        # to say came before its end, and a Goodbye is worth more.
        if listener.disturbed():
            self._disturbed.add(index)
            self._count_refused(index, listener)
        for _ in range(BATCH):
            got = listener.receive()
            if got is None:
                break
            self._arrived(listener, *got)
        else:
            self._soon(index)
            return
        if index in self._disturbed:
            self._disturbed.discard(index)
            self._hear(Disturbed(), None)

    def _count_refused(self, index: int, listener: Listener) -> None:
        """Tell of handshakes that failed since."""
        new = listener.refused + listener.faults - self._refused.get(index, 0)
        if new:
            self._refused[index] = listener.refused + listener.faults
            self._hear(HandshakesFailed(listener.endpoint.control, new), None)

    def _arrived(
        self, listener: Listener, link: LinkKey, lane: Lane, frames: Sequence[Frame]
    ) -> None:
        user = listener.user_of(link)
        decoder = _DECODER
        if link not in self._members:
            self._strangers.setdefault(link, listener)
            while len(self._strangers) > MOST_STRANGERS:
                del self._strangers[next(iter(self._strangers))]
            # Of who has not been let in, nothing large is even decoded.
            decoder = _STRANGERS if user else _DECODER
        try:
            message, _ = decoder.decode(frames)
        except ProtocolError as error:
            self._hear(BadFrame(link, error.kind, error.detail), lane)
        else:
            self._hear(Arrived(link, message, lane, user), lane)

    # --- out ------------------------------------------------------------------------------------

    def send(self, link: LinkKey, message: Message) -> LinkGone | None:
        """Send it now or when there is room; an event when there is no such link, or no hope."""
        lane = lane_of(message)
        if isinstance(message, Welcome) and link in self._strangers:
            self._members[link] = self._strangers.pop(link)
        try:
            frame = encode(message)
        except ProtocolError:
            log.exception("a message to %s was not sent", link)
            return None
        if self._outboxes.waiting(link, lane):
            sent = False
        else:
            try:
                sent = self._try(link, lane, frame)
            except PeerGone:
                return LinkGone(link)
        if sent:
            return None
        if isinstance(message, Output):
            self.dropped_output += 1
            return None
        if not self._outboxes.put(link, lane, frame):
            return LinkGone(link, "it takes nothing and its queue here is full")
        self._retry_later()
        return None

    def _try(self, link: LinkKey, lane: Lane, frame: bytes) -> bool:
        listener = self._members.get(link) or self._strangers.get(link)
        if listener is None:
            raise PeerGone(f"no link {link}")
        try:
            listener.send(link, lane, [frame])
        except LinkFull:
            return False
        if listener in self._listeners:
            self._soon(self._listeners.index(listener))
        return True

    def _retry_later(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY, self._flush)

    def _flush(self) -> None:
        self._retry = None
        for link, lane in self._outboxes:
            try:
                self._outboxes.flush(link, lane, partial(self._try, link, lane))
            except PeerGone:
                self._outboxes.drop(link)
                self._hear(LinkGone(link), None)
        if len(self._outboxes):
            self._retry_later()

    def shut_out(self, keys: list[str]) -> None:
        """These CURVE keys get in no more, and are heard no more."""
        self._doors.shut_out(keys)

    def drop(self, link: LinkKey) -> None:
        """Forget the link and what waits for it."""
        self._outboxes.drop(link)
        self._members.pop(link, None)
        self._strangers.pop(link, None)


def _deaf(_event: Event, _lane: Lane | None) -> None:
    """Before ``serve``."""
