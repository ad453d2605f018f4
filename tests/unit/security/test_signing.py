"""Envelopes and detached signatures: who signed what, and every way to get it wrong."""

from __future__ import annotations

import base64
import statistics
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from guactors.errors import AuthFailed, UsageError
from guactors.security import canonical
from guactors.security.keys import Kind, PublicKey, new_secret
from guactors.security.signing import (
    ENVELOPE_LIMIT,
    SIGNATURES,
    Detached,
    Envelope,
    Signature,
    envelope_text,
    open_detached,
    open_envelope,
    open_signed_by_all,
    parse_envelope,
    seal,
    sign_detached,
)
from tests.unit.security.samples import public, secret

TYPE = "application/vnd.guactors.test.v1+json"
BODY = b'{"may":"everything"}'
OWNERS = [secret(Kind.OWNER, number) for number in (1, 2, 3)]
ONE, TWO, THREE = (owner.public for owner in OWNERS)
SEALED = seal(OWNERS[0], TYPE, BODY)
BOTH = seal(OWNERS[0], TYPE, BODY, beside=[OWNERS[1]])


def pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def with_sig(envelope: Envelope, sig: str, at: int = 0) -> Envelope:
    signatures = list(envelope.signatures)
    signatures[at] = replace(signatures[at], sig=sig)
    return replace(envelope, signatures=signatures)


def spoiled(sig: str) -> str:
    return ("A" if sig[0] != "A" else "B") + sig[1:]


@given(st.binary(max_size=300), st.integers(0, 2))
def test_what_is_sealed_opens(body: bytes, signer: int) -> None:
    data = envelope_text(seal(OWNERS[signer], TYPE, body))
    opened, by = open_envelope(parse_envelope(data, "it"), TYPE, [ONE, TWO, THREE])
    assert (opened, by) == (body, OWNERS[signer].public)


def test_the_text_of_an_envelope_is_this() -> None:
    """It is in files: a change needs another version."""
    signature = OWNERS[0].sign(TYPE, BODY)
    assert envelope_text(SEALED) == (
        '{"payload":"eyJtYXkiOiJldmVyeXRoaW5nIn0","payload_type":"' + TYPE + '",'
        '"signatures":[{"key":"' + ONE.text + '","sig":"' + pack(signature) + '"}]}'
    ).encode()  # fmt: skip


@pytest.mark.parametrize("trusted", [[ONE], (ONE, TWO), {ONE}, frozenset([ONE, THREE]), {ONE: 1}])
def test_trusted_keys_come_in_any_collection(trusted: list[PublicKey]) -> None:
    assert open_envelope(SEALED, TYPE, trusted) == (BODY, ONE)


def test_one_trusted_signature_of_several_is_enough() -> None:
    assert open_envelope(BOTH, TYPE, [TWO]) == (BODY, TWO)
    assert open_envelope(BOTH, TYPE, [TWO, ONE]) == (BODY, ONE)
    stranger_spoiled = with_sig(BOTH, spoiled(BOTH.signatures[0].sig))
    assert open_envelope(stranger_spoiled, TYPE, [TWO]) == (BODY, TWO)


def test_a_bad_signature_of_a_trusted_key_refuses_all() -> None:
    changed = with_sig(BOTH, spoiled(BOTH.signatures[1].sig), 1)
    with pytest.raises(AuthFailed, match=f"signature by {TWO.text} is wrong"):
        open_envelope(changed, TYPE, [ONE, TWO])


@pytest.mark.parametrize("trusted", [[], [TWO], [public(Kind.APP)], [PublicKey(Kind.HUB, ONE.raw)]])
def test_nobody_trusted_signed_it(trusted: list[PublicKey]) -> None:
    with pytest.raises(AuthFailed, match=f"signed by nobody trusted here, but by {ONE.short}"):
        open_envelope(SEALED, TYPE, trusted)


def test_a_signature_for_another_purpose_does_not_count() -> None:
    with pytest.raises(AuthFailed, match=r"'text/other' is needed, but this is signed as 'applica"):
        open_envelope(SEALED, "text/other", [ONE])
    with pytest.raises(AuthFailed, match="is wrong"):
        open_envelope(replace(SEALED, payload_type="text/other"), "text/other", [ONE])


