"""What all parts of the gatekeeper share: its books, and how a decision is written down.

Owns: the books, the epoch, and the standing of a key. Must never: talk to a peer (``knocks``,
``authority`` and ``tickets`` do).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from guactors.gatekeeper_state.grants import GrantBook
from guactors.gatekeeper_state.invitations import InvitationBook
from guactors.gatekeeper_state.keys import KeyBook
from guactors.gatekeeper_state.ledger import Ledger
from guactors.gatekeeper_state.tokens import TokenBook
from guactors.messages import Revoked, WarrantWord
from guactors.scheduling import events as e
from guactors.security.keys import Kind, PublicKey
from guactors.security.rights import Reason, Rights
from guactors.store.base import KeyRecord, Op, SetEpoch, Snapshot

SECRET: Final = 32
"""Random bytes of a nonce, a token, an invitation."""


class Books:
    """``random``: a source of bytes that nobody can guess. ``wall``: epoch seconds of a moment of
    the monotonic clock."""

    def __init__(
        self,
        hub: PublicKey,
        owners: Sequence[PublicKey],
        snapshot: Snapshot,
        random: Callable[[int], bytes],
        wall: Callable[[float], float],
    ) -> None:
        self.hub = hub
        self.random = random
        self.wall = wall
        self.epoch = snapshot.epoch
        self.keys = KeyBook(owners, snapshot.keys)
        self.grants = GrantBook(hub, self.keys, snapshot.grants)
        self.invitations = InvitationBook(snapshot.invitations)
        self.tokens = TokenBook()
        self.ledger = Ledger()

    # --- standing -------------------------------------------------------------------------------

    def rights(self, record: KeyRecord, wall: float) -> Rights:
        """What an approved key may do."""
        if record.kind == Kind.OWNER.value:
            return Rights(everything=True, principal=record.key)
        if record.kind == Kind.APP.value:
            return self.grants.rights(record.key, wall)
        return Rights(principal=record.key)

    def standing(self, key: str, now: float) -> e.Standing | None:
        """The standing of a key as of now, without a warrant; None if it may not come in."""
        record = self.keys.approved(key)
        if record is None:
            return None
        rights = self.rights(record, self.wall(now))
        return e.Standing(key, record.kind, record.name, rights, record.transport)

    def changed(self, app: str, running: str, reason: str, now: float) -> list[e.Effect]:
        """The rights of an app are others. Its standing has a warrant of no session: whose grants
        are for the warrants of all of them."""
        record = self.keys.approved(app)
        if record is None:
            return []
        wall = self.wall(now)
        warrant = WarrantWord("", app, grants=self.grants.envelopes(app, wall))
        rights = self.rights(record, wall)
        standing = e.Standing(app, record.kind, record.name, rights, record.transport, warrant)
        return [to_hub(e.StandingChanged(app, standing, running, reason))]

    # --- revocation -----------------------------------------------------------------------------

    def raise_epoch(self) -> Op:
        """Something was revoked."""
        self.epoch += 1
        return SetEpoch(self.epoch)

    def revoked(self, running: str, now: float) -> Revoked:
        """All that was ever revoked and still matters."""
        return Revoked(
            self.epoch,
            self.keys.revoked(),
            sorted(self.keys.revoked_transports()),
            self.grants.revoked(self.wall(now)),
            running,
        )

    # --- the audit log --------------------------------------------------------------------------

    def refused(
        self,
        who: str,
        action: str,
        reason: Reason,
        detail: str,
        now: float,
        *,
        target: str = "",
        where: str = "",
        grant: int = 0,
    ) -> list[e.Effect]:
        """Write a refusal of ``target`` down, or count it."""
        decision = e.Decision(who, action, target, "refused", reason.value, detail, where, grant)
        return self.note(decision, now)

    def allowed(
        self,
        who: str,
        action: str,
        detail: str,
        now: float,
        *,
        target: str = "",
        where: str = "",
        grant: int = 0,
        often: bool = False,
    ) -> list[e.Effect]:
        """Write down that it was done to ``target``. ``often``: as often as a program likes."""
        reason = Reason.ALLOWED.value
        decision = e.Decision(who, action, target, "allowed", reason, detail, where, grant)
        return self.note(decision, now, often=often)

    def note(self, decision: e.Decision, now: float, *, often: bool = False) -> list[e.Effect]:
        """Write a decision down, or count it."""
        return record(self.ledger.note(decision, now, often=often))

    def check(self) -> None:
        """Every invariant holds."""
        self.keys.check()
        self.grants.check()
        self.invitations.check()
        self.tokens.check()
        self.ledger.check()
        assert all(self.keys.approved(key) for key in self.tokens.holders())


def record(decisions: list[e.Decision]) -> list[e.Effect]:
    """The effect that writes them, if there are any."""
    return [e.Record(decisions)] if decisions else []


def persist(ops: list[Op]) -> list[e.Effect]:
    """The effect that keeps these changes, if there are any."""
    return [e.Persist(ops)] if ops else []


def to_hub(event: e.Event) -> e.Effect:
    """Tell the hub's own room."""
    return e.ToRoom(e.RoomName.HUB, event)


def said(reason: Reason, detail: str) -> str:
    """A refusal as the refused reads it: what it is about, and the word programs look for."""
    return f"{detail} [{reason}]"
