"""The hub's sessions: whose they are, and what providers have been told of that.

Owns: the title of each session (by whose right it runs), which provider has heard which warrant.
Must never: decide who somebody is (``gatekeeper_state`` does), or when a session is over
(``session_state`` does).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from guactors.hub_state.tallies import Tallies
from guactors.messages import ActorReport, Message, StartActor, StartLease, Warrant, WarrantWord
from guactors.scheduling.events import LOCAL, SessionReserved, Standing
from guactors.security.rights import Rights

MOST_REMEMBERED = 10_000
"""Warrants kept of sessions that are over: their detached actors may have to be started again."""


class Title(Struct):
    """``standing`` is None until the root caller of a session that outlived a hub has come back.
    ``until``: when a reserved session without a root caller ends."""

    session: str
    standing: Standing | None
    since: float
    name: str = ""
    until: float = math.inf


class SessionBook:
    """Sessions by id. Iterating gives the ids of those that are open."""

    def __init__(self) -> None:
        self._titles: dict[str, Title] = {}
        self._warrants: OrderedDict[str, WarrantWord] = OrderedDict()
        self._told: dict[str, set[str]] = {}
        self._worked: dict[str, set[str]] = {}
        self._closed: OrderedDict[str, str] = OrderedDict()
        self.tallies = Tallies()

    def __contains__(self, session: str) -> bool:
        return session in self._titles

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._titles))

    def __len__(self) -> int:
        return len(self._titles)

    def titles(self) -> list[Title]:
        """Of the open sessions."""
        return list(self._titles.values())

    def find(self, session: str) -> Title | None:
        """Its title while it is open."""
        return self._titles.get(session)

    def expect(self, session: str, now: float) -> bool:
        """Something of the session runs, though nobody here has met it; False if it is known."""
        if session in self._titles:
            return False
        self._titles[session] = Title(session, None, now)
        return True

    def claim(self, session: str, standing: Standing, name: str, now: float) -> bool:
        """A root caller opens the session or comes back to it; False if it is another's."""
        title = self._titles.get(session)
        key = "" if standing.warrant is None else standing.warrant.key
        before = self._warrants.get(session)
        if before is not None and before.key != key:
            return False
        if title is None:
            title = self._titles[session] = Title(session, standing, now, name)
        elif title.standing is not None and title.standing.principal != standing.principal:
            return False
        title.standing, title.until = standing, math.inf
        self._keep(session, standing.warrant)
        if self._warrants[session] != before:
            # A new root caller of the session signed it anew.
            for told in self._told.values():
                told.discard(session)
        return True

    def reserve(self, event: SessionReserved, now: float) -> float:
        """A session without a root caller; until when."""
        until = now + event.seconds
        if event.standing.warrant is not None:
            self._keep(event.session, event.standing.warrant)
        self._titles[event.session] = Title(event.session, event.standing, now, event.name, until)
        return until

    def sign(self, session: str, standing: Standing) -> bool:
        """Its principal shows for it what providers want to see; False if it is another's."""
        title = self._titles.get(session)
        if title is None or title.standing is None or standing.warrant is None:
            return False
        if title.standing.principal != standing.principal:
            return False
        title.standing = standing
        self._keep(session, standing.warrant)
        for told in self._told.values():
            told.discard(session)
        return True

    def close(self, session: str, why: str) -> None:
        """Ended by somebody's word: nobody may open it again."""
        self._closed[session] = why
        while len(self._closed) > MOST_REMEMBERED:
            self._closed.popitem(last=False)

    def closed(self, session: str) -> str:
        """Why it was ended by somebody's word, empty if it was not."""
        return self._closed.get(session, "")

    def discard(self, session: str) -> None:
        """It is over."""
        self._titles.pop(session, None)
        self.tallies.forget(session)

    def reported(self, report: ActorReport) -> None:
        """A provider returns the warrant of what still runs there; other providers that are shown
        it verify it themselves."""
        session, warrant = report.spec.session, report.warrant
        if warrant is not None and warrant.session == session and session not in self._warrants:
            self._keep(session, warrant)

    def _keep(self, session: str, warrant: WarrantWord | None) -> None:
        self._warrants[session] = warrant or WarrantWord(session, "")
        self._warrants.move_to_end(session)
        while len(self._warrants) > MOST_REMEMBERED:
            self._warrants.popitem(last=False)

    # --- providers ------------------------------------------------------------------------------

    def before(self, provider: str, message: Message) -> Warrant | None:
        """What a provider must hear before this order; None when it has heard it."""
        match message:
            case StartLease():
                session = message.session
            case StartActor():
                session = message.spec.session
            case _:
                return None
        self._worked.setdefault(provider, set()).add(session)
        told = self._told.setdefault(provider, set())
        warrant = self._warrants.get(session)
        if warrant is None or session in told:
            return None
        told.add(session)
        return Warrant(warrant)

    def late(self, session: str) -> list[tuple[str, Warrant]]:
        """Providers that were given work of the session before anybody knew its warrant: what to
        tell them now."""
        warrant = self._warrants.get(session)
        if warrant is None:
            return []
        news = []
        for provider, worked in self._worked.items():
            told = self._told.setdefault(provider, set())
            if session in worked and session not in told:
                told.add(session)
                news.append((provider, Warrant(warrant)))
        return news

    def works_for(self, provider: str, session: str) -> bool:
        """Whether the provider was ever given work of the session."""
        return session in self._worked.get(provider, ())

    def offered(self, provider: str, sessions: set[str]) -> None:
        """It works for these, as it says; what was forged of it is stopped by the scheduler."""
        self._worked.setdefault(provider, set()).update(sessions)

    def forget_provider(self, provider: str) -> None:
        """It is gone, or has a new link on which all must be told again."""
        self._told.pop(provider, None)
        self._worked.pop(provider, None)

    def renew(self, principal: str, standing: Standing) -> list[tuple[str, Warrant]]:
        """The grants of a principal changed: what to tell to which provider."""
        news = []
        for title in self._titles.values():
            if title.standing is None or title.standing.principal != principal:
                continue
            old, new = title.standing.warrant, standing.warrant
            if old is None or new is None:
                title.standing = replace(standing, warrant=old)
                continue
            warrant = replace(old, grants=new.grants)
            title.standing = replace(standing, warrant=warrant)
            self._keep(title.session, warrant)
            news += [
                (provider, Warrant(warrant))
                for provider, told in self._told.items()
                if title.session in told
            ]
        return news

    def strip(self, principal: str) -> None:
        """A principal was revoked: who comes to one of its sessions later has no rights either."""
        for title in self._titles.values():
            if title.standing is not None and title.standing.principal == principal:
                title.standing = replace(title.standing, rights=Rights())

    def of(self, principal: str) -> list[str]:
        """The open sessions of a principal."""
        return [
            title.session
            for title in self._titles.values()
            if title.standing is not None and title.standing.principal == principal
        ]


def principal_of(title: Title | None) -> str:
    """Whose session it is; empty while nobody knows."""
    if title is None or title.standing is None:
        return ""
    return title.standing.principal


def is_local(standing: Standing) -> bool:
    """A process of the hub's own user that shows no key."""
    return standing.principal == LOCAL
