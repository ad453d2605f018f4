"""What the hub's own room knows, in one place, for the rules that work on it.

Owns: peers, sessions, the entrance, faults, the alarm, and the few operations that must keep
several of them in step. Must never: decide who somebody is, or what they may.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from guactors import messages as m
from guactors.config import Timing
from guactors.hub_state.entrance import Entrance
from guactors.hub_state.inquiries import Inquiries
from guactors.hub_state.peers import Peer, PeerBook
from guactors.hub_state.sessions import SessionBook
from guactors.ids import LinkKey
from guactors.scheduling import events as e
from guactors.security.rights import Reason
from guactors.transport.base import Lane
from guactors.transport.frames import lane_of

MOST_FAULTS = 16
"""Protocol faults of one link before it is dropped."""
MOST_DROPPED = 10_000
"""Dropped links that are remembered, so that the rest of what they sent is ignored."""

MOST_HELD = 1000
"""Messages kept for a data lane that has not opened; it opens at once, or never."""

TO_SCHEDULER = e.RoomName.SCHEDULER
TO_GATEKEEPER = e.RoomName.GATEKEEPER


class HubDesk:
    """``key``: the hub's public key, empty without one. ``wall`` turns ``now`` into epoch seconds,
    in which grants count. Every method that sends returns the effects."""

    def __init__(
        self,
        hub: str,
        key: str,
        timing: Timing,
        versions: m.Versions,
        wall: Callable[[float], float],
    ) -> None:
        self.hub = hub
        self.key = key
        self.versions = versions
        self.wall = wall
        self.peers = PeerBook(timing)
        self.sessions = SessionBook()
        self.entrance = Entrance()
        self.inquiries = Inquiries()
        self.dropped: dict[str, None] = {}
        self.revoked: m.Revoked | None = None
        self.faults = 0
        self.wake: float | None = None
        self._faults_of: dict[str, int] = {}

    def wake_at(self, at: float | None) -> None:
        """Let the alarm ring no later than this."""
        if at is not None and at < math.inf:
            self.wake = at if self.wake is None else min(self.wake, at)

    # --- sending --------------------------------------------------------------------------------

    def deliver(self, peer_id: str, message: m.Message) -> list[e.Effect]:
        """To a peer by its id, if it is there."""
        peer = self.peers.by_id.get(peer_id)
        return [] if peer is None else self.send(peer, message)

    def send(self, peer: Peer, message: m.Message) -> list[e.Effect]:
        """To a peer; what must be heard before it goes first."""
        if peer.link is None:
            return []
        link = LinkKey(peer.link)
        before = self.sessions.before(peer.id, message) if peer.role == "provider" else None
        effects: list[e.Effect] = [] if before is None else [e.Send(link, before)]
        if not peer.data_open and lane_of(message) is Lane.DATA:
            peer.held.append(message)
            if len(peer.held) > MOST_HELD:
                return [*effects, *self.link_gone(link, peer.heard)]
            return effects
        return [*effects, e.Send(link, message)]

    # --- ends -----------------------------------------------------------------------------------

    def away(self, peer: Peer) -> list[e.Effect]:
        """Nothing new is placed on a provider that may be gone."""
        if peer.role != "provider":
            return []
        return [e.ToRoom(TO_SCHEDULER, e.ProviderAway(peer.id))]

    def link_gone(self, link: str, now: float) -> list[e.Effect]:
        """The link is certainly gone; its peer may come back with another."""
        self._faults_of.pop(link, None)
        effects: list[e.Effect] = [e.Drop(LinkKey(link), "the connection broke")]
        if self.entrance.forget(link):
            effects.append(e.ToRoom(TO_GATEKEEPER, e.KnockEnded(LinkKey(link))))
        peer = self.peers.by_link.get(link)
        if peer is not None:
            self.wake_at(self.peers.unlink(peer, now))
            effects += self.away(peer)
        return effects

    def lose(self, peer: Peer, reason: str, now: float, *, lost: bool = True) -> list[e.Effect]:
        """The peer is gone, and everybody is told."""
        effects: list[e.Effect] = []
        if peer.link is not None:
            effects.append(e.Drop(LinkKey(peer.link), f"{peer.id} {reason}"))
        self.peers.leave(peer, now, lost=lost)
        for one in self.inquiries.left(peer.id):
            text = f"{peer.id}, which was asked, {reason}"
            effects += self.deliver(one.asker, m.Fault("PeerLost", text, one.request))
        if peer.role == "provider":
            self.sessions.forget_provider(peer.id)
            self.entrance.provider_left(peer.id)
            left = e.ProviderLeft(peer.id, reason)
            return [*effects, e.ToRoom(TO_SCHEDULER, left), e.ToRoom(e.RoomName.STATS, left)]
        effects.append(e.ToRoom(TO_SCHEDULER, e.CallerLeft(peer.id, reason)))
        if peer.hello.session in self.sessions:
            member = e.MemberLeft(peer.id, reason)
            effects.append(e.ToSession(peer.hello.session, member))
        return effects

    def forget_link(self, link: str) -> None:
        """Whatever else it says is ignored."""
        self.dropped[link] = None
        if len(self.dropped) > MOST_DROPPED:
            del self.dropped[next(iter(self.dropped))]

    def turn_away(self, link: str, kind: str, detail: str) -> list[e.Effect]:
        """Nobody comes in by this link; ``kind`` as in Fault."""
        self.entrance.forget(link)
        self.forget_link(link)
        return [
            e.Send(LinkKey(link), m.Fault(kind, detail)),
            e.Drop(LinkKey(link), f"{kind}: {detail}"),
        ]

    def fault(self, link: str, kind: str, detail: str, now: float) -> list[e.Effect]:
        """Something that is not ours: counted, answered, and after too many the link is dropped."""
        self.faults += 1
        if link in self.dropped:
            return []
        count = self._faults_of[link] = self._faults_of.get(link, 0) + 1
        if len(self._faults_of) > MOST_DROPPED:
            del self._faults_of[next(iter(self._faults_of))]
        name = "VersionMismatch" if kind == "version" else "ProtocolError"
        peer = self.peers.by_link.get(link)
        who = "" if peer is None else peer.standing.principal
        told = e.Decision(
            who, "message", link, "refused", Reason.MALFORMED.value, f"{kind}: {detail}"
        )
        effects: list[e.Effect] = [
            e.ToRoom(TO_GATEKEEPER, e.Decided(told)),
            e.Send(LinkKey(link), m.Fault(name, f"{kind}: {detail}")),
        ]
        if count >= MOST_FAULTS:
            self.forget_link(link)
            effects += self.link_gone(link, now)
        return effects
