"""What the hub's refusals, and ours, are in HTTP.

Owns: the status of each kind of error, and the form of error bodies. Must never: hide the hub's
words, or show a traceback.

Every error has the body ``{"error": KIND, "reason": WORD, "detail": TEXT}``: the kind is a class of
``guactors.errors``, the reason a word for programs (of ``security.rights.Reason`` where the hub
refused, else one of ours), the detail is for people.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct
from starlette.exceptions import HTTPException

from guactors import errors
from guactors.web.guard import Refusal, no_token

RETRY_SECONDS: Final = 2
"""What a client is told to wait for while the hub is away or too much is going on."""

_STATUS: Final = {
    errors.AuthFailed: 401,
    errors.PermissionDenied: 403,
    errors.NameTaken: 409,
    errors.Unschedulable: 409,
    errors.ImageRefused: 422,
    errors.MailboxFull: 429,
    errors.UsageError: 400,
    errors.PeerLost: 503,
    errors.VersionMismatch: 503,
    errors.ProtocolError: 502,
}
_SAID: Final = re.compile(r"(?s)(.*) \[([a-z_]{1,40})\]")


class ErrorBody(Struct, frozen=True):
    """The body of every answer that is an error."""

    error: str
    reason: str
    detail: str


class Refused(HTTPException):
    """A refusal from inside of the application; it is an HTTPException because FastAPI lets no
    other error out of the reading of a body."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.status, refusal.detail, refusal.headers)
        self.refusal = refusal


def refusal_of(error: errors.GuactorsError, status: int | None = None) -> Refusal:
    """What an error of the hub is here; ``status`` where the question tells more than the kind of
    the error."""
    kind, detail = type(error).__name__, str(error)
    said = _SAID.fullmatch(detail)
    reason = ""
    if said is not None:
        detail, reason = said.groups()
    if isinstance(error, errors.PeerLost):
        # Where the hub should be is nobody's business who may not even be known to it.
        detail, reason = "the hub does not answer at the moment: try again", "hub"
    if isinstance(error, errors.AuthFailed):
        return Refusal(401, kind, reason or "token", detail, no_token(detail).headers)
    if status is None:
        status = next((_STATUS[base] for base in type(error).__mro__ if base in _STATUS), 500)
    headers = {"Retry-After": str(RETRY_SECONDS)} if status in {429, 503} else {}
    return Refusal(status, kind, reason, detail, headers)


def busy(detail: str) -> Refusal:
    """The answer while too much is going on here."""
    return Refusal(503, "MailboxFull", "busy", detail, {"Retry-After": str(RETRY_SECONDS)})


def too_often(seconds: float) -> Refusal:
    """The answer to who tries too often."""
    wait = str(max(1, round(seconds + 0.5)))
    detail = f"too many requests in a short time: wait {wait} s"
    return Refusal(429, "MailboxFull", "rate", detail, {"Retry-After": wait})


def body_of(refusal: Refusal) -> ErrorBody:
    """Its body."""
    return ErrorBody(refusal.error, refusal.reason, refusal.detail)
