"""The two ends of a link, over ports that may be sockets: lanes, states, peers and their keys.

Owns: what a routing id means (``C`` or ``D`` for the lane, then the link's key), control before
data, the life of a link. Must never: touch a socket or its library; a :class:`Port` does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from guactors.ids import LinkKey
from guactors.messages import Endpoint
from guactors.transport import verdicts
from guactors.transport.base import Doors, Down, Frame, Lane, LinkFull, LinkState, PeerGone

if TYPE_CHECKING:
    from threading import Lock

LANES: Final = (Lane.CONTROL, Lane.DATA)
PREFIX: Final = (b"C", b"D")
"""First byte of a routing id, by lane."""
LINGER_MS: Final = 100
READ_AHEAD: Final = 128
"""Data messages a shared port reads at most in search of a control message."""

_KNOWN_PEERS: Final = 1 << 16
_KEY_LIMIT: Final = 64


class Port(Protocol):
    """One socket with its connection events. Nothing here blocks. ``user``: the authenticated key
    of whom ``take_known`` took from last."""

    user: str

    def send(self, frames: Sequence[Frame]) -> None:
        """To the only peer. Raises LinkFull; ProtocolError for a frame over the limit."""

    def send_to(self, route: bytes, frames: Sequence[Frame]) -> None:
        """To one of many peers. Raises PeerGone and as :meth:`send`."""

    def take(self) -> list[Frame] | None:
        """The next message of the only peer; None when there is none."""

    def take_from(self) -> tuple[bytes, list[Frame]] | None:
        """The next message of any peer, with that peer's routing id; None when there is none."""

    def take_known(self) -> tuple[bytes, list[Frame]] | None:
        """As ``take_from``, and sets ``user``; on encrypted ports only."""

    def events(self) -> list[tuple[int, int]]:
        """New connection events (see ``verdicts``), each with its value."""

    def filenos(self) -> tuple[int, ...]:
        """Descriptors for messages and events."""

    def close(self, linger: int) -> None:
        """Close; unsent messages get ``linger`` milliseconds."""


class PortLink:
    """The dialling side; see :class:`guactors.transport.base.Link`. ``watching`` is a lock of its
    own, for the two threads that may ask after its state."""

    def __init__(
        self,
        key: LinkKey,
        endpoint: Endpoint,
        ports: tuple[Port, Port],
        watching: Lock,
        on_close: Callable[[PortLink], None],
    ) -> None:
        self.key = key
        self.endpoint = endpoint
        self._ports = ports
        self._send = (ports[0].send, ports[1].send)
        self._take_control = ports[0].take
        self._take_data = ports[1].take
        self._on_close = on_close
        self._state = LinkState.DIALING
        self._up = [False, False]
        self._down: Down | None = None
        self._closed = False
        self._watching = watching

    def __repr__(self) -> str:
        return f"<PortLink {self.key} to {self.endpoint.control} {self._state.value}>"

    def send(self, lane: Lane, frames: Sequence[Frame]) -> None:
        if self._down is not None:
            raise self._gone()
        try:
            self._send[lane](frames)
        except LinkFull:
            # A broken connection looks like a full one until its events are read.
            if self.state() is LinkState.DOWN:
                raise self._gone() from None
            raise

    def receive(self, lane: Lane | None = None) -> tuple[Lane, list[Frame]] | None:
        if self._closed:
            return None
        if lane is not Lane.DATA:
            frames = self._take_control()
            if frames is not None:
                return Lane.CONTROL, frames
            if lane is Lane.CONTROL:
                return None
        frames = self._take_data()
        return None if frames is None else (Lane.DATA, frames)

    def state(self) -> LinkState:
        # The threads of the two lanes may both ask; one look at the events is enough.
        if self._state is not LinkState.DOWN and self._watching.acquire(blocking=False):
            try:
                self._watch()
            finally:
                self._watching.release()
        return self._state

    def down(self) -> Down | None:
        self.state()
        return self._down

    def filenos(self, lane: Lane | None = None) -> tuple[int, ...]:
        if self._closed:
            return ()
        if lane is not None:
            return self._ports[lane].filenos()
        return self._ports[0].filenos() + self._ports[1].filenos()

    def close(self) -> None:
        with self._watching:
            if self._closed:
                return
            self._closed = True
            linger = LINGER_MS if self._down is None else 0
            self._down = self._down or Down("closed")
            self._state = LinkState.DOWN
            for port in self._ports:
                port.close(linger)
        self._on_close(self)

    def _watch(self) -> None:
        if self._closed:
            return
        for lane in LANES:
            for event, value in self._ports[lane].events():
                if event == verdicts.HANDSHAKE_SUCCEEDED:
                    self._up[lane] = True
                elif self._down is None:
                    where = self.endpoint.control if lane is Lane.CONTROL else self.endpoint.data
                    self._down = verdicts.verdict(
                        event,
                        value,
                        was_up=self._up[lane],
                        curve=bool(self.endpoint.server_key),
                        where=where,
                    )
                    self._state = LinkState.DOWN
        if self._state is LinkState.DIALING and all(self._up):
            self._state = LinkState.UP

    def _gone(self) -> PeerGone:
        return PeerGone(f"the link {self.key} to {self.endpoint.control} is down: {self._down}")


