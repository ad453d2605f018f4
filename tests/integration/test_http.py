"""REST against a real hub: tokens, sessions, images; every refusal by its name."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from guactors import messages as m
from guactors.images.manifest import CHUNK
from guactors.security.keys import Kind
from guactors.web.settings import Limits
from tests.integration.http_door import (
    APP,
    BAD,
    OTHER,
    POOR,
    Client,
    Door,
    Grid,
    Picture,
    eventually_ok,
    exchange,
    status_of,
)
from tests.unit.images.making import signer
from tests.unit.security.samples import secret

PEM = Path(__file__).parent / "localhost.pem"
DEEP = b"[" * 16_000
TWO_LENGTHS = (
    "POST /auth/challenge HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n"
    "Content-Length: 3\r\n\r\n{}"
)


@pytest.fixture(scope="module")
def grid(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Grid]:
    run_dir = run_root / "http"
    run_dir.mkdir(mode=0o700)
    grid = Grid(run_dir, tmp_path_factory.mktemp("hub-data"))
    yield grid
    grid.close()


@pytest.fixture(scope="module")
def door(grid: Grid) -> Iterator[Door]:
    with Door(grid.endpoints, Limits(tries=1000.0, all_tries=1000.0)) as door:
        yield door


@pytest.fixture
def nobody(door: Door) -> Iterator[Client]:
    """A client without a token."""
    client = door.client()
    yield client
    client.close()


@pytest.fixture
def app(door: Door) -> Iterator[Client]:
    client = door.client(APP)
    yield client
    client.close()


@pytest.fixture
def other(door: Door) -> Iterator[Client]:
    client = door.client(OTHER)
    yield client
    client.close()


# --- tokens -------------------------------------------------------------------------------------


def test_who_signs_gets_a_token_until_he_gives_it_back(nobody: Client) -> None:
    nobody.log_in(APP)
    assert nobody("GET", "/sessions").json() == []
    assert nobody("DELETE", "/auth/session").status == 204
    for method in ("GET", "DELETE"):
        path = "/sessions" if method == "GET" else "/auth/session"
        reply = nobody(method, path)
        assert reply.why == (401, "token")
        assert reply.headers["www-authenticate"].startswith("Bearer ")


def test_a_challenge_is_answered_once(nobody: Client) -> None:
    signed = nobody.sign(APP, nobody.challenge(APP))
    assert nobody("POST", "/auth/session", signed).status == 201
    assert nobody("POST", "/auth/session", signed).why == (401, "replay")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"role": "caller"}, "replay"),
        ({"hub": secret(Kind.HUB, 2).public.text}, "wrong_hub"),
        ({"key": OTHER.public.text}, "bad_signature"),
        ({"nonce": bytes(32)}, "replay"),
        ({"session": "s-1"}, "session"),
        ({"at": 0}, "expired"),
    ],
)
def test_a_statement_for_something_else_is_refused(
    nobody: Client, changes: dict[str, Any], reason: str
) -> None:
    signed = nobody.sign(APP, nobody.challenge(APP), **changes)
    assert nobody("POST", "/auth/session", signed).why == (401, reason)


def test_a_statement_signed_by_another_key_is_refused(nobody: Client) -> None:
    challenge = nobody.challenge(APP)
    signed = nobody.sign(OTHER, challenge, key=APP.public.text)
    assert nobody("POST", "/auth/session", signed).why == (401, "bad_signature")


def test_a_key_that_nobody_approved_gets_no_token(nobody: Client) -> None:
    stranger = secret(Kind.APP, 9)
    signed = nobody.sign(stranger, nobody.challenge(stranger))
    assert nobody("POST", "/auth/session", signed).why == (401, "unknown_key")


@pytest.mark.parametrize(
    "key",
    [secret(Kind.PROVIDER).public.text, "gu_app_x", "", APP.text],
    ids=["provider", "broken", "empty", "secret"],
)
def test_what_is_no_apps_key_is_challenged_by_nobody(nobody: Client, key: str) -> None:
    reply = nobody("POST", "/auth/challenge", {"key": key})
    assert reply.status == 400
    assert len(key) < 20 or key[12:] not in reply.body.decode()


def test_a_revoked_key_is_out_at_once(door: Door, grid: Grid) -> None:
    client = door.client(BAD)
    assert client("GET", "/sessions").status == 200
    grid.do(m.RevokeKey(7, BAD.public.text, "stop", "it was stolen"))
    assert client("GET", "/sessions").status == 401
    assert client("POST", "/sessions", {}).status == 401
    client.token = ""
    signed = client.sign(BAD, client.challenge(BAD))
    assert client("POST", "/auth/session", signed).why == (401, "revoked")
    client.close()


# --- sessions -----------------------------------------------------------------------------------


def test_sessions_are_their_keys_own(app: Client, other: Client) -> None:
    made = app("POST", "/sessions", {"name": "night run", "seconds": 600})
    assert made.status == 201
    session = made.json()["id"]
    assert made.headers["location"] == f"/sessions/{session}"
    (row,) = app("GET", "/sessions").json()
    assert (row["id"], row["name"], row["principal"]) == (session, "night run", APP.public.text)
    assert other("GET", "/sessions").json() == []
    assert other("GET", f"/sessions/{session}").status == 404
    assert other("DELETE", f"/sessions/{session}").status == 404
    assert app("GET", made.headers["location"]).json() == row
    assert app("DELETE", made.headers["location"]).status == 204
    assert app("DELETE", made.headers["location"]).status == 404
    assert app("GET", "/sessions").json() == []


# --- images -------------------------------------------------------------------------------------


def test_an_image_goes_up_and_comes_down(app: Client, other: Client) -> None:
    picture = Picture("a")
    assert app("GET", f"/images/{picture.id}").status == 404
    offer = app("POST", "/images", picture.form)
    assert offer.json() == {"image": picture.id, "missing": picture.all()}
    picture.upload(app)
    again = app("POST", "/images", picture.form)
    assert (again.status, again.json()) == (200, {"image": picture.id, "missing": {}})
    (row,) = [one for one in app("GET", "/images").json() if one["image"] == picture.id]
    assert row["name"] == "py311"
    shown = app("GET", f"/images/{picture.id}").json()
    assert base64.b64decode(shown["manifest"]) == picture.manifest
    for blob, indexes in picture.all().items():
        for index in indexes:
            reply = app("GET", picture.path(blob, index))
            assert (reply.status, reply.body == picture.chunk(blob, index)) == (200, True)
    blob = next(iter(picture.data))
    assert app("GET", picture.path(blob, 4000)).status == 404
    for path in (f"/images/{picture.id}", picture.path(blob, 0)):
        assert other("GET", path).status == 404, "it is none of his business"
    assert other("DELETE", f"/images/{picture.id}").status == 404
    assert picture.id not in str(other("GET", "/images").json())
    # Whoever fetched half of it could come back for the rest.
    eventually_ok(app, "DELETE", f"/images/{picture.id}", 204)
    assert app("GET", f"/images/{picture.id}").status == 404


def test_an_upload_is_resumed_and_takes_only_what_it_must(app: Client) -> None:
    picture = Picture("b")
    first, second = picture.data
    app("POST", "/images", picture.form)
    put = picture.path(first, 0)
    assert app("PUT", put, picture.chunk(first, 1)).why == (422, "")
    assert app("PUT", put, picture.chunk(first, 0)).status == 204
    assert app("POST", f"/images/{picture.id}/seal").status == 409, "it is not complete"
    missing = app("POST", "/images", picture.form).json()["missing"]
    assert missing == {first: [1], second: [0]}
    picture.upload(app)


def test_what_was_not_offered_is_not_taken(app: Client) -> None:
    picture = Picture("c")
    blob = next(iter(picture.data))
    assert app("PUT", picture.path(blob, 0), b"x").status == 409
    assert app("POST", f"/images/{picture.id}/seal").status == 409


def test_two_keys_send_the_same_image_at_the_same_time(app: Client, other: Client) -> None:
    """Neither's chunks count as the other's."""
    picture = Picture("d")
    for client in (app, other):
        assert client("POST", "/images", picture.form).json()["missing"] == picture.all()
    first = next(iter(picture.data))
    assert app("PUT", picture.path(first, 0), picture.chunk(first, 0)).status == 204
    assert 0 in other("POST", "/images", picture.form).json()["missing"][first]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(picture.upload, (app, other)))
    for client in (app, other):
        assert client("GET", f"/images/{picture.id}").status == 200


def test_without_the_right_nothing_is_uploaded(door: Door) -> None:
    poor, picture = door.client(POOR), Picture("e")
    assert poor("POST", "/images", picture.form).why[0] == 403
    path = picture.path(next(iter(picture.data)), 0)
    assert poor("PUT", path, b"x").why == (403, "action")
    assert poor("POST", f"/images/{picture.id}/seal").why == (403, "action")
    poor.close()


def test_what_is_no_image_is_refused(app: Client) -> None:
    for manifest in (b"", b"{}", DEEP, b"\xff"):
        form = {"manifest": base64.b64encode(manifest).decode()}
        assert app("POST", "/images", form).status == 422
    signed = {**Picture("f").form, "signatures": base64.b64encode(b"{}").decode()}
    assert app("POST", "/images", signed).status in {401, 422}
    assert signer(1).public.text not in str(app("GET", "/images").json())


# --- who is let through -------------------------------------------------------------------------

EVERY = [
    ("GET", "/sessions"), ("POST", "/sessions"), ("DELETE", "/sessions/s-1"), ("HEAD", "/sessions"),
    ("PUT", f"/images/sha3-256:{'a' * 64}/blobs/{'b' * 64}/chunks/0"), ("PATCH", "/sessions"),
    ("OPTIONS", "/sessions"), ("TRACE", "/sessions"), ("GET", "/health"), ("OPTIONS", "/health"),
    ("POST", "/auth/challenge"), ("GET", "/openapi.json"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_another_origin_is_refused_for_every_verb(app: Client, method: str, path: str) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Access_Control_Request_Method": "DELETE"},
    ):
        reply = app(method, path, **headers)
        assert reply.status == 403
        if method != "HEAD":
            assert reply.why == (403, "origin")
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_a_rebound_host_is_refused_for_every_verb(app: Client, method: str, path: str) -> None:
    for host in ("evil.example", "evil.example:61622", "127.0.0.1.evil.example"):
        assert app(method, path, Host=host).status == 421


def test_our_own_origin_is_welcome(app: Client, door: Door) -> None:
    reply = app("GET", "/sessions", Origin=door.url, Sec_Fetch_Site="same-origin")
    assert reply.status == 200


@pytest.mark.parametrize(("method", "path"), [one for one in EVERY if one[1] == "/sessions"])
def test_without_a_token_there_is_nothing(nobody: Client, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer gu_token_made_up"}, {"Cookie": "token=x"}):
        assert nobody(method, path, **headers).status == 401


def test_health_says_only_ok(nobody: Client) -> None:
    reply = nobody("GET", "/health")
    assert (reply.status, reply.json()) == (200, {"status": "ok"})
    assert "server" not in reply.headers
    assert (reply.headers["x-content-type-options"], reply.headers["cache-control"]) == (
        "nosniff", "no-store",
    )  # fmt: skip


def test_the_document_says_that_a_token_is_needed(nobody: Client) -> None:
    document = nobody("GET", "/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            public = path == "/health" or (path.startswith("/auth") and method == "post")
            assert ("security" in operation) is not public, (method, path)


# --- what is let through ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"name": 1}', "application/json", 400),
        (b'{"name": "x", "evil": 1}', "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (DEEP, "application/json", 400),
        (b'{"a":' * 3000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"name=x", "application/x-www-form-urlencoded", 415),
        (b" " * 16_385, "application/json", 413),
    ],
)
def test_bad_documents_are_refused(app: Client, body: bytes, kind: str, status: int) -> None:
    assert app("POST", "/sessions", body, Content_Type=kind).status == status
    assert app("GET", "/sessions").status == 200, "and the connection goes on"


def test_an_oversize_chunk_is_refused_before_it_is_sent(app: Client, door: Door) -> None:
    with door.connect() as sock:
        head = (
            f"PUT {Picture('g').path('b' * 64, 0)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {app.token}\r\nContent-Length: {CHUNK + 1}\r\n"
            "Connection: close\r\n\r\n"
        )
        assert status_of(exchange(sock, head.encode())) == 413


def test_an_oversize_chunk_of_unknown_length_is_cut(app: Client, door: Door) -> None:
    picture = Picture("h")
    app("POST", "/images", picture.form)
    with door.connect() as sock:
        head = (
            f"PUT {picture.path(next(iter(picture.data)), 0)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {app.token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        sock.sendall(head.encode())
        piece = b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n"
        sock.sendall(piece * 5)
        assert sock.recv(12) == b"HTTP/1.1 413", "he who comes to read hears why"
        exchange(sock, piece * 20)  # and he who goes on is cut off


@pytest.mark.parametrize(
    ("request_text", "statuses"),
    [
        ("GET /health HTTP/1.1\r\n\r\n", {400}),
        ("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n", {400}),
        ("GET /health HTTP/1.0\r\n\r\n", {421}),
        ("GET http://evil.example/health HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
        ("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + "a" * 20_000 + "\r\n\r\n", {400, 431}),
        ("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + "X: a\r\n" * 100 + "\r\n", {431}),
        ("GET /" + "a" * 3000 + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {414}),
        (TWO_LENGTHS, {400}),
        ("POST /auth/challenge HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip\r\n\r\n",
         {400, 501}),
        ("\x16\x03\x01\x02\x00", {400}),
        ("\r\n" * 20_000, {400}),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(door: Door, request_text: str, statuses: set[int]) -> None:
    with door.connect() as sock:
        text = request_text.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
        assert status_of(exchange(sock, (text + "\r\n").encode())) in statuses


def test_a_smuggled_request_is_none(door: Door, app: Client) -> None:
    """With both lengths there is one request, or none, but never a second one."""
    with door.connect() as sock:
        said = exchange(
            sock,
            b"POST /auth/challenge HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
            b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        )
    assert b'"ok"' not in said
    assert said.count(b"HTTP/1.1 ") <= 1


def test_an_upgrade_is_not_heard(nobody: Client) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13",
               "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
    assert nobody("GET", "/sessions", **headers).status == 401
    assert nobody("GET", "/health").status == 200


def test_two_requests_in_one_breath_get_two_answers(door: Door) -> None:
    one = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with door.connect() as sock:
        assert exchange(sock, one + one + last).count(b"HTTP/1.1 200") == 3


# --- the hub, and other machines ----------------------------------------------------------------


def test_while_the_hub_is_away_there_is_503(
    run_root: Path, tmp_path: Path, permanent_threads: None
) -> None:
    run_dir = run_root / "http-lost"
    run_dir.mkdir(mode=0o700)
    grid = Grid(run_dir, tmp_path)
    try:
        with Door(grid.endpoints) as door:
            client = door.client(APP)
            assert client("GET", "/sessions").status == 200
            grid.kill()
            reply = eventually_ok(client, "GET", "/sessions", 503)
            assert int(reply.headers["retry-after"]) > 0
            assert str(run_dir) not in reply.body.decode()
            assert client("GET", "/health").status == 200
            grid.start()
            # A new hub knows none of the old tokens.
            eventually_ok(client, "GET", "/sessions", 401)
            client.token = ""
            client.log_in(APP)
            assert client("GET", "/sessions").status == 200
            client.close()
    finally:
        grid.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "*"])
def test_other_machines_are_served_with_a_certificate_only(host: str) -> None:
    door = Door([], host=host)
    door.close()
    assert "plain HTTP only on this machine" in door.error or "cannot listen" in door.error
    assert door.url == ""


def test_with_a_certificate_it_is_https(grid: Grid) -> None:
    cert = {"cert": str(PEM), "names": ["grid.example.org"]}
    security = ssl.create_default_context(cafile=str(PEM))
    with Door(grid.endpoints, host="0.0.0.0", **cert) as door:
        assert door.url.startswith("https://")
        client = Client(door.port, security)
        assert client("GET", "/health").status == 200
        assert client("GET", "/health", Host="grid.example.org").status == 200
        assert client("GET", "/health", Host="evil.example").status == 421
        assert client("GET", "/health", Origin="http://localhost").status == 403
        client.log_in(APP)
        assert client("GET", "/sessions").status == 200
        client.close()
        with door.connect() as sock:
            plain = exchange(sock, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in plain


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cert": "/nowhere.pem"}, "cannot be used"),
        ({"key": str(PEM)}, "without a certificate"),
        ({"names": ["a b"]}, "'a b' is no name"),
        ({"host": "no.such.host.invalid"}, "no such host"),
    ],
)
def test_settings_that_will_not_do_are_named(fields: dict[str, Any], words: str) -> None:
    door = Door([], **fields)
    door.close()
    assert words in door.error


def test_a_port_that_is_taken_is_named(door: Door) -> None:
    second = Door([], port=door.port)
    second.close()
    assert f"127.0.0.1:{door.port}" in second.error
    assert "--http" in second.error


def test_a_door_that_died_is_opened_again(grid: Grid) -> None:
    with Door(grid.endpoints) as door:
        first = door.process.pid
        os.kill(first, signal.SIGKILL)
        events = [door.reports.get(timeout=30) for _ in range(2)]
        assert [event["event"] for event in events] == ["ended", "ready"]
        assert door.process.pid not in {0, first}


def test_who_guesses_is_slowed_down(grid: Grid) -> None:
    # a rate that nobody's machine is too slow to exceed
    with Door(grid.endpoints, Limits(tries=1.0)) as door, closing(door.client()) as client:
        replies = [client("POST", "/auth/challenge", {"key": "x"}) for _ in range(80)]
        assert replies[0].status == 400
        assert replies[-1].why == (429, "rate")


def test_nothing_secret_is_shown(app: Client, door: Door) -> None:
    assert app.token.startswith("gu_token_")
    body = json.dumps([app("GET", path).json() for path in ("/sessions", "/images")])
    assert app.token not in body
