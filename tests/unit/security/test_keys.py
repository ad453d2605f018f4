"""Keys: their texts, what each mistake is called, and that no secret shows."""

from __future__ import annotations

import base64
import copy
import hashlib
import pickle
import traceback
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import UsageError
from guactors.security.keys import (
    Kind,
    PublicKey,
    SecretKey,
    new_secret,
    pae,
    parse_public,
    parse_secret,
)
from tests.unit.security.samples import public, secret, seed

APP = public(Kind.APP)
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
kinds = st.sampled_from(Kind)
seeds = st.binary(min_size=32, max_size=32)


def forge(prefix: str, head: bytes, raw: bytes = b"\x07" * 32) -> str:
    """A text with a checksum that fits, whatever it says."""
    body = head + raw
    whole = body + hashlib.sha3_256(prefix.encode() + body).digest()[:4]
    return prefix + base64.b32encode(whole).decode().rstrip("=").lower()


@given(kinds, seeds)
def test_texts_survive(kind: Kind, value: bytes) -> None:
    key = new_secret(kind, value)
    assert parse_secret(key.text, kind) == key
    assert parse_public(key.public.text, kind) == key.public
    assert key.text.startswith(f"gu_{kind.value}_secret_")
    assert key.public.text.startswith(f"gu_{kind.value}_")


def test_the_texts_are_these() -> None:
    """They are in grants and files of people: a change needs another version."""
    key = new_secret(Kind.OWNER, bytes(range(32)))
    assert key.public.text == (
        "gu_owner_aeaqaa5ba677htqqxyoxbxiy45f4bglh4tldbg5fbvpr3xegmqjfkmnyhvq5yqa"
    )
    assert key.text == (
        "gu_owner_secret_aeaqcaabaibqibiga4eascqlbqgq4dyqcejbgfavcylrqgi2dmob2hq75rfvjdy"
    )


def test_ed25519_is_that_of_rfc_8032() -> None:
    """Test 1 of section 7.1: the public key of this seed, by another implementation."""
    key = new_secret(
        Kind.SIGNER,
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),
    )
    assert key.public.raw.hex() == (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    )


