"""The transport between processes: ZeroMQ over ipc, and over TCP with CurveZMQ. The only file that
imports zmq, so that one page holds every one of libzmq's surprises.

Owns: sockets, their options, the reading of their events, the authentication thread. Must never:
block, open an unencrypted TCP port, admit a key but those its listener's doors let in, or decode a
message.

A link is two DEALERs (control, data); a listener is two ROUTERs, or one for both lanes where they
share a port. Not to be interrupted: an exception that a signal handler raises inside ``send`` or
``receive`` may cut a message in half.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import zmq
from zmq import backend
from zmq.utils import z85

from guactors.config import Identity
from guactors.errors import ProtocolError
from guactors.ids import LinkKey, fresh
from guactors.messages import Endpoint
from guactors.transport import addresses, places, verdicts, zap
from guactors.transport.base import Doors, Frame, Lane, LinkFull, PeerGone
from guactors.transport.doors import KeySet
from guactors.transport.frames import CONTROL_HEADER_LIMIT, DATA_HEADER_LIMIT
from guactors.transport.links import (
    LANES,
    LINGER_MS,
    PREFIX,
    PortLink,
    PortListener,
    SharedPortListener,
)

HANDSHAKE_SECONDS: Final = 3.0
"""A dial that has not got this far by then is DOWN, unreachable; a listener hangs up."""

KEEPALIVE_SECONDS: Final = 5
KEEPALIVE_TRIES: Final = 3
"""A host that has answered nothing for 20 s is gone: without this, a link to a machine that lost
its power would stay UP for ever, as nobody is left to break it."""

_ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"
_SLACK: Final = 1 << 16
_ZERO_COPY: Final = 1 << 16
_MAX_SOCKETS: Final = 1 << 14
_BACKLOG: Final = 1024
# With its reconnecting switched off (RECONNECT_IVL=-1) libzmq throws away what it has received and
# we have not read when a connection breaks. A day comes to the same and loses nothing.
_NEVER_MS: Final = 86_400_000

# Plain ints: combining zmq's enums costs more than the calls they are for.
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)

Socket = backend.Socket
"""The plain one: its subclass ``zmq.Socket`` spends more time on options we never use than the
calls themselves take, and so much at its making that a worker's start shows it."""


