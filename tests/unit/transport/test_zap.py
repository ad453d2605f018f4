"""The doorkeeper's rule: the listener's own doors decide, and nothing is admitted that is not fully
understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.transport.doors import AllBut, KeySet
from guactors.transport.zap import DOMAIN, answer

KEY = bytes(range(32))
NAME = KEY.hex()
HERE = DOMAIN + b".0"
GOOD = [b"1.0", b"7", HERE, b"127.0.0.1", b"", b"CURVE", KEY]
DOORS = {HERE: KeySet([NAME]), DOMAIN + b".1": KeySet()}


def test_a_known_key_enters_and_becomes_the_user_id() -> None:
    assert answer(GOOD, DOORS, bytes.hex) == [b"1.0", b"7", b"200", b"OK", NAME.encode(), b""]


@pytest.mark.parametrize(
    ("place", "wrong", "status"),
    [
        (0, b"2.0", b"500"),
        (2, b"", b"400"),
        (2, b"global", b"400"),
        (2, DOMAIN, b"400"),
        (2, DOMAIN + b".1", b"400"),
        (2, DOMAIN + b".2", b"400"),
        (5, b"NULL", b"400"),
        (5, b"PLAIN", b"400"),
        (6, bytes(32), b"400"),
        (6, KEY[:-1], b"400"),
        (6, KEY + b"\x00", b"400"),
        (6, b"", b"400"),
    ],
)
def test_everything_else_stays_out(place: int, wrong: bytes, status: bytes) -> None:
    request = [*GOOD[:place], wrong, *GOOD[place + 1 :]]
    reply = answer(request, DOORS, bytes.hex)
    assert reply[:3] == [b"1.0", b"7", status]
    assert reply[4] == b""


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_any_request_gets_a_reply(request: list[bytes]) -> None:
    reply = answer(request, DOORS, bytes.hex)
    assert len(reply) == 6
    assert reply[2] in {b"400", b"500"}


def test_an_expelled_key_never_comes_back() -> None:
    doors = KeySet(["a"])
    doors.admit(["b", ""])
    assert [doors.admits(key) for key in ("a", "b", "", "c")] == [True, True, False, False]
    doors.expel(["a", "c"])
    doors.admit(["a", "c"])
    assert [doors.admits(key) for key in ("a", "b", "c")] == [False, True, False]


def test_who_is_shut_out_is_the_only_one() -> None:
    doors = AllBut()
    doors.shut_out(["a", ""])
    assert [doors.admits(key) for key in ("a", "b", "")] == [False, True, True]
