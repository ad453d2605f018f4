"""The JSON of requests and answers, as the OpenAPI document describes it.

Owns: names, types and limits of fields. Must never: hold behaviour beyond reading and writing them.
Times are RFC 3339 in UTC; documents whose exact bytes were hashed or signed travel in base64.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from guactors.web.answers import Refused
from guactors.web.guard import Refusal

DOCUMENT_MOST = 262_144
"""Bytes of a manifest or its signatures."""

_TextOf = Annotated[str, Field(max_length=DOCUMENT_MOST * 4 // 3 + 4)]


class Form(BaseModel):
    """What clients send: all of it known, each of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class ChallengeForm(Form):
    """``key``: the public key of an app or an owner, as text."""

    key: str = Field(max_length=256)


class Challenge(BaseModel):
    """What to sign: a statement for ``nonce`` (hex), ``hub`` and role ``http``, under ``type``,
    within ``expires_in`` seconds."""

    nonce: str
    hub: str
    type: str
    expires_in: int


class TokenForm(Form):
    """``statement`` and ``signature`` in base64url."""

    statement: str = Field(max_length=12_000)
    signature: str = Field(max_length=128)


class Token(BaseModel):
    """A bearer's token, until when it is good, and for whom."""

    token: str
    expires: str
    key: str


class SessionForm(Form):
    """``seconds``: for how long it is kept while no program has joined it."""

    name: str = Field("", max_length=256)
    seconds: float = Field(3600.0, gt=0, le=86_400, allow_inf_nan=False)


class Reserved(BaseModel):
    """The id of a new session, and until when it is kept."""

    id: str
    expires: str


class Session(BaseModel):
    """``principal``: the key that it belongs to, or ``local``; ``callers``: processes in it."""

    id: str
    principal: str
    name: str
    callers: int
    created: str


class OfferForm(Form):
    """An image to be stored: its manifest and signatures in base64."""

    manifest: _TextOf
    signatures: _TextOf = ""


class Offered(BaseModel):
    """``missing``: of each blob, the indexes of the chunks that the hub wants."""

    image: str
    missing: dict[str, list[int]]


class Sealed(BaseModel):
    """The image is stored."""

    image: str


class ImageListed(BaseModel):
    """An image in a listing. ``size`` in bytes; ``signers``: keys whose signatures are valid;
    ``last_used``: null if it never was."""

    image: str
    name: str
    size: int
    created: str
    signers: list[str]
    last_used: str | None


class Image(BaseModel):
    """The exact bytes of its manifest and signatures, in base64."""

    image: str
    manifest: str
    signatures: str


class Health(BaseModel):
    """That this server runs, and no more."""

    status: str = "ok"


class Problem(BaseModel):
    """Every error: the kind (a class of guactors.errors), a word for programs, a text for
    people."""

    error: str
    reason: str
    detail: str


def moment(epoch: float) -> str:
    """A time as RFC 3339 in UTC."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unpack(text: str, field: str, most: int = DOCUMENT_MOST) -> bytes:
    """The bytes of base64 in either alphabet, padded or not; ``most`` of them. Raises Refused,
    which names the field."""
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        detail = f"{field} is no base64"
        raise Refused(Refusal(400, "UsageError", "malformed", detail)) from None
    if len(data) > most:
        # The hub takes longer ones for faults of this link.
        detail = f"{field} has more than {most} bytes"
        raise Refused(Refusal(413, "UsageError", "too_large", detail))
    return data


def pack(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode()
