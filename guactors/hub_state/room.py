"""Membership, introductions and routing: the thinking of the HubActor.

Owns: who may say what, which room hears it, liveness, relaying between callers. Must never: have a
policy about work (``scheduling`` has), decide who somebody is (``gatekeeper_state`` does), do I/O,
or fail because of what a peer sent.

Links: the control lane's Hello binds a link to a peer, at once for a local process, else when the
gatekeeper has said who it is (``admission``). From then on each message must come from the
CURVE key that began the link. Messages of a data lane that was faster wait for it; messages for a
data lane that has not said Hello yet wait as well, because the transport below does not know that
lane before.
"""

from __future__ import annotations

from collections.abc import Callable

from guactors import messages as m
from guactors.config import Timing
from guactors.hub_state.actions import decision, needed_action, refusal
from guactors.hub_state.admission import Admission
from guactors.hub_state.desk import TO_GATEKEEPER, TO_SCHEDULER, HubDesk
from guactors.hub_state.looking import LookingRules
from guactors.hub_state.peers import Peer, PeerBook
from guactors.hub_state.sessions import SessionBook, is_local
from guactors.hub_state.standing import StandingRules
from guactors.ids import LinkKey
from guactors.scheduling import events as e
from guactors.security.marks import Mark, actor_mark, lease_mark, no_mark
from guactors.security.rights import Reason
from guactors.transport.base import Lane
from guactors.transport.liveness import Lost, Recovered, SendPing, Silent

_CALLER_WORDS = (
    m.SetDemand, m.ReturnLease, m.CreateActor, m.WatchActor, m.FindActor, m.KillActor, m.HeldLeases,
    m.AskPlan, m.LeaseDue,
)  # fmt: skip
_PROVIDER_WORDS = (
    m.LeaseStarted, m.LeaseEnded, m.WorkerBlocked, m.WorkerResumed, m.ActorStarted, m.ActorEnded,
    m.Suspended, m.Resumed, m.AvailabilityIs, m.ActorSaved,
    m.KeepGroups,
)  # fmt: skip


