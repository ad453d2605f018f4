"""The join address: what goes in comes out, and each mistake has a message of its own."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import UsageError
from guactors.join import (
    JoinAddress,
    endpoint_of,
    format_join,
    parse_join,
    without_invitation,
)
from guactors.security.keys import Kind, PublicKey

# A public key of the Z85 and CurveZMQ documents.
TRANSPORT = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
HUB = PublicKey(Kind.HUB, bytes(range(32))).text
OWNER = PublicKey(Kind.OWNER, bytes(range(1, 33))).text
ADDRESS = JoinAddress("hub.example", 61621, TRANSPORT, HUB, OWNER)
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
    st.lists(st.binary(min_size=32, max_size=32), min_size=3, max_size=3),
    st.sampled_from(["", "gu_invite_abc234"]),
)
def test_round_trip(host: str, port: int, keys: list[bytes], invitation: str) -> None:
    hub, owner = PublicKey(Kind.HUB, keys[1]).text, PublicKey(Kind.OWNER, keys[2]).text
    address = JoinAddress(host, port, z85(keys[0]), hub, owner, invitation)
    text = format_join(address)
    assert parse_join(text) == address
    assert parse_join(f"  {text}\n") == address
    assert invitation == "" or invitation not in without_invitation(text)


def test_form() -> None:
    assert TEXT.startswith("gu://hub.example:61621?hub=")
    keys = TEXT.partition("hub=")[2]
    assert len(keys) == 162
    assert set(keys) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert parse_join(TEXT.replace(keys, keys.upper())) == ADDRESS


def test_ipv6_has_brackets() -> None:
    address = JoinAddress("::1", 61621, TRANSPORT, HUB, OWNER)
    assert format_join(address).startswith("gu://[::1]:61621?hub=")
    assert endpoint_of(address).control == "tcp://[::1]:61621"


def test_every_single_typing_error_is_found() -> None:
    start = TEXT.index("hub=") + 4
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
        (TEXT.partition("?")[0], "does not say which hub"),
        (TEXT.replace("hub=", "token="), "a part that none has"),
        (TEXT.replace("hub=", "key="), "an older guactors"),
        (f"{TEXT}&hub=a", "a part that none has"),
        (f"{TEXT}&invite=", "a part that none has"),
        (f"{TEXT}&invite=a/b", "the invitation"),
        (f"{TEXT}&invite={'a' * 200}", "the invitation"),
        (TEXT[:-1] + "1", "characters that no key has"),
        (TEXT[:-20], "cut short"),
        (TEXT + TEXT[-16:], "too long"),
        (TYPO, "typing error"),
    ],
)
def test_each_mistake_has_its_message(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)):
        parse_join(text)


def test_another_version_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guactors.join.VERSION", 3)
    later = format_join(ADDRESS)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="has version 3, this guactors knows 2"):
        parse_join(later)


def test_an_invitation_is_not_shown() -> None:
    invited = JoinAddress("hub", 1, TRANSPORT, HUB, OWNER, "gu_invite_abc234")
    assert "abc234" not in repr(invited)
    with pytest.raises(UsageError) as caught:
        parse_join(f"{TEXT}&invite=gu/invite/abc234")
    assert "abc234" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        JoinAddress("", 1, TRANSPORT, HUB, OWNER),
        JoinAddress("a b", 1, TRANSPORT, HUB, OWNER),
        JoinAddress("a&b", 1, TRANSPORT, HUB, OWNER),
        JoinAddress("hub", 0, TRANSPORT, HUB, OWNER),
        JoinAddress("hub", 1, TRANSPORT[:-1], HUB, OWNER),
        JoinAddress("hub", 1, "ä" * 40, HUB, OWNER),
        JoinAddress("hub", 1, "", HUB, OWNER),
        JoinAddress("hub", 1, TRANSPORT, OWNER, OWNER),
        JoinAddress("hub", 1, TRANSPORT, HUB, HUB),
        JoinAddress("hub", 1, TRANSPORT, HUB, ""),
    ],
)
def test_what_cannot_be_an_address_is_not_written(address: JoinAddress) -> None:
    with pytest.raises(UsageError):
        format_join(address)


def test_the_endpoint_is_where_the_address_says() -> None:
    endpoint = endpoint_of(ADDRESS)
    assert endpoint.control == endpoint.data == "tcp://hub.example:61621"
    assert endpoint.server_key == TRANSPORT
