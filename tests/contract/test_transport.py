"""The promises of ``transport/base.py``, over every adapter: one suite, four wires."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from guactors.config import Identity
from guactors.ids import LinkKey
from guactors.messages import Endpoint
from guactors.transport.base import (
    Frame,
    Lane,
    Link,
    LinkFull,
    LinkState,
    Listener,
    PeerGone,
    Transport,
)
from guactors.transport.doors import KeySet
from guactors.transport.inproc import Exchange, InprocTransport
from guactors.transport.zmq_link import ZmqTransport, derive_public, new_keypair

T = TypeVar("T")
DEADLINE = 10.0
SECRET = new_keypair()[1]
IDENTITY = Identity(client_public=derive_public(SECRET), client_secret=SECRET)
DOORS = KeySet([IDENTITY.client_public])


@dataclass
class Wire:
    """One adapter under test: its transports are closed at the end of the test."""

    kind: str
    directory: Path
    made: list[Transport]
    exchange: Exchange

    def transport(self, high_water: int = 50_000) -> Transport:
        if self.kind == "inproc":
            made: Transport = InprocTransport(high_water=high_water, exchange=self.exchange)
        else:
            made = ZmqTransport(IDENTITY, high_water=high_water)
        self.made.append(made)
        return made

    def listen(self, transport: Transport) -> Listener:
        address = {
            "inproc": "inproc://here",
            "ipc": f"ipc://{self.directory}/s",
            "tcp": "tcp://127.0.0.1:0",
            "tcp-shared": "tcp://127.0.0.1:0",
        }[self.kind]
        if self.kind == "tcp-shared":
            # Both lanes on one port, as with the hub's: take a free one twice.
            free = transport.listen(address, doors=DOORS)
            address = free.endpoint.control
            free.close()
            return until(lambda: listen_if_free(transport, address))
        return transport.listen(address, doors=DOORS)

    def nowhere(self) -> Iterator[Endpoint]:
        """An endpoint at which nobody listens, while it is iterated over."""
        if self.kind == "inproc":
            yield Endpoint("inproc://nobody", "inproc://nobody")
        elif self.kind == "ipc":
            yield Endpoint(f"ipc://{self.directory}/nobody", f"ipc://{self.directory}/nobody.d")
        else:
            with socket.socket() as held:  # bound but not listening: nobody else can take it
                held.bind(("127.0.0.1", 0))
                address = f"tcp://127.0.0.1:{held.getsockname()[1]}"
                yield Endpoint(address, address, new_keypair()[0])


def listen_if_free(transport: Transport, address: str) -> Listener | None:
    """libzmq gives a port back a moment after its socket was closed."""
    try:
        return transport.listen(address, doors=DOORS)
    except OSError:
        return None


@pytest.fixture(scope="module", autouse=True)
def collector(run_root: Path) -> None:
    """pyzmq starts a thread, once and for good, with the first buffer it sends without a copy."""
    transport = ZmqTransport(IDENTITY)
    listener = transport.listen(f"ipc://{run_root}/collector/s")
    transport.dial(listener.endpoint).send(Lane.DATA, [b"header", bytes(1 << 20)])
    until(listener.receive)
    transport.close()


@pytest.fixture(params=["inproc", "ipc", "tcp", "tcp-shared"])
def wire(request: pytest.FixtureRequest, run_root: Path) -> Iterator[Wire]:
    directory = run_root / f"w{time.monotonic_ns():x}"
    wire = Wire(request.param, directory, [], Exchange())
    yield wire
    for transport in wire.made:
        began = time.monotonic()
        transport.close()
        assert time.monotonic() - began < 1.0


def until(ask: Callable[[], T | None]) -> T:
    """The first answer that is not None or False, within the deadline."""
    deadline = time.monotonic() + DEADLINE
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.0005)


def up(transport: Transport, endpoint: Endpoint) -> Link:
    link = transport.dial(endpoint)
    until(lambda: link.state() is not LinkState.DIALING)
    assert link.state() is LinkState.UP, link.down()
    return link


@dataclass
class Pair:
    listener: Listener
    link: Link
    transport: Transport

    @property
    def key(self) -> LinkKey:
        return self.link.key

    def meet(self) -> None:
        """One message each way and lane, so that each side knows the other."""
        for lane in Lane:
            self.link.send(lane, [b"hello"])
            until(partial(self.listener.receive, lane))
            self.listener.send(self.key, lane, [b"welcome"])
            until(partial(self.link.receive, lane))


@pytest.fixture
def pair(wire: Wire) -> Pair:
    transport = wire.transport()
    listener = wire.listen(transport)
    pair = Pair(listener, up(transport, listener.endpoint), transport)
    pair.meet()
    return pair


def test_order_within_a_lane_both_ways(pair: Pair) -> None:
    for number in range(500):
        pair.link.send(Lane.DATA, [b"%d" % number])
    for number in range(500):
        assert until(pair.listener.receive) == (pair.key, Lane.DATA, [b"%d" % number])
    for number in range(500):
        pair.listener.send(pair.key, Lane.CONTROL, [b"%d" % number])
    for number in range(500):
        assert until(pair.link.receive) == (Lane.CONTROL, [b"%d" % number])
    assert pair.link.receive() is None
    assert pair.listener.receive() is None


def test_control_overtakes_data_both_ways(pair: Pair) -> None:
    """A control message sent after all the bulk is read before the last of it."""
    count = 3000
    for _ in range(count):
        pair.link.send(Lane.DATA, [bytes(1000)])
        pair.listener.send(pair.key, Lane.DATA, [bytes(1000)])
    pair.link.send(Lane.CONTROL, [b"urgent"])
    pair.listener.send(pair.key, Lane.CONTROL, [b"urgent"])
    there = [until(pair.listener.receive)[1:] for _ in range(count + 1)]
    back = [until(pair.link.receive) for _ in range(count + 1)]
    for received in (there, back):
        assert received.index((Lane.CONTROL, [b"urgent"])) < count
        assert received.count((Lane.DATA, [bytes(1000)])) == count


def test_one_lane_alone(pair: Pair) -> None:
    pair.link.send(Lane.DATA, [b"d"])
    pair.link.send(Lane.CONTROL, [b"c"])
    assert until(lambda: pair.listener.receive(Lane.DATA)) == (pair.key, Lane.DATA, [b"d"])
    assert pair.listener.receive(Lane.DATA) is None
    assert until(lambda: pair.listener.receive(Lane.CONTROL)) == (pair.key, Lane.CONTROL, [b"c"])


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1 << 20])
def test_buffers_of_every_size(pair: Pair, size: int) -> None:
    parts: list[Frame] = [b"header", bytes(size), memoryview(bytearray(b"\x07" * size)), b"end"]
    expected = [bytes(part) for part in parts]
    pair.link.send(Lane.DATA, parts)
    _, _, received = until(pair.listener.receive)
    assert [bytes(part) for part in received] == expected
    pair.listener.send(pair.key, Lane.DATA, received)
    _, returned = until(pair.link.receive)
    assert [bytes(part) for part in returned] == expected
    assert all(len(part) >= 65_536 for part in returned if not isinstance(part, bytes))


def test_a_large_header_alone(pair: Pair) -> None:
    pair.link.send(Lane.DATA, [bytes(1 << 20)])
    assert until(pair.listener.receive)[2] == [bytes(1 << 20)]


def test_send_takes_a_snapshot(pair: Pair) -> None:
    buffer = bytearray(b"a" * (4 << 20))
    pair.link.send(Lane.DATA, [b"header", memoryview(buffer)])
    buffer[:] = b"b" * len(buffer)
    _, _, received = until(pair.listener.receive)
    assert bytes(received[1]) == b"a" * len(buffer)


def test_many_peers(wire: Wire) -> None:
    transport = wire.transport()
    listener = wire.listen(transport)
    links = {link.key: link for link in (up(transport, listener.endpoint) for _ in range(12))}
    assert len(links) == 12
    for key, link in links.items():
        for lane in Lane:
            link.send(lane, [key.encode(), b"%d" % lane])
    for _ in range(24):
        key, lane, received = until(listener.receive)
        assert received == [key.encode(), b"%d" % lane]
        listener.send(key, lane, [b"for " + key.encode()])
    for key, link in links.items():
        for lane in Lane:
            assert until(link.receive) == (lane, [b"for " + key.encode()])


def test_messages_sent_before_the_handshake_arrive(wire: Wire) -> None:
    transport = wire.transport()
    listener = wire.listen(transport)
    link = transport.dial(listener.endpoint)
    link.send(Lane.CONTROL, [b"early"])
    assert until(listener.receive) == (link.key, Lane.CONTROL, [b"early"])
    assert link.down() is None


def test_nobody_listens(wire: Wire) -> None:
    for endpoint in wire.nowhere():
        link = wire.transport().dial(endpoint)
        down = until(link.down)
        assert down.cause == "unreachable"
        assert endpoint.control in down.detail
        assert link.state() is LinkState.DOWN
        with pytest.raises(PeerGone, match="unreachable"):
            link.send(Lane.CONTROL, [b"x"])
        assert link.receive() is None


def gone(listener: Listener, key: LinkKey, lane: Lane) -> bool:
    try:
        listener.send(key, lane, [b"still there?"])
    except PeerGone:
        return True
    return False


def test_a_closed_link_is_noticed_and_named(wire: Wire) -> None:
    transport = wire.transport()
    listener = wire.listen(transport)
    pairs = [Pair(listener, up(transport, listener.endpoint), transport) for _ in range(2)]
    for one in pairs:
        one.meet()
    assert not listener.disturbed()
    leaver, stayer = pairs
    leaver.link.close()
    until(listener.disturbed)
    for lane in Lane:
        until(partial(gone, listener, leaver.key, lane))
        assert not gone(listener, stayer.key, lane)
    until(lambda: not listener.disturbed())


def test_an_unknown_peer_is_gone(pair: Pair) -> None:
    with pytest.raises(PeerGone):
        pair.listener.send(LinkKey("k-nobody"), Lane.CONTROL, [b"x"])


def test_a_closed_listener_is_a_lost_link(pair: Pair) -> None:
    pair.listener.close()
    down = until(pair.link.down)
    assert down.cause == "lost"
    assert pair.link.state() is LinkState.DOWN
    with pytest.raises(PeerGone, match="lost"):
        pair.link.send(Lane.DATA, [b"x"])
    pair.link.close()
    assert pair.link.down() == down


def test_what_arrived_before_the_loss_can_still_be_read(pair: Pair) -> None:
    for number in range(20):
        pair.listener.send(pair.key, Lane.DATA, [b"%d" % number])
    assert until(pair.link.receive) == (Lane.DATA, [b"0"])
    pair.listener.close()
    assert until(pair.link.down).cause == "lost"
    for number in range(1, 20):
        assert until(pair.link.receive) == (Lane.DATA, [b"%d" % number])
    assert pair.link.receive() is None


def test_close_is_idempotent_and_silent(pair: Pair) -> None:
    for _ in range(2):
        pair.link.close()
    down = pair.link.down()
    assert down is not None
    assert down.cause == "closed"
    assert pair.link.receive() is None
    assert pair.link.filenos() == ()
    with pytest.raises(PeerGone):
        pair.link.send(Lane.DATA, [b"x"])
    for _ in range(2):
        pair.listener.close()
    assert pair.listener.receive() is None
    assert pair.listener.filenos() == ()
    assert not pair.listener.disturbed()
    with pytest.raises(PeerGone):
        pair.listener.send(pair.key, Lane.DATA, [b"x"])
    for _ in range(2):
        pair.transport.close()


def test_a_slow_listener_makes_the_link_full(wire: Wire) -> None:
    transport = wire.transport(high_water=8)
    listener = wire.listen(transport)
    pair = Pair(listener, up(transport, listener.endpoint), transport)
    pair.meet()
    sent = 0
    with pytest.raises(LinkFull):  # noqa: PT012 - how much the system's own buffers hold is its own
        while sent < 100_000:
            pair.link.send(Lane.DATA, [b"%6d" % sent + bytes(10_000)])
            sent += 1
    pair.link.send(Lane.CONTROL, [b"urgent"])
    assert until(lambda: listener.receive(Lane.CONTROL))[2] == [b"urgent"]
    for number in range(sent):
        assert bytes(until(lambda: listener.receive(Lane.DATA))[2][0][:6]) == b"%6d" % number
    until(lambda: sends(lambda: pair.link.send(Lane.DATA, [b"again"])))
    assert until(listener.receive) == (pair.key, Lane.DATA, [b"again"])


def test_a_slow_link_makes_the_listener_full_for_it_alone(wire: Wire) -> None:
    transport = wire.transport(high_water=8)
    listener = wire.listen(transport)
    slow, quick = (Pair(listener, up(transport, listener.endpoint), transport) for _ in range(2))
    slow.meet()
    quick.meet()
    sent = 0
    with pytest.raises(LinkFull):  # noqa: PT012 - as above
        while sent < 100_000:
            listener.send(slow.key, Lane.DATA, [b"%6d" % sent + bytes(10_000)])
            sent += 1
    listener.send(quick.key, Lane.DATA, [b"for you"])
    assert until(quick.link.receive) == (Lane.DATA, [b"for you"])
    for number in range(sent):
        assert bytes(until(slow.link.receive)[1][0][:6]) == b"%6d" % number
    assert slow.link.receive() is None


def sends(send: Callable[[], None]) -> bool:
    try:
        send()
    except LinkFull:
        return False
    return True


def wakes(filenos: tuple[int, ...], act: Callable[[], object]) -> bool:
    """Whether a selector on ``filenos`` wakes after ``act``."""
    with selectors.DefaultSelector() as selector:
        for fileno in filenos:
            selector.register(fileno, selectors.EVENT_READ)
        act()
        return bool(selector.select(DEADLINE))


def test_descriptors_wake_a_selector(wire: Wire) -> None:
    transport = wire.transport()
    listener = wire.listen(transport)
    link = transport.dial(listener.endpoint)
    assert wakes(link.filenos(), lambda: None), "the handshake is news"
    until(lambda: link.state() is LinkState.UP)
    pair = Pair(listener, link, transport)
    pair.meet()
    for lane in Lane:
        quiet(pair)
        assert wakes(listener.filenos(), partial(link.send, lane, [b"x"]))
        until(listener.receive)
        quiet(pair)
        assert wakes(link.filenos(), partial(listener.send, link.key, lane, [b"x"]))
        until(link.receive)
    quiet(pair)
    assert wakes(listener.filenos(), link.close), "a loss is news"


def quiet(pair: Pair) -> None:
    """Read all there is on both sides, as their holders do before they sleep."""
    assert pair.link.receive() is None
    assert pair.link.state() is LinkState.UP
    assert pair.listener.receive() is None
    assert not pair.listener.disturbed()


def test_a_lost_listener_wakes_its_links(pair: Pair) -> None:
    quiet(pair)
    assert wakes(pair.link.filenos(), pair.listener.close)
    assert until(pair.link.down).cause == "lost"


def test_two_threads_two_lanes(wire: Wire, pair: Pair) -> None:
    """Each lane of a link in a thread of its own, sending and receiving at once."""
    if wire.kind == "tcp-shared":
        with pytest.raises(ValueError, match="one thread must serve them"):
            pair.listener.filenos(Lane.DATA)
        return
    count = 500
    faults: list[BaseException] = []

    def echo(lane: Lane) -> None:
        for _ in range(count):
            key, _, frames = until(lambda: pair.listener.receive(lane))
            pair.listener.send(key, lane, frames)

    def ask(lane: Lane) -> None:
        for number in range(count):
            pair.link.send(lane, [b"%d" % number])
            assert until(lambda: pair.link.receive(lane)) == (lane, [b"%d" % number])
            assert pair.link.state() is LinkState.UP

    def guarded(work: Callable[[Lane], None], lane: Lane) -> None:
        try:
            work(lane)
        except BaseException as fault:  # noqa: BLE001 - shown by the test's own thread
            faults.append(fault)

    threads = [
        threading.Thread(target=guarded, args=(work, lane)) for work in (echo, ask) for lane in Lane
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_an_address_in_use_is_named(wire: Wire) -> None:
    transport = wire.transport()
    listener = wire.listen(transport)
    address = listener.endpoint.control
    with pytest.raises(OSError, match="in use") as caught:
        wire.transport().listen(address)
    assert address in str(caught.value)


@pytest.mark.parametrize("address", ["", "here", "udp://127.0.0.1:1", "inproc://", "tcp://x"])
def test_rubbish_is_no_address(wire: Wire, address: str) -> None:
    transport = wire.transport()
    with pytest.raises(ValueError, match=r"address|can be dialled"):
        transport.listen(address)
    with pytest.raises(ValueError, match=r"address|can be dialled"):
        transport.dial(Endpoint(address, address))
