"""Who gets in and who does not, on real sockets: the pitfalls of CURVE, ZAP and ROUTER."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.structs import replace

from guactors.config import Identity
from guactors.errors import ProtocolError
from guactors.messages import Endpoint
from guactors.transport import verdicts, zmq_link
from guactors.transport.addresses import split_tcp
from guactors.transport.base import Down, Lane, Link, LinkState, Listener, PeerGone
from guactors.transport.doors import AllBut, KeySet
from guactors.transport.zmq_link import ZmqTransport, derive_public, new_keypair

DEADLINE = 10.0


def member() -> Identity:
    secret = new_keypair()[1]
    return Identity(client_public=derive_public(secret), client_secret=secret)


GRID = member()
DOORS = KeySet([GRID.client_public])


def until(ask: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (answer := ask()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.0005)
    return answer


@pytest.fixture
def grid() -> Iterator[ZmqTransport]:
    transport = ZmqTransport(GRID)
    yield transport
    transport.close()


@pytest.fixture
def listener(grid: ZmqTransport) -> Listener:
    return grid.listen("tcp://127.0.0.1:0", doors=DOORS)


@contextlib.contextmanager
def another(identity: Identity) -> Iterator[ZmqTransport]:
    transport = ZmqTransport(identity)
    yield transport
    transport.close()


def echo_works(grid: ZmqTransport, listener: Listener) -> bool:
    """A member's link works over both lanes."""
    link = grid.dial(listener.endpoint)
    for lane in Lane:
        link.send(lane, [b"hello"])
        assert until(listener.receive) == (link.key, lane, [b"hello"])
        listener.send(link.key, lane, [b"welcome"])
        assert until(link.receive) == (lane, [b"welcome"])
    link.close()
    return True


def refusal(identity: Identity, endpoint: Endpoint) -> Down:
    """Why a dial with ``identity`` fails; it must not get a message through either."""
    with another(identity) as transport:
        link = transport.dial(endpoint)
        with contextlib.suppress(PeerGone):  # who answers at once is known for what he is by now
            link.send(Lane.CONTROL, [b"let me in"])
        down: Down = until(link.down)
        with pytest.raises(PeerGone):
            link.send(Lane.CONTROL, [b"x"])
        return down


def test_an_unknown_key_is_refused(grid: ZmqTransport, listener: Listener) -> None:
    down = refusal(member(), listener.endpoint)
    assert down.cause == "auth"
    assert "refused our key" in down.detail
    assert listener.receive() is None
    assert until(listener.disturbed)
    assert echo_works(grid, listener)


def test_the_server_key_is_no_client_key(grid: ZmqTransport) -> None:
    """The listener's own pair, even if it leaked, does not open its door."""
    public, secret = new_keypair()
    with another(replace(GRID, server_public=public, server_secret=secret)) as transport:
        endpoint = transport.listen("tcp://127.0.0.1:0", doors=DOORS).endpoint
        assert endpoint.server_key == public
        down = refusal(Identity(client_public=public, client_secret=secret), endpoint)
        assert down.cause == "auth"


def test_a_wrong_server_key_is_found(grid: ZmqTransport, listener: Listener) -> None:
    wrong = replace(listener.endpoint, server_key=new_keypair()[0])
    down = refusal(GRID, wrong)
    assert down.cause == "auth"
    assert "key" in down.detail
    assert listener.receive() is None
    assert echo_works(grid, listener)


def test_a_client_without_encryption_is_refused(grid: ZmqTransport, listener: Listener) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as plain:
        plain.linger = 0
        monitor = plain.get_monitor_socket(verdicts.LISTENER_EVENTS)
        plain.connect(listener.endpoint.control)
        plain.send(b"let me in")
        assert monitor.poll(int(DEADLINE * 1000))
        plain.disable_monitor()
        monitor.close()
    assert until(listener.disturbed)
    assert listener.receive() is None
    assert echo_works(grid, listener)


def test_a_listener_without_encryption_is_no_peer(grid: ZmqTransport) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as plain:
        port = plain.bind_to_random_port("tcp://127.0.0.1")
        where = f"tcp://127.0.0.1:{port}"
        down = refusal(GRID, Endpoint(where, where, new_keypair()[0]))
        # Which of the two hangs up first decides what we see.
        assert down.cause in {"protocol", "auth"}


