"""Signatures of code: what a signer says of a function or class, and how that is judged.

Owns: what exactly is signed, and the words for why code was refused. Must never: open the code, or
read a key file.

A function or class travels as a blob, a pickle: whoever opens it runs what it says. Signed is the
blob with its purpose, so that a signed function cannot be passed off as a class, whose methods
others may call. The arguments are not signed; they are opened as data (``data_only``). A signature
names no session and does not expire: code is refused again when its signer is no longer listed.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Collection, Iterable
from typing import Final

from msgspec import Struct

from guactors.errors import AuthFailed, UsageError
from guactors.security.grants import Reason
from guactors.security.keys import Kind, SecretKey
from guactors.security.signing import open_detached, sign_detached

CODE_TYPE: Final = "application/vnd.guactors.code.v1"
NAMED: Final = 3
"""Signers that a refusal lists; whoever needs all of them asks for the grant."""


class Purpose(enum.Enum):
    """What a blob is opened as."""

    FUNCTION = "function"
    CLASS = "class"
    ENVIRONMENT = "environment"
    """The description of a runtime_env, which names its files by their hashes."""


class Judgement(Struct, frozen=True):
    """``signer``: the text of a listed key that signed the code; empty where it is refused, and
    ``reason`` and ``detail`` say why."""

    signer: str = ""
    reason: Reason = Reason.ALLOWED
    detail: str = ""


def code_hash(blob: bytes) -> str:
    """The name of a blob in logs: ``sha3-256:`` and 64 hex digits."""
    return f"sha3-256:{hashlib.sha3_256(blob).hexdigest()}"


def sign_code(secrets: Iterable[SecretKey], purpose: Purpose, blob: bytes) -> bytes:
    """The signatures of a blob by one to eight keys. Raises UsageError for a key that is no
    signer's."""
    found = list(secrets)
    for secret in found:
        if secret.kind is not Kind.SIGNER:
            raise UsageError(
                f"code is signed with a signer key, but {secret.public.short} is a key of kind "
                f"{secret.kind.value}"
            )
    return sign_detached(found, CODE_TYPE, _body(purpose, blob))


def judge_code(
    purpose: Purpose, blob: bytes, signatures: bytes, signers: Collection[str]
) -> Judgement:
    """Whether one of ``signers`` (public key texts) signed the blob for this purpose; every
    signature in ``signatures`` must be good."""
    if not signatures:
        return _unsigned("it is not signed", signers)
    try:
        given = open_detached(signatures, CODE_TYPE, _body(purpose, blob))
    except (AuthFailed, UsageError) as fault:
        return Judgement(reason=Reason.BAD_SIGNATURE, detail=str(fault))
    for key in sorted(given):
        if key.kind is Kind.SIGNER and key.text in signers:
            return Judgement(signer=key.text)
    names = ", ".join(key.text for key in sorted(given))
    return _unsigned(f"it is signed by {names}", signers)


def _unsigned(found: str, signers: Collection[str]) -> Judgement:
    listed = sorted(signers)
    if not listed:
        wanted = "the grant and the machine's owner together allow no signer at all"
    else:
        more = f" or one of {len(listed) - NAMED} more" if len(listed) > NAMED else ""
        wanted = f"a signature by {' or '.join(listed[:NAMED])}{more} is needed"
    return Judgement(reason=Reason.FUNCTION_SIGNER, detail=f"{found}; {wanted}")


def _body(purpose: Purpose, blob: bytes) -> bytes:
    return purpose.value.encode() + b"\n" + blob
