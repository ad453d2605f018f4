"""The checks of a request's head, each refusal by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.images.manifest import CHUNK
from guactors.web import guard
from guactors.web.guard import Headers, Refusal
from guactors.web.settings import Limits

HOST = "127.0.0.1:61622"
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
LIMITS = Limits()


def head(*more: tuple[str, str], host: str | None = HOST) -> Headers:
    own = [] if host is None else [("host", host)]
    return [(name.encode(), value.encode("latin-1")) for name, value in [*own, *more]]


def judge(
    method: str = "GET",
    path: str = "/sessions",
    headers: Headers | None = None,
    *,
    local: str = "127.0.0.1",
    names: tuple[str, ...] = (),
    target: bytes = b"/sessions",
) -> Refusal | None:
    return guard.judge_head(
        method,
        path,
        target,
        head() if headers is None else headers,
        scheme="http",
        local=local,
        names=guard.lower_names(names),
        limits=LIMITS,
    )


def refused(*args: Any, **kwargs: Any) -> tuple[int, str]:
    found = judge(*args, **kwargs)
    assert found is not None
    assert found.detail
    return found.status, found.reason


# --- Host ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("localhost", ("localhost", None)),
        ("LocalHost:80", ("localhost", 80)),
        ("127.0.0.1:61622", ("127.0.0.1", 61622)),
        ("[::1]:61622", ("::1", 61622)),
        ("[::1]", ("::1", None)),
        ("grid.example.org:8443", ("grid.example.org", 8443)),
        ("", None),
        (":80", None),
        ("host:", None),
        ("host:0", None),
        ("host:65536", None),
        ("host:123456", None),
        ("host:8x", None),
        ("host:٣", None),
        ("::1", None),
        ("[::1", None),
        ("[::1]x", None),
        ("[127.0.0.1]", None),
        ("user@host", None),
        ("host/path", None),
        ("host ", None),
        ("host.", None),
        (".host", None),
        ("a" * 300, None),
    ],
)
def test_a_host_is_split(text: str, parts: tuple[str, int | None] | None) -> None:
    assert guard.split_host(text) == parts


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9", "localhost:61622", "[::1]:61622"])
def test_loopback_has_its_usual_names(host: str) -> None:
    assert judge(headers=head(host=host)) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "2.0.0.127", "0"]
)
@pytest.mark.parametrize("method", VERBS)
def test_a_rebound_name_is_refused_for_every_verb(method: str, host: str) -> None:
    assert refused(method, headers=head(host=host)) == (421, "host")


def test_localhost_is_no_name_of_an_outward_address() -> None:
    assert refused(headers=head(host="localhost"), local="192.0.2.7") == (421, "host")
    assert judge(headers=head(host="192.0.2.7:1"), local="192.0.2.7") is None
    assert refused(headers=head(host="192.0.2.8"), local="192.0.2.7") == (421, "host")


def test_a_name_it_was_told_is_its_own() -> None:
    names = ("Grid.example.org",)
    assert judge(headers=head(host="grid.EXAMPLE.org:1"), local="192.0.2.7", names=names) is None
    assert refused(headers=head(host="example.org"), names=names) == (421, "host")


def test_an_ipv4_address_in_ipv6_clothes_is_the_same() -> None:
    assert guard.host_fits("127.0.0.1:1", (), "::ffff:127.0.0.1")
    assert guard.host_fits("localhost", (), "::ffff:127.0.0.1")


@pytest.mark.parametrize(
    "headers",
    [head(host=None), head(("host", HOST)), head(("host", "evil.example"))],
    ids=["none", "twice", "two"],
)
def test_there_is_exactly_one_host(headers: Headers) -> None:
    assert refused(headers=headers) == (421, "host")


@given(st.text(max_size=40))
def test_no_host_breaks_it(text: str) -> None:
    parts = guard.split_host(text)
    if parts is not None:
        assert parts[0] == parts[0].lower()
    assert not guard.host_fits(text + ".evil.example", (), "127.0.0.1")


@pytest.mark.parametrize("name", ["", "a b", "http://x", "x:80", "[::1]:80", "ü"])
def test_what_is_no_name_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"^" + name.replace("[", r"\[") + "$"):
        guard.lower_names([name])


def test_names_may_be_addresses() -> None:
    assert guard.lower_names(["::1", "[FE80::1]", "A.b"]) == {"::1", "fe80::1", "a.b"}


# --- Origin -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", VERBS)
@pytest.mark.parametrize(
    "header",
    [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", ""),
        ("origin", "https://127.0.0.1:61622"),
        ("origin", "http://127.0.0.1"),
        ("origin", "http://localhost:61622"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "something-new"),
    ],
)
def test_another_origin_is_refused_for_every_verb(method: str, header: tuple[str, str]) -> None:
    assert refused(method, headers=head(header)) == (403, "origin")


def test_our_own_origin_is_none_of_others() -> None:
    same = ("origin", f"http://{HOST}"), ("sec-fetch-site", "same-origin")
    assert judge(headers=head(*same)) is None
    assert judge(headers=head(("sec-fetch-site", "none"))) is None
    both = head(*same, ("origin", "http://evil.example"))
    assert refused(headers=both) == (403, "origin")


def test_the_host_is_looked_at_before_the_origin() -> None:
    """A rebound page's origin is its own, and so is its Host."""
    headers = head(("origin", "http://evil.example"), host="evil.example")
    assert refused(headers=headers) == (421, "host")