def test_nobody_enters_without_the_doorkeeper(
    grid: ZmqTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails closed: libzmq by itself would admit every key."""
    monkeypatch.setattr(zmq_link, "HANDSHAKE_SECONDS", 0.3)
    monkeypatch.setattr(zmq_link._Doorkeeper, "ensure", lambda keeper: None)
    listener = grid.listen("tcp://127.0.0.1:0", doors=DOORS)
    assert refusal(GRID, listener.endpoint).cause in {"auth", "unreachable"}
    assert listener.receive() is None


def test_the_doorkeeper_is_replaced_should_it_die(
    grid: ZmqTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_args: object) -> list[bytes]:
        raise zmq.ContextTerminated  # ends the thread without noise

    monkeypatch.setattr(zmq_link, "HANDSHAKE_SECONDS", 0.3)
    monkeypatch.setattr("guactors.transport.zap.answer", stumble)
    listener = grid.listen("tcp://127.0.0.1:0", doors=DOORS)
    assert refusal(GRID, listener.endpoint).cause in {"auth", "unreachable"}
    until(lambda: "guactors-zap" not in {thread.name for thread in threading.enumerate()})
    monkeypatch.undo()
    until(listener.disturbed)
    assert echo_works(grid, listener)


def test_no_tcp_without_keys() -> None:
    with another(Identity()) as transport:
        where = "tcp://127.0.0.1:1"
        with pytest.raises(ValueError, match="no unencrypted TCP"):
            transport.dial(Endpoint(where, where, new_keypair()[0]))
    with another(GRID) as transport, pytest.raises(ValueError, match="no unencrypted TCP"):
        transport.dial(Endpoint(where, where))


def test_nobody_listens() -> None:
    with socket.socket() as held:  # bound but not listening: nobody else can take it
        held.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{held.getsockname()[1]}"
        assert refusal(GRID, Endpoint(where, where, new_keypair()[0])).cause == "unreachable"


def test_no_such_host(grid: ZmqTransport) -> None:
    where = "tcp://no-such-host.invalid:61621"
    assert refusal(GRID, Endpoint(where, where, new_keypair()[0])).cause == "unreachable"


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a firewall that swallows everything after the connect."""
    monkeypatch.setattr(zmq_link, "HANDSHAKE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        down = refusal(GRID, Endpoint(where, where, new_keypair()[0]))
    assert down.cause == "unreachable"
    assert "handshake" in down.detail


def test_a_server_of_another_kind(grid: ZmqTransport) -> None:
    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.recv(64)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        where = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        down = refusal(GRID, Endpoint(where, where, new_keypair()[0]))
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert down.cause == "protocol"


GREETING = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00CURVE" + bytes(16) + bytes(32)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n",
        bytes(1000),
        b"\xff" * 1000,
        GREETING + b"\x04\xc8\x05HELLO" + bytes(194),
        GREETING + b"\x06" + b"\xff" * 8,
        GREETING[:20],
    ],
    ids=["http", "zeros", "ones", "forged-hello", "huge-command", "half-greeting"],
)
def test_rubbish_does_not_hurt_the_others(
    grid: ZmqTransport, listener: Listener, rubbish: bytes
) -> None:
    link = grid.dial(listener.endpoint)
    until(lambda: link.state() is LinkState.UP)
    for address in (listener.endpoint.control, listener.endpoint.data):
        with socket.create_connection(split_tcp(address)) as intruder:
            intruder.sendall(rubbish)
            assert echo_works(grid, listener)
    assert link.state() is LinkState.UP
    link.send(Lane.DATA, [b"still here"])
    assert until(listener.receive) == (link.key, Lane.DATA, [b"still here"])


def member_socket(context: zmq.Context[Any], listener: Listener, route: bytes) -> zmq.Socket[Any]:
    """A member's own socket, with any routing id it likes."""
    sock: zmq.Socket[Any] = context.socket(zmq.DEALER)
    sock.linger = 0
    sock.routing_id = route
    sock.curve_serverkey = listener.endpoint.server_key.encode()
    sock.curve_publickey = GRID.client_public.encode()
    sock.curve_secretkey = GRID.client_secret.encode()
    sock.connect(listener.endpoint.control)
    return sock


@pytest.mark.parametrize(
    "route", [b"X", b"C", b"Dk-1", b"Ck\xff", b"Ck\n", b"C" + b"k" * 65, b"\x01\x02"]
)
def test_a_routing_id_that_no_link_has(
    grid: ZmqTransport, listener: Listener, route: bytes
) -> None:
    with zmq.Context() as context, member_socket(context, listener, route) as spoof:
        spoof.send_multipart([b"one", b"two"])
        spoof.send(b"three")
        assert until(lambda: listener.receive() or listener.faults == 2) is True
        assert echo_works(grid, listener)


def test_a_routing_id_cannot_be_taken_over(grid: ZmqTransport, listener: Listener) -> None:
    link: Link = grid.dial(listener.endpoint)
    link.send(Lane.CONTROL, [b"mine"])
    assert until(listener.receive)[2] == [b"mine"]
    with (
        zmq.Context() as context,
        member_socket(context, listener, b"C" + link.key.encode()) as thief,
    ):
        thief.send(b"no, mine")
        assert echo_works(grid, listener)
        listener.send(link.key, Lane.CONTROL, [b"yours"])
        assert until(link.receive) == (Lane.CONTROL, [b"yours"])
        assert thief.poll(0) == 0
        assert listener.receive() is None


