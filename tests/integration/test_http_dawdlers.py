"""Clients that take their time, hold connections, or go away: they are cut off, and cost the others
nothing. The limits are those of the field, shortened."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from guactors.images.manifest import CHUNK
from guactors.web.settings import Limits
from tests.integration.http_door import APP, POOR, Client, Door, Grid, Picture, exchange, status_of

LIMITS = Limits(
    head=0.6, window=0.6, pace=2000.0, rest=1.0, stall=0.6, of_address=20, connections=60,
    tries=1000.0, all_tries=1000.0,
)  # fmt: skip
SOON = 4.0
"""Seconds within which a dawdler of these limits must be gone, on a busy machine."""
GET = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /auth/challenge HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def grid(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Grid]:
    run_dir = run_root / "http-slow"
    run_dir.mkdir(mode=0o700)
    grid = Grid(run_dir, tmp_path_factory.mktemp("hub-data"))
    yield grid
    grid.close()


@pytest.fixture(scope="module")
def door(grid: Grid) -> Iterator[Door]:
    with Door(grid.endpoints, LIMITS) as door:
        yield door


def lives_for(sock: socket.socket, drip: bytes, every: float = 0.1) -> tuple[float, bytes]:
    """Send ``drip`` again and again; how long the connection lived, and what was said."""
    began = time.monotonic()
    said = b""
    sock.settimeout(every)
    while time.monotonic() - began < SOON:
        try:
            if drip:
                sock.send(drip)
            piece = sock.recv(65536)
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            break
        if not piece:
            break
        said += piece
    return time.monotonic() - began, said


# --- too slow -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"", b""),
        (b"G", b""),
        (b"GET /health HTTP/1.1\r\nX: ", b"a"),
        (b"GET /health HTTP/1.1\r\n", b"X: a\r\n"),
        (GET + b"GET /health HT", b""),
        (GET + b"GET /health HTTP/1.1\r\nX: ", b"a"),
    ],
    ids=["silent", "one byte", "dripping", "lines", "second head", "second drip"],
)
def test_a_head_that_does_not_come_is_not_waited_for(door: Door, start: bytes, drip: bytes) -> None:
    with door.connect() as sock:
        if start:
            sock.sendall(start)
        lived, said = lives_for(sock, drip)
    assert lived < SOON, "it was cut off"
    assert lived > 0.4, "but not before its time"
    assert b"HTTP/1.1 408" in said
    assert said.count(b"HTTP/1.1 200") == start.count(GET)


def test_a_body_that_drips_is_not_waited_for(door: Door) -> None:
    with door.connect() as sock:
        sock.sendall(POST + b"Content-Length: 10000\r\n\r\n")
        lived, said = lives_for(sock, b" " * 10)
    assert 0.4 < lived < SOON
    assert status_of(said) == 408


def test_a_body_that_begins_fast_and_then_stops_is_not_waited_for(door: Door) -> None:
    with door.connect() as sock:
        sock.sendall(POST + b"Content-Length: 16000\r\n\r\n" + b" " * 15_000)
        lived, said = lives_for(sock, b"")
    assert 0.4 < lived < SOON
    assert status_of(said) == 408


def test_endless_chunks_of_nothing_are_cut(door: Door) -> None:
    """A body of unknown length whose chunks are a byte each."""
    with door.connect() as sock:
        sock.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        lived, _said = lives_for(sock, b"1;" + b"x" * 20 + b"\r\n \r\n")
    assert 0.4 < lived < SOON


def test_a_body_at_a_fair_pace_may_take_longer_than_the_window(door: Door) -> None:
    with door.connect() as sock:
        sock.sendall(POST + b"Connection: close\r\nContent-Length: 12000\r\n\r\n")
        for _ in range(12):
            sock.sendall(b" " * 1000)
            time.sleep(0.1)
        assert status_of(exchange(sock)) == 400


def test_an_idle_connection_is_closed(door: Door) -> None:
    with door.connect() as sock:
        sock.sendall(GET)
        lived, said = lives_for(sock, b"")
    assert 0.8 < lived < SOON
    assert said.count(b"HTTP/1.1 200") == 1
    assert b"408" not in said


def test_a_busy_connection_lives_on(door: Door) -> None:
    client = door.client()
    first = client("GET", "/health")
    sock = client.http.sock
    for _ in range(8):
        time.sleep(0.3)
        assert client("GET", "/health").status == first.status == 200
    assert client.http.sock is sock, "it is the same connection"
    client.close()


def test_an_answer_that_nobody_takes_is_given_up(grid: Grid, door: Door) -> None:
    client, picture = door.client(APP), Picture("stall")
    picture.upload(client)
    blob = next(iter(picture.data))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(SOON)
        sock.connect(("127.0.0.1", door.port))
        head = f"GET {picture.path(blob, 0)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        sock.sendall(f"{head}Authorization: Bearer {client.token}\r\n\r\n".encode())
        assert sock.recv(12) == b"HTTP/1.1 200"
        time.sleep(1.5)
        assert len(exchange(sock, within=SOON)) < CHUNK
    client.close()
    client = door.client(APP)
    assert client("GET", picture.path(blob, 0)).body == picture.chunk(blob, 0)
    client.close()


def test_who_waits_to_be_asked_for_the_body_is_not_late(grid: Grid, door: Door) -> None:
    """``Expect: 100-continue``: it is asked for when the hub has said that he may."""
    picture = Picture("continue")
    blob = next(iter(picture.data))
    rich, poor = door.client(APP), door.client(POOR)
    rich("POST", "/images", picture.form)
    for client, statuses in ((rich, [b"100", b"204"]), (poor, [b"403"])):
        with door.connect() as sock:
            head = (
                f"PUT {picture.path(blob, 0)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                f"Authorization: Bearer {client.token}\r\nContent-Length: {CHUNK}\r\n"
                "Expect: 100-continue\r\n\r\n"
            )
            sock.sendall(head.encode())
            for status in statuses:
                assert sock.recv(12) == b"HTTP/1.1 " + status
                if status == b"100":
                    assert sock.recv(65536).endswith(b"\r\n\r\n")
                    sock.sendall(picture.chunk(blob, 0))
        client.close()


# --- too many -----------------------------------------------------------------------------------


def test_two_hundred_half_open_connections_keep_nobody_out(door: Door) -> None:
    """From the same address, which may have twenty connections."""
    with ExitStack() as stack:
        good = door.client(APP)
        began = time.monotonic()
        for number in range(200):
            sock = stack.enter_context(door.connect())
            sock.sendall(b"GET /health HTTP/1.1\r\nX: ")
            if number % 10 == 0:
                assert good("GET", "/sessions").status == 200
                fresh = door.client()
                assert fresh("GET", "/health").status == 200
                fresh.close()
        assert time.monotonic() - began < SOON * 2
        good.close()


def test_many_addresses_together_have_a_limit_too(door: Door) -> None:
    with ExitStack() as stack:
        for number in range(120):
            sock = stack.enter_context(door.connect(f"127.0.1.{number % 12 + 1}"))
            sock.sendall(b"GET")
        good = door.client()
        assert good("GET", "/health").status == 200
        good.close()


def test_who_is_served_keeps_the_place_and_the_newcomer_goes(door: Door) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(door.connect("127.0.2.1")) for _ in range(20)]
        for sock in socks:
            sock.sendall(POST + b"Content-Length: 8000\r\n\r\n" + b" " * 4000)
        # One that is answered has come after all of them.
        assert status_of(_last_word(door, "127.0.2.2")) == 200
        time.sleep(0.2)
        with door.connect("127.0.2.1") as late:
            said = exchange(late)
        assert status_of(said) == 503
        assert b"retry-after" in said.lower()
        assert status_of(_last_word(door, "127.0.2.2")) == 200, "another address has its own"
        for sock in socks:
            sock.sendall(b" " * 4000)
            assert sock.recv(12) == b"HTTP/1.1 400"


def _last_word(door: Door, source: str) -> bytes:
    with door.connect(source) as sock:
        return exchange(sock, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))


# --- gone ---------------------------------------------------------------------------------------


def test_who_goes_away_leaves_nothing_behind(
    grid: Grid, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Neither memory that is counted for him, nor a word in the log."""
    limits = Limits(held=CHUNK * 2, of_bearer=CHUNK * 2, tries=1000.0, all_tries=1000.0)
    picture = Picture("gone")
    with Door(grid.endpoints, limits) as door:
        client = door.client(APP)
        assert client("POST", "/images", picture.form).status == 202
        blob = next(iter(picture.data))
        for number in range(6):
            with door.connect() as sock:
                head = (
                    f"PUT {picture.path(blob, 0)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    f"Authorization: Bearer {client.token}\r\nContent-Length: {CHUNK}\r\n\r\n"
                )
                sock.sendall(head.encode() + bytes(CHUNK // 2 + number))
        _eventually_uploads(client, picture)
        for _ in range(6):
            with door.connect() as sock:
                head = f"GET {picture.path(blob, 0)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                sock.sendall(f"{head}Authorization: Bearer {client.token}\r\n\r\n".encode())
                sock.recv(100)
        deadline = time.monotonic() + SOON
        while (reply := client("GET", picture.path(blob, 0))).status != 200:
            assert (reply.status, time.monotonic() < deadline) == (503, True)
        with door.connect() as sock:
            sock.sendall(b"rubbish\r\n\r\n" * 10)
        client.close()
    assert capfd.readouterr().err == ""


def _eventually_uploads(client: Client, picture: Picture) -> None:
    """As soon as the server has noticed that the others are gone."""
    blob = next(iter(picture.data))
    deadline = time.monotonic() + SOON
    while True:
        reply = client("PUT", picture.path(blob, 0), picture.chunk(blob, 0))
        if reply.status == 204:
            break
        assert (reply.status, time.monotonic() < deadline) == (503, True), reply.body
    picture.upload(client)


def test_the_door_closes_at_once_though_somebody_hangs_on_it(grid: Grid) -> None:
    with ExitStack() as stack:
        door = Door(grid.endpoints)
        socks = [stack.enter_context(door.connect()) for _ in range(5)]
        for sock, start in zip(socks, (b"", b"GET", GET, POST, POST + b"Content-Length: 9\r\n\r\n"),
                               strict=True):  # fmt: skip
            if start:
                sock.sendall(start)
        assert socks[2].recv(12) == b"HTTP/1.1 200"
        began = time.monotonic()
        door.close()
        assert time.monotonic() - began < 2.5