def test_pae_is_that_of_dsse() -> None:
    """The example of the specification, and lengths counted in bytes."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


@given(kinds, seeds, st.text(BASE32 + "08-_ A", min_size=1, max_size=1), st.integers(0, 62))
def test_one_wrong_character_is_noticed(kind: Kind, value: bytes, mark: str, place: int) -> None:
    for text, parse in (
        (new_secret(kind, value).text, parse_secret),
        (new_secret(kind, value).public.text, parse_public),
    ):
        at = len(text) - 1 - place
        wrong = text[:at] + mark + text[at + 1 :]
        if wrong != text:
            with pytest.raises(UsageError, match=r"typing error|characters|spaces|no kind of key"):
                parse(wrong)


def test_a_key_has_one_text() -> None:
    """The last character of the base32 has three bits that no byte uses."""
    spare = BASE32.index(APP.text[-1])
    for other in range(spare + 1, spare + 8):
        with pytest.raises(UsageError, match="characters that no key has"):
            parse_public(APP.text[:-1] + BASE32[other])


@pytest.mark.parametrize(
    ("text", "kind", "fault"),
    [
        (public(Kind.SIGNER).text, Kind.APP, "^that is a signer key, an app key is needed$"),
        (APP.text, Kind.OWNER, "^that is an app key, an owner key is needed$"),
        (secret(Kind.APP).text, Kind.APP, "^that is a SECRET key: .* never paste it; a public key"),
        (secret(Kind.APP).text, Kind.HUB, "^that is a SECRET key"),
        (secret(Kind.APP).text[:-9], None, "^that is a SECRET key"),
        (APP.text[:-1], None, "is cut short"),
        (APP.text + "a", None, "is too long"),
        ("gu_app_", None, "is cut short"),
        (APP.text.upper(), None, "does not begin with gu_KIND_"),
        ("gu_app_" + APP.text[7:].upper(), None, "characters that no key has"),
        ("gu_app_" + "é" * 63, None, "characters that no key has"),
        ("gu_ape_" + APP.text[7:], None, "no kind of key has this prefix; there are gu_owner_"),
        ("gu_hub_" + APP.text[7:], None, r"gu_hub_\.\.\.\) has a typing error \(its checksum"),
        ("gu_app_" + secret(Kind.APP).text[14:], None, "typing error"),
        (forge("gu_app_", b"\x02\x04\x00"), None, "has version 2, this guactors knows 1"),
        (forge("gu_app_", b"\x01\x05\x00"), None, "contradicts itself"),
        (forge("gu_app_", b"\x01\x04\x01"), None, "contradicts itself"),
        ("", None, "it is empty"),
        (f" {APP.text}", None, "spaces or line ends around it"),
        (f"{APP.text}\n", None, "is too long"),
        ("gu://host:1?key=abc", None, "it is a join address"),
        ("0" * 40, None, "the length of a transport key"),
        ("alice", None, "does not begin with gu_KIND_"),
        (b"gu_app_", None, "a key is a text, not a bytes"),
        (None, None, "a key is a text, not a NoneType"),
    ],
)
def test_a_wrong_public_key_is_told_by_name(text: Any, kind: Kind | None, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        parse_public(text, kind)


@pytest.mark.parametrize(
    ("text", "kind", "fault"),
    [
        (secret(Kind.HUB).text, Kind.APP, "^that is a hub key, an app key is needed$"),
        (APP.text, Kind.APP, "^that is a public key: its secret key is needed"),
        (secret(Kind.APP).text[:-1], None, "cut short"),
        (secret(Kind.APP).text + "a", None, "too long"),
        ("gu_hub_secret_" + secret(Kind.APP).text[14:], None, "typing error"),
        ("gu_app_secret_" + APP.text[7:], None, "typing error"),
        (forge("gu_app_secret_", b"\x09\x04\x01"), None, "has version 9"),
        (forge("gu_app_secret_", b"\x01\x04\x00"), None, "contradicts itself"),
        ("secret", None, "that is no secret key"),
        (b"gu_app_secret_", None, "a key is a text"),
    ],
)
def test_a_wrong_secret_key_is_told_by_name(text: Any, kind: Kind | None, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        parse_secret(text, kind)


@pytest.mark.parametrize("parse", [parse_public, parse_secret])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda text: text[:-1],
        lambda text: text + "a",
        lambda text: text[:-1] + ("a" if text[-1] != "a" else "b"),
        lambda text: text.replace("gu_app_secret_", "gu_app_"),
        lambda text: text.replace("gu_app_secret_", "gu_hub_secret_"),
        lambda text: text.replace("gu_app_secret_", ""),
        lambda text: text.upper(),
        lambda text: f" {text}",
        lambda text: text[:40] + "é" + text[41:],
    ],
)
def test_no_error_quotes_what_may_be_a_secret(parse: Any, wrong: Any) -> None:
    text = secret(Kind.APP).text
    body = text.removeprefix("gu_app_secret_")
    with pytest.raises(UsageError) as caught:
        parse(wrong(text))
    told = "".join(traceback.format_exception(caught.value)).lower()
    assert not any(body[at : at + 8] in told for at in range(len(body) - 8))


def test_a_secret_key_does_not_show() -> None:
    key = secret(Kind.APP)
    shown = [repr(key), str(key), f"{key}", repr([key]), repr({"key": key})]
    for hidden in (key.text, key.text[14:], repr(key.seed), key.seed.hex(), "seed-app"):
        assert not any(hidden in text for text in shown)
    assert key.public.text in repr(key)


def test_a_secret_key_does_not_travel() -> None:
    key = secret(Kind.APP)
    with pytest.raises(TypeError, match="does not travel"):
        pickle.dumps(key)
    with pytest.raises(TypeError, match="does not travel"):
        copy.deepcopy([key])
    for encode in (msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins):
        with pytest.raises(TypeError):
            encode(key)


def test_a_secret_key_does_not_change() -> None:
    key = new_secret(Kind.APP, seed(Kind.APP))
    for name in ("kind", "seed", "other"):
        with pytest.raises(AttributeError, match=f"{name} cannot be set"):
            setattr(key, name, 1)
        with pytest.raises(AttributeError, match=f"{name} cannot be deleted"):
            delattr(key, name)


def test_secret_keys_are_equal_by_kind_and_seed() -> None:
    key = secret(Kind.APP)
    assert key == SecretKey(Kind.APP, seed(Kind.APP))
    assert hash(key) == hash(SecretKey(Kind.APP, seed(Kind.APP)))
    assert key != secret(Kind.APP, 2)
    assert key != SecretKey(Kind.HUB, key.seed)
    assert key != key.text


@pytest.mark.parametrize("raw", [b"", b"\x00" * 31, b"\x00" * 33, "\x00" * 32, bytearray(32), None])
@pytest.mark.parametrize("make", [PublicKey, SecretKey, new_secret])
def test_a_key_has_32_bytes(make: Any, raw: Any) -> None:
    with pytest.raises(UsageError, match="a key has 32 bytes"):
        make(Kind.APP, raw)


@pytest.mark.parametrize("make", [PublicKey, SecretKey])
def test_a_key_has_a_kind(make: Any) -> None:
    with pytest.raises(UsageError, match="has a Kind, not a str"):
        make("app", b"\x00" * 32)


def test_public_keys_are_ordered_by_text_and_fit_in_sets() -> None:
    keys = [public(kind, number) for kind in Kind for number in (1, 2, 3)]
    assert [key.text for key in sorted(keys)] == sorted(key.text for key in keys)
    assert len({*keys, *(PublicKey(key.kind, key.raw) for key in keys)}) == len(keys)
    assert PublicKey(Kind.APP, APP.raw) != PublicKey(Kind.HUB, APP.raw)
    with pytest.raises(AttributeError):
        APP.raw = b""  # type: ignore[misc]


def test_a_public_key_shows_its_text() -> None:
    assert str(APP) == APP.text
    assert APP.text in repr(APP)
    assert pickle.loads(pickle.dumps(APP)) == APP


def test_short_names_tell_keys_apart() -> None:
    raws = [hashlib.sha3_256(bytes([n % 256, n // 256])).digest() for n in range(2000)]
    keys = [PublicKey(Kind.APP, raw) for raw in raws]
    assert len({key.short for key in keys}) == len(keys)
    assert all(len(key.short) == len("gu_app_") + 8 for key in keys)
    assert APP.short.removeprefix("gu_app_") in APP.text


@given(seeds, st.text(max_size=20).filter(lambda text: text.isascii()), st.binary(max_size=200))
def test_what_is_signed_verifies(value: bytes, payload_type: str, body: bytes) -> None:
    key = new_secret(Kind.SIGNER, value)
    signature = key.sign(payload_type, body)
    assert len(signature) == 64
    assert key.sign(payload_type, body) == signature
    assert key.public.verify(payload_type, body, signature)
    assert not key.public.verify(payload_type + "x", body, signature)
    assert not key.public.verify(payload_type, body + b"x", signature)
    assert not secret(Kind.SIGNER).public.verify(payload_type, body, signature)


@given(st.integers(0, 64 * 8 - 1))
def test_any_flipped_bit_of_a_signature_is_noticed(bit: int) -> None:
    signature = bytearray(secret(Kind.APP).sign("t", b"body"))
    signature[bit // 8] ^= 1 << bit % 8
    assert not APP.verify("t", b"body", bytes(signature))


def test_type_and_body_cannot_be_shifted() -> None:
    """Without lengths "a" + " 1 b" and "a 1" + "b" could be one message."""
    signature = secret(Kind.APP).sign("ab", b"c")
    assert not APP.verify("a", b"bc", signature)
    assert not APP.verify("", b"abc", signature)


def test_a_part_of_what_was_signed_cannot_become_signature() -> None:
    """A signer of a body that quotes another document's encoding has not signed that document."""
    inner = pae("t", b"body")
    head = pae("t", inner).removesuffix(inner)
    signature = secret(Kind.APP).sign("t", inner)
    assert APP.verify("t", inner, signature)
    assert not APP.verify("t", b"body", signature + head)