def test_both_lanes_of_a_link_belong_to_one_key(grid: ZmqTransport) -> None:
    """A second key that opens the other lane of somebody's link is not heard there."""
    listener = grid.listen("tcp://127.0.0.1:0", doors=AllBut())
    victim: Link = grid.dial(listener.endpoint)
    victim.send(Lane.CONTROL, [b"mine"])
    assert until(listener.receive)[2] == [b"mine"]
    assert listener.user_of(victim.key) == GRID.client_public
    with another(member()) as other, zmq.Context() as context:
        thief: zmq.Socket[Any] = context.socket(zmq.DEALER)
        thief.linger = 0
        thief.routing_id = b"D" + b"k-of-somebody"
        identity = other._identity
        thief.curve_serverkey = listener.endpoint.server_key.encode()
        thief.curve_publickey = identity.client_public.encode()
        thief.curve_secretkey = identity.client_secret.encode()
        thief.connect(listener.endpoint.data)
        with member_socket(context, listener, b"Ck-of-somebody") as honest:
            honest.send(b"control")
            assert until(listener.receive)[2] == [b"control"]
            thief.send(b"data")
            assert until(lambda: listener.receive() or listener.faults == 1) is True
        thief.close()


def test_who_is_shut_out_is_not_heard_and_does_not_come_back(grid: ZmqTransport) -> None:
    doors = AllBut()
    listener = grid.listen("tcp://127.0.0.1:0", doors=doors)
    identity = member()
    with another(identity) as transport:
        link = transport.dial(listener.endpoint)
        link.send(Lane.DATA, [b"before"])
        assert until(listener.receive)[2] == [b"before"]
        assert listener.user_of(link.key) == identity.client_public
        doors.shut_out([identity.client_public])
        link.send(Lane.DATA, [b"after"])
        assert until(lambda: listener.receive() or listener.faults == 1) is True
    assert refusal(identity, listener.endpoint).cause == "auth"
    assert echo_works(grid, listener)


def test_each_listener_has_doors_of_its_own(grid: ZmqTransport, listener: Listener) -> None:
    identity = member()
    other = grid.listen("tcp://127.0.0.1:0", doors=KeySet([identity.client_public]))
    assert refusal(identity, listener.endpoint).cause == "auth"
    assert refusal(GRID, other.endpoint).cause == "auth"
    assert echo_works(grid, listener)


def test_a_listener_without_doors_admits_nobody(grid: ZmqTransport) -> None:
    assert refusal(GRID, grid.listen("tcp://127.0.0.1:0").endpoint).cause == "auth"


def test_too_large_a_frame_is_refused_before_it_costs_the_link() -> None:
    transport = ZmqTransport(GRID, max_message=1 << 17)
    listener = transport.listen("tcp://127.0.0.1:0", doors=DOORS)
    link = transport.dial(listener.endpoint)
    for frames in ([bytes(1 << 18)], [b"header", bytes(1 << 18)]):
        with pytest.raises(ProtocolError, match="262144 bytes, the limit is 131072"):
            link.send(Lane.DATA, frames)
    link.send(Lane.DATA, [b"small"])
    assert until(listener.receive) == (link.key, Lane.DATA, [b"small"])
    with pytest.raises(ProtocolError, match="262144 bytes"):
        listener.send(link.key, Lane.DATA, [bytes(1 << 18)])
    listener.send(link.key, Lane.DATA, [b"back"])
    assert until(link.receive) == (Lane.DATA, [b"back"])
    transport.close()


def test_an_oversize_frame_of_a_rogue_member_meets_the_wall(grid: ZmqTransport) -> None:
    transport = ZmqTransport(GRID, max_message=1 << 17)
    listener = transport.listen("tcp://127.0.0.1:0", doors=DOORS)
    with zmq.Context() as context, member_socket(context, listener, b"Ck-rogue") as rogue:
        rogue.send(bytes(4 << 20))
        assert until(listener.disturbed)
        assert listener.receive() is None
        assert echo_works(transport, listener)
    transport.close()


@pytest.mark.needs("posix")
@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_an_open_directory_is_refused(run_root: Path, mode: int) -> None:
    directory = run_root / f"open-{mode:o}"
    directory.mkdir(exist_ok=True)
    directory.chmod(mode)
    with another(Identity()) as transport:
        with pytest.raises(PermissionError, match=f"mode 0{mode:o}") as caught:
            transport.listen(f"ipc://{directory}/s")
        assert str(directory) in str(caught.value)
        assert list(directory.iterdir()) == []