def new_keypair() -> tuple[str, str]:
    """A fresh Curve25519 pair: public and secret key as z85 text."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def derive_public(secret: str) -> str:
    """The z85 public key that belongs to the z85 ``secret``. Raises ValueError for no such key."""
    try:
        return zmq.curve_public(secret.encode()).decode()
    except (zmq.ZMQError, UnicodeError) as fault:
        raise ValueError("not the z85 text of a Curve25519 secret key") from fault


def library() -> tuple[str, str, bool]:
    """Versions of pyzmq and libzmq, and whether this libzmq can encrypt; for ``gu doctor``."""
    return zmq.__version__, zmq.zmq_version(), bool(zmq.has("curve"))


class _ZmqPort:
    """One socket, its monitor, and its hot methods bound once; see ``links.Port``."""

    def __init__(self, sock: Socket, events: int, max_frame: int) -> None:
        self.sock = sock
        self._monitor = _monitor(sock, events)
        self._put: Callable[..., Any] = sock.send
        self._recv: Callable[..., Any] = sock.recv
        self._get: Callable[[int], Any] = sock.get
        self._max_frame = max_frame
        self.user = ""
        self._dry = False
        """Whether the last take found nothing. The next one then mostly follows a wake-up and finds
        something, so it receives without asking; else asking is cheaper than a failed receive."""

    def send(self, frames: Sequence[Frame]) -> None:
        try:
            if len(frames) == 1 and len(frames[0]) < _ZERO_COPY:
                self._put(frames[0], _NOBLOCK)
            else:
                self._check_sizes(frames)
                self._put_all(frames)
        except zmq.Again:
            raise LinkFull("the link's queue is full; keep the message and try later") from None

    def send_to(self, route: bytes, frames: Sequence[Frame]) -> None:
        put = self._put
        try:
            if len(frames) == 1 and len(frames[0]) < _ZERO_COPY:
                put(route, _MORE)
                put(frames[0], _NOBLOCK)
            else:
                self._check_sizes(frames)
                put(route, _MORE)
                self._put_all(frames)
        except zmq.Again:
            raise LinkFull(f"the queue to {route!r} is full; keep it and try later") from None
        except zmq.ZMQError as fault:
            if fault.errno != errno.EHOSTUNREACH:
                raise
            raise PeerGone(f"no peer is connected as {route!r}") from None

    def take(self) -> list[Frame] | None:
        try:
            if not self._dry and not self._get(_EVENTS) & _POLLIN:
                self._dry = True
                return None
            frame = self._recv(_NOBLOCK, False)
        except zmq.Again:
            return None
        self._dry = False
        if frame.more or len(frame) >= _ZERO_COPY:
            return self._rest(frame)
        return [frame.bytes]

    def take_from(self) -> tuple[bytes, list[Frame]] | None:
        recv = self._recv
        try:
            if not self._dry and not self._get(_EVENTS) & _POLLIN:
                self._dry = True
                return None
            route = recv(_NOBLOCK)
        except zmq.Again:
            return None
        self._dry = False
        frame = recv(_NOBLOCK, False)
        if frame.more or len(frame) >= _ZERO_COPY:
            return route, self._rest(frame)
        return route, [frame.bytes]

    def events(self) -> list[tuple[int, int]]:
        found = []
        monitor = self._monitor
        while int(monitor.get(_EVENTS)) & _POLLIN:
            found.append(struct.unpack("=hi", monitor.recv(_NOBLOCK)))
            monitor.recv(_NOBLOCK)  # whose address it is
        return found

    def filenos(self) -> tuple[int, ...]:
        return int(self.sock.get(zmq.FD)), int(self._monitor.get(zmq.FD))

    def close(self, linger: int) -> None:
        self.sock.monitor(None, 0)
        self._monitor.close(0)
        self.sock.close(linger)

    def take_known(self) -> tuple[bytes, list[Frame]] | None:
        """As ``take_from``, on a socket with CURVE: ``user`` is then the sender's key."""
        recv = self._recv
        try:
            if not self._dry and not self._get(_EVENTS) & _POLLIN:
                self._dry = True
                return None
            route = recv(_NOBLOCK)
        except zmq.Again:
            return None
        self._dry = False
        frame = recv(_NOBLOCK, False)
        self.user = str(frame.get("User-Id"))
        if frame.more or len(frame) >= _ZERO_COPY:
            return route, self._rest(frame)
        return route, [frame.bytes]

    def _rest(self, frame: zmq.Frame) -> list[Frame]:
        """All frames of the message that begins with ``frame``; the large ones are views."""
        frames: list[Frame] = []
        while True:
            frames.append(frame.bytes if len(frame) < _ZERO_COPY else frame.buffer)
            if not frame.more:
                return frames
            frame = self._recv(_NOBLOCK, False)

    def _put_all(self, frames: Sequence[Frame]) -> None:
        """Send ``frames`` as one message; if the first one fails, none was sent."""
        last = len(frames) - 1
        for place, frame in enumerate(frames):
            view = memoryview(frame)
            # What its owner may still write to is copied now.
            copy = view.nbytes < _ZERO_COPY or not view.readonly
            self._put(frame, _NOBLOCK if place == last else _MORE, copy)

    def _check_sizes(self, frames: Sequence[Frame]) -> None:
        """Refuse what the receiver's MAXMSGSIZE would answer by cutting the link."""
        for frame in frames:
            size = frame.nbytes if isinstance(frame, memoryview) else len(frame)
            if size > self._max_frame:
                raise ProtocolError(
                    "too_large",
                    f"a frame of {size} bytes, the limit is {self._max_frame}; send large values "
                    "in parts or by reference",
                )


