"""The provider's present link to the hub: the socket side of ``provider_state.hub_line``.

Owns: one Link at a time, its place in the event loop, messages that wait for room. Must never: dial
on its own, or interpret a message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from guactors.messages import Endpoint, Hello, HubToProvider, Message, Output
from guactors.transport.base import Down, Lane, Link, LinkFull, LinkState, PeerGone, Transport
from guactors.transport.frames import Decoder, encode, lane_of

MOST_WAITING = 10_000
"""Messages that wait for room; one more, and the link is given up for a new one."""
RETRY = 0.02
"""Seconds until a full link is tried again."""

_DECODER: Decoder[Message] = Decoder(HubToProvider)
_LANES = (Lane.CONTROL, Lane.DATA)


class HubLink:
    """``wake`` is called when the link may have news."""

    def __init__(self, transport: Transport, wake: Callable[[], None]) -> None:
        self._transport = transport
        self._wake = wake
        self._link: Link | None = None
        self._readers: tuple[int, ...] = ()
        self._waiting: dict[Lane, deque[bytes]] = {lane: deque() for lane in _LANES}
        self.fresh = False
        """Whether there may be something to read: the link said so, or something was sent since it
        was last seen empty, which may have swallowed its word."""
        self.dropped_output = 0
        """Output messages that found the link full."""

    def dial(self, endpoint: Endpoint) -> Down | None:
        """Start a new link in place of the old; a Down when the address cannot be dialled."""
        self.drop()
        try:
            self._link = self._transport.dial(endpoint)
        except (ValueError, OSError, PeerGone) as error:
            return Down("unreachable", str(error))
        self._readers = self._link.filenos()
        for fd in self._readers:
            asyncio.get_running_loop().add_reader(fd, self._on_news)
        self.fresh = True
        return None

    def _on_news(self) -> None:
        self.fresh = True
        self._wake()

    def doubt(self) -> None:
        """Have it looked at again though it said nothing."""
        self.fresh = self._link is not None

    def drop(self) -> None:
        """Close the link, if there is one; what waits is lost."""
        link, self._link = self._link, None
        self.fresh = False
        if link is None:
            return
        for fd in self._readers:
            asyncio.get_running_loop().remove_reader(fd)
        self._readers = ()
        for waiting in self._waiting.values():
            waiting.clear()
        link.close()

    def state(self) -> LinkState | None:
        """The link's; None without one."""
        return None if self._link is None else self._link.state()

    def key(self) -> str:
        """The link's; empty without one."""
        return "" if self._link is None else self._link.key

    def down(self) -> Down:
        """Why it is down."""
        return (self._link.down() if self._link else None) or Down("lost")

    def receive(self) -> Message | None:
        """The next message; None when there is none. Raises ProtocolError for what is not ours."""
        if self._link is None:
            return None
        got = self._link.receive()
        if got is None:
            self.fresh = False
            return None
        return _DECODER.decode(got[1])[0]

    # --- sending --------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send, or keep until there is room. A link that is down by now loses it, which its state
        shows. Hello goes on both lanes."""
        lanes = _LANES if isinstance(message, Hello) else (lane_of(message),)
        for lane in lanes:
            if self._waiting[lane] or not self._try(lane, encode(message)):
                self._keep(lane, message)

    def flush(self) -> None:
        """Send what waits."""
        for lane, waiting in self._waiting.items():
            while waiting and self._try(lane, waiting[0]):
                waiting.popleft()

    def retry_after(self) -> float | None:
        """Seconds until the next ``flush`` is worth it, None when nothing waits."""
        return RETRY if any(self._waiting.values()) else None

    def congested(self) -> bool:
        """More waits than is healthy: the hub does not read."""
        return any(len(waiting) > MOST_WAITING for waiting in self._waiting.values())

    def _keep(self, lane: Lane, message: Message) -> None:
        if isinstance(message, Output):
            self.dropped_output += 1
        else:
            self._waiting[lane].append(encode(message))

    def _try(self, lane: Lane, frame: bytes) -> bool:
        if self._link is None:
            return True
        self.fresh = True
        try:
            self._link.send(lane, [frame])
        except LinkFull:
            return False
        except PeerGone:
            return True
        return True
