"""The counter of the HTTP server: tokens for who can sign, and what their bearers do by them.

Owns: who may come to this counter, and whose standing a message with a token has. Must never: tell
an unknown token from one that has expired, or act by the standing of the HTTP server itself where a
token is given.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from guactors import messages as m
from guactors.errors import AuthFailed, UsageError
from guactors.gatekeeper_state.authority import Ask
from guactors.gatekeeper_state.books import SECRET, Books, said, to_hub
from guactors.gatekeeper_state.tokens import LIFETIME
from guactors.scheduling import events as e
from guactors.security.canonical import shown
from guactors.security.keys import Kind, PublicKey, parse_public
from guactors.security.rights import Reason
from guactors.security.statements import check_warrant, judge_statement, read_statement

ROLE: Final = "http"
"""In the statement that a token is got for."""
LONGEST_RESERVATION: Final = 86_400.0
UNLIMITED: Final = 2**53
"""Bytes, where rights set no limit to storage."""

_SUBMIT: Final = "submit"
_SERVERS: Final = frozenset({e.LOCAL, Kind.OWNER.value})
_IMAGES: Final = (m.OfferImage, m.PutChunk, m.SealImage, m.AskImages, m.AskImage, m.AskChunk,
                  m.RemoveImage)  # fmt: skip
_ONLY_HERE: Final = (m.AskChallenge, m.AskToken, m.UseToken, m.DropToken, m.ReserveSession,
                     m.SignSession)  # fmt: skip


def concerns_tokens(message: m.Message) -> bool:
    """Whether a message is for this counter."""
    session = isinstance(message, m.CloseSession | m.AskSessions)
    return session or isinstance(message, _ONLY_HERE) or concerns_images(message)


def concerns_images(message: m.Message) -> bool:
    """Whether a message is for the image room, in the end."""
    return isinstance(message, _IMAGES)


class Counter:
    """Each method answers one kind of message."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def answer(self, ask: Ask, message: m.Message) -> list[e.Effect]:
        """A message that ``concerns_tokens``."""
        token: str = getattr(message, "token", "")
        if (token or isinstance(message, _ONLY_HERE)) and ask.standing.kind not in _SERVERS:
            detail = "tokens are for the HTTP server: a process with a key acts by that key"
            line = self._books.refused(
                ask.who, "token", Reason.WRONG_KIND, detail, ask.now, where=ask.peer
            )
            return line + ask.fault("PermissionDenied", said(Reason.WRONG_KIND, detail))
        match message:
            case m.AskChallenge():
                return self._challenge(ask, message)
            case m.AskToken():
                return self._give(ask, message)
            case m.DropToken():
                self._books.tokens.drop(message.token)
                return ask.done()
        standing = self._bearer(ask, token) if token or isinstance(message, _ONLY_HERE) else None
        if isinstance(standing, list):
            return standing
        standing = standing or ask.standing
        match message:
            case m.UseToken():
                return self._use(ask, message, standing)
            case m.ReserveSession():
                return self._reserve(ask, message, standing)
            case m.SignSession():
                return self._sign(ask, message, standing)
            case m.CloseSession() | m.AskSessions():
                return [to_hub(e.SessionAsked(ask.peer, standing, message))]
        return [e.ToRoom(e.RoomName.IMAGES, e.ImagesAsked(ask.peer, standing, message))]

    # --- getting a token ------------------------------------------------------------------------

    def _challenge(self, ask: Ask, message: m.AskChallenge) -> list[e.Effect]:
        books = self._books
        try:
            key = parse_public(message.key)
        except UsageError as fault:
            return ask.fault("UsageError", str(fault))
        if key.kind not in {Kind.APP, Kind.OWNER}:
            detail = f"a token is for an app or an owner, not for a key of kind {key.kind.value}"
            return ask.fault("UsageError", detail)
        nonce = books.random(SECRET)
        books.tokens.challenge(key, nonce, ask.now)
        return ask.reply(m.ChallengeIs(ask.request, nonce, books.hub.text))

    def _give(self, ask: Ask, message: m.AskToken) -> list[e.Effect]:
        books = self._books
        try:
            said = read_statement(message.statement)
            nonce = bytes.fromhex(said.nonce)
        except (AuthFailed, ValueError):
            detail = "the statement is damaged: sign the one that was made for the challenge"
            return self._fail(ask, "unknown", Reason.MALFORMED, detail)
        key = books.tokens.redeem(nonce, ask.now)
        if key is None:
            detail = "the challenge is unknown, over, or was answered before: ask for a new one"
            return self._fail(ask, "unknown", Reason.REPLAY, detail)
        refusal = judge_statement(
            message.statement, message.signature, key=key, hub=books.hub, nonce=nonce, link="",
            peer="", role=ROLE, session="", transport="", now=books.wall(ask.now),
        )  # fmt: skip
        if refusal is not None:
            return self._fail(ask, key.text, refusal.reason, refusal.detail)
        if books.keys.approved(key.text) is None:
            return self._fail(ask, key.text, *self._why_not(key))
        token = books.tokens.issue(key.text, books.random(SECRET), ask.now)
        line = books.allowed(key.text, "token", "", ask.now, where=ask.peer)
        expires = books.wall(ask.now) + LIFETIME
        return line + ask.reply(m.TokenIs(ask.request, token, key.text, expires))

    def _why_not(self, key: PublicKey) -> tuple[Reason, str]:
        record = self._books.keys.find(key.text)
        if record is not None and record.state == "revoked":
            return Reason.REVOKED, f"the key {key.text} was revoked"
        reason = Reason.UNKNOWN_KEY if record is None else Reason.PENDING
        return reason, f"an owner must approve the key first: gu key approve {key.text}"

    def _fail(self, ask: Ask, who: str, reason: Reason, detail: str) -> list[e.Effect]:
        line = self._books.refused(who, "token", reason, detail, ask.now, where=ask.peer)
        return line + ask.fault("AuthFailed", said(reason, detail))

    # --- using it -------------------------------------------------------------------------------

    def _bearer(self, ask: Ask, token: str) -> e.Standing | list[e.Effect]:
        """The standing of a token's bearer, or the refusal."""
        key = self._books.tokens.bearer(token, ask.now)
        standing = self._books.standing(key, ask.now) if key is not None else None
        if standing is None:
            detail = "the token is unknown or has expired: get a new one with your key"
            return self._fail(ask, "unknown", Reason.UNKNOWN_KEY, detail)
        return standing

    def _use(self, ask: Ask, message: m.UseToken, standing: e.Standing) -> list[e.Effect]:
        books, wall = self._books, self._books.wall(ask.now)
        action, target = shown(message.action), shown(message.object)
        verdict = standing.rights.may(message.action, wall)
        who = standing.principal
        if not verdict.allowed:
            line = books.refused(
                who, action, verdict.reason, verdict.detail, ask.now, target=target,
                where=ask.peer, grant=verdict.serial,
            )  # fmt: skip
            return line + ask.fault("PermissionDenied", said(verdict.reason, verdict.detail))
        line = books.allowed(
            who, action, "by token", ask.now, target=target, where=ask.peer, grant=verdict.serial,
            often=True,
        )  # fmt: skip
        left = standing.rights.storage_left(0, wall)
        left = UNLIMITED if left is None else min(left, UNLIMITED)
        return line + ask.reply(m.Allowed(ask.request, who, left))

    def _reserve(self, ask: Ask, message: m.ReserveSession, standing: e.Standing) -> list[e.Effect]:
        books = self._books
        if not 0 < message.seconds <= LONGEST_RESERVATION:
            detail = (
                f"a session is reserved for more than 0 and at most {LONGEST_RESERVATION:.0f} s"
            )
            return ask.fault("UsageError", detail)
        verdict = standing.rights.may(_SUBMIT, books.wall(ask.now))
        who = standing.principal
        if not verdict.allowed:
            line = books.refused(
                who, "session", verdict.reason, verdict.detail, ask.now, where=ask.peer,
                grant=verdict.serial,
            )  # fmt: skip
            return line + ask.fault("PermissionDenied", said(verdict.reason, verdict.detail))
        session = f"s-{books.random(8).hex()}"
        line = books.allowed(
            who, "session", "by token", ask.now, target=session, where=ask.peer,
            grant=verdict.serial,
        )  # fmt: skip
        name = shown(message.name)
        # Providers that do not take the hub's word want a statement, too: ``SignSession``.
        warrant = m.WarrantWord(session, who, grants=self._grants(who, ask))
        standing = replace(standing, warrant=warrant)
        reserved = e.SessionReserved(session, standing, name, message.seconds)
        return [*line, to_hub(reserved), *ask.done(session)]

    def _sign(self, ask: Ask, message: m.SignSession, standing: e.Standing) -> list[e.Effect]:
        books, who, session = self._books, standing.principal, message.session
        warrant = m.WarrantWord(
            session, who, message.statement, message.signature, self._grants(who, ask)
        )
        wall = books.wall(ask.now)
        try:
            check_warrant(warrant, hub=books.hub, owners=books.keys.owners(), now=wall)
        except AuthFailed as fault:
            return self._fail(ask, who, Reason.BAD_SIGNATURE, str(fault))
        line = books.allowed(who, "session", "signed", ask.now, target=session, where=ask.peer)
        signed = replace(standing, warrant=warrant)
        return [*line, to_hub(e.SessionAsked(ask.peer, signed, message))]

    def _grants(self, who: str, ask: Ask) -> list[bytes]:
        return self._books.grants.envelopes(who, self._books.wall(ask.now))
