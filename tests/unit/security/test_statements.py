"""What is signed at the door of a hub, and what a provider believes of a session."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import AuthFailed
from guactors.messages import WarrantWord
from guactors.security import canonical
from guactors.security.grants import Reason
from guactors.security.keys import Kind
from guactors.security.signing import envelope_text
from guactors.security.statements import (
    HELLO_TYPE,
    SKEW,
    WARRANT_MOST,
    check_statement,
    check_warrant,
    former_keys,
    judge_statement,
    make_statement,
    read_statement,
)
from guactors.security.succession import LONGEST, SUCCESSION_TYPE, name_successor
from tests.unit.security.samples import public, secret

NOW = 1_800_000_000
HUB, APP, OWNER = public(Kind.HUB), secret(Kind.APP), secret(Kind.OWNER)
NONCE = bytes(range(32))
TEXTS = {"link": "k-1", "peer": "c-1", "role": "caller", "session": "s-1", "transport": "t" * 40}
DAY = 86_400


def statement(**other: Any) -> bytes:
    fields: dict[str, Any] = {
        "hub": HUB.text, "key": APP.public.text, "nonce": NONCE, "at": NOW, **TEXTS,
    }  # fmt: skip
    return make_statement(**fields | other)


def check(said: bytes, signature: bytes | None = None, **other: Any) -> None:
    fields: dict[str, Any] = {
        "key": APP.public, "hub": HUB, "nonce": NONCE, "now": float(NOW), **TEXTS,
    }  # fmt: skip
    signature = APP.sign(HELLO_TYPE, said) if signature is None else signature
    check_statement(said, signature, **fields | other)


def test_a_good_statement_passes() -> None:
    check(statement())


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("hub", public(Kind.HUB, 2).text, Reason.WRONG_HUB),
        ("key", public(Kind.APP, 2).text, Reason.BAD_SIGNATURE),
        ("nonce", bytes(32), Reason.REPLAY),
        ("link", "k-2", Reason.REPLAY),
        ("peer", "c-2", Reason.REPLAY),
        ("role", "provider", Reason.REPLAY),
        ("session", "s-2", Reason.SESSION),
        ("session", "", Reason.SESSION),
        ("transport", "u" * 40, Reason.REPLAY),
    ],
)
def test_a_statement_for_something_else_is_refused_by_its_field(
    field: str, value: Any, reason: Reason
) -> None:
    said = statement(**{field: value})
    with pytest.raises(AuthFailed, match=f"the {field} in the statement"):
        check(said)
    refusal = judge_statement(
        said, APP.sign(HELLO_TYPE, said), key=APP.public, hub=HUB, nonce=NONCE, now=NOW, **TEXTS
    )
    assert refusal is not None
    assert refusal.reason is reason


@pytest.mark.parametrize("skew", [SKEW + 1, -SKEW - 1, 10 * DAY])
def test_a_clock_far_off_is_named(skew: float) -> None:
    with pytest.raises(AuthFailed, match="set the clocks"):
        check(statement(), now=NOW + skew)


@pytest.mark.parametrize("skew", [SKEW, -SKEW])
def test_a_clock_a_little_off_is_no_fault(skew: float) -> None:
    check(statement(), now=NOW + skew)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        bytes(64),
        secret(Kind.APP, 2).sign(HELLO_TYPE, statement()),
        APP.sign(SUCCESSION_TYPE, statement()),
        APP.sign(HELLO_TYPE, statement(at=NOW + 1)),
    ],
    ids=["none", "zeros", "of another key", "of another type", "of another statement"],
)
def test_a_wrong_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(AuthFailed, match="signature"):
        check(statement(), signature)


@given(st.integers(0, len(statement()) - 1), st.integers(1, 255))
def test_no_byte_of_a_statement_can_change(place: int, change: int) -> None:
    said = statement()
    changed = said[:place] + bytes([said[place] ^ change]) + said[place + 1 :]
    with pytest.raises(AuthFailed):
        check(changed, APP.sign(HELLO_TYPE, said))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b"\xff",
        statement() + b" ",
        statement().replace(b"hello/1", b"hello/2"),
        canonical.encode({**canonical.decode(statement(), dict, what="it"), "more": 1}),
        statement(peer="c" * 9000),
    ],
    ids=["empty", "no fields", "null", "no text", "a space", "version", "a field more", "long"],
)
def test_what_is_no_statement_is_refused(data: bytes) -> None:
    with pytest.raises(AuthFailed, match="the statement"):
        check(data)
    with pytest.raises(AuthFailed):
        read_statement(data)


def test_an_error_shows_what_a_stranger_wrote_as_one_line() -> None:
    with pytest.raises(AuthFailed) as caught:
        check(statement(peer="c-1\n\x1b[31mroot"))
    assert str(caught.value).isprintable()


# --- warrants -----------------------------------------------------------------------------------


def warrant(key: Any = APP, session: str = "s-1", **other: Any) -> WarrantWord:
    successions = other.pop("successions", [])
    said = statement(**{"key": key.public.text} | other)
    return WarrantWord(session, key.public.text, said, key.sign(HELLO_TYPE, said), [], successions)


def judged(word: WarrantWord, now: float = NOW, owners: Any = (OWNER.public,)) -> Any:
    return check_warrant(word, hub=HUB, owners=owners, now=now)


@pytest.mark.parametrize("key", [APP, OWNER])
@pytest.mark.parametrize("age", [-SKEW, 0, WARRANT_MOST])
def test_a_warrant_holds_for_a_month(key: Any, age: float) -> None:
    assert judged(warrant(key), NOW + age) == key.public


@pytest.mark.parametrize(
    ("word", "named"),
    [
        (warrant(hub=public(Kind.HUB, 2).text), "the hub in"),
        (warrant(session="s-2"), "the session in"),
        (warrant(role="provider"), "the role in"),
        (warrant(at=NOW - WARRANT_MOST - 1), "too long ago"),
        (warrant(at=NOW + 2 * DAY), "ahead of this clock"),
        (warrant(secret(Kind.PROVIDER)), "an app or owner key"),
        (warrant(secret(Kind.OWNER, 2)), "none of the owners"),
        (WarrantWord("s-1", ""), "no key"),
        (WarrantWord("", APP.public.text), "no session"),
        (WarrantWord("s-1", "gu_app_x"), "key is wrong"),
        (WarrantWord("s-1", APP.public.text, statement(), bytes(64)), "signature"),
        (
            WarrantWord(
                "s-1", public(Kind.APP, 2).text, statement(), APP.sign(HELLO_TYPE, statement())
            ),
            "the key in",
        ),
        (warrant(successions=[b"{}"]), "succession"),
    ],
    ids=["hub", "session", "role", "old", "future", "kind", "owner", "no key", "no session",
         "no text of a key", "signature", "another key", "succession"],
)  # fmt: skip
def test_a_wrong_warrant_is_refused_by_what_is_wrong(word: WarrantWord, named: str) -> None:
    with pytest.raises(AuthFailed, match=named):
        judged(word)


def test_a_clock_that_shows_no_time_admits_nobody() -> None:
    with pytest.raises(AuthFailed):
        judged(warrant(), float("nan"))


def follows(old: Any, new: Any) -> bytes:
    return envelope_text(name_successor(old, new, NOW))


def owner(number: int) -> Any:
    return secret(Kind.OWNER, number)


def test_an_owner_may_follow_one_who_is_known() -> None:
    chain = [follows(owner(2), owner(3)), follows(OWNER, owner(2))]
    assert judged(warrant(owner(3), successions=chain)) == owner(3).public
    with pytest.raises(AuthFailed, match="none of the owners"):
        judged(warrant(owner(3), successions=chain[:1]))


# --- succession ---------------------------------------------------------------------------------


def test_former_keys_are_those_of_the_chain_and_no_others() -> None:
    keys = [secret(Kind.APP, number) for number in range(1, 6)]
    steps = [follows(old, new) for old, new in pairwise(keys[:4])]
    aside = follows(keys[4], secret(Kind.APP, 9))
    assert former_keys([*reversed(steps), aside], keys[3].public) == {k.public for k in keys[:3]}
    assert former_keys([], keys[3].public) == frozenset()


@pytest.mark.parametrize(
    "steps",
    [
        [follows(APP, secret(Kind.APP, 2)), follows(APP, secret(Kind.APP, 3))],
        [follows(secret(Kind.APP, 2), APP), follows(APP, secret(Kind.APP, 2))],
        [follows(secret(Kind.APP, 2), secret(Kind.APP, 3))],
        [b"no envelope"],
        [follows(APP, secret(Kind.APP, 2)).replace(b"a", b"b", 1)],
        [follows(APP, secret(Kind.APP, 2))] * (LONGEST + 1),
    ],
    ids=["two successors", "a ring", "given up", "no envelope", "changed", "too many"],
)
def test_a_wrong_chain_is_refused(steps: list[bytes]) -> None:
    with pytest.raises(AuthFailed):
        former_keys(steps, public(Kind.APP, 2))