def test_a_signature_by_another_key_in_its_name_does_not_count() -> None:
    theirs = seal(OWNERS[1], TYPE, BODY).signatures[0]
    forged = replace(SEALED, signatures=[Signature(ONE.text, theirs.sig)])
    with pytest.raises(AuthFailed, match="is wrong"):
        open_envelope(forged, TYPE, [ONE])


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(place: int, bit: int) -> None:
    data = bytearray(envelope_text(SEALED))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises((AuthFailed, UsageError)):
        open_envelope(parse_envelope(bytes(data), "it"), TYPE, [ONE])


@given(st.binary(max_size=40))
def test_another_payload_is_noticed(body: bytes) -> None:
    if body != BODY:
        with pytest.raises(AuthFailed, match="is wrong"):
            open_envelope(replace(SEALED, payload=pack(body)), TYPE, [ONE])


PADDED = SEALED.payload + "=" * (-len(SEALED.payload) % 4)
STRANGE_BASE64: dict[str, Callable[[str], str]] = {
    "padding": lambda text: text + "=",
    "full padding": lambda text: text + "=" * (-len(text) % 4),
    "line end": lambda text: text + "\n",
    "space": lambda text: text[:4] + " " + text[4:],
    "marks that decoders skip": lambda text: text[:4] + "!!" + text[4:],
    "one too few": lambda text: text[: len(text) // 4 * 4 + 1],
    "spare bits": lambda text: text[:-1] + chr(ord(text[-1]) + 1),
    "another alphabet": lambda text: text.replace("_", "/").replace("-", "+") + "+/+/",
    "letters of others": lambda text: text[:-1] + "é",
}


@pytest.mark.parametrize("change", STRANGE_BASE64.values(), ids=STRANGE_BASE64)
def test_base64_has_one_form(change: Callable[[str], str]) -> None:
    assert SEALED.payload != PADDED, "the payload must have spare bits for these tests"
    with pytest.raises(AuthFailed, match="the payload is damaged"):
        open_envelope(replace(SEALED, payload=change(SEALED.payload)), TYPE, [ONE])
    with pytest.raises(AuthFailed, match=f"the signature by {ONE.short} is damaged"):
        open_envelope(with_sig(SEALED, change(SEALED.signatures[0].sig)), TYPE, [ONE])


@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_a_signature_has_64_bytes(size: int) -> None:
    with pytest.raises(AuthFailed, match="cut short or too long"):
        open_envelope(with_sig(SEALED, pack(b"\x01" * size)), TYPE, [ONE])


def test_the_number_of_signatures_is_limited() -> None:
    many = [secret(Kind.SIGNER, number) for number in range(1, SIGNATURES + 2)]
    full = seal(OWNERS[0], TYPE, BODY, beside=many[: SIGNATURES - 1])
    assert open_envelope(full, TYPE, [ONE]) == (BODY, ONE)
    with pytest.raises(UsageError, match="1 to 8 different keys"):
        seal(OWNERS[0], TYPE, BODY, beside=many[:SIGNATURES])
    more = [*full.signatures, seal(many[-1], TYPE, BODY).signatures[0]]
    with pytest.raises(AuthFailed, match="has 9 signatures, not 1 to 8"):
        open_envelope(replace(full, signatures=more), TYPE, [ONE])
    with pytest.raises(AuthFailed, match="has 0 signatures"):
        open_envelope(replace(full, signatures=[]), TYPE, [ONE])


def test_a_key_signs_once() -> None:
    with pytest.raises(UsageError, match="different keys"):
        seal(OWNERS[0], TYPE, BODY, beside=[OWNERS[0]])
    twice = replace(SEALED, signatures=SEALED.signatures * 2)
    with pytest.raises(AuthFailed, match=f"two signatures by {ONE.short}"):
        open_envelope(twice, TYPE, [ONE])


@pytest.mark.parametrize("key", ["", "alice", ONE.text[:-1], ONE.text.upper(), OWNERS[0].text])
def test_a_signer_is_named_by_its_public_key(key: str) -> None:
    named = replace(SEALED, signatures=[replace(SEALED.signatures[0], key=key)])
    with pytest.raises(AuthFailed, match="names a wrong signer") as caught:
        open_envelope(named, TYPE, [ONE])
    assert OWNERS[0].text not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        envelope_text(SEALED) + b" ",
        envelope_text(SEALED).replace(b'"payload":', b'"payload": '),
        envelope_text(SEALED).replace(b'{"payload"', b'{"extra":1,"payload"'),
        envelope_text(SEALED).replace(b'"signatures":[{', b'"signatures":[{"extra":1,'),
        envelope_text(SEALED).replace(b'{"payload"', b'{"payload":"","payload"'),
        b" " * (ENVELOPE_LIMIT + 1),
    ],
)
def test_what_is_no_envelope_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"^the grant of bob is "):
        parse_envelope(data, "the grant of bob")