@pytest.mark.parametrize(
    "signature", [b"", b"\x00" * 63, b"\x00" * 64, b"\x00" * 65, "x" * 64, None]
)
def test_verify_never_raises_for_a_signature(signature: Any) -> None:
    assert APP.verify("t", b"body", signature) is False


@pytest.mark.parametrize(
    ("payload_type", "body"),
    [("t", "body"), ("t", None), (b"t", b"body"), (None, b""), ("\ud800", b"")],
)
def test_verify_never_raises_for_what_was_signed(payload_type: Any, body: Any) -> None:
    assert APP.verify(payload_type, body, b"\x01" * 64) is False


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 32,
        b"\x01" + b"\x00" * 31,
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        b"\xff" * 32,
    ],
)
def test_keys_for_which_anybody_could_sign_verify_nothing(raw: bytes) -> None:
    """Points of small order: R = identity and S = 0 would satisfy the equation for any message."""
    forged = b"\x01" + b"\x00" * 63
    assert not any(
        PublicKey(Kind.APP, raw).verify("t", bytes([number]), forged) for number in range(32)
    )


def test_a_signature_cannot_be_written_another_way() -> None:
    """S + L is the same scalar; who accepts it lets a signature have two forms."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = secret(Kind.APP).sign("t", b"body")
    scalar = int.from_bytes(signature[32:], "little") + order
    assert not APP.verify("t", b"body", signature[:32] + scalar.to_bytes(32, "little"))
