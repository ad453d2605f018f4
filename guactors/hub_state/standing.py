"""What follows when somebody's rights change, and the questions about sessions.

Owns: cutting off who was revoked, passing changed rights on, listing and closing sessions. Must
never: decide who is revoked (``gatekeeper_state`` does), or what becomes of work (``scheduling``).
"""

from __future__ import annotations

from msgspec.structs import replace

from guactors import messages as m
from guactors.hub_state.desk import TO_GATEKEEPER, TO_SCHEDULER, HubDesk
from guactors.hub_state.peers import Peer
from guactors.hub_state.sessions import principal_of
from guactors.scheduling import events as e
from guactors.security.rights import Rights


class StandingRules:
    """Works on ``desk``."""

    def __init__(self, desk: HubDesk) -> None:
        self._desk = desk

    def changed(self, event: e.StandingChanged, now: float) -> list[e.Effect]:
        """``event.principal`` has other rights, or none any more."""
        desk, standing = self._desk, event.standing
        effects: list[e.Effect] = []
        if standing is not None:
            for provider, warrant in desk.sessions.renew(event.principal, standing):
                effects += desk.deliver(provider, warrant)
        else:
            desk.sessions.strip(event.principal)
        effects.append(e.ToRoom(TO_SCHEDULER, event))
        for peer in [p for p in desk.peers if p.standing.principal == event.principal]:
            if standing is None and event.running != "finish":
                effects += self._cut(peer, event.reason, now)
            else:
                rights = Rights() if standing is None else standing.rights
                peer.standing = replace(peer.standing, rights=rights)
        return effects

    def _cut(self, peer: Peer, reason: str, now: float) -> list[e.Effect]:
        desk = self._desk
        text = f"the key of {peer.hello.name or peer.id} was revoked: {reason or 'no reason given'}"
        effects = desk.send(peer, m.Fault("AuthFailed", text))
        if peer.link is not None:
            desk.forget_link(peer.link)
        if peer.user:
            effects.append(e.ShutOut([peer.user]))
        return effects + desk.lose(peer, "was shut out: its key was revoked", now, lost=False)

    def revocations(self, event: e.RevocationsAre) -> list[e.Effect]:
        """Every provider must know, those that join later as well; and whoever judges by the
        signers of images."""
        desk, message = self._desk, event.message
        desk.revoked = message
        told = [x for p in desk.peers if p.role == "provider" for x in desk.send(p, message)]
        return [*told, e.ToRoom(e.RoomName.IMAGES, event)]

    # --- sessions ---------------------------------------------------------------------------------

    def asked(
        self, asker: Peer, standing: e.Standing, message: m.Message, now: float
    ) -> list[e.Effect]:
        """AskSessions, CloseSession or SignSession, with the rights of ``standing``."""
        desk = self._desk
        everything = standing.rights.may("admin", desk.wall(now)).allowed
        match message:
            case m.AskSessions(request):
                rows = [
                    m.SessionRow(t.session, principal_of(t), t.name, self._callers_of(t.session),
                                 max(0.0, now - t.since))
                    for t in desk.sessions.titles()
                    if everything or principal_of(t) == standing.principal
                ]  # fmt: skip
                return desk.send(asker, m.SessionList(request, rows))
            case m.CloseSession(request, session):
                owner = principal_of(desk.sessions.find(session))
                if not owner or not (everything or owner == standing.principal):
                    text = f"no session {session} of yours is open"
                    return desk.send(asker, m.Fault("UsageError", text, request))
                reason = f"closed by {standing.name or standing.principal}"
                told = e.Decision(
                    standing.principal, "session", session, "allowed", "allowed", reason
                )
                return [
                    e.ToRoom(TO_GATEKEEPER, e.Decided(told)),
                    *self._close(session, reason, now),
                    *desk.send(asker, m.Done(request)),
                ]
            case m.SignSession(request, _, session):
                return self._sign(asker, standing, request, session)
        return []

    def _sign(
        self, asker: Peer, standing: e.Standing, request: int, session: str
    ) -> list[e.Effect]:
        desk = self._desk
        if not desk.sessions.sign(session, standing):
            text = f"no session {session} of yours is open"
            return desk.send(asker, m.Fault("UsageError", text, request))
        effects: list[e.Effect] = []
        for provider, warrant in desk.sessions.late(session):
            effects += desk.deliver(provider, warrant)
        # What providers refused for want of it may be tried again.
        again = e.StandingChanged(standing.principal, standing, "finish")
        return [*effects, e.ToRoom(TO_SCHEDULER, again), *desk.send(asker, m.Done(request))]

    def _callers_of(self, session: str) -> int:
        return sum(p.hello.session == session and p.role == "caller" for p in self._desk.peers)

    def _close(self, session: str, reason: str, now: float) -> list[e.Effect]:
        effects: list[e.Effect] = []
        self._desk.sessions.close(session, reason)
        for peer in self._desk.peers:
            if peer.hello.session == session and peer.hello.root:
                effects += self._desk.send(peer, m.Goodbye("its session was closed"))
                effects += self._desk.lose(peer, "had its session closed", now, lost=False)
        return [*effects, *self.over(session, reason)]

    def over(self, session: str, reason: str) -> list[e.Effect]:
        """The session has ended; nobody need be left in it."""
        over = e.SessionOver(session, reason)
        return [e.ToRoom(TO_SCHEDULER, over), e.ToRoom(e.RoomName.HUB, over)]

    def expire(self, now: float) -> list[e.Effect]:
        """Reserved sessions to which nobody came."""
        over = [title.session for title in self._desk.sessions.titles() if now >= title.until]
        return [x for session in over for x in self.over(session, "its reserved time is over")]
