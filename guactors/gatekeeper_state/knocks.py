"""The door: who knocks, is challenged, proves who it is, and comes in or not.

Owns: the open knocks. Must never: take an answer twice, late, or from another link than was asked;
let a key in before that is persisted; or write the text of what may be a secret key anywhere.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from guactors.errors import AuthFailed, UsageError
from guactors.gatekeeper_state.books import SECRET, Books, persist, said, to_hub
from guactors.ids import LinkKey
from guactors.messages import Challenge, Hello, Proof, WarrantWord
from guactors.scheduling import events as e
from guactors.security.canonical import shown
from guactors.security.grants import Refusal
from guactors.security.keys import Kind, PublicKey, parse_public
from guactors.security.rights import Reason
from guactors.security.statements import former_keys, judge_statement
from guactors.store.base import Op

PATIENCE: Final = 10.0
"""Seconds to answer a challenge."""
MOST: Final = 1000
"""Open knocks; the oldest gives way."""

_KINDS: Final = {"caller": (Kind.APP, Kind.OWNER), "provider": (Kind.PROVIDER,)}
_UNREADABLE: Final = "unreadable key"


class _Knock(Struct, frozen=True):
    user: str
    hello: Hello
    key: PublicKey
    nonce: bytes
    until: float


class Door:
    """Times are monotonic seconds."""

    def __init__(self, books: Books) -> None:
        self._books = books
        # In the order of their ends: each has the same patience.
        self._knocks: dict[str, _Knock] = {}

    def __repr__(self) -> str:
        return f"<Door knocks={len(self._knocks)}>"

    # --- knocking -------------------------------------------------------------------------------

    def knocked(self, event: e.Knocked, now: float) -> list[e.Effect]:
        """A Hello with a key, of which nothing is proved."""
        link, user, hello = event.link, event.user, event.hello
        open_knock = self._knocks.get(link)
        if open_knock is not None:
            if (open_knock.user, open_knock.hello) == (user, hello):
                return []  # the same Hello on the link's other lane
            del self._knocks[link]
        try:
            key = parse_public(hello.key)
        except UsageError as fault:
            refusal = Refusal(Reason.UNKNOWN_KEY, str(fault))
            return self._turn_away(link, hello, refusal, now, None, proved=False)
        refused = self._judge_hello(key, user, hello)
        if refused is not None:
            return self._turn_away(link, hello, refused, now, key, proved=False)
        effects: list[e.Effect] = []
        if len(self._knocks) >= MOST:
            oldest = next(iter(self._knocks))
            effects += self._give_up(oldest, f"{MOST} others came to the door meanwhile", now)
        nonce = self._books.random(SECRET)
        self._knocks[link] = _Knock(user, hello, key, nonce, now + PATIENCE)
        return [*effects, e.Send(link, Challenge(nonce, self._books.hub.text))]

    def _judge_hello(self, key: PublicKey, user: str, hello: Hello) -> Refusal | None:
        fitting = _KINDS.get(hello.role, ())
        if key.kind not in fitting:
            needed = " or ".join(kind.value for kind in fitting)
            return Refusal(
                Reason.WRONG_KIND,
                f"a {hello.role} needs a key of kind {needed}, this one is of kind {key.kind.value}"
                if fitting
                else f"nobody comes with a key in the role {shown(hello.role)!r}",
            )
        if user and user != hello.transport:
            return Refusal(
                Reason.BAD_SIGNATURE,
                "the Hello names another transport key than the connection was made with",
            )
        return self._judge_revoked(key, hello.transport)

    def _judge_revoked(self, key: PublicKey, transport: str) -> Refusal | None:
        keys = self._books.keys
        record = keys.find(key.text)
        if record is not None and record.state == "revoked":
            if record.successor:
                detail = f"the key was given up for {keys.identity(key.text)}: come with that one"
            else:
                detail = "the key was revoked, for good: make a new one and have it approved"
            return Refusal(Reason.REVOKED, detail)
        if transport and transport in keys.revoked_transports():
            return Refusal(
                Reason.REVOKED,
                "the transport key belongs to a revoked key: make a new one (gu key rotate)",
            )
        return None

    def ended(self, link: str) -> None:
        """The link is gone."""
        self._knocks.pop(link, None)

    # --- proving --------------------------------------------------------------------------------

    def proved(self, event: e.Proved, now: float) -> list[e.Effect]:
        """An answer, good or not: its challenge is used up."""
        link, user, proof = event.link, event.user, event.proof
        books = self._books
        knock = self._knocks.pop(link, None)
        if knock is None:
            detail = "no challenge is open on this link: each is answered once; dial again"
            line = books.refused("unknown", "join", Reason.REPLAY, detail, now, where=link)
            return [*line, to_hub(e.TurnedAway(link, "AuthFailed", said(Reason.REPLAY, detail)))]
        hello, key = knock.hello, knock.key
        refusal = self._judge_proof(knock, link, user, proof, now)
        if refusal is not None:
            return self._turn_away(link, hello, refusal, now, key, proved=False)
        # Between knock and proof it may have been revoked.
        revoked = self._judge_revoked(key, hello.transport)
        if revoked is not None:
            return self._turn_away(link, hello, revoked, now, key)
        followed = self._followed(proof, key)
        if isinstance(followed, Refusal):
            return self._turn_away(link, hello, followed, now, key)
        if followed:
            return self._take_over(link, knock, proof, followed, now)
        if books.keys.approved(key.text) is None:
            return self._introduce(link, knock, proof, now)
        ops = books.keys.dialled(key.text, hello.transport)
        return self._let_in(link, knock, proof, ops, "", now)

    def _judge_proof(
        self, knock: _Knock, link: str, user: str, proof: Proof, now: float
    ) -> Refusal | None:
        if now >= knock.until:
            return Refusal(
                Reason.REPLAY, f"the answer to the challenge took over {PATIENCE:.0f} seconds"
            )
        if user != knock.user:
            return Refusal(Reason.REPLAY, "the answer came from another transport key")
        hello, books = knock.hello, self._books
        return judge_statement(
            proof.statement,
            proof.signature,
            key=knock.key,
            hub=books.hub,
            nonce=knock.nonce,
            link=link,
            peer=hello.peer,
            role=hello.role,
            session=hello.session,
            transport=hello.transport,
            now=books.wall(now),
        )

    def _followed(self, proof: Proof, key: PublicKey) -> list[str] | Refusal:
        """The approved keys that ``key`` follows and whose place it has not taken yet."""
        keys = self._books.keys
        if not proof.successions or keys.former(key.text):
            return []
        try:
            former = former_keys(proof.successions, key)
        except AuthFailed as fault:
            return Refusal(Reason.BAD_SIGNATURE, str(fault))
        return sorted(old.text for old in former if keys.approved(old.text))

    @staticmethod
    def _verified(proof: Proof, key: PublicKey) -> list[bytes]:
        """Its statements of succession if they are good ones, else none: they are kept and handed
        on."""
        try:
            former_keys(proof.successions, key)
        except AuthFailed:
            return []
        return list(proof.successions)

    def _introduce(self, link: LinkKey, knock: _Knock, proof: Proof, now: float) -> list[e.Effect]:
        """A key that is who it says, but that nobody has approved."""
        books, hello, key = self._books, knock.hello, knock.key
        wall = books.wall(now)
        if key.kind is Kind.OWNER:
            detail = "no owner of this hub has that key: owners are listed on the hub's machine"
            return self._turn_away(link, hello, Refusal(Reason.UNKNOWN_KEY, detail), now, key)
        if proof.invitation:
            taken = books.invitations.take(proof.invitation, key, wall)
            if isinstance(taken, Refusal):
                return self._turn_away(link, hello, taken, now, key)
            invitation, ops = taken
            name = invitation.name or hello.name
            ops += books.keys.approve(
                key, name=name, transport=hello.transport, by="invitation", wall=wall
            )
            return self._let_in(link, knock, proof, ops, "by invitation", now)
        ops = books.keys.wait(key, hello.name, hello.transport, wall)
        detail = (
            f"the hub does not know the key yet and has noted it: an owner lets it in by "
            f"gu key approve {key.text}"
        )
        pending = Refusal(Reason.PENDING, detail)
        away = self._turn_away(link, hello, pending, now, key, kind="PendingApproval")
        return persist(ops) + away

    def _take_over(
        self, link: LinkKey, knock: _Knock, proof: Proof, followed: list[str], now: float
    ) -> list[e.Effect]:
        books, ops, news = self._books, [], []
        for old in followed:
            more, told = succeed(books, old, knock.key, knock.hello.transport, now)
            ops += more
            news += told
        detail = f"by succession of {', '.join(followed)}"
        return self._let_in(link, knock, proof, ops, detail, now, news)

    # --- in or out ------------------------------------------------------------------------------

    def _let_in(
        self,
        link: LinkKey,
        knock: _Knock,
        proof: Proof,
        ops: list[Op],
        detail: str,
        now: float,
        news: list[e.Effect] | None = None,
    ) -> list[e.Effect]:
        books, hello, key = self._books, knock.hello, knock.key.text
        record = books.keys.approved(key)
        assert record is not None, key
        wall = books.wall(now)
        warrant = None
        opens = hello.role == "caller" and hello.root and bool(hello.session)
        if opens:
            warrant = WarrantWord(
                hello.session, key, proof.statement, proof.signature,
                books.grants.envelopes(key, wall), self._verified(proof, knock.key),
            )  # fmt: skip
        standing = e.Standing(
            key,
            record.kind,
            record.name or shown(hello.name),
            books.rights(record, wall),
            hello.transport,
            warrant,
        )
        action, target = ("session", hello.session) if opens else ("join", hello.peer)
        line = books.allowed(key, action, detail, now, target=target, where=link)
        admitted = to_hub(e.Admitted(link, hello, standing))
        return [*persist(ops), *line, *(news or []), admitted]

    def _turn_away(
        self,
        link: LinkKey,
        hello: Hello,
        refusal: Refusal,
        now: float,
        key: PublicKey | None,
        *,
        proved: bool = True,
        kind: str = "AuthFailed",
    ) -> list[e.Effect]:
        # A text that is no public key may be a secret one that was put in its place.
        who = _UNREADABLE if key is None else key.text
        reason, detail = refusal.reason, refusal.detail
        line = self._books.refused(
            who, "join", reason, detail if proved else f"not proved: {detail}", now,
            target=hello.peer, where=link,
        )  # fmt: skip
        told = said(reason, f"{who}: {detail}")
        return [*line, to_hub(e.TurnedAway(link, kind, told))]

    def _give_up(self, link: str, why: str, now: float) -> list[e.Effect]:
        knock = self._knocks.pop(link)
        refusal = Refusal(Reason.NO_KEY, f"the challenge was not answered: {why}")
        return self._turn_away(LinkKey(link), knock.hello, refusal, now, knock.key, proved=False)

    # --- time -----------------------------------------------------------------------------------

    def on_tick(self, now: float) -> list[e.Effect]:
        """Turn away who has not answered."""
        effects: list[e.Effect] = []
        for link in [link for link, knock in self._knocks.items() if now >= knock.until]:
            effects += self._give_up(link, f"no answer within {PATIENCE:.0f} seconds", now)
        return effects

    def next_wake(self) -> float | None:
        """When the first patience ends."""
        return next((knock.until for knock in self._knocks.values()), None)

    def check(self) -> None:
        """Every invariant holds."""
        assert len(self._knocks) <= MOST
        ends = [knock.until for knock in self._knocks.values()]
        assert ends == sorted(ends)


def succeed(
    books: Books, old: str, new: PublicKey, transport: str, now: float
) -> tuple[list[Op], list[e.Effect]]:
    """``new`` takes the place of the approved key ``old``: what must be persisted, and what is then
    written down (first) and told."""
    ops = books.keys.succeed(old, new, transport, books.wall(now))
    books.grants.changed(old)
    books.grants.changed(new.text)
    books.tokens.drop_all(old)
    reason = f"its key was given up for {new.text}"
    line = books.allowed(old, "rotate", reason, now, target=new.text)
    gone = to_hub(e.StandingChanged(old, None, "finish", reason))
    if new.kind is not Kind.APP:
        return ops, [*line, gone]
    return ops, [*line, gone, *books.changed(new.text, "finish", f"it follows {old}", now)]
