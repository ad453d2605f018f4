"""Membership, introductions and routing: the thinking of the HubActor.

Owns: the Hello of every link, who may say what, which room hears it, relaying between callers, and
the count of protocol faults. Must never: have a policy about work (``scheduling`` has), do I/O, or
fail because of what a peer sent.

Links: the control lane's Hello binds a link to a peer. Messages of a data lane that was faster wait
for it; messages for a data lane that has not said Hello yet wait as well, because the transport
below does not know that lane before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from guactors import messages as m
from guactors.config import Timing
from guactors.ids import LinkKey
from guactors.peers_state import Peer, PeerBook
from guactors.scheduling import events as e
from guactors.transport.base import Lane
from guactors.transport.frames import lane_of
from guactors.transport.liveness import Lost, Recovered, SendPing, Silent

MOST_FAULTS = 16
"""Protocol faults of one link before it is dropped."""
MOST_EARLY = 1000
"""Links whose data lane came first, and messages each, that are kept until the control lane
comes."""
EARLY_PATIENCE = 5.0
"""Seconds they are kept."""
MOST_DROPPED = 10_000
"""Dropped links that are remembered, so that the rest of what they sent is ignored."""

_TO_SCHEDULER = e.RoomName.SCHEDULER
_CALLER_WORDS = (
    m.SetDemand, m.ReturnLease, m.CreateActor, m.WatchActor, m.FindActor, m.KillActor, m.HeldLeases,
)  # fmt: skip
_PROVIDER_WORDS = (
    m.LeaseStarted, m.LeaseEnded, m.WorkerBlocked, m.WorkerResumed, m.ActorStarted, m.ActorEnded,
)  # fmt: skip


@dataclass(slots=True)
class _Early:
    """A link of which only the data lane has been heard."""

    until: float
    hello: bool = False
    messages: list[m.Message] = field(default_factory=list)


class HubState:
    """A :class:`guactors.scheduling.events.Room`."""

    def __init__(self, hub: str, timing: Timing, versions: m.Versions, now: float) -> None:
        self.hub = hub
        self.peers = PeerBook(timing)
        self.sessions: set[str] = set()
        self.faults = 0
        self._versions = versions
        self._started = now
        self._early: dict[str, _Early] = {}
        self._faults_of: dict[str, int] = {}
        self._dropped: dict[str, None] = {}
        self._wake: float | None = None

    def __repr__(self) -> str:
        return f"<HubState {self.hub} peers={len(self.peers.by_id)} sessions={len(self.sessions)}>"

    # --- the room -------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        """Take one event."""
        match event:
            case e.Arrived(link, message, lane):
                return self._arrived(link, message, lane, now)
            case e.LinkGone(link):
                return self._link_gone(link, now)
            case e.BadFrame(link, kind, detail):
                return self._fault(link, kind, detail, now)
            case e.Disturbed():
                return [e.Send(LinkKey(link), m.Ping(0)) for link in self.peers.by_link]
            case e.SessionOver(session):
                if not self._has_root(session):
                    self.sessions.discard(session)
            case e.Stopping():
                goodbye = m.Goodbye("the hub stops")
                return [e.Send(LinkKey(link), goodbye) for link in self.peers.by_link]
        return []

    def _has_root(self, session: str) -> bool:
        """Whether a root came back just when the session was declared over."""
        return any(p.hello.session == session and p.hello.root for p in self.peers)

    def deliver(self, peer_id: str, message: m.Message) -> list[e.Effect]:
        """Carry out a ToPeer."""
        peer = self.peers.by_id.get(peer_id)
        return [] if peer is None else self._send(peer, message)

    def _send(self, peer: Peer, message: m.Message) -> list[e.Effect]:
        if peer.link is None:
            return []
        if not peer.data_open and lane_of(message) is Lane.DATA:
            peer.held.append(message)
            return []
        return [e.Send(LinkKey(peer.link), message)]

    def on_tick(self, now: float) -> list[e.Effect]:
        """Pings, verdicts, ends of grace."""
        effects: list[e.Effect] = []
        for peer in self.peers:
            effects += self._watch(peer, now)
        for link in [link for link, early in self._early.items() if now >= early.until]:
            del self._early[link]
        self._wake = None
        for peer in self.peers:
            self._wake_at(peer.deadline if peer.link is None else peer.liveness.next_wake(now))
        for early in self._early.values():
            self._wake_at(early.until)
        return effects

    def next_wake(self, _now: float) -> float | None:
        """When on_tick has something to do."""
        return self._wake

    def _wake_at(self, at: float) -> None:
        self._wake = at if self._wake is None else min(self._wake, at)

    def check(self) -> None:
        """Every invariant holds."""
        self.peers.check()

    # --- liveness -------------------------------------------------------------------------------

    def _watch(self, peer: Peer, now: float) -> list[e.Effect]:
        if peer.link is None:
            return (
                self._lose(peer, "is gone: its connection broke", now)
                if now >= peer.deadline
                else []
            )
        effects: list[e.Effect] = []
        for finding in peer.liveness.tick(now):
            match finding:
                case SendPing(number):
                    effects += self._send(peer, m.Ping(number))
                case Silent():
                    effects += self._away(peer)
                case Recovered() if peer.role == "provider":
                    effects.append(e.ToRoom(_TO_SCHEDULER, e.ProviderBack(peer.id)))
                case Lost():
                    silence = now - peer.heard
                    effects += self._lose(peer, f"is lost: not a word for {silence:.0f} s", now)
        return effects

    @staticmethod
    def _away(peer: Peer) -> list[e.Effect]:
        if peer.role != "provider":
            return []
        return [e.ToRoom(_TO_SCHEDULER, e.ProviderAway(peer.id))]

    def _link_gone(self, link: str, now: float) -> list[e.Effect]:
        self._early.pop(link, None)
        self._faults_of.pop(link, None)
        effects: list[e.Effect] = [e.Drop(LinkKey(link), "the connection broke")]
        peer = self.peers.by_link.get(link)
        if peer is not None:
            self._wake_at(self.peers.unlink(peer, now))
            effects += self._away(peer)
        return effects

    def _lose(self, peer: Peer, reason: str, now: float, *, lost: bool = True) -> list[e.Effect]:
        effects: list[e.Effect] = []
        if peer.link is not None:
            effects.append(e.Drop(LinkKey(peer.link), f"{peer.id} {reason}"))
        self.peers.leave(peer, now, lost=lost)
        if peer.role == "provider":
            left = e.ProviderLeft(peer.id, reason)
            effects += [e.ToRoom(_TO_SCHEDULER, left), e.ToRoom(e.RoomName.STATS, left)]
        else:
            effects.append(e.ToRoom(_TO_SCHEDULER, e.CallerLeft(peer.id, reason)))
            if peer.hello.session in self.sessions:
                member = e.MemberLeft(peer.id, reason)
                effects.append(e.ToSession(peer.hello.session, member))
        return effects

    # --- arrivals -------------------------------------------------------------------------------

    def _arrived(
        self, link: str, message: m.Message, lane: Lane | None, now: float
    ) -> list[e.Effect]:
        peer = self.peers.by_link.get(link)
        if peer is None:
            return self._from_stranger(link, message, lane, now)
        peer.heard = now
        peer.liveness.on_heard(now)
        match message:
            case m.Hello():
                return self._hello_again(peer, link, message, lane, now)
            case m.Ping(number):
                return self._send(peer, m.Pong(number))
            case m.Goodbye(reason):
                return self._lose(peer, f"left: {reason or 'it said goodbye'}", now, lost=False)
            case m.Pong() | m.Fault() | m.Welcome():
                return []
        if peer.role == "provider":
            return self._from_provider(peer, message, now)
        return self._from_caller(peer, message, now)

    def _from_stranger(
        self, link: str, message: m.Message, lane: Lane | None, now: float
    ) -> list[e.Effect]:
        if link in self._dropped:
            return []
        if lane is Lane.DATA:
            self._keep_early(link, message, now)
            return []
        if isinstance(message, m.Hello):
            return self._hello(link, message, lane, now)
        if isinstance(message, m.Goodbye):
            return []
        # A peer that was given up, wakes, and goes on where it was.
        return [e.Send(LinkKey(link), m.Goodbye("this hub does not know the link: dial again"))]

    def _keep_early(self, link: str, message: m.Message, now: float) -> None:
        early = self._early.get(link)
        if early is None:
            if len(self._early) >= MOST_EARLY:
                return
            early = self._early[link] = _Early(now + EARLY_PATIENCE)
            self._wake_at(early.until)
        if isinstance(message, m.Hello):
            early.hello = True
        elif len(early.messages) < MOST_EARLY:
            early.messages.append(message)

    # --- hello ----------------------------------------------------------------------------------

    def _hello(self, link: str, hello: m.Hello, lane: Lane | None, now: float) -> list[e.Effect]:
        if hello.role not in ("caller", "provider"):
            return self._fault(
                link, "unexpected", f"a hub has no links of role {hello.role!r}", now
            )
        effects: list[e.Effect] = []
        peer = self.peers.by_id.get(hello.peer)
        if peer is not None and peer.role != hello.role:
            text = f"{hello.peer} is a {peer.role} already, it cannot be a {hello.role} as well"
            return self._fault(link, "unexpected", text, now)
        if peer is None:
            peer = self.peers.join(hello, link, now)
        else:
            if peer.link is not None:
                effects.append(
                    e.Drop(LinkKey(peer.link), "replaced by a new link of the same peer")
                )
            self.peers.relink(peer, hello, link, now)
        self._wake_at(peer.liveness.next_wake(now))
        effects += self._send(peer, m.Welcome(self.hub, self._versions))
        effects += self._introduce(hello)
        early = self._early.pop(link, None)
        peer.data_open = lane is None or (early is not None and early.hello)
        for message in early.messages if early is not None else ():
            effects += self._arrived(link, message, Lane.DATA, now)
        return effects

    def _introduce(self, hello: m.Hello) -> list[e.Effect]:
        python = ".".join(hello.versions.python.split(".")[:2])
        if hello.role == "provider":
            joined = e.ProviderJoined(hello.peer, hello.name, python)
            return [e.ToRoom(_TO_SCHEDULER, joined), e.ToRoom(e.RoomName.STATS, joined)]
        caller = e.CallerJoined(hello.peer, hello.session, python, hello.root, hello.namespace)
        effects: list[e.Effect] = [e.ToRoom(_TO_SCHEDULER, caller)]
        if hello.session:
            self.sessions.add(hello.session)
            effects.append(e.ToSession(hello.session, e.MemberJoined(hello.peer, hello.root)))
        return effects

    def _hello_again(
        self, peer: Peer, link: str, hello: m.Hello, lane: Lane | None, now: float
    ) -> list[e.Effect]:
        if hello.peer != peer.id:
            return self._fault(link, "unexpected", f"the link belongs to {peer.id}", now)
        if lane is not Lane.DATA:
            return []
        peer.data_open = True
        held, peer.held = peer.held, []
        return [effect for message in held for effect in self._send(peer, message)]

    # --- routing --------------------------------------------------------------------------------

    def _from_provider(self, peer: Peer, message: m.Message, now: float) -> list[e.Effect]:
        heard = e.FromPeer(peer.id, message)
        if isinstance(message, _PROVIDER_WORDS):
            return [e.ToRoom(_TO_SCHEDULER, heard)]
        match message:
            case m.Output():
                known = message.session in self.sessions
                return [e.ToSession(message.session, heard)] if known else []
            case m.Sample():
                return [e.ToRoom(e.RoomName.STATS, heard)]
            case m.Offer():
                return [
                    e.ToRoom(_TO_SCHEDULER, heard),
                    e.ToRoom(e.RoomName.STATS, heard),
                    *self._expect_sessions(message),
                ]
        return self._unexpected(peer, message, now)

    def _expect_sessions(self, offer: m.Offer) -> list[e.Effect]:
        """Sessions of which a provider still runs something, though this hub has not met them."""
        found = {report.session for report in offer.leases}
        found |= {report.spec.session for report in offer.actors if not report.spec.detached}
        new = sorted(found - self.sessions)
        self.sessions.update(new)
        return [e.ToSession(session, e.SessionExpected(session)) for session in new]

    def _from_caller(self, peer: Peer, message: m.Message, now: float) -> list[e.Effect]:
        heard = e.FromPeer(peer.id, message)
        if isinstance(message, _CALLER_WORDS):
            return [e.ToRoom(_TO_SCHEDULER, heard)]
        match message:
            case m.AskInfo():
                return [e.ToRoom(e.RoomName.STATS, heard)]
            case m.AskGrid(request):
                asked = e.GridAsked(peer.id, request, self._grid(now))
                return [e.ToRoom(e.RoomName.STATS, asked)]
            case m.Relay():
                return self._relay(peer, message)
        return self._unexpected(peer, message, now)

    def _relay(self, source: Peer, message: m.Relay) -> list[e.Effect]:
        target = self.peers.by_id.get(message.peer)
        if target is None or target.role != "caller" or target.link is None:
            text = f"{message.peer}: no such caller in the grid, the message to it was not relayed"
            return self._send(source, m.Fault("PeerLost", text))
        return self._send(target, m.Relay(source.id, message.frame))

    def _grid(self, now: float) -> m.GridInfo:
        return m.GridInfo(
            self.hub, self._versions.guactors, now - self._started, self.peers.rows(now),
            len(self.sessions), 0, 0, [], self.faults,
        )  # fmt: skip

    # --- faults ---------------------------------------------------------------------------------

    def _unexpected(self, peer: Peer, message: m.Message, now: float) -> list[e.Effect]:
        text = f"a {peer.role} must not send {type(message).__name__} to a hub"
        return self._fault(peer.link or "", "unexpected", text, now)

    def _fault(self, link: str, kind: str, detail: str, now: float) -> list[e.Effect]:
        """Something that is not ours: counted, answered, and after too many the link is dropped."""
        self.faults += 1
        if link in self._dropped:
            return []
        count = self._faults_of[link] = self._faults_of.get(link, 0) + 1
        if len(self._faults_of) > MOST_DROPPED:
            del self._faults_of[next(iter(self._faults_of))]
        name = "VersionMismatch" if kind == "version" else "ProtocolError"
        effects: list[e.Effect] = [e.Send(LinkKey(link), m.Fault(name, f"{kind}: {detail}"))]
        if count >= MOST_FAULTS:
            self._dropped[link] = None
            if len(self._dropped) > MOST_DROPPED:
                del self._dropped[next(iter(self._dropped))]
            effects += self._link_gone(link, now)
        return effects
