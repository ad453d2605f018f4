"""The transport inside one process: no sockets on the wire, the same promises.

Owns: the exchange of names, queues and wake-ups between links and listeners of one process. Must
never: pass an object by reference; frames are copied to bytes, so all that travels is encoded.

Safe between threads: one lock per exchange, held for moments only. Wake-ups are bytes in a
socket pair, so that a selector can wait for them as for the real transport.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from guactors.ids import LinkKey, fresh
from guactors.messages import Endpoint
from guactors.transport.base import Doors, Down, Frame, Lane, LinkFull, LinkState, PeerGone

SCHEME: Final = "inproc://"
LANES: Final = (Lane.CONTROL, Lane.DATA)


class _Bell:
    """A descriptor that is readable from :meth:`ring` until :meth:`hush`."""

    def __init__(self) -> None:
        self._hear, self._strike = socket.socketpair()
        self._hear.setblocking(False)
        self._strike.setblocking(False)
        self._rung = False

    def fileno(self) -> int:
        return self._hear.fileno()

    def ring(self) -> None:
        if not self._rung:
            self._rung = True
            self._strike.send(b"!")

    def hush(self) -> None:
        if self._rung:
            self._rung = False
            self._hear.recv(16)

    def close(self) -> None:
        self._rung = True
        self._hear.close()
        self._strike.close()


class _Box:
    """The messages that wait for one side, by lane, each with its sender and a bell."""

    def __init__(self) -> None:
        self.queues: tuple[deque[tuple[LinkKey, list[Frame]]], ...] = (deque(), deque())
        self.bells = (_Bell(), _Bell())

    def put(self, lane: Lane, key: LinkKey, frames: Sequence[Frame]) -> None:
        self.queues[lane].append((key, [bytes(frame) for frame in frames]))
        self.bells[lane].ring()

    def take(self, lane: Lane | None) -> tuple[LinkKey, Lane, list[Frame]] | None:
        for one in LANES if lane is None else (lane,):
            queue = self.queues[one]
            if queue:
                key, frames = queue.popleft()
                return key, one, frames
            self.bells[one].hush()
        return None

    def ring(self) -> None:
        for bell in self.bells:
            bell.ring()

    def close(self) -> None:
        for queue, bell in zip(self.queues, self.bells, strict=True):
            queue.clear()
            bell.close()


class Exchange:
    """The names one process listens on. Transports that share an exchange reach each other."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.listeners: dict[str, InprocListener] = {}


_process_exchange = Exchange()


class InprocLink:
    """The dialling side; see :class:`guactors.transport.base.Link`."""

    def __init__(self, exchange: Exchange, endpoint: Endpoint, high_water: int) -> None:
        self.key = LinkKey(fresh("link"))
        self.endpoint = endpoint
        self._lock = exchange.lock
        self._box = _Box()
        self._high_water = high_water
        self._waiting = [0, 0]
        self._down: Down | None = None
        self._closed = False
        with self._lock:
            self._listener = exchange.listeners.get(endpoint.control)
            if self._listener is None:
                self._down = Down("unreachable", f"nobody listens on {endpoint.control}")
            else:
                self._listener._links[self.key] = self
            self._box.ring()

    def send(self, lane: Lane, frames: Sequence[Frame]) -> None:
        with self._lock:
            if self._down is not None or self._listener is None:
                raise PeerGone(f"the link to {self.endpoint.control} is down: {self._down}")
            self._listener._accept(self.key, lane, frames)

    def receive(self, lane: Lane | None = None) -> tuple[Lane, list[Frame]] | None:
        with self._lock:
            if self._closed:
                return None
            got = self._box.take(lane)
            return None if got is None else got[1:]

    def state(self) -> LinkState:
        return LinkState.UP if self._down is None else LinkState.DOWN

    def down(self) -> Down | None:
        return self._down

    def filenos(self, lane: Lane | None = None) -> tuple[int, ...]:
        if self._closed:
            return ()
        return tuple(bell.fileno() for bell in self._box.bells)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._down is None:
                self._down = Down("closed")
                if self._listener is not None:
                    self._listener._forget(self.key)
            self._box.close()

    def _deliver(self, lane: Lane, frames: Sequence[Frame]) -> None:
        if len(self._box.queues[lane]) >= self._high_water:
            raise LinkFull(f"{self.key} has {self._high_water} messages waiting on {lane.name}")
        self._box.put(lane, self.key, frames)

    def _drop(self) -> None:
        self._down = Down("lost", f"the listener on {self.endpoint.control} closed")
        self._box.ring()


