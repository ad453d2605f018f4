"""The doorkeeper's rule: the member key enters, nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.transport.zap import DOMAIN, answer

KEY = bytes(range(32))
GOOD = [b"1.0", b"7", DOMAIN, b"127.0.0.1", b"", b"CURVE", KEY]


def test_the_member_enters() -> None:
    assert answer(GOOD, KEY) == [b"1.0", b"7", b"200", b"OK", b"member", b""]


@pytest.mark.parametrize(
    ("place", "wrong", "status"),
    [
        (0, b"2.0", b"500"),
        (2, b"", b"400"),
        (2, b"global", b"400"),
        (5, b"NULL", b"400"),
        (5, b"PLAIN", b"400"),
        (6, bytes(32), b"400"),
        (6, KEY[:-1], b"400"),
        (6, KEY + b"\x00", b"400"),
    ],
)
def test_everything_else_stays_out(place: int, wrong: bytes, status: bytes) -> None:
    request = [*GOOD[:place], wrong, *GOOD[place + 1 :]]
    reply = answer(request, KEY)
    assert reply[:3] == [b"1.0", b"7", status]
    assert reply[4] == b""


def test_without_a_member_key_nobody_enters() -> None:
    assert answer([*GOOD[:6], b""], b"")[2] == b"400"


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_any_request_gets_a_reply(request: list[bytes]) -> None:
    reply = answer(request, KEY)
    assert len(reply) == 6
    assert reply[2] in {b"400", b"500"}
