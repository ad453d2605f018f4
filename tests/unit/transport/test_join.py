"""The join address: what goes in comes out, and each mistake has a message of its own."""

from __future__ import annotations

import re
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.config import Identity
from guactors.errors import UsageError
from guactors.join import (
    JoinAddress,
    endpoint_of,
    format_join,
    identity_from_join,
    parse_join,
)

# The key pair of the Z85 and CurveZMQ documents; nobody's secret.
PUBLIC = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
SECRET = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"
ADDRESS = JoinAddress("hub.example", 61621, PUBLIC, SECRET)
TEXT = format_join(ADDRESS)
TYPO = TEXT[:60] + ("a" if TEXT[60] != "a" else "b") + TEXT[61:]
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def z85(key: bytes) -> str:
    """As the specification has it, one digit at a time."""
    text = ""
    for start in range(0, len(key), 4):
        value = int.from_bytes(key[start : start + 4], "big")
        text += "".join(Z85[value // 85**power % 85] for power in range(4, -1, -1))
    return text


@given(
    st.sampled_from(["10.0.0.1", "hub", "a.b-c.example", "::1", "fe80::1%eth0"]),
    st.integers(1, 65535),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
)
def test_round_trip(host: str, port: int, public: bytes, secret: bytes) -> None:
    address = JoinAddress(host, port, z85(public), z85(secret))
    text = format_join(address)
    assert parse_join(text) == address
    assert parse_join(f"  {text}\n") == address


def test_form() -> None:
    assert TEXT.startswith("gu://hub.example:61621?key=")
    key = TEXT.partition("key=")[2]
    assert len(key) == 111
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert parse_join(TEXT.replace(key, key.upper())) == ADDRESS


def test_ipv6_has_brackets() -> None:
    address = JoinAddress("::1", 61621, PUBLIC, SECRET)
    assert format_join(address).startswith("gu://[::1]:61621?key=")
    assert endpoint_of(address).control == "tcp://[::1]:61621"


def test_every_single_typing_error_is_found() -> None:
    start = TEXT.index("key=") + 4
    for place in range(start, len(TEXT)):
        wrong = "a" if TEXT[place] != "a" else "b"
        with pytest.raises(UsageError):
            parse_join(TEXT[:place] + wrong + TEXT[place + 1 :])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no scheme"),
        ("hub:61621", "no scheme"),
        (TEXT.replace("gu://", "http://"), "begins with 'http'"),
        (TEXT.replace(":61621", ""), "no port"),
        (TEXT.replace("61621", "0"), "'0' is no port"),
        (TEXT.replace("61621", "99999"), "'99999' is no port"),
        (TEXT.replace("61621", "x"), "'x' is no port"),
        (TEXT.replace("hub.example", ""), "'' is no host"),
        (TEXT.replace("hub.example", "::1"), "IPv6 needs brackets"),
        (TEXT.replace("hub.example", "[::1"), "is no host"),
        (TEXT.partition("?")[0], "has no key"),
        (TEXT.replace("key=", "token="), "has no key"),
        (TEXT[:-1] + "1", "characters that no key has"),
        (TEXT[:-20], "cut short"),
        (TEXT + TEXT[-16:], "too long"),
        (TYPO, "typing error"),
    ],
)
def test_each_mistake_has_its_message(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)):
        parse_join(text)


def test_a_later_version_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guactors.join.VERSION", 2)
    later = format_join(ADDRESS)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="has version 2, this guactors knows 1"):
        parse_join(later)


def test_the_secret_is_not_shown() -> None:
    key = TEXT.partition("key=")[2]
    assert SECRET not in repr(ADDRESS)
    assert SECRET not in str(ADDRESS)
    for broken in (TEXT[:-1] + "1", TEXT[:-20], TYPO):
        with pytest.raises(UsageError) as caught:
            parse_join(broken)
        shown = "".join(traceback.format_exception_only(caught.value))
        assert key[40:80] not in shown
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "address",
    [
        JoinAddress("", 1, PUBLIC, SECRET),
        JoinAddress("a b", 1, PUBLIC, SECRET),
        JoinAddress("hub", 0, PUBLIC, SECRET),
        JoinAddress("hub", 1, PUBLIC[:-1], SECRET),
        JoinAddress("hub", 1, PUBLIC, "ä" * 40),
        JoinAddress("hub", 1, "", ""),
    ],
)
def test_what_cannot_be_an_address_is_not_written(address: JoinAddress) -> None:
    with pytest.raises(UsageError):
        format_join(address)


def test_the_member_dials_with_the_derived_key() -> None:
    identity = identity_from_join(ADDRESS, lambda secret: f"public of {secret}")
    assert identity == Identity(member_public=f"public of {SECRET}", member_secret=SECRET)
    endpoint = endpoint_of(ADDRESS)
    assert endpoint.control == endpoint.data == "tcp://hub.example:61621"
    assert endpoint.server_key == PUBLIC
