"""From a stranger's first word to a peer of the grid.

Owns: what a Hello leads to: admitted at once, knocking, waiting to be vouched for, or turned away;
and whose session it may join. Must never: verify a proof (``gatekeeper_state`` does), or believe an
id that another principal's process has.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from guactors import messages as m
from guactors.hub_state.desk import TO_GATEKEEPER, TO_SCHEDULER, HubDesk
from guactors.hub_state.entrance import KNOCK_PATIENCE, Vouched
from guactors.hub_state.peers import Peer
from guactors.hub_state.sessions import is_local, principal_of
from guactors.ids import LinkKey
from guactors.scheduling import events as e
from guactors.scheduling.shares import USUAL
from guactors.security.rights import Rights
from guactors.transport.base import Lane

NO_KEY = (
    "this hub admits nobody from elsewhere without a key: give one (gu key new app, then "
    "init(key=...) or GU_KEY), and have the grid's owner approve it"
)
Heard = Callable[[str, m.Message, str, float], list[e.Effect]]
"""What a data lane said before its link was a peer: link, message, user, now."""


class Admission:
    """Works on ``desk``; ``heard`` takes what waited."""

    def __init__(self, desk: HubDesk, heard: Heard) -> None:
        self._desk = desk
        self._heard = heard

    def from_stranger(
        self, link: str, message: m.Message, lane: Lane | None, user: str, now: float
    ) -> list[e.Effect]:
        """A message of a link that is no peer's yet."""
        desk, entrance = self._desk, self._desk.entrance
        if link in desk.dropped:
            return []
        if lane is Lane.DATA:
            entrance.early(link, message, user, now)
            desk.wake_at(entrance.next_wake())
            return []
        knock = entrance.knocks.get(link)
        if isinstance(message, m.Proof) and knock is not None:
            return [e.ToRoom(TO_GATEKEEPER, e.Proved(LinkKey(link), user, message))]
        if isinstance(message, m.Hello) and knock is None:
            return self.hello(link, message, lane, user, now)
        if isinstance(message, m.Goodbye):
            return []
        if user:
            return desk.fault(link, "unexpected", "say who you are first", now)
        # A peer that was given up, wakes, and goes on where it was.
        return [e.Send(LinkKey(link), m.Goodbye("this hub does not know the link: dial again"))]

    def hello(
        self, link: str, hello: m.Hello, lane: Lane | None, user: str, now: float
    ) -> list[e.Effect]:
        """Somebody introduces himself."""
        desk = self._desk
        if hello.role not in ("caller", "provider"):
            text = f"a hub has no links of role {hello.role!r}"
            return desk.fault(link, "unexpected", text, now)
        if hello.key:
            desk.entrance.knock(link, user, hello, now)
            desk.wake_at(now + KNOCK_PATIENCE)
            return [e.ToRoom(TO_GATEKEEPER, e.Knocked(LinkKey(link), user, hello))]
        if not user:
            local = e.Standing(name=hello.name, transport=hello.transport)
            return self._admit(link, hello, self._inherited(hello, local), user, lane, now)
        vouched = desk.entrance.vouched(user)
        if vouched is not None:
            return self._admit_worker(link, hello, vouched, user, now)
        if hello.role == "caller" and hello.session and not hello.root:
            desk.entrance.await_vouch(link, user, hello, now)
            desk.wake_at(desk.entrance.next_wake())
            return []
        return self._refuse(link, hello, "no_key", NO_KEY, user)

    def vouched(self, peer: Peer, message: m.Vouch, now: float) -> list[e.Effect]:
        """A provider's word for a worker's key: only for sessions that it was given work of."""
        desk = self._desk
        if not desk.sessions.works_for(peer.id, message.session):
            text = f"it vouches for a worker of {message.session}, for which it never worked"
            return desk.fault(peer.link or "", "unexpected", text, now)
        known = desk.entrance.vouched(message.transport)
        if known is not None and known.provider != peer.id:
            text = f"it vouches for worker {message.worker}, which is another provider's"
            return desk.fault(peer.link or "", "unexpected", text, now)
        word = Vouched(peer.id, message.worker, message.session)
        knocks = desk.entrance.vouch(message.transport, word)
        return [x for k in knocks for x in self.hello(k.link, k.hello, Lane.CONTROL, k.user, now)]

    def admitted(self, event: e.Admitted, now: float) -> list[e.Effect]:
        """The gatekeeper knows who it is."""
        knock = self._desk.entrance.knocks.pop(event.link, None)
        if knock is None:
            return []
        return self._admit(event.link, event.hello, event.standing, knock.user, Lane.CONTROL, now)

    def expire(self, now: float) -> list[e.Effect]:
        """Workers nobody vouched for in time."""
        effects: list[e.Effect] = []
        for knock in self._desk.entrance.expire(now):
            effects += self._refuse(knock.link, knock.hello, "no_key", NO_KEY, knock.user)
        return effects

    # --- inside -----------------------------------------------------------------------------------

    def _admit_worker(
        self, link: str, hello: m.Hello, vouched: Vouched, user: str, now: float
    ) -> list[e.Effect]:
        if hello.role != "caller" or hello.root or hello.session != vouched.session:
            text = f"worker {vouched.worker} may only call on within session {vouched.session}"
            return self._refuse(link, hello, "session", text, user)
        if vouched.session not in self._desk.sessions:
            text = f"the session {vouched.session} of worker {vouched.worker} is over"
            return self._refuse(link, hello, "session", text, user)
        nothing = e.Standing(principal="", kind=e.WORKER, rights=Rights(), transport=user)
        return self._admit(link, hello, self._inherited(hello, nothing), user, Lane.CONTROL, now)

    def _inherited(self, hello: m.Hello, own: e.Standing) -> e.Standing:
        """Who works inside a session has the rights of whom the session belongs to, but no say in
        the grid's affairs."""
        title = self._desk.sessions.find(hello.session)
        if hello.role != "caller" or hello.root or title is None or title.standing is None:
            return own
        return replace(title.standing, kind=e.WORKER, transport=own.transport, warrant=None)

    def _refuse(
        self, link: str, hello: m.Hello, reason: str, text: str, who: str
    ) -> list[e.Effect]:
        told = e.Decision(who, "join", hello.session or hello.peer, "refused", reason, text)
        kind = "PermissionDenied" if reason == "share" else "AuthFailed"
        return [
            e.ToRoom(TO_GATEKEEPER, e.Decided(told)),
            *self._desk.turn_away(link, kind, text),
        ]

    def _admit(
        self,
        link: str,
        hello: m.Hello,
        standing: e.Standing,
        user: str,
        lane: Lane | None,
        now: float,
    ) -> list[e.Effect]:
        desk = self._desk
        peer = desk.peers.by_id.get(hello.peer)
        if peer is not None and peer.role != hello.role:
            text = f"{peer.id} is a {peer.role} already, it cannot be a {hello.role} as well"
            return desk.fault(link, "unexpected", text, now)
        if hello.share > USUAL and not standing.rights.everything:
            text = f"share={hello.share:g}: more than {USUAL:g} is for the grid's owner"
            return self._refuse(link, hello, "share", text, standing.principal)
        wrong = self._mismatch(hello, standing, user, peer, now)
        if wrong:
            return self._refuse(link, hello, "session", wrong, standing.principal)
        effects: list[e.Effect] = []
        if peer is None:
            peer = desk.peers.join(hello, link, standing, user, now)
        else:
            if peer.link is not None:
                replaced = "replaced by a new link of the same peer"
                effects.append(e.Drop(LinkKey(peer.link), replaced))
            desk.peers.relink(peer, hello, link, standing, user, now)
            desk.sessions.forget_provider(peer.id)
        desk.wake_at(peer.liveness.next_wake(now))
        effects += desk.send(peer, m.Welcome(desk.hub, desk.versions, desk.key))
        if peer.role == "provider" and desk.revoked is not None:
            effects += desk.send(peer, desk.revoked)
        effects += self._introduce(peer, now)
        early = desk.entrance.take_early(link)
        peer.data_open = lane is None or (early is not None and early.hello)
        for message in early.messages if early is not None else ():
            effects += self._heard(link, message, user, now)
        return effects

    def _mismatch(
        self, hello: m.Hello, standing: e.Standing, user: str, peer: Peer | None, now: float
    ) -> str:
        """Why it cannot be the peer, or in the session, that its Hello names."""
        if peer is not None and not _same(peer, standing, user):
            return f"{hello.peer} is the name of somebody else's process"
        if hello.role != "caller" or not hello.session:
            return ""
        if hello.whose and principal_of(self._desk.sessions.find(hello.session)) != hello.whose:
            return f"session {hello.session} is none of {hello.whose}"
        why = self._desk.sessions.closed(hello.session)
        if why:
            return f"session {hello.session} was {why}"
        if hello.root:
            known = self._desk.sessions.claim(hello.session, standing, hello.name, now)
        else:
            owner = principal_of(self._desk.sessions.find(hello.session))
            # Only a process of the hub's own machine, or a worker that was vouched for, may be here
            # before the root caller.
            waits = owner == "" and (is_local(standing) or standing.kind == e.WORKER)
            known = waits or owner == standing.principal
        return "" if known else f"session {hello.session} belongs to somebody else"

    def _introduce(self, peer: Peer, now: float) -> list[e.Effect]:
        hello, standing = peer.hello, peer.standing
        python = ".".join(hello.versions.python.split(".")[:2])
        if hello.role == "provider":
            key = "" if is_local(standing) else standing.principal
            peer.hello = replace(hello, name=self._own_name(peer))
            joined = e.ProviderJoined(hello.peer, peer.hello.name, python, key)
            return [e.ToRoom(TO_SCHEDULER, joined), e.ToRoom(e.RoomName.STATS, joined)]
        effects: list[e.Effect] = [self._to_scheduler(peer)]
        if hello.session:
            self._desk.sessions.expect(hello.session, now)
            effects.append(e.ToSession(hello.session, e.MemberJoined(hello.peer, hello.root)))
            if hello.root:
                effects += self._adopt_members(hello.session, standing)
                for provider, warrant in self._desk.sessions.late(hello.session):
                    effects += self._desk.deliver(provider, warrant)
        return effects

    def _own_name(self, peer: Peer) -> str:
        """A name is only a claim: of two providers, the second that claims one gets the beginning
        of its id behind it, so that work meant for the first does not go to the second."""
        name = peer.hello.name
        taken = any(
            other.role == "provider" and other is not peer and name in (other.hello.name, other.id)
            for other in self._desk.peers
        )
        return f"{name}~{peer.id[2:10]}" if taken and name else name

    @staticmethod
    def _to_scheduler(peer: Peer) -> e.Effect:
        hello = peer.hello
        python = ".".join(hello.versions.python.split(".")[:2])
        joined = e.CallerJoined(
            peer.id, hello.session, python, hello.root, hello.namespace, peer.standing, hello.name,
            hello.share, hello.quota,
        )  # fmt: skip
        return e.ToRoom(TO_SCHEDULER, joined)

    def _adopt_members(self, session: str, standing: e.Standing) -> list[e.Effect]:
        """Workers that came to a new hub before their session's root have its rights from now."""
        changed = []
        for peer in self._desk.peers:
            if peer.hello.session == session and not peer.standing.principal:
                own = peer.standing.transport
                peer.standing = replace(standing, kind=e.WORKER, transport=own, warrant=None)
                changed.append(self._to_scheduler(peer))
        return changed


def _same(peer: Peer, standing: e.Standing, user: str) -> bool:
    """Whether it is the same process that comes over a new link: an id is only a claim."""
    if peer.user != user:
        return False
    if not user:
        # Of one user of one machine, whom the socket file has let in.
        return True
    known = peer.standing
    worker = e.WORKER in (known.kind, standing.kind)
    if not known.principal or not standing.principal:
        # A worker whose session nobody knew yet: its CURVE key tells that it is the same.
        return worker
    return known.principal == standing.principal and (not worker or known.kind == standing.kind)