# --- Authorization ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "token"),
    [
        (["Bearer gu_token_abc"], "gu_token_abc"),
        (["bearer gu_token_abc"], "gu_token_abc"),
        (["Bearer   gu_token_abc "], "gu_token_abc"),
        ([], None),
        (["Bearer"], None),
        (["Bearer "], None),
        (["Basic gu_token_abc"], None),
        (["Bearer a b"], None),
        (["Bearer a,b"], None),
        (["Bearer ü"], None),
        (["gu_token_abc"], None),
        (["Bearer " + "a" * 257], None),
        (["Bearer a", "Bearer a"], None),
    ],
)
def test_the_bearer(values: list[str], token: str | None) -> None:
    assert guard.bearer_of(head(*[("authorization", value) for value in values])) == token


def test_who_has_no_token_hears_how_to_get_one() -> None:
    without, bad = guard.no_token(), guard.no_token("it is old")
    assert (without.status, bad.status) == (401, 401)
    assert without.headers["WWW-Authenticate"] == 'Bearer realm="guactors"'
    assert bad.headers["WWW-Authenticate"].endswith('error="invalid_token"')
    assert "/auth/challenge" in without.detail


# --- sizes and kinds ----------------------------------------------------------------------------


def body(size: int | None, kind: str = "application/json") -> Headers:
    length = ("transfer-encoding", "chunked") if size is None else ("content-length", str(size))
    return head(length, *([("content-type", kind)] if kind else []))


PUT_PATH = "/images/x/blobs/y/chunks/0"


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/sessions", LIMITS.document),
        ("POST", "/auth/session", LIMITS.document),
        ("POST", "/images", LIMITS.manifest),
        ("POST", "/images/x/seal", LIMITS.document),
        ("PUT", PUT_PATH, CHUNK),
    ],
)
def test_bodies_have_a_limit(method: str, path: str, limit: int) -> None:
    kind = guard.RAW if method == "PUT" else guard.JSON
    assert guard.body_limit(method, path, LIMITS) == limit
    assert judge(method, path, body(limit, kind)) is None
    assert refused(method, path, body(limit + 1, kind)) == (413, "too_large")
    assert judge(method, path, body(None, kind)) is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("size", [1, None])
def test_the_other_verbs_take_no_body(method: str, size: int | None) -> None:
    assert refused(method, "/sessions", body(size)) == (413, "too_large")
    assert judge(method, "/sessions", body(0, "")) is None


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
             "application/json; charset=utf-16", "application/json, text/plain",
             "application/jsonx", "application/merge-patch+json"],
)  # fmt: skip
def test_documents_are_json(kind: str) -> None:
    assert refused("POST", "/sessions", body(2, kind)) == (415, "media_type")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=UTF-8"])
def test_json_is_json(kind: str) -> None:
    assert judge("POST", "/sessions", body(2, kind)) is None


def test_chunks_are_raw() -> None:
    assert refused("PUT", PUT_PATH, body(2, "application/json")) == (415, "media_type")
    assert judge("PUT", PUT_PATH, body(2, "")) is None


def test_two_kinds_are_none() -> None:
    headers = body(2) + head(("content-type", "text/plain"), host=None)
    assert refused("POST", "/sessions", headers) == (415, "media_type")


def test_header_lines_and_targets_have_limits() -> None:
    most = [(f"x-{number}", "1") for number in range(LIMITS.headers - 1)]
    assert judge(headers=head(*most)) is None
    assert refused(headers=head(*most, ("x-more", "1"))) == (431, "headers")
    assert refused(headers=head(("x", "a" * LIMITS.head_bytes))) == (431, "headers")
    assert refused(target=b"/" + b"a" * LIMITS.target) == (414, "target")


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::1"),
        ("", ""),
    ],
)
def test_whom_connections_count_for(address: str, network: str) -> None:
    assert guard.network_of(address) == network


@pytest.mark.parametrize(
    ("address", "here"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True),
     ("0.0.0.0", False), ("::", False), ("192.0.2.7", False), ("localhost", False), ("", False)],
)  # fmt: skip
def test_what_only_this_machine_reaches(address: str, here: bool) -> None:
    assert guard.is_loopback(address) is here