class HubState:
    """A :class:`guactors.scheduling.events.Room`. ``key``: the hub's public key, empty without one.
    ``wall`` turns ``now`` into epoch seconds, in which grants count; ``mark`` makes the hub's mark
    on what providers report."""

    def __init__(
        self,
        hub: str,
        timing: Timing,
        versions: m.Versions,
        now: float,
        *,
        key: str = "",
        wall: Callable[[float], float] = float,
        mark: Mark = no_mark,
    ) -> None:
        self._mark = mark
        self._desk = HubDesk(hub, key, timing, versions, wall)
        self._admission = Admission(self._desk, self._heard_early)
        self._standing = StandingRules(self._desk)
        self._looking = LookingRules(self._desk)
        self._started = now

    def __repr__(self) -> str:
        return (
            f"<HubState {self._desk.hub} peers={len(self.peers.by_id)} "
            f"sessions={len(self.sessions)}>"
        )

    @property
    def peers(self) -> PeerBook:
        return self._desk.peers

    @property
    def sessions(self) -> SessionBook:
        return self._desk.sessions

    # --- the room -------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        """Take one event."""
        match event:
            case e.Arrived(link, message, lane, user):
                return self._arrived(link, message, lane, user, now)
            case e.LinkGone(link):
                return self._desk.link_gone(link, now)
            case e.BadFrame(link, kind, detail):
                return self._desk.fault(link, kind, detail, now)
            case e.HandshakesFailed(address, count):
                return [_refused_at_the_door(address, count)]
            case e.Excused(peer_id, excused):
                return self._excuse(peer_id, excused, now)
            case e.Disturbed():
                return [e.Send(LinkKey(link), m.Ping(0)) for link in self.peers.by_link]
            case e.SessionOver(session):
                if not self._has_root(session):
                    self.sessions.discard(session)
            case e.Stopping():
                goodbye = m.Goodbye("the hub stops")
                return [e.Send(LinkKey(link), goodbye) for link in self.peers.by_link]
            case _:
                return self._from_gatekeeper(event, now)
        return []

    def _from_gatekeeper(self, event: e.Event, now: float) -> list[e.Effect]:
        match event:
            case e.Admitted():
                return self._admission.admitted(event, now)
            case e.TurnedAway(link, kind, detail):
                return self._desk.turn_away(link, kind, detail)
            case e.StandingChanged():
                return self._standing.changed(event, now)
            case e.RevocationsAre():
                return self._standing.revocations(event)
            case e.SessionAsked(peer_id, standing, message):
                peer = self.peers.by_id.get(peer_id)
                return [] if peer is None else self._standing.asked(peer, standing, message, now)
            case e.SessionReserved():
                self._desk.wake_at(self.sessions.reserve(event, now))
                expected = e.SessionExpected(event.session, event.seconds)
                return [e.ToSession(event.session, expected)]
        return []

    def _has_root(self, session: str) -> bool:
        """Whether a root came back just when the session was declared over."""
        return any(p.hello.session == session and p.hello.root for p in self.peers)

    def deliver(self, peer_id: str, message: m.Message) -> list[e.Effect]:
        """Carry out a ToPeer."""
        return self._desk.deliver(peer_id, message)

    def on_tick(self, now: float) -> list[e.Effect]:
        """Pings, verdicts, ends of grace."""
        desk = self._desk
        effects: list[e.Effect] = []
        for peer in self.peers:
            effects += self._watch(peer, now)
        effects += self._admission.expire(now)
        effects += self._standing.expire(now)
        effects += self._looking.expire(now)
        desk.wake = None
        for peer in self.peers:
            desk.wake_at(self.peers.next_wake(peer, now))
        for title in self.sessions.titles():
            desk.wake_at(title.until)
        desk.wake_at(desk.entrance.next_wake())
        desk.wake_at(desk.inquiries.next_wake())
        return effects

    def next_wake(self, _now: float) -> float | None:
        """When on_tick has something to do."""
        return self._desk.wake

    def check(self) -> None:
        """Every invariant holds."""
        self.peers.check()

    # --- liveness -------------------------------------------------------------------------------

    def _excuse(self, peer_id: str, excused: bool, now: float) -> list[e.Effect]:
        peer = self.peers.by_id.get(peer_id)
        if peer is not None:
            self.peers.excuse(peer, excused, now)
            self._desk.wake_at(self.peers.next_wake(peer, now))
        return []

    def _watch(self, peer: Peer, now: float) -> list[e.Effect]:
        desk = self._desk
        if peer.excused:
            return []
        if peer.link is None:
            return (
                desk.lose(peer, "is gone: its connection broke", now)
                if now >= peer.deadline
                else []
            )
        effects: list[e.Effect] = []
        for finding in peer.liveness.tick(now):
            match finding:
                case SendPing(number):
                    effects += desk.send(peer, m.Ping(number))
                case Silent():
                    effects += desk.away(peer)
                case Recovered() if peer.role == "provider":
                    effects.append(e.ToRoom(TO_SCHEDULER, e.ProviderBack(peer.id)))
                case Lost():
                    silence = now - peer.heard
                    effects += desk.lose(peer, f"is lost: not a word for {silence:.0f} s", now)
        return effects

    # --- arrivals -------------------------------------------------------------------------------

    def _heard_early(self, link: str, message: m.Message, user: str, now: float) -> list[e.Effect]:
        return self._arrived(link, message, Lane.DATA, user, now)

    def _arrived(
        self, link: str, message: m.Message, lane: Lane | None, user: str, now: float
    ) -> list[e.Effect]:
        desk = self._desk
        peer = self.peers.by_link.get(link)
        if peer is None:
            return self._admission.from_stranger(link, message, lane, user, now)
        if user != peer.user:
            text = f"the link belongs to another key than {user or 'none'}"
            return desk.fault(link, "unexpected", text, now)
        peer.heard = now
        peer.liveness.on_heard(now)
        match message:
            case m.Hello():
                return self._hello_again(peer, link, message, lane, now)
            case m.Ping(number):
                return desk.send(peer, m.Pong(number))
            case m.Goodbye(reason):
                return desk.lose(peer, f"left: {reason or 'it said goodbye'}", now, lost=False)
            case m.Pong() | m.Fault() | m.Welcome():
                return []
        if peer.role == "provider":
            return self._from_provider(peer, message, now)
        return self._from_caller(peer, message, now)

    def _hello_again(
        self, peer: Peer, link: str, hello: m.Hello, lane: Lane | None, now: float
    ) -> list[e.Effect]:
        if hello.peer != peer.id:
            return self._desk.fault(link, "unexpected", f"the link belongs to {peer.id}", now)
        if lane is not Lane.DATA:
            return []
        peer.data_open = True
        held, peer.held = peer.held, []
        return [effect for message in held for effect in self._desk.send(peer, message)]

    # --- routing: providers ---------------------------------------------------------------------

    def _from_provider(self, peer: Peer, message: m.Message, now: float) -> list[e.Effect]:
        heard = e.FromPeer(peer.id, message)
        if isinstance(message, _PROVIDER_WORDS):
            return [e.ToRoom(TO_SCHEDULER, heard)]
        match message:
            case m.Output(session):
                open_here = session in self.sessions and self.sessions.works_for(peer.id, session)
                return [e.ToSession(session, heard)] if open_here else []
            case m.Sample():
                return [e.ToRoom(e.RoomName.STATS, heard)]
            case m.Offer():
                return [
                    e.ToRoom(TO_SCHEDULER, heard),
                    e.ToRoom(e.RoomName.STATS, heard),
                    *self._expect_sessions(peer, message, now),
                ]
            case m.Vouch():
                return self._admission.vouched(peer, message, now)
            case m.Report():
                return [_reported(peer, message)]
            case m.Findings():
                return self._looking.findings(peer, message)
            case m.AskImage() | m.AskChunk():
                asked = e.ImagesAsked(peer.id, peer.standing, message)
                return [e.ToRoom(e.RoomName.IMAGES, asked)]
        return self._unexpected(peer, message, now)

    def _expect_sessions(self, peer: Peer, offer: m.Offer, now: float) -> list[e.Effect]:
        """Sessions of which a provider still runs something, though this hub has not met them. A
        report without this hub's mark counts for nothing."""
        actors = [
            x for x in offer.actors if x.spec.seal == actor_mark(self._mark, x.spec, x.payload)
        ]
        found = {
            x.session
            for x in offer.leases
            if x.seal == lease_mark(self._mark, x.lease, x.session, x.caller, x.principal)
        }
        found |= {report.spec.session for report in actors if not report.spec.detached}
        self.sessions.offered(peer.id, found | {report.spec.session for report in actors})
        for report in actors:
            self.sessions.reported(report)
        new = [session for session in sorted(found) if self.sessions.expect(session, now)]
        return [e.ToSession(session, e.SessionExpected(session)) for session in new]

    # --- routing: callers -----------------------------------------------------------------------

    def _from_caller(self, peer: Peer, message: m.Message, now: float) -> list[e.Effect]:
        refused = self._refused(peer, message, now)
        if refused:
            return refused
        heard = e.FromPeer(peer.id, message)
        worker = peer.standing.kind == e.WORKER
        if isinstance(message, (*_CALLER_WORDS, m.GroupQuestion)):
            return [e.ToRoom(TO_SCHEDULER, heard)]
        match message:
            case m.AskInfo():
                return [e.ToRoom(e.RoomName.STATS, heard)]
            case m.AskGrid(request):
                asked = e.GridAsked(peer.id, request, self._grid(now))
                return [e.ToRoom(e.RoomName.STATS, asked)]
            case m.Relay():
                return self._relay(peer, message)
            case m.AskSources():
                return self._looking.sources(peer, message)
            case m.Inquire():
                return self._looking.inquire(peer, message, now)
            case m.Findings():
                return self._looking.findings(peer, message)
            case m.Tally(rows):
                return self._looking.tally(peer, rows)
            case m.Report() if is_local(peer.standing):
                return [_reported(peer, message)]
            case m.AskSessions(token="") | m.CloseSession(token="") if not worker:
                return self._standing.asked(peer, peer.standing, message, now)
        if isinstance(message, m.ImageQuestion) and not getattr(message, "token", ""):
            to_images = e.ImagesAsked(peer.id, peer.standing, message)
            return [e.ToRoom(e.RoomName.IMAGES, to_images)]
        if isinstance(message, m.Authority | m.ImageQuestion) and not worker:
            to_gatekeeper = e.AuthorityAsked(peer.id, peer.standing, message)
            return [e.ToRoom(TO_GATEKEEPER, to_gatekeeper)]
        return self._unexpected(peer, message, now)

    def _refused(self, peer: Peer, message: m.Message, now: float) -> list[e.Effect]:
        """The answer to what no grant of the peer allows. Where nobody knows yet whose session a
        worker works for, because this hub is new, the scheduler lets it wait."""
        standing = peer.standing
        if standing.rights.everything:
            return []
        action = needed_action(message)
        waits = not standing.principal and isinstance(message, m.SetDemand | m.CreateActor)
        if not action or waits:
            return []
        verdict = standing.rights.may(action, self._desk.wall(now))
        if verdict.allowed:
            return []
        told = e.Decided(decision(standing, action, message, verdict))
        return [
            e.ToRoom(TO_GATEKEEPER, told),
            *self._desk.send(peer, refusal(message, verdict)),
        ]

    def _relay(self, source: Peer, message: m.Relay) -> list[e.Effect]:
        target = self.peers.by_id.get(message.peer)
        if (
            target is None
            or target.role != "caller"
            or target.link is None
            or target.standing.principal != source.standing.principal
        ):
            text = f"{message.peer}: no such caller in the grid, the message to it was not relayed"
            return self._desk.send(source, m.Fault("PeerLost", text))
        return self._desk.send(target, m.Relay(source.id, message.frame))

    def _grid(self, now: float) -> m.GridInfo:
        desk = self._desk
        return m.GridInfo(
            desk.hub, desk.versions.guactors, now - self._started, self.peers.rows(now),
            len(self.sessions), 0, 0, [], desk.faults,
        )  # fmt: skip

    def _unexpected(self, peer: Peer, message: m.Message, now: float) -> list[e.Effect]:
        text = f"a {peer.role} must not send {type(message).__name__} to a hub"
        return self._desk.fault(peer.link or "", "unexpected", text, now)


def _reported(peer: Peer, report: m.Report) -> e.Effect:
    # What it says of others is only its word: the line says whose.
    where = peer.hello.name if is_local(peer.standing) else peer.standing.principal
    told = e.Decision(
        report.who, report.action, report.object, "refused", report.reason, report.detail, where
    )
    return e.ToRoom(TO_GATEKEEPER, e.Decided(told))


def _refused_at_the_door(address: str, count: int) -> e.Effect:
    text = f"{count} tries without a key that may enter, or in another's name"
    told = e.Decision("", "handshake", address, "refused", Reason.HANDSHAKE.value, text)
    return e.ToRoom(TO_GATEKEEPER, e.Decided(told))
