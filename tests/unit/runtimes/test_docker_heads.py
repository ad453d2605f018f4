"""Heads of HTTP, as they should be and as they should not."""

from __future__ import annotations

import pytest

from guactors.errors import InternalError, ProtocolError
from guactors.runtimes.docker.heads import MOST, parse_head, request_head, upgrade_request

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: x/y\r\nConnection: Upgrade\r\n\r\n"


def test_what_follows_belongs_to_the_program() -> None:
    found = parse_head(UPGRADED + b"\1\0\0\0rest\r\n\r\n")
    assert found is not None
    head, rest = found
    assert (head.status, head.fields["content-type"], rest) == (101, "x/y", b"\1\0\0\0rest\r\n\r\n")
    assert head.length is None


@pytest.mark.parametrize("size", range(len(UPGRADED) - 1))
def test_a_part_of_a_head_is_none(size: int) -> None:
    assert parse_head(UPGRADED[:size]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 20000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
    ],
)
def test_what_is_no_head_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_head(data)


def test_a_head_has_an_end() -> None:
    with pytest.raises(ProtocolError, match=str(MOST)):
        parse_head(b"HTTP/1.1 200 OK\r\nA: " + b"x" * MOST)


@pytest.mark.parametrize("text", ["-1", "1e3", "", "٣", "9" * 30])
def test_a_length_is_a_number(text: str) -> None:
    found = parse_head(f"HTTP/1.1 200 OK\r\nContent-Length: {text}\r\n\r\n".encode())
    assert found is not None
    with pytest.raises(ProtocolError):
        _ = found[0].length


def test_a_request_is_one_request() -> None:
    wire = upgrade_request("/v1.41/exec/ab/start", b"{}")
    assert wire.startswith(b"POST /v1.41/exec/ab/start HTTP/1.1\r\n")
    assert wire.endswith(b"Content-Length: 2\r\n\r\n{}")
    for path in ("/a b", "/a\r\nX: y", "/\xe9"):
        with pytest.raises(InternalError):
            request_head("GET", path, {})
    with pytest.raises(InternalError):
        request_head("GET", "/", {"Host": "a\nb"})