def test_the_largest_document_fits_an_envelope() -> None:
    many = [secret(Kind.SIGNER, number) for number in range(1, SIGNATURES)]
    whole = seal(OWNERS[0], TYPE, b"x" * canonical.LIMIT, beside=many)
    assert parse_envelope(envelope_text(whole), "it") == whole


def test_all_signers_are_found_when_all_are_good() -> None:
    assert open_signed_by_all(BOTH, TYPE) == (BODY, frozenset([ONE, TWO]))
    for at in (0, 1):
        with pytest.raises(AuthFailed, match="is wrong"):
            open_signed_by_all(with_sig(BOTH, spoiled(BOTH.signatures[at].sig), at), TYPE)


@given(st.binary(max_size=300))
def test_detached_signatures_verify(body: bytes) -> None:
    data = sign_detached(OWNERS[:2], TYPE, body)
    assert open_detached(data, TYPE, body) == frozenset([ONE, TWO])


def test_a_detached_signature_is_of_this_body_and_type() -> None:
    data = sign_detached(OWNERS[:1], TYPE, BODY)
    with pytest.raises(AuthFailed, match=f"signature by {ONE.text} is wrong"):
        open_detached(data, TYPE, BODY + b" ")
    with pytest.raises(AuthFailed, match="'text/other' is needed"):
        open_detached(data, "text/other", BODY)
    other = data.replace(TYPE.encode(), b"text/other")
    with pytest.raises(AuthFailed, match="is wrong"):
        open_detached(other, "text/other", BODY)


def test_one_bad_detached_signature_refuses_all() -> None:
    good = sign_detached(OWNERS, TYPE, BODY)
    for owner in OWNERS:
        sig = pack(owner.sign(TYPE, BODY))
        with pytest.raises(AuthFailed, match=f"signature by {owner.public.text} is wrong"):
            open_detached(good.replace(sig.encode(), spoiled(sig).encode()), TYPE, BODY)


def test_detached_signatures_are_limited_and_different() -> None:
    with pytest.raises(UsageError, match="1 to 8 different keys"):
        sign_detached([], TYPE, BODY)
    with pytest.raises(UsageError, match="1 to 8 different keys"):
        sign_detached([OWNERS[0], OWNERS[0]], TYPE, BODY)
    signature = SEALED.signatures[0]
    for signatures, fault in (
        ([], "has 0 signatures"),
        ([signature] * 2, "two signatures"),
        ([signature] * 9, "has 9 signatures"),
    ):
        data = canonical.encode(Detached(TYPE, signatures))
        with pytest.raises(AuthFailed, match=fault):
            open_detached(data, TYPE, BODY)


@pytest.mark.parametrize("data", [b"", b"{}", envelope_text(SEALED), b"\xff"])
def test_what_are_no_detached_signatures_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="the signature file is damaged"):
        open_detached(data, TYPE, BODY)


def test_opening_an_envelope_is_cheap() -> None:
    """0.3 ms is the aim, for a payload of 1 KiB; the bound has room for a busy machine."""
    data = envelope_text(seal(OWNERS[0], TYPE, b"x" * 1024))
    trusted = frozenset(new_secret(Kind.OWNER, bytes([n] * 32)).public for n in range(8)) | {ONE}
    taken = []
    for _ in range(200):
        start = time.perf_counter()
        open_envelope(parse_envelope(data, "it"), TYPE, trusted)
        taken.append(time.perf_counter() - start)
    assert statistics.median(taken) < 0.003