class InprocListener:
    """The bound side; see :class:`guactors.transport.base.Listener`."""

    def __init__(self, exchange: Exchange, address: str, data: str, high_water: int) -> None:
        self.endpoint = Endpoint(control=address, data=data)
        self.faults = 0
        self.refused = 0
        self._exchange = exchange
        self._high_water = high_water
        self._links: dict[LinkKey, InprocLink] = {}
        self._disturbed = False
        self._closed = False
        with exchange.lock:
            if address in exchange.listeners:
                raise OSError(errno.EADDRINUSE, f"cannot listen on {address}: already in use")
            self._box = _Box()
            exchange.listeners[address] = self

    def send(self, peer: LinkKey, lane: Lane, frames: Sequence[Frame]) -> None:
        with self._exchange.lock:
            link = self._links.get(peer)
            if link is None:
                raise PeerGone(f"{self.endpoint.control} has no peer {peer}")
            link._deliver(lane, frames)

    def receive(self, lane: Lane | None = None) -> tuple[LinkKey, Lane, list[Frame]] | None:
        with self._exchange.lock:
            if self._closed:
                return None
            got = self._box.take(lane)
            if got is not None:
                link = self._links.get(got[0])
                if link is not None:
                    link._waiting[got[1]] -= 1
            return got

    def user_of(self, _peer: LinkKey) -> str:
        return ""

    def disturbed(self) -> bool:
        with self._exchange.lock:
            was, self._disturbed = self._disturbed, False
            return was

    def filenos(self, lane: Lane | None = None) -> tuple[int, ...]:
        if self._closed:
            return ()
        return tuple(self._box.bells[one].fileno() for one in (LANES if lane is None else (lane,)))

    def close(self) -> None:
        with self._exchange.lock:
            if self._closed:
                return
            self._closed = True
            self._disturbed = False
            del self._exchange.listeners[self.endpoint.control]
            for link in self._links.values():
                link._drop()
            self._links.clear()
            self._box.close()

    def _accept(self, key: LinkKey, lane: Lane, frames: Sequence[Frame]) -> None:
        waiting = self._links[key]._waiting
        if waiting[lane] >= self._high_water:
            raise LinkFull(f"{self.endpoint.control} has {waiting[lane]} messages of {key} waiting")
        waiting[lane] += 1
        self._box.put(lane, key, frames)

    def _forget(self, key: LinkKey) -> None:
        del self._links[key]
        self._disturbed = True
        self._box.ring()


class InprocTransport:
    """Links and listeners of one process; ``high_water``: messages that may wait per lane and
    direction. All transports of a process meet on one exchange unless given their own."""

    def __init__(self, *, high_water: int = 50_000, exchange: Exchange | None = None) -> None:
        self._exchange = exchange or _process_exchange
        self._high_water = high_water
        self._made: list[InprocLink | InprocListener] = []

    def listen(
        self, address: str, *, data_address: str | None = None, doors: Doors | None = None
    ) -> InprocListener:
        """``inproc://NAME``; ``inproc://*`` draws a name that is not in use. It has no doors: who
        is in the process is in."""
        del doors
        _check(address)
        if address == SCHEME + "*":
            address = f"{SCHEME}{fresh('link')}"
        listener = InprocListener(
            self._exchange, address, data_address or address, self._high_water
        )
        self._made.append(listener)
        return listener

    def dial(self, endpoint: Endpoint) -> InprocLink:
        """A link that is UP or DOWN at once."""
        _check(endpoint.control)
        link = InprocLink(self._exchange, endpoint, self._high_water)
        self._made.append(link)
        return link

    def close(self) -> None:
        """Close all that this transport made."""
        while self._made:
            self._made.pop().close()


def _check(address: str) -> None:
    if not address.startswith(SCHEME) or len(address) == len(SCHEME):
        raise ValueError(f"{address!r} is not an in-process address (inproc://NAME)")
