"""Grants as documents: one reading, one signer, and nothing that is not written out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import AuthFailed, UsageError
from guactors.security import canonical, signing
from guactors.security.grants import (
    GRANT_TYPE,
    MOST_ENTRIES,
    Grant,
    Network,
    Quotas,
    Reason,
    Refusal,
    check_grant,
    open_grant,
    read_grant,
    sign_grant,
    valid_at,
)
from guactors.security.keys import Kind
from tests.unit.security.grant_samples import (
    APP,
    HUB,
    IMAGE,
    NOW,
    OWNER,
    PROVIDER,
    SIGNER,
    grant,
    grants,
    wide,
)
from tests.unit.security.samples import public, secret

OWNERS = [OWNER.public]
FULL = wide(
    providers=[PROVIDER, "label:zone=lab"],
    runtimes=["python", "docker"],
    image_hashes=[IMAGE],
    image_signers=[SIGNER],
    function_signers=[SIGNER],
    preemption=["suspend"],
    actions=["submit", "read_stats"],
    quotas=Quotas(4000, 2**33, 1000, 2**34, 8),
    network=Network(["lab"], ["10.0.0.0/8"]),
    max_priority=5,
    expires=int(NOW) + 60,
)
"""Something in every field."""
BODY = canonical.encode(FULL)


def sealed(body: bytes, payload_type: str = GRANT_TYPE) -> bytes:
    """An envelope as an owner would sign it who does not look at what it says."""
    return signing.envelope_text(signing.seal(OWNER, payload_type, body))


def reading(body: bytes) -> Grant | Refusal:
    return read_grant(sealed(body), OWNERS, HUB)


def document() -> dict[str, Any]:
    return json.loads(BODY)


def spelled(value: Any) -> bytes:
    """Sorted and without spaces, but with whatever values: what canonical.encode would refuse."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# --- what is signed is what is read ---------------------------------------------------------------


def test_the_sample_is_read_as_it_was_signed() -> None:
    assert spelled(document()) == BODY
    assert reading(BODY) == FULL
    assert open_grant(sign_grant(FULL, OWNER), OWNERS, HUB) == FULL


@given(grants())
def test_any_grant_is_read_as_it_was_signed(found: Grant) -> None:
    assert open_grant(sign_grant(found, OWNER), OWNERS, HUB) == found


def test_a_new_grant_allows_nothing_and_says_so_in_every_field() -> None:
    body = msgspec.json.decode(canonical.encode(grant()))
    assert set(body) == set(Grant.__struct_fields__)
    lists = [name for name, value in body.items() if isinstance(value, list)]
    assert len(lists) == 7
    assert not any(body[name] for name in lists)
    assert body["quotas"] == {"cpu": 0, "gpu": 0, "instances": 0, "memory": 0, "storage": 0}
    assert body["network"] == {"egress": [], "overlay": []}
    assert body["not_before"] == int(NOW)


TEXTS = ["hub", "app", "issuer", "format", "image_mode"]
NUMBERS = ["serial", "not_before", "expires", "max_priority"]
LISTS = [
    "providers", "runtimes", "image_hashes", "image_signers", "function_signers", "preemption",
    "actions", "network.overlay", "network.egress",
]  # fmt: skip
AMOUNTS = [f"quotas.{name}" for name in Quotas.__struct_fields__]
PARTS = ["quotas", "network"]
ALL_FIELDS = TEXTS + NUMBERS + LISTS + AMOUNTS + PARTS


