"""What each route asks the hub, and what it makes of the answers."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from guactors import errors
from guactors import messages as m
from guactors.images.manifest import CHUNK
from guactors.security.statements import HELLO_TYPE
from guactors.web import guard
from guactors.web.settings import Limits
from tests.unit.web.bench import BLOB, IMAGE, KEY, TOKEN, Answer, Door, b64

CHUNK_PATH = f"/images/{IMAGE}/blobs/{BLOB}/chunks/3"
DEPLOYED = "/sessions/s-1/peers/box/deployments"
EXPIRES = 1_900_000_000.0
WHEN = "2030-03-17T17:46:40Z"


@pytest.fixture
def door() -> Door:
    return Door()


def allow_uploads(door: Door) -> None:
    door.hub.says(m.UseToken, m.Allowed(1, KEY, 10))


# --- tokens -------------------------------------------------------------------------------------


def test_a_challenge_is_handed_on(door: Door) -> None:
    door.hub.says(m.AskChallenge, m.ChallengeIs(1, b"\x01\x02", "gu_hub_x"))
    reply = door("POST", "/auth/challenge", {"key": KEY}, token=None)
    assert reply.status == 200
    assert reply.json() == {"nonce": "0102", "hub": "gu_hub_x", "type": HELLO_TYPE,
                            "expires_in": 60}  # fmt: skip
    assert door.hub.asked == [("", m.AskChallenge(0, KEY))]


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_signed_statement_buys_a_token(door: Door, encode: Any) -> None:
    door.hub.says(m.AskToken, m.TokenIs(1, "gu_token_new", KEY, EXPIRES))
    statement, signature = b"\xff\xfestatement", b"\xfb\xef" * 32
    form = {
        "statement": encode(statement).decode().rstrip("="),
        "signature": encode(signature).decode(),
    }
    reply = door("POST", "/auth/session", form, token=None)
    assert reply.status == 201
    assert reply.json() == {"token": "gu_token_new", "expires": WHEN, "key": KEY}
    assert door.hub.asked == [("", m.AskToken(0, statement, signature))]
    door.hub.says(m.AskSessions, m.SessionList(1, []))
    assert door("GET", "/sessions", token="gu_token_new").status == 200


def test_a_token_that_the_hub_refuses_is_none(door: Door) -> None:
    fault = errors.AuthFailed("the challenge is unknown, over, or was answered before [replay]")
    door.hub.says(m.AskToken, fault)
    form = {"statement": b64(b"x"), "signature": b64(bytes(64))}
    reply = door("POST", "/auth/session", form, token=None)
    assert (reply.status, reply.reason) == (401, "replay")
    assert reply.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "form",
    [
        {"statement": "%%%", "signature": b64(bytes(64))},
        {"statement": b64(b"x"), "signature": b64(bytes(63))},
        {"statement": b64(b"x")},
        {"statement": b64(b"x"), "signature": 7},
        {"statement": "x" * 12_001, "signature": b64(bytes(64))},
        [],
        "text",
        None,
    ],
)
def test_a_bad_form_never_reaches_the_hub(door: Door, form: Any) -> None:
    body = form if form is not None else b"null"
    reply = door("POST", "/auth/session", body, token=None)
    assert reply.status == 400
    assert reply.json()["error"] == "UsageError"
    assert door.hub.asked == []


def test_an_ended_token_is_good_no_more(door: Door) -> None:
    door.hub.says(m.DropToken, m.Done(1))
    assert door("DELETE", "/auth/session").status == 204
    assert door("DELETE", "/auth/session").status == 401
    assert door.hub.asked == [("", m.DropToken(0, TOKEN))]


# --- sessions -----------------------------------------------------------------------------------


def row(session: str = "s-1", age: float = 0.0) -> m.SessionRow:
    return m.SessionRow(session, KEY, "mine", 2, age)


def test_a_session_is_reserved(door: Door) -> None:
    door.hub.says(m.ReserveSession, m.Done(1, "s-77"))
    reply = door("POST", "/sessions", {"name": "mine", "seconds": 60})
    assert reply.status == 201
    assert reply.headers["location"] == "/sessions/s-77"
    assert reply.json()["id"] == "s-77"
    assert door.hub.asked == [("", m.ReserveSession(0, TOKEN, "mine", 60.0))]


def test_a_session_needs_no_name(door: Door) -> None:
    door.hub.says(m.ReserveSession, m.Done(1, "s-77"))
    assert door("POST", "/sessions", {}).status == 201
    assert door.hub.asked == [("", m.ReserveSession(0, TOKEN, "", 3600.0))]


@pytest.mark.parametrize(
    "form",
    [
        {"seconds": 0},
        {"seconds": -1},
        {"seconds": 86_401},
        {"seconds": "60"},
        {"seconds": True},
        {"name": "x" * 257},
        {"name": None},
        {"nmae": "mine"},
        b'{"seconds": NaN}',
        b'{"seconds": Infinity}',
        b'{"seconds": 1e999}',
        b'{"name": "\\ud800"}',
        b"{",
        b"\xff",
        b"",
    ],
)
def test_what_is_no_session_is_refused(door: Door, form: Any) -> None:
    reply = door("POST", "/sessions", form)
    assert (reply.status, reply.reason) == (400, "malformed")
    assert door.hub.asked == []


@pytest.mark.parametrize("opening", [b"[", b'{"name":', b'[{"a":'])
def test_deep_json_is_refused(door: Door, opening: bytes) -> None:
    deep = opening * (Limits().document // len(opening))
    assert (door("POST", "/sessions", deep).status, door.hub.asked) == (400, [])


def test_sessions_are_listed(door: Door) -> None:
    door.hub.says(m.AskSessions, m.SessionList(1, [row(), row("s-2")]))
    found = door("GET", "/sessions").json()
    assert [one["id"] for one in found] == ["s-1", "s-2"]
    assert found[0] | {"created": ""} == {
        "id": "s-1", "principal": KEY, "name": "mine", "callers": 2, "created": "",
    }  # fmt: skip
    assert found[0]["created"].endswith("Z")
    assert door("GET", "/sessions/s-2").json()["id"] == "s-2"
    assert door("GET", "/sessions/s-3").status == 404
    assert {question for _, question in door.hub.asked} == {m.AskSessions(0, TOKEN)}


def test_a_session_is_closed(door: Door) -> None:
    door.hub.says(m.CloseSession, m.Done(1))
    assert door("DELETE", "/sessions/s-1").status == 204
    assert door.hub.asked == [("", m.CloseSession(0, "s-1", TOKEN))]
    door.hub.says(m.CloseSession, errors.UsageError("no session s-1 of yours is open"))
    assert door("DELETE", "/sessions/s-1").status == 404
    assert door("DELETE", "/sessions/" + "s" * 65).status == 404


# --- uploads ------------------------------------------------------------------------------------

MANIFEST = b'{"format":"guactors.image/1"}'
ID = "sha3-256:" + hashlib.sha3_256(MANIFEST).hexdigest()


def test_an_offer_says_what_is_missing(door: Door) -> None:
    wanted = [m.ChunkList(BLOB, [0, 3])]
    door.hub.says(m.OfferImage, m.WantChunks(1, ID, wanted))
    reply = door("POST", "/images", {"manifest": b64(MANIFEST), "signatures": b64(b"{}")})
    assert reply.status == 202
    assert reply.json() == {"image": ID, "missing": {BLOB: [0, 3]}}
    assert door.hub.asked == [(KEY, m.OfferImage(0, MANIFEST, b"{}", TOKEN))]


def test_an_offer_of_what_is_there_is_done(door: Door) -> None:
    door.hub.says(m.OfferImage, m.Done(1, "it is here already"))
    reply = door("POST", "/images", {"manifest": b64(MANIFEST)})
    assert reply.status == 200
    assert reply.json() == {"image": ID, "missing": {}}


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (errors.ImageRefused("no manifest"), 422),
        (errors.UsageError("4 uploads are open already"), 409),
        (errors.MailboxFull("too many"), 429),
        (errors.PermissionDenied("no grant [action]"), 403),
    ],
)
def test_an_offer_may_be_refused(door: Door, fault: Answer, status: int) -> None:
    door.hub.says(m.OfferImage, fault)
    reply = door("POST", "/images", {"manifest": b64(MANIFEST)})
    assert reply.status == status
    assert reply.json()["error"] == type(fault).__name__


def test_the_largest_manifest_fits(door: Door) -> None:
    door.hub.says(m.OfferImage, m.Done(1))
    largest = b64(bytes(262_144))
    reply = door("POST", "/images", {"manifest": largest, "signatures": largest})
    assert reply.status == 200
    assert door("POST", "/images", {"manifest": largest + "AAAA"}).status == 400
    assert door("POST", "/images", {"manifest": "A" * 349_528}).status == 413
    assert door("POST", "/images", b" " * 720_897).status == 413
    assert len(door.hub.asked) == 1


def test_a_chunk_goes_to_the_hub_on_the_bearers_own_line(door: Door) -> None:
    allow_uploads(door)
    door.hub.says(m.PutChunk, m.Done(1))
    assert door("PUT", CHUNK_PATH, b"data").status == 204
    assert door.hub.asked == [
        ("", m.UseToken(0, TOKEN, "upload_images", IMAGE)),
        (KEY, m.PutChunk(0, IMAGE, BLOB, 3, b"data")),
    ]


def test_a_chunk_may_come_in_pieces_of_unknown_number(door: Door) -> None:
    allow_uploads(door)
    door.hub.says(m.PutChunk, m.Done(1))
    kind = {"content_type": "application/octet-stream"}
    assert door("PUT", CHUNK_PATH, chunks=[b"da", b"", b"ta"], **kind).status == 204
    assert door.hub.asked[-1] == (KEY, m.PutChunk(0, IMAGE, BLOB, 3, b"data"))
    pieces = [bytes(2**20)] * 4
    assert door("PUT", CHUNK_PATH, chunks=pieces, **kind).status == 204
    reply = door("PUT", CHUNK_PATH, chunks=[*pieces, b"x"], **kind)
    assert (reply.status, reply.reason) == (413, "too_large")


def test_without_the_right_no_chunk_is_read(door: Door) -> None:
    door.hub.says(m.UseToken, errors.PermissionDenied("no grant of it allows that [action]"))
    for method, path in (("PUT", CHUNK_PATH), ("POST", f"/images/{IMAGE}/seal")):
        reply = door(method, path, b"data" if method == "PUT" else None)
        assert (reply.status, reply.reason) == (403, "action")
    assert set(door.hub.questions()) == {"UseToken"}


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (errors.UsageError("no upload of the image is open"), 409),
        (errors.ImageRefused("the chunk has another hash"), 422),
        (errors.HubUnreachable("gone"), 503),
    ],
)
def test_a_chunk_may_be_refused(door: Door, fault: Answer, status: int) -> None:
    allow_uploads(door)
    door.hub.says(m.PutChunk, fault)
    assert door("PUT", CHUNK_PATH, b"data").status == status


def test_a_sealed_image_has_a_place(door: Door) -> None:
    allow_uploads(door)
    door.hub.says(m.SealImage, m.Done(1))
    reply = door("POST", f"/images/{IMAGE}/seal")
    assert (reply.status, reply.json()) == (201, {"image": IMAGE})
    assert reply.headers["location"] == f"/images/{IMAGE}"
    assert door.hub.asked[-1] == (KEY, m.SealImage(0, IMAGE))


@pytest.mark.parametrize("fault", [errors.UsageError("no upload"), errors.ImageRefused("a gap")])
def test_an_incomplete_image_is_not_sealed(door: Door, fault: Answer) -> None:
    allow_uploads(door)
    door.hub.says(m.SealImage, fault)
    assert door("POST", f"/images/{IMAGE}/seal").status == 409


# --- what is there ------------------------------------------------------------------------------


def test_images_are_listed(door: Door) -> None:
    rows = [m.ImageRow(IMAGE, "one", 7, "2026-01-01T00:00:00Z", ["gu_signer_x"], used)
            for used in (0.0, EXPIRES)]  # fmt: skip
    door.hub.says(m.AskImages, m.ImageList(1, rows))
    found = door("GET", "/images").json()
    assert [one["last_used"] for one in found] == [None, WHEN]
    assert found[0] | {"last_used": 0} == {
        "image": IMAGE, "name": "one", "size": 7, "created": "2026-01-01T00:00:00Z",
        "signers": ["gu_signer_x"], "last_used": 0,
    }  # fmt: skip
    assert door.hub.asked == [(KEY, m.AskImages(0, TOKEN))]


def test_an_image_is_shown_byte_for_byte(door: Door) -> None:
    door.hub.says(m.AskImage, m.ImageIs(1, MANIFEST, b"\xff\x00"))
    reply = door("GET", f"/images/{IMAGE}")
    assert reply.json() == {
        "image": IMAGE, "manifest": b64(MANIFEST), "signatures": b64(b"\xff\x00"),
    }  # fmt: skip
    assert door.hub.asked == [(KEY, m.AskImage(0, IMAGE, TOKEN))]


def test_a_chunk_is_sent_in_pieces_after_the_bearer_was_judged(door: Door) -> None:
    data = bytes(range(256)) * (CHUNK // 256)
    door.hub.says(m.AskImage, m.ImageIs(1, MANIFEST))
    door.hub.says(m.AskChunk, m.ChunkIs(1, data))
    reply = door("GET", CHUNK_PATH)
    assert (reply.status, reply.body == data) == (200, True)
    assert reply.pieces == CHUNK // 65_536
    assert reply.headers["content-type"] == "application/octet-stream"
    assert door.hub.questions() == ["AskImage", "AskChunk"]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072])
def test_no_byte_is_lost_between_pieces(door: Door, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    door.hub.says(m.AskImage, m.ImageIs(1, MANIFEST))
    door.hub.says(m.AskChunk, m.ChunkIs(1, data))
    reply = door("GET", CHUNK_PATH)
    assert reply.body == data
    assert reply.headers["content-length"] == str(size)


def test_what_the_bearer_may_not_have_is_not_there(door: Door) -> None:
    door.hub.says(m.AskImage, errors.ImageRefused("no such image"))
    for path in (f"/images/{IMAGE}", CHUNK_PATH):
        assert door("GET", path).status == 404
    assert set(door.hub.questions()) == {"AskImage"}


def test_a_chunk_that_no_image_has_is_not_there(door: Door) -> None:
    door.hub.says(m.AskImage, m.ImageIs(1, MANIFEST))
    door.hub.says(m.AskChunk, errors.UsageError("the image has no chunk 3"))
    assert door("GET", CHUNK_PATH).status == 404


@pytest.mark.parametrize("there", [True, False])
def test_an_image_that_is_not_removed_is_in_use_or_not_there(door: Door, there: bool) -> None:
    door.hub.says(m.RemoveImage, errors.ImageRefused("it is being fetched, or is not there"))
    door.hub.says(m.AskImage, m.ImageIs(1, MANIFEST) if there else errors.ImageRefused("none"))
    assert door("DELETE", f"/images/{IMAGE}").status == (409 if there else 404)


def test_an_image_is_removed(door: Door) -> None:
    door.hub.says(m.RemoveImage, m.Done(1))
    assert door("DELETE", f"/images/{IMAGE}").status == 204
    assert door.hub.asked == [(KEY, m.RemoveImage(0, IMAGE, TOKEN))]


@pytest.mark.parametrize(
    "path",
    [
        "/images/latest",
        "/images/sha256:" + "a" * 64,
        f"/images/{IMAGE[:-1]}",
        f"/images/{IMAGE}\n",
        f"/images/{IMAGE}/blobs/../chunks/0",
        f"/images/{IMAGE}/blobs/{BLOB}x/chunks/0",
        f"/images/{IMAGE}/blobs/{BLOB}/chunks/-1",
        f"/images/{IMAGE}/blobs/{BLOB}/chunks/4096",
        f"/images/{IMAGE}/blobs/{BLOB}/chunks/1e3",
        "/images/",
        "/nothing",
        "//images",
        "/docs",
        "/redoc",
    ],
)
def test_what_is_no_place_is_not_there(door: Door, path: str) -> None:
    reply = door("GET", path)
    assert (reply.status, reply.reason) == (404, "not_found")
    assert door.hub.asked == []


# --- all routes ---------------------------------------------------------------------------------


def routes() -> list[tuple[str, str]]:
    """Every route there is, with an example of its path."""
    document = Door()("GET", "/openapi.json", token=None).json()
    example = {"{image}": IMAGE, "{blob}": BLOB, "{index}": "0", "{session}": "s-1",
               "{node}": "box", "{id}": "hd::1"}  # fmt: skip
    found = [("GET", "/openapi.json")]
    for path, methods in document["paths"].items():
        for name, text in example.items():
            path = path.replace(name, text)  # noqa: PLW2901
        needed = "?path=x" if path.endswith("/files") else ""
        found += [(method.upper(), path + needed) for method in methods]
    return found


def test_the_document_has_every_route() -> None:
    assert len(routes()) == 31
    assert set(routes()) >= guard.PUBLIC


PRIVATE = sorted(set(routes()) - guard.PUBLIC)


@pytest.mark.parametrize(("method", "path"), PRIVATE)
@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer gu_token_unknown", f"Basic {TOKEN}", TOKEN, "Bearer ü"]
)
def test_without_a_good_token_nothing_is_asked(
    door: Door, method: str, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"authorization": header}
    reply = door(method, path, token=None, **headers)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert reply.reason == "token"
    assert door.hub.asked == []


@pytest.mark.parametrize("place", ["query", "cookie"])
def test_a_token_elsewhere_is_none(door: Door, place: str) -> None:
    path = f"/sessions?access_token={TOKEN}" if place == "query" else "/sessions"
    headers = (
        {"cookie": f"token={TOKEN}; authorization=Bearer {TOKEN}"} if place == "cookie" else {}
    )
    assert door("GET", path, token=None, **headers).status == 401


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/sessions", "/health", "/nothing", "/auth/challenge"])
def test_other_verbs_need_a_token_too(door: Door, method: str, path: str) -> None:
    assert door(method, path, token=None).status == 401
    expected = 404 if path == "/nothing" else 405
    assert door(method, path).status == expected


BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/sessions"): {},
    ("POST", "/images"): {"manifest": b64(MANIFEST)},
    ("PUT", f"/images/{IMAGE}/blobs/{BLOB}/chunks/0"): b"data",
    ("POST", "/sessions/s-1/warrant"): {"statement": b64(b"x"), "signature": b64(bytes(64))},
    ("POST", f"{DEPLOYED}"): {"envType": "hd", "image": {"hash": IMAGE}, "name": "", "tags": []},
    ("POST", "/sessions/s-1/plan"): {},
    ("POST", "/sessions/s-1/reservations"): {"name": "nightly", "seconds": 60},
    ("PATCH", f"{DEPLOYED}/hd::1"): ["open"],
    ("PUT", f"{DEPLOYED}/hd::1/files?path=x"): b"data",
}


@pytest.mark.parametrize(("method", "path"), PRIVATE)
@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        (errors.AuthFailed("the token has expired [unknown_key]"), 401, "unknown_key"),
        (errors.PermissionDenied("no grant allows that [action]"), 403, "action"),
        (errors.MailboxFull("too many"), 429, ""),
        (errors.HubUnreachable("nobody at ipc:///somewhere/hub"), 503, "hub"),
        (errors.InternalError("oh"), 500, ""),
    ],
)
def test_the_hubs_refusals_are_passed_on(
    door: Door, method: str, path: str, fault: errors.GuactorsError, status: int, reason: str
) -> None:
    for question in (
        m.DropToken, m.AskSessions, m.ReserveSession, m.CloseSession, m.OfferImage, m.UseToken,
        m.AskImages, m.AskImage, m.RemoveImage, m.SignSession,
    ):  # fmt: skip
        door.hub.says(question, fault)
    reply = door(method, path, BODIES.get((method, path)))
    assert (reply.status, reply.reason) == (status, reason)
    assert reply.json()["error"] == type(fault).__name__
    assert "somewhere" not in reply.body.decode()
    assert "[" not in reply.json()["detail"]
    assert ("www-authenticate" in reply.headers) is (status == 401)
    assert ("retry-after" in reply.headers) is (status in {429, 503})
    assert len(door.hub.asked) == 1, "what is refused is not asked again"


def test_a_bug_is_told_without_its_story(door: Door) -> None:
    def broken(_question: m.Message) -> Answer:
        raise RuntimeError(TOKEN)

    door.hub.says(m.AskSessions, broken)
    with pytest.raises(RuntimeError):  # the server below logs it
        door("GET", "/sessions")


# --- how much -----------------------------------------------------------------------------------


def test_tries_for_tokens_are_limited(door: Door) -> None:
    door.hub.says(m.AskChallenge, m.ChallengeIs(1, b"n", "h"))
    replies = [door("POST", "/auth/challenge", {"key": KEY}, token=None) for _ in range(60)]
    assert replies[0].status == 200
    late = replies[-1]
    assert (late.status, late.reason) == (429, "rate")
    assert int(late.headers["retry-after"]) >= 1
    elsewhere = door("POST", "/auth/challenge", {"key": KEY}, token=None, client="127.0.0.2")
    assert elsewhere.status == 200
    assert door("GET", "/health", token=None).status == 200


def test_one_key_cannot_keep_the_hub_busy() -> None:
    door = Door(Limits(asks=2.0, all_asks=100.0))
    door.app._bearers.gave("other", "gu_app_two", float("inf"))
    door.app._bearers.gave("again", KEY, float("inf"))
    door.hub.says(m.AskSessions, m.SessionList(1, []))
    assert [door("GET", "/sessions").status for _ in range(5)] == [200] * 4 + [429]
    assert door("GET", "/sessions", token="again").why == (429, "rate"), "it is the same key"
    assert door("GET", "/sessions", token="other").status == 200
    assert len(door.hub.asked) == 5


def test_one_key_cannot_have_all_the_memory() -> None:
    door = Door(Limits(held=100, of_bearer=60))
    door.app._bearers.gave("other", "gu_app_two", float("inf"))
    allow_uploads(door)
    within: list[int] = []

    def put(question: m.PutChunk) -> Answer:
        if question.index == 3:
            for token in (TOKEN, "other"):
                # Another request while the first one is being served.
                taken = door.app._budget.take(KEY if token == TOKEN else "gu_app_two", 40)
                within.append(taken)
        return m.Done(1)

    door.hub.says(m.PutChunk, put)
    assert door("PUT", CHUNK_PATH, bytes(40)).status == 204
    assert within == [False, True]
    door.app._budget.give("gu_app_two", 40)
    reply = door("PUT", CHUNK_PATH, bytes(61))
    assert (reply.status, reply.reason) == (503, "busy")
    door.app._budget.check()
    assert repr(door.app._budget) == "<Budget 0 of 100>", "all of it was given back"


def test_a_download_counts_as_well() -> None:
    door = Door(Limits(held=CHUNK, of_bearer=CHUNK - 1))
    door.hub.says(m.AskImage, m.ImageIs(1, MANIFEST))
    reply = door("GET", CHUNK_PATH)
    assert (reply.status, reply.reason) == (503, "busy")
    assert door.hub.questions() == ["AskImage"]