class PortListener:
    """The bound side with a port for each lane; see :class:`guactors.transport.base.Listener`.

    ``faults`` counts messages of peers whose routing id is not that of a link, or whose key is not
    the one that the link began with, or that may not speak any more. ``doors``: None on ipc.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        ports: Sequence[Port],
        on_close: Callable[[PortListener], None],
        on_look: Callable[[], None],
        doors: Doors | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.faults = 0
        self.refused = 0
        self._ports = ports
        self._doors = doors
        self._users: dict[LinkKey, str] = {}
        self._send_to = (ports[0].send_to, ports[-1].send_to)
        takers = [port.take_from if doors is None else port.take_known for port in ports]
        self._take_from = (takers[0], takers[-1])
        self._on_close = on_close
        self._on_look = on_look
        self._closed = False
        self._settling = False
        self._peers: tuple[dict[bytes, LinkKey], dict[bytes, LinkKey]] = ({}, {})
        self._routes: tuple[dict[LinkKey, bytes], dict[LinkKey, bytes]] = ({}, {})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.endpoint.control}>"

    def send(self, peer: LinkKey, lane: Lane, frames: Sequence[Frame]) -> None:
        if self._closed:
            raise PeerGone(f"the listener on {self.endpoint.control} is closed")
        route = self._routes[lane].get(peer) or PREFIX[lane] + peer.encode()
        try:
            self._send_to[lane](route, frames)
        except PeerGone:
            self._peers[lane].pop(route, None)
            self._routes[lane].pop(peer, None)
            raise PeerGone(f"{self.endpoint.control} has no peer {peer}") from None

    def receive(self, lane: Lane | None = None) -> tuple[LinkKey, Lane, list[Frame]] | None:
        if self._closed:
            return None
        for one in LANES if lane is None else (lane,):
            take_from = self._take_from[one]
            while (got := take_from()) is not None:
                route, frames = got
                peer = self._peers[one].get(route) or self._meet(route, one)
                if peer is None:
                    continue
                if self._doors is None or self._belongs(peer, self._ports[one].user):
                    return peer, one, frames
        return None

    def user_of(self, peer: LinkKey) -> str:
        return self._users.get(peer, "")

    def _belongs(self, peer: LinkKey, user: str) -> bool:
        """Whether a message of ``user`` may count as one of ``peer``: a routing id is only a claim,
        so a link belongs to the key of its first message, on both lanes."""
        assert self._doors is not None
        if self._users.setdefault(peer, user) == user and self._doors.admits(user):
            return True
        self.faults += 1
        return False

    def disturbed(self) -> bool:
        """As the port says. True again at the next call: libzmq announces a loss a moment before
        it forgets the route, so that a ``send`` in between still seems to work."""
        if self._closed:
            return False
        self._on_look()
        news = False
        for port in self._ports:
            for event, _ in port.events():
                news = True
                self.refused += event != verdicts.DISCONNECTED
        settling, self._settling = self._settling, news
        return news or settling

    def filenos(self, lane: Lane | None = None) -> tuple[int, ...]:
        if self._closed:
            return ()
        ports = self._ports if lane is None else (self._ports[lane],)
        return tuple(fileno for port in ports for fileno in port.filenos())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for port in self._ports:
            port.close(LINGER_MS)
        self._on_close(self)

    def _meet(self, route: bytes, lane: Lane) -> LinkKey | None:
        """The peer of a routing id seen for the first time; None for one that no link has."""
        text = route[1:].decode("latin-1")
        well_formed = (
            route[:1] == PREFIX[lane]
            and 0 < len(text) <= _KEY_LIMIT
            and text.isascii()
            and text.isprintable()
        )
        if not well_formed:
            self.faults += 1
            return None
        if len(self._peers[lane]) >= _KNOWN_PEERS:
            self._peers[lane].clear()
            self._routes[lane].clear()
            self._users.clear()
        peer = LinkKey(text)
        self._peers[lane][route] = peer
        self._routes[lane][peer] = route
        return peer


class SharedPortListener(PortListener):
    """A listener with one port for both lanes, to be served by one thread. It reads ahead to find
    control messages, which come first here as well."""

    def __init__(
        self,
        endpoint: Endpoint,
        ports: Sequence[Port],
        on_close: Callable[[PortListener], None],
        on_look: Callable[[], None],
        doors: Doors | None = None,
    ) -> None:
        super().__init__(endpoint, ports, on_close, on_look, doors)
        self._waiting: tuple[deque[tuple[LinkKey, list[Frame]]], ...] = (deque(), deque())

    def receive(self, lane: Lane | None = None) -> tuple[LinkKey, Lane, list[Frame]] | None:
        if self._closed:
            return None
        control, data = self._waiting
        while not control and len(data) < READ_AHEAD:
            got = self._take_from[0]()
            if got is None:
                break
            route, frames = got
            one = Lane.DATA if route[:1] == PREFIX[Lane.DATA] else Lane.CONTROL
            peer = self._peers[one].get(route) or self._meet(route, one)
            if peer is None:
                continue
            if self._doors is None or self._belongs(peer, self._ports[0].user):
                self._waiting[one].append((peer, frames))
        for one in LANES if lane is None else (lane,):
            if self._waiting[one]:
                peer, frames = self._waiting[one].popleft()
                return peer, one, frames
        return None

    def filenos(self, lane: Lane | None = None) -> tuple[int, ...]:
        if lane is not None:
            raise ValueError(
                f"both lanes share {self.endpoint.control}, one thread must serve them; give the "
                "listener a data_address to have two"
            )
        return super().filenos()
