"""Succession: the chain from an old key to the one it has become, and every break of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from guactors.errors import AuthFailed, UsageError
from guactors.security import canonical
from guactors.security.keys import Kind, SecretKey
from guactors.security.signing import Envelope, seal
from guactors.security.succession import (
    LONGEST,
    SUCCESSION_TYPE,
    Succession,
    follow,
    name_successor,
    open_succession,
)
from tests.unit.security.samples import secret

KEYS = [secret(Kind.PROVIDER, number) for number in range(1, 7)]
CHAIN = [name_successor(old, new, at) for at, (old, new) in enumerate(itertools.pairwise(KEYS))]


def statement(old: SecretKey, new: SecretKey, kind: str = "provider") -> bytes:
    return canonical.encode(
        Succession("guactors.succession/1", kind, old.public.text, new.public.text, 7)
    )


@given(st.permutations(CHAIN), st.integers(0, len(KEYS) - 1))
def test_the_last_key_is_found_from_any_and_in_any_order(chain: list[Envelope], start: int) -> None:
    assert follow(chain, KEYS[start].public) == KEYS[-1].public


def test_a_key_without_successor_stays() -> None:
    assert follow([], KEYS[0].public) == KEYS[0].public
    assert follow(CHAIN[1:], KEYS[0].public) == KEYS[0].public
    assert follow(CHAIN, secret(Kind.PROVIDER, 99).public) == secret(Kind.PROVIDER, 99).public


def test_a_missing_link_ends_the_chain() -> None:
    assert follow([*CHAIN[:2], *CHAIN[3:]], KEYS[0].public) == KEYS[2].public


def test_the_statement_is_this() -> None:
    """It is in files: a change needs another version."""
    envelope = name_successor(KEYS[0], KEYS[1], 7)
    assert envelope == seal(KEYS[0], SUCCESSION_TYPE, statement(*KEYS[:2]), beside=[KEYS[1]])
    assert (
        statement(*KEYS[:2])
        == (
            '{"at":7,"format":"guactors.succession/1","kind":"provider",'
            f'"new":"{KEYS[1].public.text}","old":"{KEYS[0].public.text}"}}'
        ).encode()
    )
    assert open_succession(envelope) == (KEYS[0].public, KEYS[1].public)


def test_the_same_statement_twice_is_no_fork() -> None:
    again = name_successor(KEYS[0], KEYS[1], 2000)
    assert follow([*CHAIN, CHAIN[0], again], KEYS[0].public) == KEYS[-1].public


def test_two_successors_of_one_key_are_refused() -> None:
    fork = name_successor(KEYS[2], secret(Kind.PROVIDER, 50), 9)
    for start in (KEYS[0], KEYS[5]):
        with pytest.raises(AuthFailed, match=f"{KEYS[2].public.short} names two successors"):
            follow([*CHAIN, fork], start.public)


def test_a_chain_that_comes_back_is_refused() -> None:
    back = name_successor(KEYS[-1], KEYS[2], 9)
    with pytest.raises(AuthFailed, match=f"comes back to {KEYS[2].public.short}"):
        follow([*CHAIN, back], KEYS[0].public)


def test_the_length_is_limited() -> None:
    assert follow(CHAIN[:1] * LONGEST, KEYS[0].public) == KEYS[1].public
    with pytest.raises(AuthFailed, match="65 statements of succession are too many"):
        follow(CHAIN[:1] * (LONGEST + 1), KEYS[0].public)


def test_a_key_follows_another_of_its_kind() -> None:
    with pytest.raises(UsageError, match="app key cannot follow a key of kind provider"):
        name_successor(KEYS[0], secret(Kind.APP), 7)
    with pytest.raises(UsageError, match="cannot follow itself"):
        name_successor(KEYS[0], KEYS[0], 7)


SIGNERS: dict[str, list[SecretKey]] = {
    "old alone": [KEYS[0]],
    "new alone": [KEYS[1]],
    "one of three others": [KEYS[2], KEYS[3]],
    "old and another": [KEYS[0], KEYS[2]],
    "new and another": [KEYS[1], KEYS[2]],
    "a third beside them": KEYS[:3],
}


@pytest.mark.parametrize("signers", SIGNERS.values(), ids=SIGNERS)
def test_exactly_both_keys_sign(signers: list[SecretKey]) -> None:
    forged = seal(signers[0], SUCCESSION_TYPE, statement(*KEYS[:2]), beside=signers[1:])
    with pytest.raises(AuthFailed, match="must be signed by exactly these two"):
        follow([forged], KEYS[0].public)


def test_a_bad_signature_anywhere_refuses_the_chain() -> None:
    for at, signer in itertools.product(range(len(CHAIN)), (0, 1)):
        other = CHAIN[at - 1].signatures[signer].sig
        signatures = list(CHAIN[at].signatures)
        signatures[signer] = replace(signatures[signer], sig=other)
        forged = replace(CHAIN[at], signatures=signatures)
        with pytest.raises(AuthFailed, match="is wrong"):
            follow([*CHAIN[:at], forged, *CHAIN[at + 1 :]], KEYS[0].public)


@pytest.mark.parametrize(
    ("old", "new", "kind", "fault"),
    [
        (KEYS[0], secret(Kind.APP), "provider", "keys of two kinds"),
        (KEYS[0], secret(Kind.APP), "app", "keys of two kinds"),
        (KEYS[0], KEYS[1], "app", "keys of two kinds"),
        (KEYS[0], KEYS[1], "king", "keys of two kinds"),
    ],
)
def test_kinds_agree(old: SecretKey, new: SecretKey, kind: str, fault: str) -> None:
    forged = seal(old, SUCCESSION_TYPE, statement(old, new, kind), beside=[new])
    with pytest.raises(AuthFailed, match=fault):
        follow([forged], KEYS[0].public)


def test_a_key_cannot_follow_itself_though_it_signed() -> None:
    forged = seal(KEYS[0], SUCCESSION_TYPE, statement(KEYS[0], KEYS[0]))
    with pytest.raises(AuthFailed, match="two different keys"):
        follow([forged], KEYS[0].public)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "succession statement is damaged"),
        (b"{}", "succession statement is damaged"),
        (statement(*KEYS[:2]) + b" ", "canonical form"),
        (statement(*KEYS[:2]).replace(b"succession/1", b"succession/2"), "is damaged"),
        (statement(*KEYS[:2]).replace(b"gu_provider_", b"gu_app_"), "typing error"),
        (
            statement(*KEYS[:2]).replace(KEYS[1].public.text.encode(), KEYS[1].text.encode()),
            "SECRET key",
        ),
    ],
)
def test_a_signed_statement_is_still_read_strictly(body: bytes, fault: str) -> None:
    forged = seal(KEYS[0], SUCCESSION_TYPE, body, beside=[KEYS[1]])
    with pytest.raises(AuthFailed, match=fault):
        follow([forged], KEYS[0].public)


def test_a_statement_of_another_type_does_not_count() -> None:
    forged = seal(KEYS[0], "text/plain", statement(*KEYS[:2]), beside=[KEYS[1]])
    with pytest.raises(AuthFailed, match="but this is signed as 'text/plain'"):
        follow([forged], KEYS[0].public)