@pytest.mark.needs("posix")
def test_a_link_to_a_directory_is_refused(run_root: Path) -> None:
    (run_root / "real").mkdir(mode=0o700, exist_ok=True)
    link = run_root / "link"
    link.symlink_to(run_root / "real")
    with another(Identity()) as transport, pytest.raises(PermissionError, match="not a link"):
        transport.listen(f"ipc://{link}/s")
    link.unlink()


@pytest.mark.needs("root")
def test_a_directory_of_somebody_else_is_refused(run_root: Path) -> None:
    directory = run_root / "theirs"
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, -1)
    with another(Identity()) as transport, pytest.raises(PermissionError, match="user 12345"):
        transport.listen(f"ipc://{directory}/s")


@pytest.mark.needs("posix")
def test_a_missing_directory_is_made_private(run_root: Path) -> None:
    directory = run_root / "made"
    with another(Identity()) as transport:
        transport.listen(f"ipc://{directory}/s")
        assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.needs("posix")
def test_a_stale_socket_is_replaced_a_live_one_and_a_file_are_not(run_root: Path) -> None:
    directory = run_root / "stale"
    directory.mkdir(mode=0o700)
    path = directory / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with another(Identity()) as transport:
        listener = transport.listen(f"ipc://{path}")
        assert echo_works(transport, listener)
        with pytest.raises(OSError, match="in use"):
            transport.listen(f"ipc://{path}")
        assert echo_works(transport, listener)
        (directory / "file").write_text("precious")
        with pytest.raises(OSError, match="no socket"):
            transport.listen(f"ipc://{directory}/file")
        assert (directory / "file").read_text() == "precious"


@pytest.mark.needs("posix")
def test_a_path_too_long_says_so(run_root: Path) -> None:
    with another(Identity()) as transport, pytest.raises(OSError, match="shorter") as caught:
        transport.listen(f"ipc://{run_root}/{'x' * 120}")
    assert caught.value.errno == errno.ENAMETOOLONG


def test_a_port_in_use_is_named(grid: ZmqTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match="in use") as caught:
            grid.listen(address)
    assert address in str(caught.value)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_host_that_is_not_ours_is_named(grid: ZmqTransport) -> None:
    with pytest.raises(OSError, match=r"cannot listen on tcp://no-such\.invalid:0"):
        grid.listen("tcp://no-such.invalid:0")


def test_localhost_by_name(grid: ZmqTransport) -> None:
    assert echo_works(grid, grid.listen("tcp://localhost:0", doors=DOORS))


def test_a_listener_that_dies_leaves_no_wait(run_root: Path) -> None:
    """``kill -9`` of the other side is DOWN, lost; what had arrived can be read."""
    program = f"""
import sys
from guactors.config import Identity
from guactors.transport.base import Lane
from guactors.transport.zmq_link import ZmqTransport
listener = ZmqTransport(Identity()).listen("ipc://{run_root}/dies/s")
print("listening", flush=True)
while (got := listener.receive()) is None:
    pass
for number in range(5):
    listener.send(got[0], Lane.DATA, [b"%d" % number])
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "listening\n"
    where = f"ipc://{run_root}/dies/s"
    with another(Identity()) as transport:
        link = transport.dial(Endpoint(where, where + ".d"))
        # On the lane of the answers: that the other one is there says nothing of this one.
        link.send(Lane.DATA, [b"go"])
        assert until(link.receive) == (Lane.DATA, [b"0"])
        process.kill()
        process.wait()
        assert until(link.down).cause == "lost"
        read = []
        while (got := link.receive()) is not None:
            read.append(got[1][0])
        assert read == [b"1", b"2", b"3", b"4"][: len(read)]
    process.stdin.close()
    process.stdout.close()


def test_event_numbers_are_libzmqs() -> None:
    assert verdicts.CONNECT_RETRIED == zmq.EVENT_CONNECT_RETRIED
    assert verdicts.CLOSED == zmq.EVENT_CLOSED
    assert verdicts.DISCONNECTED == zmq.EVENT_DISCONNECTED
    assert verdicts.HANDSHAKE_SUCCEEDED == zmq.EVENT_HANDSHAKE_SUCCEEDED
    assert verdicts.HANDSHAKE_FAILED_AUTH == zmq.EVENT_HANDSHAKE_FAILED_AUTH
    assert verdicts.HANDSHAKE_FAILED_PROTOCOL == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    assert verdicts.HANDSHAKE_FAILED_NO_DETAIL == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    assert verdicts.ERROR_CRYPTOGRAPHIC == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC


def test_keys() -> None:
    public, secret = new_keypair()
    assert derive_public(secret) == public
    for text in ("", "short", "ä" * 40, " " * 40):
        with pytest.raises(ValueError, match="z85"):
            derive_public(text)


def test_importing_the_door_loads_no_zmq() -> None:
    program = "import guactors.transport, sys; sys.exit('zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    program = "import threading, guactors.transport.zmq_link; assert threading.active_count() == 1"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
