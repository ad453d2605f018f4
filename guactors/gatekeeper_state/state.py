"""The gatekeeper's room: which part answers which event, and when something is due.

Owns: the dispatch. Must never: decide (``knocks``, ``authority`` and ``tickets`` do). Without a
key of the hub there is nobody to tell apart: whoever shows a key is turned away, and the local user
may do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from guactors import messages as m
from guactors.gatekeeper_state.authority import Ask, Office
from guactors.gatekeeper_state.books import Books, record, said, to_hub
from guactors.gatekeeper_state.knocks import Door
from guactors.gatekeeper_state.tickets import Counter, concerns_images, concerns_tokens
from guactors.scheduling import events as e
from guactors.security.keys import PublicKey
from guactors.security.rights import Reason
from guactors.store.base import Snapshot

GLANCE: Final = 60.0
"""Seconds at most between two looks at the wall clock while a grant is about to begin or end: it
may be set while the monotonic clock goes on."""
_SOON: Final = 0.001

_NO_KEYS: Final = (
    "this hub has no key, so it knows no others: it is a grid of one machine; start one for "
    "several machines with gu hub"
)


class GatekeeperState:
    """A :class:`guactors.scheduling.events.Room`.

    ``hub``: its public key, None for a grid of one machine; ``owners``: whose grants count;
    ``snapshot``: what the store holds; ``random``: bytes that nobody can guess; ``wall``: epoch
    seconds of a moment of the monotonic clock that all other times are of."""

    def __init__(
        self,
        hub: PublicKey | None,
        owners: Sequence[PublicKey],
        snapshot: Snapshot,
        *,
        random: Callable[[int], bytes],
        wall: Callable[[float], float],
    ) -> None:
        self._books = Books(hub, owners, snapshot, random, wall) if hub is not None else None
        if self._books is not None:
            self._door = Door(self._books)
            self._office = Office(self._books)
            self._counter = Counter(self._books)
        self._begun = False

    def __repr__(self) -> str:
        if self._books is None:
            return "<GatekeeperState without keys>"
        return f"<GatekeeperState {self._books.keys!r} {self._books.grants!r} {self._door!r}>"

    @property
    def epoch(self) -> int:
        """How many revocations there were."""
        return self._books.epoch if self._books is not None else 0

    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        """Take one event."""
        books = self._books
        if books is None:
            return _without_keys(event)
        effects = self._begin(books, now)
        match event:
            case e.Knocked():
                effects += self._door.knocked(event, now)
            case e.Proved():
                effects += self._door.proved(event, now)
            case e.KnockEnded(link):
                self._door.ended(link)
            case e.AuthorityAsked():
                effects += self._asked(books, event, now)
            case e.Decided(decision):
                effects += books.note(decision, now)
        return effects

    def _begin(self, books: Books, now: float) -> list[e.Effect]:
        """Before all else: what the hub's providers must know since before its last start."""
        if self._begun:
            return []
        self._begun = True
        message = books.revoked(books.keys.newest_running(), now)
        return [to_hub(e.RevocationsAre(message))]

    def _asked(self, books: Books, event: e.AuthorityAsked, now: float) -> list[e.Effect]:
        peer, standing, message = event.peer, event.standing, event.message
        request: int = getattr(message, "request", 0)
        if standing.principal != e.LOCAL:
            known = books.standing(standing.principal, now)
            if known is None:
                detail = "the key may no more take part: it was revoked or given up"
                line = books.refused(
                    standing.principal, type(message).__name__, Reason.REVOKED, detail, now,
                    where=peer,
                )  # fmt: skip
                fault = m.Fault("AuthFailed", said(Reason.REVOKED, detail), request)
                return [*line, e.ToPeer(peer, fault)]
            standing = known
        ask = Ask(peer, request, standing, now)
        if concerns_tokens(message):
            return self._counter.answer(ask, message)
        return self._office.answer(ask, message)

    # --- time -----------------------------------------------------------------------------------

    def on_tick(self, now: float) -> list[e.Effect]:
        """Turn away who is late, write counts down, tell of grants that begin or end."""
        books = self._books
        if books is None:
            return []
        effects = self._begin(books, now)
        effects += self._door.on_tick(now)
        effects += record(books.ledger.due(now))
        for app in books.grants.due(books.wall(now)):
            effects += books.changed(app, "stop", "a grant began or ended to be valid", now)
        return effects

    def next_wake(self, now: float) -> float | None:
        """When on_tick has something to do."""
        books = self._books
        if books is None:
            return None
        if not self._begun:
            return now
        times = [self._door.next_wake(), books.ledger.next_wake()]
        change = books.grants.next_change()
        if change is not None:
            times.append(now + min(max(change - books.wall(now), _SOON), GLANCE))
        return min((time for time in times if time is not None), default=None)

    def last_words(self) -> list[e.Effect]:
        """What to write down before the log closes."""
        return record(self._books.ledger.flush()) if self._books is not None else []

    def check(self) -> None:
        """Every invariant holds."""
        if self._books is not None:
            self._books.check()
            self._door.check()


def _without_keys(event: e.Event) -> list[e.Effect]:
    match event:
        case e.Knocked(link) | e.Proved(link):
            return [to_hub(e.TurnedAway(link, "AuthFailed", said(Reason.UNKNOWN_KEY, _NO_KEYS)))]
        case e.Decided(decision):
            return [e.Record([decision])]
        case e.AuthorityAsked(peer, standing, message):
            return _answer_without_keys(peer, standing, message)
    return []


def _answer_without_keys(peer: str, standing: e.Standing, message: m.Message) -> list[e.Effect]:
    request: int = getattr(message, "request", 0)
    if not getattr(message, "token", ""):
        match message:
            case m.AskKeys():
                return [e.ToPeer(peer, m.KeyList(request, []))]
            case m.AskGrants():
                return [e.ToPeer(peer, m.GrantList(request, []))]
            case m.AskAudit():
                return [e.ReadAudit(peer, message)]
            case m.CloseSession() | m.AskSessions():
                return [to_hub(e.SessionAsked(peer, standing, message))]
        if concerns_images(message):
            return [e.ToRoom(e.RoomName.IMAGES, e.ImagesAsked(peer, standing, message))]
    return [e.ToPeer(peer, m.Fault("UsageError", _NO_KEYS, request))]
