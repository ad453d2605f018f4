"""A caller's links to workers in the simulation: what ``peer_links`` does, without descriptors.

Owns: dialling, introducing, keeping what a full link refused, noticing the loss of each link. Must
never: interpret a work message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from guactors.messages import Endpoint, Hello, Message, Ping, Pong, WorkerToCaller
from guactors.transport.base import Frame, Lane, LinkFull, LinkState, SendError
from guactors.transport.frames import Decoder, encode, lane_of
from tests.sim.network import SimLink, SimTransport

_DECODER: Decoder[Message] = Decoder(WorkerToCaller)


class Links:
    """By worker id. ``on_message`` and ``on_lost`` are called from ``drain``."""

    def __init__(
        self,
        transport: SimTransport,
        hello: Hello,
        on_message: Callable[[str, Message, Sequence[Frame]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.unsent: dict[str, list[tuple[Lane, list[Frame]]]] = {}
        self._transport = transport
        self._hello = encode(hello)
        self._on_message = on_message
        self._on_lost = on_lost
        self._links: dict[str, SimLink] = {}
        self._names: dict[int, str] = {}

    def owns(self, link: object) -> bool:
        """Whether it is, or lately was, one of these."""
        return isinstance(link, SimLink) and link.number in self._names

    def dial(self, peer: str, endpoints: Sequence[Endpoint]) -> None:
        self.hang_up(peer)
        link = self._links[peer] = self._transport.dial(endpoints[0])
        self._names[link.number] = peer
        for lane in Lane:
            self._send(peer, link, lane, [self._hello])

    def hang_up(self, peer: str) -> None:
        link = self._links.pop(peer, None)
        self.unsent.pop(peer, None)
        if link is not None:
            link.close()

    def send(self, peer: str, message: Message, buffers: Sequence[Frame]) -> bool:
        """Send or keep; False when there is no link to ``peer``."""
        link = self._links.get(peer)
        if link is None:
            return False
        self._send(peer, link, lane_of(message), [encode(message), *buffers])
        return True

    def _send(self, peer: str, link: SimLink, lane: Lane, frames: list[Frame]) -> None:
        if peer in self.unsent:
            self.unsent[peer].append((lane, frames))
            return
        try:
            link.send(lane, frames)
        except LinkFull:
            self.unsent[peer] = [(lane, frames)]
        except SendError:
            return  # its end is news that comes by itself

    def drain(self, sources: Sequence[object]) -> None:
        """Receive from those links among ``sources`` that are ours."""
        for peer in list(self.unsent):
            for lane, frames in self.unsent.pop(peer):
                self._send(peer, self._links[peer], lane, frames)
        for source in sources:
            if isinstance(source, SimLink):
                self._drain_one(source)

    def _drain_one(self, link: SimLink) -> None:
        peer = self._names.get(link.number, "")
        while self._links.get(peer) is link and (got := link.receive()) is not None:
            message, buffers = _DECODER.decode(got[1])
            if isinstance(message, Ping):
                self._send(peer, link, Lane.CONTROL, [encode(Pong(message.number))])
            else:
                self._on_message(peer, message, buffers)
        if self._links.get(peer) is link and link.state() is LinkState.DOWN:
            self.hang_up(peer)
            self._on_lost(peer)

    def close(self) -> None:
        for peer in list(self._links):
            self.hang_up(peer)
