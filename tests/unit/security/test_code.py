"""Whose code may be opened: signatures of functions and classes."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from guactors.errors import UsageError
from guactors.security import canonical, code_signing, signing
from guactors.security.code import CODE_TYPE, Purpose, code_hash, judge_code, sign_code
from guactors.security.grants import Reason
from guactors.security.keys import Kind
from tests.unit.security.samples import public, secret

BLOB = b"a pickled function"
SIGNER = secret(Kind.SIGNER)
LISTED = {public(Kind.SIGNER).text}


def signed(*numbers: int, purpose: Purpose = Purpose.FUNCTION, blob: bytes = BLOB) -> bytes:
    return sign_code([secret(Kind.SIGNER, number) for number in numbers], purpose, blob)


def reason(signatures: bytes, listed: set[str] = LISTED, blob: bytes = BLOB) -> Reason:
    judgement = judge_code(Purpose.FUNCTION, blob, signatures, listed)
    assert bool(judgement.signer) is (judgement.reason is Reason.ALLOWED)
    assert bool(judgement.detail) is not bool(judgement.signer)
    return judgement.reason


def test_a_listed_signer_is_enough() -> None:
    judgement = judge_code(Purpose.FUNCTION, BLOB, signed(1), LISTED)
    assert judgement.signer == public(Kind.SIGNER).text
    assert reason(signed(2, 1, 3)) is Reason.ALLOWED


@pytest.mark.parametrize("listed", [set(), {public(Kind.SIGNER, 2).text}, {"*"}, {"gu_signer_"}])
def test_nobody_else_is(listed: set[str]) -> None:
    assert reason(signed(1), listed) is Reason.FUNCTION_SIGNER


def test_unsigned_code_is_refused_with_who_should_sign() -> None:
    judgement = judge_code(Purpose.FUNCTION, BLOB, b"", LISTED)
    assert judgement.reason is Reason.FUNCTION_SIGNER
    assert public(Kind.SIGNER).text in judgement.detail
    nobody = judge_code(Purpose.FUNCTION, BLOB, signed(1), set())
    assert "no signer at all" in nobody.detail


def test_a_refusal_lists_few_of_many_signers() -> None:
    many = {public(Kind.SIGNER, number).text for number in range(2, 12)}
    detail = judge_code(Purpose.FUNCTION, BLOB, b"", many).detail
    assert sum(key in detail for key in many) == 3
    assert "7 more" in detail


def test_a_function_is_no_class_and_no_other_function() -> None:
    assert reason(signed(1, purpose=Purpose.CLASS)) is Reason.BAD_SIGNATURE
    assert reason(signed(1), blob=BLOB + b" ") is Reason.BAD_SIGNATURE
    assert reason(signed(1, blob=b"another")) is Reason.BAD_SIGNATURE


def test_one_bad_signature_spoils_the_good_one() -> None:
    good, bad = signed(1), signed(2, blob=b"another")
    entries = [
        entry
        for data in (good, bad)
        for entry in canonical.decode(data, dict[str, Any], what="")["signatures"]
    ]
    both = canonical.encode({"payload_type": CODE_TYPE, "signatures": entries})
    assert reason(both) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "damaged",
    [b"x", b"{}", signed(1)[:-1], signed(1) + b" ", signed(1).replace(b"code.v1", b"code.v2")],
)
def test_what_is_no_signature_is_refused(damaged: bytes) -> None:
    assert reason(damaged) is Reason.BAD_SIGNATURE


def test_a_signature_for_another_kind_of_document_is_refused() -> None:
    other = signing.sign_detached([SIGNER], "application/vnd.guactors.image.v1+json", BLOB)
    assert reason(other) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.SIGNER])
def test_only_signer_keys_sign_code(kind: Kind) -> None:
    with pytest.raises(UsageError, match="signer key"):
        sign_code([secret(kind)], Purpose.FUNCTION, BLOB)
    # Made by somebody who does not care, and even listed:
    body = b"function\n" + BLOB
    forged = signing.sign_detached([secret(kind)], CODE_TYPE, body)
    assert reason(forged, {public(kind).text}) is Reason.FUNCTION_SIGNER


def test_the_hash_is_that_of_the_blob() -> None:
    assert code_hash(b"") == (
        "sha3-256:a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a"
    )


# --- the sending side ----------------------------------------------------------------------------


class Session:
    """Anything that lives as long as a session."""


@pytest.fixture(autouse=True)
def nothing_received(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_signing, "_received", {})


def test_each_blob_is_signed_once_in_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    from guactors.security import code

    made = []
    monkeypatch.setattr(code, "sign_code", lambda *given: made.append(given) or sign_code(*given))
    session, other = Session(), Session()
    first = code_signing.signatures_for(session, [SIGNER], "function", BLOB)
    assert reason(first) is Reason.ALLOWED
    assert code_signing.signatures_for(session, [SIGNER], "function", BLOB) is first
    assert len(made) == 1
    code_signing.signatures_for(session, [SIGNER], "class", BLOB)
    code_signing.signatures_for(other, [SIGNER], "function", BLOB)
    assert len(made) == 3


def test_nothing_is_kept_of_a_session_that_ended() -> None:
    session = Session()
    code_signing.signatures_for(session, [SIGNER], "function", BLOB)
    count = len(code_signing._signed)
    del session
    gc.collect()
    assert len(code_signing._signed) < count


def test_without_keys_nothing_is_signed_but_what_came_signed_goes_on_so() -> None:
    session = Session()
    assert code_signing.signatures_for(session, [], "function", BLOB) == b""
    came = signed(1)
    code_signing.remember(Purpose.FUNCTION, BLOB, came)
    assert code_signing.signatures_for(session, [], "function", BLOB) == came
    assert code_signing.signatures_for(session, [], "class", BLOB) == b""
    assert code_signing.signatures_for(session, [], "function", BLOB + b".") == b""


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_signing, "MOST_RECEIVED", 3)
    for number in range(5):
        code_signing.remember(Purpose.FUNCTION, b"%d" % number, b"signature")
    kept = [code_signing.signatures_for(Session(), [], "function", b"%d" % n) for n in range(5)]
    assert kept == [b"", b"", b"signature", b"signature", b"signature"]


def test_no_code_needs_no_signature() -> None:
    assert code_signing.signatures_for(Session(), [SIGNER], "function", b"") == b""