def place(found: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *parts, name = path.split(".")
    for part in parts:
        found = found[part]
    return found, name


def test_every_field_is_in_the_lists_of_this_file() -> None:
    inner = {f"{part}.{name}" for part in PARTS for name in document()[part]}
    assert set(ALL_FIELDS) == set(Grant.__struct_fields__) | inner


def wrong_values() -> Iterator[tuple[str, Any]]:
    for path in ALL_FIELDS:
        parent, name = place(document(), path)
        value = parent[name]
        wrong: list[Any] = [True, False, 1.5, [[]], {"*": "*"}, [True], [None], [1], "\u00fc"]
        if path != "expires":
            wrong.append(None)
        if isinstance(value, int):
            wrong += [float(value), str(value), [value], -1.0, "**", "", -(2**63), 2**63 - 1, 2**70]
        else:
            wrong += [1, 1.0, 0]
        if isinstance(value, list):
            wrong += ["*", value[0], {}, [*value, value[0]], [*value, ""], [*value, 1], [value]]
        elif path not in PARTS:
            wrong += [[], {}, [value], ""]
        if path in TEXTS:
            wrong += [f"{value} ", value.upper(), value[:-1], f"{value}\n", f"{value}\x00", "*"]
        yield from ((path, one) for one in wrong)


@pytest.mark.parametrize(("path", "value"), list(wrong_values()))
def test_another_type_or_an_impossible_value_is_refused(path: str, value: Any) -> None:
    changed = document()
    parent, name = place(changed, path)
    assert parent[name] != value or type(parent[name]) is not type(value)
    parent[name] = value
    found = reading(spelled(changed))
    assert isinstance(found, Refusal), found
    assert found.reason is Reason.MALFORMED


@pytest.mark.parametrize("path", ALL_FIELDS)
def test_a_missing_field_is_refused(path: str) -> None:
    changed = document()
    parent, name = place(changed, path)
    del parent[name]
    assert isinstance(reading(spelled(changed)), Refusal)


LARGER = {
    **{path: ["*"] for path in LISTS},
    **dict.fromkeys(AMOUNTS, "*"),
    "actions": ["admin"],
    "max_priority": 99,
    "serial": 99,
    "not_before": 0,
    "expires": None,
    "image_mode": "all",
    "app": public(Kind.APP, 2).text,
    "hub": public(Kind.HUB, 2).text,
    "issuer": public(Kind.OWNER, 2).text,
    "format": "guactors.grant/1",
    "quotas": dict.fromkeys(Quotas.__struct_fields__, "*"),
    "network": {"egress": ["*"], "overlay": ["*"]},
}


@pytest.mark.parametrize("larger_first", [True, False])
@pytest.mark.parametrize("path", ALL_FIELDS)
def test_a_field_that_is_there_twice_is_refused(path: str, larger_first: bool) -> None:
    """Two readers could take one each."""
    parent, name = place(document(), path)
    once = spelled({name: parent[name]})[1:-1]
    larger = spelled({name: LARGER[path]})[1:-1]
    twice = b"%b,%b" % ((larger, once) if larger_first else (once, larger))
    assert BODY.count(once) == 1
    assert isinstance(reading(BODY.replace(once, twice)), Refusal)


@pytest.mark.parametrize("where", ["", "quotas", "network"])
@pytest.mark.parametrize("name", ["zzz", "", "Actions", "max_priority ", "action", "sudo"])
def test_an_unknown_field_is_refused(where: str, name: str) -> None:
    changed = document()
    (changed[where] if where else changed)[name] = ["*"]
    assert isinstance(reading(spelled(changed)), Refusal)


@pytest.mark.parametrize(
    "spell",
    [
        lambda body: body + b"\n",
        lambda body: b" " + body,
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: body.replace(b":", b": "),
        lambda body: body.replace(b",", b",\n", 1),
        lambda body: body.replace(b'"suspend"', b'"\\u0073uspend"'),
        lambda body: body.replace(b'"max_priority":5', b'"max_priority":05'),
        lambda body: body.replace(b'"max_priority":5', b'"max_priority":5.0'),
        lambda body: body.replace(b'"max_priority":5', b'"max_priority":5e0'),
        lambda body: body.replace(b'"max_priority":5', b'"max_priority":+5'),
        lambda body: body.replace(b'"instances":8', b'"instances":-0'),
        lambda body: body.replace(b'"suspend"', b'"suspend",'),
        lambda body: body[:-1],
        lambda body: body + body,
        lambda body: b"[" + body + b"]",
        lambda body: json.dumps(dict(reversed(json.loads(body).items()))).encode(),
        lambda body: body.decode().encode("utf-16"),
        lambda _: b"null",
        lambda _: b"{}",
        lambda _: b"",
        lambda _: b"[" * 100_000,
    ],
)
def test_another_spelling_is_refused(spell: Callable[[bytes], bytes]) -> None:
    body = spell(BODY)
    assert body != BODY
    found = reading(body)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.MALFORMED


# --- who signed it, for whom ----------------------------------------------------------------------


def test_every_flipped_bit_is_noticed() -> None:
    text = bytearray(sign_grant(grant(actions=["submit"]), OWNER))
    for position in range(len(text)):
        for bit in range(8):
            text[position] ^= 1 << bit
            assert isinstance(read_grant(bytes(text), OWNERS, HUB), Refusal), (position, bit)
            text[position] ^= 1 << bit
    assert isinstance(read_grant(bytes(text), OWNERS, HUB), Grant)


@given(st.binary(max_size=200))
def test_noise_is_no_grant(noise: bytes) -> None:
    assert isinstance(read_grant(noise, OWNERS, HUB), Refusal)


def test_only_owners_known_here_count() -> None:
    data = sign_grant(FULL, OWNER)
    assert isinstance(read_grant(data, [public(Kind.OWNER, 2), OWNER.public], HUB), Grant)
    for owners in ([], [public(Kind.OWNER, 2)], [HUB]):
        found = read_grant(data, owners, HUB)
        assert isinstance(found, Refusal)
        assert found.reason is Reason.BAD_SIGNATURE
        assert OWNER.public.short in found.detail


def test_the_issuer_must_be_the_signer() -> None:
    """One owner cannot speak in the name of another, whose removal would then not end it."""
    data = sealed(canonical.encode(grant(issuer=public(Kind.OWNER, 2).text)))
    found = read_grant(data, [*OWNERS, public(Kind.OWNER, 2)], HUB)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.BAD_SIGNATURE
    assert OWNER.public.text in found.detail


def test_a_key_of_another_kind_issues_nothing_even_where_it_is_trusted() -> None:
    for kind in (Kind.HUB, Kind.APP, Kind.PROVIDER, Kind.SIGNER):
        body = canonical.encode(msgspec.structs.replace(FULL, issuer=public(kind).text))
        data = signing.envelope_text(signing.seal(secret(kind), GRANT_TYPE, body))
        found = read_grant(data, [public(kind)], HUB)
        assert isinstance(found, Refusal)
        assert "issuer" in found.detail


def test_a_grant_for_another_hub_is_refused() -> None:
    data = sign_grant(FULL, OWNER)
    found = read_grant(data, OWNERS, public(Kind.HUB, 2))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.WRONG_HUB
    assert HUB.text in found.detail
    assert public(Kind.HUB, 2).text in found.detail
    assert read_grant(data, OWNERS, None) == FULL


def test_a_signature_for_another_purpose_is_none() -> None:
    found = read_grant(sealed(BODY, "application/vnd.guactors.image.v1+json"), OWNERS, HUB)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.BAD_SIGNATURE


def test_the_signature_of_one_grant_does_not_fit_another() -> None:
    small = msgspec.json.decode(sign_grant(grant(), OWNER), type=signing.Envelope)
    large = msgspec.json.decode(sealed(BODY), type=signing.Envelope)
    mixed = signing.Envelope(GRANT_TYPE, large.payload, small.signatures)
    found = read_grant(signing.envelope_text(mixed), OWNERS, HUB)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.BAD_SIGNATURE


def test_open_grant_raises_what_read_grant_returns() -> None:
    with pytest.raises(AuthFailed, match="is for the hub"):
        open_grant(sign_grant(FULL, OWNER), OWNERS, public(Kind.HUB, 2))
    with pytest.raises(AuthFailed, match="not in canonical form"):
        open_grant(sealed(BODY + b" "), OWNERS, HUB)


def test_signing_needs_the_issuers_key() -> None:
    with pytest.raises(UsageError, match="names the issuer"):
        sign_grant(FULL, secret(Kind.OWNER, 2))


@pytest.mark.parametrize(
    "changes",
    [
        {"max_priority": True},
        {"max_priority": 1.0},
        {"serial": "1"},
        {"runtimes": "python"},
        {"runtimes": ("python", 1)},
        {"quotas": {"cpu": 1, "sudo": 1}},
        {"runtimes": ["perl"]},
        {"app": "gu_app_"},
    ],
)
def test_what_a_reader_would_refuse_is_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        sign_grant(msgspec.structs.replace(FULL, **changes), OWNER)


# --- what a grant can say -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"hub": APP}, "hub: that is an app key, a hub key is needed"),
        ({"app": HUB.text}, "app: that is a hub key, an app key is needed"),
        ({"app": "*"}, "app: that is no public key"),
        ({"issuer": APP}, "issuer: that is an app key"),
        ({"serial": 0}, "serial: 0 is not possible"),
        ({"serial": 2**53}, "serial"),
        ({"not_before": -1}, "not_before"),
        ({"expires": int(NOW)}, "expires"),
        ({"expires": 10**12}, "expires"),
        ({"max_priority": 2**31}, "max_priority"),
        ({"max_priority": -(2**31) - 1}, "max_priority"),
        ({"providers": [SIGNER]}, "providers: that is a signer key, a provider key is needed"),
        ({"providers": [PROVIDER[:-1]]}, "providers: the provider key .* is cut short"),
        ({"providers": ["label:zone"]}, "label:NAME=VALUE"),
        ({"providers": ["label:=lab"]}, "label:NAME=VALUE"),
        ({"providers": ["label:zone=la\nb"]}, r"'label:zone=la\\\\nb' is no label"),
        ({"providers": ["label:zone=" + "x" * 300]}, "label:NAME=VALUE"),
        ({"runtimes": ["perl"]}, "'perl' is none of python, native"),
        ({"runtimes": ["python", "python"]}, "runtimes: an entry is there twice"),
        ({"image_hashes": [IMAGE.upper()]}, "64 hex digits"),
        ({"image_hashes": [IMAGE[:-1]]}, "64 hex digits"),
        ({"image_hashes": [IMAGE + "\n"]}, "64 hex digits"),
        ({"image_hashes": ["nginx:latest"]}, "'nginx:latest' is no image hash"),
        ({"image_signers": [APP]}, "image_signers: that is an app key"),
        ({"function_signers": [APP]}, "function_signers: that is an app key"),
        ({"preemption": ["kill"]}, "preemption: 'kill' is none of"),
        ({"actions": ["*"]}, r"actions: '\*' is none of submit"),
        ({"actions": ["sudo"]}, "actions: 'sudo' is none of"),
        ({"quotas": {"cpu": -1}}, "quota of cpu: -1"),
        ({"quotas": {"cpu": "4"}}, "quotas"),
        ({"quotas": {"disk": 4}}, "unknown field `disk`"),
        ({"network": {"overlay": ["a b"]}}, "network overlay"),
        ({"network": {"egress": [""]}}, "network egress"),
        ({"runtime": ["python"]}, "unknown field `runtime`"),
        ({"runtimes": "python"}, "runtimes"),
        ({"max_priority": 1.0}, "max_priority"),
        ({"max_priority": True}, "max_priority"),
        ({"image_mode": "one"}, "image_mode"),
        ({"format": "guactors.grant/2"}, "format"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        grant(**fields)


@pytest.mark.parametrize("name", ["providers", "image_hashes", "network"])
def test_a_list_has_an_end(name: str) -> None:
    entries = {
        "providers": [f"label:n={number}" for number in range(MOST_ENTRIES + 1)],
        "image_hashes": [f"sha3-256:{number:064x}" for number in range(MOST_ENTRIES + 1)],
        "network": Network([f"net{number}" for number in range(MOST_ENTRIES + 1)]),
    }[name]
    with pytest.raises(UsageError, match="1001 entries"):
        check_grant(msgspec.structs.replace(FULL, **{name: entries}))


@pytest.mark.parametrize("name", ["app", *(path for path in LISTS if "." not in path)])
def test_a_secret_in_the_wrong_place_is_not_repeated(name: str) -> None:
    text = secret(Kind.APP).text
    with pytest.raises(UsageError) as caught:
        grant(**{name: text if name == "app" else [text]})
    assert text[16:] not in str(caught.value)
    assert caught.value.__cause__ is None


# --- when it is valid -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (0, Reason.NOT_YET_VALID),
        (99.999, Reason.NOT_YET_VALID),
        (100, None),
        (199.999, None),
        (200, Reason.EXPIRED),
        (float("inf"), Reason.EXPIRED),
        (float("nan"), Reason.NOT_YET_VALID),
    ],
)
def test_valid_from_the_first_second_to_before_the_last(now: float, reason: Reason | None) -> None:
    assert valid_at(grant(not_before=100, expires=200), now) is reason


def test_a_grant_without_an_end_has_none() -> None:
    assert valid_at(grant(not_before=100), 1e11) is None