class _Doorkeeper:
    """The thread that answers libzmq's question whether a client key may come in.

    ``doors``: by the domain of a listener. Where it does not answer nobody enters
    (ZAP_ENFORCE_DOMAIN). It ends with its context.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.doors: dict[bytes, Doors] = {}
        self._context = context
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Start the thread, also again should it have died."""
        if self._thread is None or not self._thread.is_alive():
            sock = self._context.socket(zmq.REP)
            sock.setsockopt(zmq.LINGER, 0)
            sock.bind(_ZAP_ADDRESS)
            self._thread = threading.Thread(
                target=self._serve, args=(sock,), name="guactors-zap", daemon=True
            )
            self._thread.start()

    def watch(self) -> None:
        """Start the thread again should it have died."""
        if self._thread is not None:
            self.ensure()

    def _serve(self, sock: zmq.Socket[bytes]) -> None:
        try:
            while True:
                sock.send_multipart(zap.answer(sock.recv_multipart(), self.doors, _z85_text))
        except zmq.ContextTerminated:
            return
        finally:
            sock.close(0)


class ZmqTransport:
    """Links and listeners over ipc and TCP+CURVE; owns one ZeroMQ context.

    ``identity``: the keys for TCP; may be empty where only ipc is used. ``high_water``: messages
    that may wait per lane and direction, on each side. ``max_message``: bytes of one frame.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        high_water: int = 50_000,
        max_message: int = DATA_HEADER_LIMIT + _SLACK,
    ) -> None:
        self._identity = identity
        self._high_water = high_water
        self._max_message = max_message
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
        self._doorkeeper = _Doorkeeper(self._context)
        self._made: set[PortLink | PortListener] = set()
        self._server = (identity.server_public, identity.server_secret)
        self._closed = False

    def listen(
        self, address: str, *, data_address: str | None = None, doors: Doors | None = None
    ) -> PortListener:
        """Bind ``ipc:///PATH`` or ``tcp://HOST:PORT``. Without ``data_address``, ipc and TCP on any
        free port (0 or ``*``) get a second socket for the data lane, a fixed TCP port serves both.
        Raises OSError naming the address, ValueError for an address of no such kind."""
        bound_at = addresses.places_of(address, data_address)
        tcp = address.startswith(addresses.TCP)
        domain = b""
        if tcp:
            doors = doors or KeySet()
            domain = self._open_doors(doors)
        ports: list[_ZmqPort] = []
        try:
            for lane, place in enumerate(bound_at):
                limit = self._limit(Lane(lane) if len(bound_at) == 2 else Lane.DATA)
                sock = self._router(place, limit, domain)
                ports.append(_ZmqPort(sock, verdicts.LISTENER_EVENTS, limit))
            bound = [_bind(port.sock, place) for port, place in zip(ports, bound_at, strict=True)]
        except BaseException:
            for port in ports:
                port.close(0)
            raise
        endpoint = Endpoint(
            control=bound[0], data=bound[-1], server_key=self._server[0] if tcp else ""
        )
        kind = PortListener if len(ports) == 2 else SharedPortListener
        listener = kind(
            endpoint, ports, self._made.discard, self._doorkeeper.watch, doors if tcp else None
        )
        self._made.add(listener)
        return listener

    def dial(self, endpoint: Endpoint) -> PortLink:
        """Start a link. Raises ValueError for TCP without keys and for an address that is none."""
        for place in (endpoint.control, endpoint.data):
            if place.startswith(addresses.TCP):
                addresses.split_tcp(place)
                if not (endpoint.server_key and self._identity.client_secret):
                    raise ValueError(
                        f"{place}: TCP needs the listener's key and one of our own; there is no "
                        "unencrypted TCP"
                    )
            elif not place.startswith(addresses.IPC):
                raise ValueError(f"{place!r}: only ipc:// and tcp:// can be dialled")
        key = LinkKey(fresh("link"))
        ports: list[_ZmqPort] = []
        try:
            for lane, place in zip(LANES, (endpoint.control, endpoint.data), strict=True):
                limit = self._limit(lane)
                sock = self._dealer(PREFIX[lane] + key.encode(), endpoint, limit)
                ports.append(_ZmqPort(sock, verdicts.LINK_EVENTS, limit))
                sock.connect(place)
        except BaseException:
            for port in ports:
                port.close(0)
            raise
        link = PortLink(key, endpoint, (ports[0], ports[1]), threading.Lock(), self._made.discard)
        self._made.add(link)
        return link

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for one in list(self._made):
            one.close()
        # term() waits for the linger of every socket. A thread of its own bounds the wait, should
        # somebody else have opened a socket in this context.
        ending = threading.Thread(target=self._context.term, name="guactors-term", daemon=True)
        ending.start()
        ending.join(1.0)

    def _limit(self, lane: Lane) -> int:
        return CONTROL_HEADER_LIMIT + _SLACK if lane is Lane.CONTROL else self._max_message

    def _open_doors(self, doors: Doors) -> bytes:
        """The domain under which the doorkeeper asks these doors."""
        if not self._server[0]:
            self._server = new_keypair()
        domain = b"%s.%d" % (zap.DOMAIN, len(self._doorkeeper.doors))
        self._doorkeeper.doors[domain] = doors
        self._doorkeeper.ensure()
        return domain

    def _socket(self, kind: int, place: str, limit: int) -> Socket:
        if self._closed:
            raise PeerGone("this transport is closed")
        sock = Socket(self._context, kind)
        sock.set(zmq.SNDHWM, self._high_water)
        sock.set(zmq.RCVHWM, self._high_water)
        sock.set(zmq.LINGER, LINGER_MS)
        sock.set(zmq.MAXMSGSIZE, limit)
        if place.startswith(f"{addresses.TCP}["):
            sock.set(zmq.IPV6, 1)
        if place.startswith(addresses.TCP):
            # The kernels keep watch, which a stopped process cannot: it must not lose its links.
            sock.set(zmq.TCP_KEEPALIVE, 1)
            sock.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_SECONDS)
            sock.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_SECONDS)
            sock.set(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_TRIES)
            sock.set(zmq.TCP_MAXRT, KEEPALIVE_SECONDS * (KEEPALIVE_TRIES + 1) * 1000)
        return sock

    def _router(self, place: str, limit: int, domain: bytes) -> Socket:
        sock = self._socket(zmq.ROUTER, place, limit)
        sock.set(zmq.ROUTER_MANDATORY, 1)
        sock.set(zmq.BACKLOG, _BACKLOG)
        if place.startswith(addresses.TCP):
            sock.set(zmq.HANDSHAKE_IVL, int(HANDSHAKE_SECONDS * 1000))
            sock.set(zmq.CURVE_SERVER, 1)
            sock.set(zmq.CURVE_PUBLICKEY, self._server[0].encode())
            sock.set(zmq.CURVE_SECRETKEY, self._server[1].encode())
            sock.set(zmq.ZAP_DOMAIN, domain)
            sock.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        return sock

    def _dealer(self, route: bytes, endpoint: Endpoint, limit: int) -> Socket:
        sock = self._socket(zmq.DEALER, endpoint.control, limit)
        sock.set(zmq.ROUTING_ID, route)
        sock.set(zmq.RECONNECT_IVL, _NEVER_MS)
        sock.set(zmq.HANDSHAKE_IVL, int(HANDSHAKE_SECONDS * 1000))
        sock.set(zmq.CONNECT_TIMEOUT, int(HANDSHAKE_SECONDS * 1000))
        if endpoint.control.startswith(addresses.TCP):
            sock.set(zmq.CURVE_SERVERKEY, endpoint.server_key.encode())
            sock.set(zmq.CURVE_PUBLICKEY, self._identity.client_public.encode())
            sock.set(zmq.CURVE_SECRETKEY, self._identity.client_secret.encode())
        return sock


def _monitor(sock: Socket, events: int) -> Socket:
    """A socket that tells what becomes of the connections of ``sock``."""
    place = f"inproc://monitor.s-{int(sock.get(zmq.FD))}"
    sock.monitor(place, events)
    monitor = Socket(sock.context, zmq.PAIR)
    monitor.connect(place)
    return monitor


def _z85_text(key: bytes) -> str:
    return z85.encode(key).decode()


def _bind(sock: Socket, place: str) -> str:
    """Bind and return the address that others can dial."""
    ipc = place.startswith(addresses.IPC)
    if ipc:
        path = addresses.ipc_path(place)
        places.own_directory(os.path.dirname(path))
        places.clear_stale(place, path)
    try:
        sock.bind(place if ipc else places.resolve(place))
    except zmq.ZMQError as fault:
        raise OSError(fault.errno, f"cannot listen on {place}: {fault.strerror}") from fault
    return place if ipc else bytes(sock.get(zmq.LAST_ENDPOINT)).decode().rstrip("\0")
