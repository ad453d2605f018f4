"""Links and listeners over ports in memory: states, lanes, peers, without a socket."""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Sequence

import pytest

from guactors.ids import LinkKey
from guactors.messages import Endpoint
from guactors.transport import verdicts
from guactors.transport.base import Down, Frame, Lane, LinkFull, LinkState, PeerGone
from guactors.transport.links import READ_AHEAD, PortLink, PortListener, SharedPortListener

ENDPOINT = Endpoint("tcp://hub:1", "tcp://hub:2", "key")
OK = (verdicts.HANDSHAKE_SUCCEEDED, 0)


class MemoryPort:
    """A port whose wire is three queues that the test fills and reads."""

    def __init__(self) -> None:
        self.inbox: deque[tuple[bytes, list[Frame]]] = deque()
        self.outbox: list[tuple[bytes, list[Frame]]] = []
        self.news: list[tuple[int, int]] = []
        self.full = False
        self.gone = False
        self.lingers: list[int] = []

    def send(self, frames: Sequence[Frame]) -> None:
        self.send_to(b"", frames)

    def send_to(self, route: bytes, frames: Sequence[Frame]) -> None:
        if self.full:
            raise LinkFull
        if self.gone:
            raise PeerGone
        self.outbox.append((route, list(frames)))

    def take(self) -> list[Frame] | None:
        return self.inbox.popleft()[1] if self.inbox else None

    def take_from(self) -> tuple[bytes, list[Frame]] | None:
        return self.inbox.popleft() if self.inbox else None

    def events(self) -> list[tuple[int, int]]:
        news, self.news = self.news, []
        return news

    def filenos(self) -> tuple[int, ...]:
        return (id(self),)

    def close(self, linger: int) -> None:
        self.lingers.append(linger)


def linked() -> tuple[PortLink, MemoryPort, MemoryPort]:
    control, data = MemoryPort(), MemoryPort()
    link = PortLink(
        LinkKey("k-1"), ENDPOINT, (control, data), threading.Lock(), lambda closed: None
    )
    return link, control, data


def test_up_when_both_lanes_are() -> None:
    link, control, data = linked()
    assert link.state() is LinkState.DIALING
    control.news.append(OK)
    assert link.state() is LinkState.DIALING
    data.news.append(OK)
    assert link.state() is LinkState.UP
    assert link.down() is None


@pytest.mark.parametrize("lane", Lane)
def test_either_lane_takes_the_link_down(lane: Lane) -> None:
    link, *ports = linked()
    for port in ports:
        port.news.append(OK)
    assert link.state() is LinkState.UP
    ports[lane].news.append((verdicts.DISCONNECTED, 9))
    assert link.state() is LinkState.DOWN
    where = (ENDPOINT.control, ENDPOINT.data)[lane]
    assert link.down() == Down("lost", f"the connection to {where} broke")


@pytest.mark.parametrize(
    ("event", "value", "cause"),
    [
        (verdicts.HANDSHAKE_FAILED_AUTH, 400, "auth"),
        (verdicts.HANDSHAKE_FAILED_PROTOCOL, verdicts.ERROR_CRYPTOGRAPHIC, "auth"),
        (verdicts.HANDSHAKE_FAILED_PROTOCOL, 0x11000002, "protocol"),
        (verdicts.HANDSHAKE_FAILED_NO_DETAIL, errno.EPIPE, "auth"),
        (verdicts.HANDSHAKE_FAILED_NO_DETAIL, errno.ECONNRESET, "unreachable"),
        (verdicts.HANDSHAKE_FAILED_NO_DETAIL, errno.EAGAIN, "unreachable"),
        (verdicts.DISCONNECTED, 9, "protocol"),
        (verdicts.CLOSED, 9, "unreachable"),
        (verdicts.CONNECT_RETRIED, 86_400_000, "unreachable"),
    ],
)
def test_causes_of_a_failed_dial(event: int, value: int, cause: str) -> None:
    link, control, _ = linked()
    control.news += [(event, value), (verdicts.DISCONNECTED, 9), (verdicts.CLOSED, 9)]
    down = link.down()
    assert down is not None
    assert down.cause == cause, "the first event tells, the others follow from it"
    assert ENDPOINT.control in down.detail


def test_without_encryption_a_hang_up_is_no_matter_of_keys() -> None:
    down = verdicts.verdict(
        verdicts.HANDSHAKE_FAILED_NO_DETAIL,
        errno.EPIPE,
        was_up=False,
        curve=False,
        where="ipc:///s",
    )
    assert down.cause == "unreachable"


