"""The caller's links to the workers it calls.

Owns: dialling, introducing, sending, draining, and noticing the loss of each link. Must never:
interpret a work message, or wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from guactors.errors import ProtocolError
from guactors.messages import Calls, Endpoint, Hello, Message, Ping, Pong, Replies, WorkerToCaller
from guactors.transport.base import Frame, Lane, Link, LinkFull, LinkState, SendError, Transport
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.transport.poller import Poller

DRAIN = 256
"""Messages taken from one link before the others get their turn."""

_DECODER: Decoder[Message] = Decoder(WorkerToCaller)

OnMessage = Callable[[str, Message, Sequence[Frame]], None]


def choose(endpoints: Sequence[Endpoint], host: str) -> Endpoint | None:
    """The best endpoint reachable from here: a local socket on the same machine, else TCP."""
    if os.environ.get("GU_TRANSPORT") != "tcp":
        for endpoint in endpoints:
            if endpoint.control.startswith("ipc://"):
                if endpoint.host == host and os.path.exists(endpoint.control[6:]):
                    return endpoint
            elif not endpoint.control.startswith("tcp://"):
                return endpoint
    return next((e for e in endpoints if e.control.startswith("tcp://")), None)


class PeerLinks:
    """Links by worker id. ``on_message`` and ``on_lost(peer, why)`` are called from ``drain``."""

    def __init__(
        self,
        transport: Transport,
        poller: Poller,
        hello: Hello,
        *,
        on_message: OnMessage,
        on_lost: Callable[[str, str], None],
    ) -> None:
        self._transport = transport
        self._poller = poller
        self._hello = encode(hello)
        self._host = hello.host
        self._on_message = on_message
        self._on_lost = on_lost
        self._links: dict[str, Link] = {}
        self._by_fd: dict[int, tuple[str, Link, Lane]] = {}
        self._fds: dict[str, list[int]] = {}
        self.suspects: dict[tuple[str, Lane], Link] = {}
        """Links that something was sent on since their last drain: drain again before sleeping."""
        self.unsent: dict[str, list[tuple[Lane, list[Frame]]]] = {}
        """Messages that found their link full."""
        self._broken: list[tuple[str, str]] = []
        self.strangers = False
        """Whether the last ``drain`` was given descriptors of somebody else."""

    def dial(self, peer: str, endpoints: Sequence[Endpoint]) -> None:
        """Open a link; an unreachable worker is reported lost by the next drain."""
        endpoint = choose(endpoints, self._host)
        if endpoint is None:
            places = ", ".join(endpoint.control for endpoint in endpoints) or "none"
            self._broken.append((peer, f"no address of {peer} can be reached from here: {places}"))
            return
        self.hang_up(peer)
        link = self._transport.dial(endpoint)
        self._links[peer] = link
        for lane in Lane:
            for fd in link.filenos(lane):
                self._by_fd[fd] = (peer, link, lane)
                self._fds.setdefault(peer, []).append(fd)
                self._poller.add(fd)
            self._send(peer, link, lane, [self._hello])

    def hang_up(self, peer: str) -> None:
        """Close a link, if there is one."""
        link = self._links.pop(peer, None)
        for lane in Lane:
            self.suspects.pop((peer, lane), None)
        self.unsent.pop(peer, None)
        for fd in self._fds.pop(peer, ()):
            self._by_fd.pop(fd, None)
            self._poller.remove(fd)
        if link is not None:
            link.close()

    def send(self, peer: str, message: Message, buffers: Sequence[Frame]) -> bool:
        """Send, or keep while the link is full; a lost link drops it and is reported. False when
        ``peer`` was never dialled."""
        link = self._links.get(peer)
        if link is None:
            return False
        lane = Lane.DATA if type(message) is Calls else lane_of(message)
        self._send(peer, link, lane, [encode(message), *buffers])
        return True

    def _send(self, peer: str, link: Link, lane: Lane, frames: list[Frame]) -> None:
        if self.unsent and peer in self.unsent:
            self.unsent[peer].append((lane, frames))
            return
        try:
            link.send(lane, frames)
            # A send may consume the signal of a message that came meanwhile.
            self.suspects[peer, lane] = link
        except LinkFull:
            self.unsent.setdefault(peer, []).append((lane, frames))
        except SendError as error:
            self._broken.append((peer, str(error)))

    def drain(self, ready: Sequence[int]) -> bool:
        """Receive from links with news; True when some may have more."""
        more = False
        if self.suspects:
            suspects, self.suspects = self.suspects, {}
            for (peer, lane), link in suspects.items():
                more = self._drain_one(peer, link, lane, woken=False) or more
        self.strangers = False
        for fd in ready:
            found = self._by_fd.get(fd)
            if found is None:
                self.strangers = True
            else:
                more = self._drain_one(*found, woken=True) or more
        if self.unsent:
            for peer in list(self.unsent):
                self._resend(peer)
        while self._broken:
            peer, why = self._broken.pop()
            self.hang_up(peer)
            self._on_lost(peer, why)
        return more

    def _drain_one(self, peer: str, link: Link, lane: Lane, *, woken: bool) -> bool:
        receive, decode, deliver = link.receive, _DECODER.decode, self._on_message
        count = 0
        while count < DRAIN:
            got = receive(lane)
            if got is None:
                # Woken by nothing that can be received: a connection event.
                if woken and not count and link.state() is LinkState.DOWN:
                    down = link.down()
                    self._broken.append((peer, down.detail if down is not None else ""))
                return False
            count += 1
            try:
                message, buffers = decode(got[1])
            except ProtocolError as error:
                # A worker that talks nonsense is as good as lost: its calls must be answered.
                self._broken.append((peer, str(error)))
                return False
            if type(message) is Ping:
                self._send(peer, link, Lane.CONTROL, [encode(Pong(message.number))])
                continue
            deliver(peer, message, buffers)
            if type(message) is Replies and len(message.replies) == 1:
                # A single answer is mostly what its caller waits for: let it look first.
                self.suspects[peer, lane] = link
                return False
        self.suspects[peer, lane] = link
        return True

    def _resend(self, peer: str) -> None:
        waiting = self.unsent.pop(peer, [])
        link = self._links.get(peer)
        if link is not None:
            for lane, frames in waiting:
                self._send(peer, link, lane, frames)

    def close(self) -> None:
        """Close every link."""
        for peer in list(self._links):
            self.hang_up(peer)
