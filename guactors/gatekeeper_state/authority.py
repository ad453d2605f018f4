"""The office: questions and orders about keys, grants, invitations and the audit log.

Owns: who may ask what, and what each order does, in this order: persist, record, tell, answer. Must
never: believe what a message says of its sender (its standing is looked up anew each time), take a
grant that no owner signed, or let an administrator who is no owner make or unmake owners.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from guactors import messages as m
from guactors.errors import AuthFailed, UsageError
from guactors.gatekeeper_state.books import SECRET, Books, persist, said, to_hub
from guactors.gatekeeper_state.invitations import LONGEST, MOST_OPEN, ROLES
from guactors.gatekeeper_state.knocks import succeed
from guactors.scheduling import events as e
from guactors.security.canonical import shown
from guactors.security.grants import Refusal, valid_at
from guactors.security.keys import Kind, PublicKey, parse_public
from guactors.security.rights import Reason
from guactors.security.signing import parse_envelope
from guactors.security.succession import open_succession

ADMIN: Final = "admin"
RUNNING: Final = ("stop", "finish")
ANSWER_MOST: Final = 8 * 2**20
"""Bytes of grants in one answer."""

NEEDS_ADMIN: Final[dict[type[m.Message], str]] = {
    m.AskKeys: "read_keys",
    m.ApproveKey: "approve",
    m.RevokeKey: "revoke",
    m.MakeInvitation: "invite",
    m.PutGrant: "grant",
    m.RevokeGrant: "revoke",
    m.AskAudit: "read_audit",
}
"""What only an administrator may do, by its word in the audit log."""


class Ask(Struct, frozen=True):
    """One question: who asks it (``standing`` as of ``now``), and how to answer it."""

    peer: str
    request: int
    standing: e.Standing
    now: float

    @property
    def who(self) -> str:
        """The asker in the audit log."""
        return self.standing.principal

    def reply(self, message: m.Message) -> list[e.Effect]:
        """The answer."""
        return [e.ToPeer(self.peer, message)]

    def done(self, text: str = "") -> list[e.Effect]:
        """The answer that it is done."""
        return self.reply(m.Done(self.request, text))

    def fault(self, kind: str, detail: str) -> list[e.Effect]:
        """The answer that it was not done."""
        return self.reply(m.Fault(kind, detail, self.request))


class Office:
    """Each method answers one kind of message."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def answer(self, ask: Ask, message: m.Message) -> list[e.Effect]:
        """Any message of ``messages.Authority`` but those that need a token or give one."""
        action = NEEDS_ADMIN.get(type(message))
        if action is not None:
            refused = self._without_right(ask, action)
            if refused is not None:
                return refused
        match message:
            case m.AskKeys():
                return ask.reply(m.KeyList(ask.request, self._books.keys.rows()))
            case m.ApproveKey():
                return self._approve(ask, message)
            case m.RevokeKey():
                return self._revoke_key(ask, message)
            case m.MakeInvitation():
                return self._invite(ask, message)
            case m.PutGrant():
                return self._put_grant(ask, message)
            case m.RevokeGrant():
                return self._revoke_grant(ask, message)
            case m.AskGrants():
                return self._show_grants(ask, message)
            case m.AskAudit():
                return [e.ReadAudit(ask.peer, message)]
            case m.PutSuccession():
                return self._succeed(ask, message)
        return ask.fault("UsageError", f"{type(message).__name__} is no question to a hub")

    def _without_right(self, ask: Ask, action: str) -> list[e.Effect] | None:
        """The refusal of who is no administrator."""
        verdict = ask.standing.rights.may(ADMIN, self._books.wall(ask.now))
        if verdict.allowed:
            return None
        return self._refuse(ask, action, verdict.reason, verdict.detail, grant=verdict.serial)

    def _refuse(
        self, ask: Ask, action: str, reason: Reason, detail: str, target: str = "", grant: int = 0
    ) -> list[e.Effect]:
        line = self._books.refused(
            ask.who, action, reason, detail, ask.now, target=target, where=ask.peer, grant=grant
        )
        return line + ask.fault("PermissionDenied", said(reason, detail))

    def _record(
        self, ask: Ask, action: str, target: str, detail: str = "", grant: int = 0
    ) -> list[e.Effect]:
        return self._books.allowed(
            ask.who, action, detail, ask.now, target=target, where=ask.peer, grant=grant
        )

    # --- keys -----------------------------------------------------------------------------------

    def _approve(self, ask: Ask, message: m.ApproveKey) -> list[e.Effect]:
        books = self._books
        try:
            key = parse_public(message.key)
        except UsageError as fault:
            return ask.fault("UsageError", str(fault))
        known = books.keys.find(key.text)
        if known is not None and known.state == "revoked":
            detail = f"{key.text} was revoked, and revoked keys never come back: make a new one"
            return self._refuse(ask, "approve", Reason.REVOKED, detail, key.text)
        if key.kind in {Kind.OWNER, Kind.HUB}:
            detail = (
                f"{key.text} is of kind {key.kind.value}: owners are listed on the hub's machine, "
                "and hubs do not take part in each other"
            )
            return self._refuse(ask, "approve", Reason.WRONG_KIND, detail, key.text)
        if known is not None and known.state == "approved":
            ops = books.keys.rename(key.text, message.name) if message.name else []
            return persist(ops) + ask.done(f"{key.text} was approved already")
        ops = books.keys.approve(
            key, name=message.name, transport="", by=ask.who, wall=books.wall(ask.now)
        )
        return persist(ops) + self._record(ask, "approve", key.text) + ask.done()

    def _revoke_key(self, ask: Ask, message: m.RevokeKey) -> list[e.Effect]:
        books, running = self._books, message.running
        try:
            key = parse_public(message.key)
        except UsageError as fault:
            return ask.fault("UsageError", str(fault))
        known = books.keys.find(key.text)
        wrong = self._unrevocable(ask, key, running)
        if wrong is not None:
            return wrong
        if known is not None and known.state == "revoked" and known.running in {running, "stop"}:
            return ask.done(f"{key.text} was revoked already")
        # Before the key is out: afterwards nobody knows who held grants by it.
        apps = books.grants.apps_of(key.text)
        reason = shown(message.reason)
        ops = books.keys.revoke(
            key, by=ask.who, reason=reason, running=running, wall=books.wall(ask.now)
        )
        if known is not None and known.state == "approved":
            ops += books.invitations.void({key.text, *books.keys.former(key.text)})
        ops.append(books.raise_epoch())
        books.tokens.drop_all(key.text)
        effects = persist(ops) + self._record(ask, "revoke", key.text, reason)
        told = f"its key was revoked{f': {reason}' if reason else ''}"
        effects.append(to_hub(e.StandingChanged(key.text, None, running, told)))
        for app in apps:
            books.grants.changed(app)
            told = f"the key of the issuer {key.short} was revoked"
            effects += books.changed(app, running, told, ask.now)
        effects.append(to_hub(e.RevocationsAre(books.revoked(running, ask.now))))
        return effects + ask.done()

    def _unrevocable(self, ask: Ask, key: PublicKey, running: str) -> list[e.Effect] | None:
        books = self._books
        if running not in RUNNING:
            return ask.fault("UsageError", f"running is stop or finish, not {shown(running)!r}")
        if key.kind is Kind.HUB:
            return ask.fault("UsageError", "a hub's key is not revoked here: end that hub")
        known = books.keys.find(key.text)
        if known is not None and known.successor:
            last = books.keys.identity(key.text)
            detail = f"{key.text} lets nobody in, it was given up: revoke {last}, which followed it"
            return ask.fault("UsageError", detail)
        if key.kind is Kind.OWNER:
            if not ask.standing.rights.everything:
                detail = "only an owner revokes the key of an owner"
                return self._refuse(ask, "revoke", Reason.WRONG_KIND, detail, key.text)
            if books.keys.owners() == [key]:
                detail = "that is the last owner: list another one on the hub's machine first"
                return ask.fault("UsageError", detail)
        return None

    def _succeed(self, ask: Ask, message: m.PutSuccession) -> list[e.Effect]:
        books = self._books
        try:
            old, new = open_succession(parse_envelope(message.envelope, "the succession"))
        except UsageError as fault:
            return self._refuse(ask, "rotate", Reason.MALFORMED, str(fault))
        except AuthFailed as fault:
            return self._refuse(ask, "rotate", Reason.BAD_SIGNATURE, str(fault))
        if old.text != ask.who:
            detail = f"only {old.text} itself can say who follows it"
            return self._refuse(ask, "rotate", Reason.UNKNOWN_KEY, detail, new.text)
        known = books.keys.find(new.text)
        if known is not None and known.state == "revoked":
            detail = f"{new.text} was revoked, and revoked keys never come back: make a new one"
            return self._refuse(ask, "rotate", Reason.REVOKED, detail, new.text)
        ops, news = succeed(books, old.text, new, "", ask.now)
        # The answer first: what follows ends the link.
        return persist(ops) + news[:1] + ask.done() + news[1:]

    def _invite(self, ask: Ask, message: m.MakeInvitation) -> list[e.Effect]:
        books, wall = self._books, self._books.wall(ask.now)
        if message.role not in ROLES:
            detail = f"invitations are for {' or '.join(ROLES)}, not {shown(message.role)!r}"
            return ask.fault("UsageError", detail)
        if not 0 < message.seconds <= LONGEST:
            detail = f"an invitation is good for more than 0 and at most {LONGEST:.0f} seconds"
            return ask.fault("UsageError", detail)
        if books.invitations.is_full(wall):
            detail = f"{MOST_OPEN} invitations are open: wait for some to be used or to end"
            return ask.fault("UsageError", detail)
        token, expires, ops = books.invitations.make(
            message.role, message.name, message.seconds,
            maker=ask.who, secret=books.random(SECRET), wall=wall,
        )  # fmt: skip
        detail = f"as {message.role} within {message.seconds:.0f} seconds"
        line = self._record(ask, "invite", shown(message.name), detail)
        return persist(ops) + line + ask.reply(m.Invitation(ask.request, token, expires))

    # --- grants ---------------------------------------------------------------------------------

    def _put_grant(self, ask: Ask, message: m.PutGrant) -> list[e.Effect]:
        books, wall = self._books, self._books.wall(ask.now)
        grant = books.grants.read(message.envelope)
        if isinstance(grant, Refusal):
            return self._refuse(ask, "grant", grant.reason, grant.detail)
        target = f"{grant.app} by {grant.issuer}"
        refusal = None
        if books.grants.find(grant.issuer, grant.serial) is not None:
            refusal = Refusal(
                Reason.REPLAY, f"the issuer used serial {grant.serial} before: take a new one"
            )
        elif valid_at(grant, wall) is Reason.EXPIRED:
            refusal = Refusal(Reason.EXPIRED, f"grant {grant.serial} has expired already")
        else:
            app = books.keys.find(grant.app)
            if app is not None and app.state == "revoked":
                last = books.keys.identity(grant.app)
                after = (
                    f"sign it for {last}, which followed it" if last != grant.app else "for good"
                )
                refusal = Refusal(Reason.REVOKED, f"the key {grant.app} was revoked: {after}")
        if refusal is not None:
            return self._refuse(ask, "grant", refusal.reason, refusal.detail, target, grant.serial)
        ops = books.grants.put(grant, message.envelope, wall)
        return [
            *persist(ops),
            *self._record(ask, "grant", target, grant=grant.serial),
            *books.changed(grant.app, "finish", f"grant {grant.serial} was added", ask.now),
            *ask.done(),
        ]

    def _revoke_grant(self, ask: Ask, message: m.RevokeGrant) -> list[e.Effect]:
        books = self._books
        if message.running not in RUNNING:
            detail = f"running is stop or finish, not {shown(message.running)!r}"
            return ask.fault("UsageError", detail)
        record = books.grants.find(message.issuer, message.serial)
        if record is None:
            detail = f"there is no grant with serial {message.serial} by {shown(message.issuer)}"
            return ask.fault("UsageError", detail)
        if record.state == "revoked":
            return ask.done(f"grant {record.serial} was revoked already")
        ops = books.grants.revoke(record, books.wall(ask.now))
        ops.append(books.raise_epoch())
        reason = shown(message.reason)
        target = f"{record.app} by {record.issuer}"
        told = f"grant {record.serial} was revoked{f': {reason}' if reason else ''}"
        app = books.keys.identity(record.app)
        return [
            *persist(ops),
            *self._record(ask, "revoke", target, reason, record.serial),
            *books.changed(app, message.running, told, ask.now),
            to_hub(e.RevocationsAre(books.revoked(message.running, ask.now))),
            *ask.done(),
        ]

    def _show_grants(self, ask: Ask, message: m.AskGrants) -> list[e.Effect]:
        wall, app = self._books.wall(ask.now), message.app
        if not ask.standing.rights.may(ADMIN, wall).allowed:
            app = app or ask.who
            if self._books.keys.identity(app) != ask.who:
                detail = "without the right to administer one sees one's own grants only"
                return self._refuse(ask, "read_grants", Reason.ACTION, detail, shown(app))
        rows = self._books.grants.rows(self._books.keys.identity(app), wall)
        size = sum(len(row.envelope) for row in rows)
        if size > ANSWER_MOST:
            detail = f"{len(rows)} grants are too much for one answer: ask for those of one app"
            return ask.fault("UsageError", detail)
        return ask.reply(m.GrantList(ask.request, rows))