def test_full_or_gone() -> None:
    link, control, _ = linked()
    control.full = True
    with pytest.raises(LinkFull):
        link.send(Lane.CONTROL, [b"x"])
    control.news.append((verdicts.CLOSED, 9))
    with pytest.raises(PeerGone, match="unreachable"):
        link.send(Lane.CONTROL, [b"x"])


def test_control_first_and_what_came_before_the_loss() -> None:
    link, control, data = linked()
    data.inbox.append((b"", [b"d"]))
    control.inbox.append((b"", [b"c"]))
    control.news.append((verdicts.CLOSED, 9))
    assert link.state() is LinkState.DOWN
    assert link.receive(Lane.DATA) == (Lane.DATA, [b"d"])
    assert link.receive() == (Lane.CONTROL, [b"c"])
    assert link.receive() is None


def test_a_link_that_is_down_does_not_linger() -> None:
    link, control, data = linked()
    data.news.append((verdicts.CLOSED, 9))
    assert link.state() is LinkState.DOWN
    link.close()
    link.close()
    assert control.lingers == data.lingers == [0]
    down = link.down()
    assert down is not None
    assert down.cause == "unreachable"


def listening(shared: bool = False) -> tuple[PortListener, list[MemoryPort]]:
    ports = [MemoryPort()] if shared else [MemoryPort(), MemoryPort()]
    kind = SharedPortListener if shared else PortListener
    return kind(ENDPOINT, ports, lambda closed: None, lambda: None), ports


def test_peers_are_known_by_their_key() -> None:
    listener, (control, data) = listening()
    data.inbox.append((b"Dk-1", [b"d"]))
    control.inbox.append((b"Ck-1", [b"c"]))
    assert listener.receive() == ("k-1", Lane.CONTROL, [b"c"])
    assert listener.receive() == ("k-1", Lane.DATA, [b"d"])
    listener.send(LinkKey("k-1"), Lane.DATA, [b"r"])
    listener.send(LinkKey("k-2"), Lane.CONTROL, [b"r"])
    assert data.outbox == [(b"Dk-1", [b"r"])]
    assert control.outbox == [(b"Ck-2", [b"r"])]


@pytest.mark.parametrize(
    "route", [b"", b"C", b"Dk-1", b"xk-1", b"Ck\x00", b"Ck\xe4", b"C" + b"k" * 65, b"\x00\x01\x02"]
)
@pytest.mark.parametrize("shared", [False, True])
def test_routing_ids_of_no_link_are_dropped_and_counted(route: bytes, shared: bool) -> None:
    if shared and route == b"Dk-1":
        route = b"D"
    listener, ports = listening(shared)
    ports[0].inbox += [(route, [b"bad"]), (b"C" + b"k" * 64, [b"good"])]
    assert listener.receive() == ("k" * 64, Lane.CONTROL, [b"good"])
    assert listener.faults == 1


def test_disturbed_twice_then_quiet() -> None:
    listener, (_, data) = listening()
    assert not listener.disturbed()
    data.news.append((verdicts.DISCONNECTED, 9))
    assert [listener.disturbed() for _ in range(3)] == [True, True, False]


def test_gone_names_the_peer() -> None:
    listener, (control, _) = listening()
    control.gone = True
    with pytest.raises(PeerGone, match="tcp://hub:1 has no peer k-9"):
        listener.send(LinkKey("k-9"), Lane.CONTROL, [b"x"])


def test_a_shared_port_finds_control_among_data() -> None:
    listener, (port,) = listening(shared=True)
    port.inbox += [(b"Dk-1", [b"%d" % number]) for number in range(10)]
    port.inbox.append((b"Ck-2", [b"urgent"]))
    assert listener.receive(Lane.DATA) == ("k-1", Lane.DATA, [b"0"])
    assert listener.receive() == ("k-2", Lane.CONTROL, [b"urgent"])
    assert [listener.receive() for _ in range(9)] == [
        ("k-1", Lane.DATA, [b"%d" % number]) for number in range(1, 10)
    ]
    assert listener.receive() is None


def test_a_shared_port_reads_ahead_within_bounds() -> None:
    listener, (port,) = listening(shared=True)
    port.inbox += [(b"Dk-1", [b"bulk"])] * (READ_AHEAD * 3)
    assert listener.receive(Lane.CONTROL) is None
    assert listener.receive() == ("k-1", Lane.DATA, [b"bulk"])
    assert len(port.inbox) == READ_AHEAD * 2
    assert sum(1 for _ in iter(listener.receive, None)) == READ_AHEAD * 3 - 1
