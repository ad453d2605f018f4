"""What the rooms of the hub process tell each other: events in, effects out.

Owns: these words. Must never: hold behaviour, or cross a process border (``messages.py`` does
that).

The rooms are ``hub_state`` (membership and routing), ``scheduling.state``, ``stats_state`` and one
``session_state`` a session. Each takes an event at ``handle(event, now)`` and returns effects; the
composition (``hub_core`` in one piece, the actors in the hub process) carries them to their room.
Events between two rooms keep their order.
"""

from __future__ import annotations

import enum
from typing import Protocol

from msgspec import Struct

from guactors.ids import LinkKey
from guactors.listing import Row
from guactors.messages import (
    AskAudit,
    GridInfo,
    Hello,
    Inquire,
    Message,
    Proof,
    ReservationSpec,
    Revoked,
    WarrantWord,
)
from guactors.security.rights import ALL, Rights
from guactors.store.base import Op
from guactors.transport.base import Lane

LOCAL = "local"
"""The principal of a process of this machine's user that shows no key."""
WORKER = "worker"
"""The kind of standing of who works inside somebody's session."""


class RoomName(enum.Enum):
    """Whom an event is for; sessions are addressed by :class:`ToSession`."""

    HUB = "hub"
    SCHEDULER = "scheduler"
    STATS = "stats"
    GATEKEEPER = "gatekeeper"
    IMAGES = "images"


class Event(Struct, frozen=True):
    """Base of what a room can be told."""


class Standing(Struct, frozen=True):
    """Who is at the other end of a link, and what they may. ``principal`` is a key's text, or
    ``local``; ``kind`` as in ``security.keys.Kind`` or ``local``; ``transport`` the CURVE key
    by which listeners elsewhere know its processes; ``warrant`` what providers must see of a root
    caller's session."""

    principal: str = LOCAL
    kind: str = LOCAL
    name: str = ""
    rights: Rights = ALL
    transport: str = ""
    warrant: WarrantWord | None = None


class Decision(Struct, frozen=True):
    """One line for the audit log, before it has a time, a number and a hash."""

    who: str
    action: str
    object: str
    decision: str
    reason: str
    detail: str = ""
    where: str = ""
    grant: int = 0


# --- from the links, to the hub -----------------------------------------------------------------


class Arrived(Event, frozen=True):
    """A message of a link. ``lane`` None where the transport below has only one. ``user``: the
    CURVE key that the transport authenticated, empty for a socket file of this machine's user."""

    link: LinkKey
    message: Message
    lane: Lane | None = None
    user: str = ""


class BadFrame(Event, frozen=True):
    """A frame that is not ours; ``kind`` and ``detail`` as in ProtocolError."""

    link: LinkKey
    kind: str
    detail: str


class LinkGone(Event, frozen=True):
    """The link is certainly gone, or so far behind that we give it up."""

    link: LinkKey
    reason: str = "the connection broke"


class Disturbed(Event, frozen=True):
    """Some link broke, nobody knows which."""


class Excused(Event, frozen=True):
    """The caller's worker stands still, and does not answer for itself: its provider does. Or,
    where not ``excused``, it runs again."""

    peer: str
    excused: bool


class HandshakesFailed(Event, frozen=True):
    """Somebody tried to come in ``count`` times where the listener is bound, and could not, or sent
    messages in the name of somebody else's link."""

    address: str
    count: int


class Stopping(Event, frozen=True):
    """The hub process was asked to end."""


# --- between the hub and the gatekeeper -----------------------------------------------------------


class Knocked(Event, frozen=True):
    """To the gatekeeper: a Hello that must be proved. ``user`` as in Arrived."""

    link: LinkKey
    user: str
    hello: Hello


class Proved(Event, frozen=True):
    """To the gatekeeper: the answer to its Challenge on the same link, by the same ``user``."""

    link: LinkKey
    user: str
    proof: Proof


class KnockEnded(Event, frozen=True):
    """To the gatekeeper: a link that knocked is gone."""

    link: LinkKey


class Admitted(Event, frozen=True):
    """To the hub: the proof was good."""

    link: LinkKey
    hello: Hello
    standing: Standing


class TurnedAway(Event, frozen=True):
    """To the hub: no. ``kind`` as in Fault."""

    link: LinkKey
    kind: str
    detail: str


class StandingChanged(Event, frozen=True):
    """To the hub, and from there to the scheduler: from now on ``principal`` has these rights; with
    None it is revoked, and ``running`` (stop, finish) says what becomes of its work."""

    principal: str
    standing: Standing | None
    running: str = "stop"
    reason: str = ""


class AuthorityAsked(Event, frozen=True):
    """To the gatekeeper: a message of ``messages.Authority`` of a peer with this standing."""

    peer: str
    standing: Standing
    message: Message


class ImagesAsked(Event, frozen=True):
    """To the image room: a message of ``messages.ImageQuestion``."""

    peer: str
    standing: Standing
    message: Message


class Decided(Event, frozen=True):
    """To the gatekeeper: something for the audit log."""

    decision: Decision


class RevocationsAre(Event, frozen=True):
    """To the hub, and from there to the image room: what every provider must know from now on, and
    new ones at their joining."""

    message: Revoked


class SessionAsked(Event, frozen=True):
    """To the hub, from the gatekeeper: CloseSession or AskSessions with the standing of the bearer
    of its token."""

    peer: str
    standing: Standing
    message: Message


class SessionReserved(Event, frozen=True):
    """To the hub: a session without a root caller, good for ``seconds``."""

    session: str
    standing: Standing
    name: str
    seconds: float


# --- from the hub, to the others ----------------------------------------------------------------


class FromPeer(Event, frozen=True):
    """A message whose sender said Hello and may send messages of this kind."""

    peer: str
    message: Message


class CallerJoined(Event, frozen=True):
    """A caller's Hello, at first and on every later link. ``python`` is its minor version."""

    peer: str
    session: str
    python: str
    root: bool = False
    namespace: str = ""
    standing: Standing = Standing()
    name: str = ""
    """Of a worker's: the worker."""
    share: float = 1.0
    """This and ``quota`` of a root's session, as in Hello."""
    quota: dict[str, float] = {}


class CallerLeft(Event, frozen=True):
    """The caller is lost or has said Goodbye; ``reason`` for people."""

    peer: str
    reason: str


class ProviderJoined(Event, frozen=True):
    """A provider's Hello, at first and on every later link; its Offer follows. ``key``: its public
    key, empty for one of the hub's machine."""

    peer: str
    name: str
    python: str
    key: str = ""


class ProviderAway(Event, frozen=True):
    """It is silent, or its link broke a moment ago: nothing new is placed there."""

    peer: str


class ProviderBack(Event, frozen=True):
    """A silent provider is heard again on the same link."""

    peer: str


class ProviderLeft(Event, frozen=True):
    """The provider is lost or has said Goodbye, and everything on it is gone."""

    peer: str
    reason: str


class GaveWay(Event, frozen=True):
    """Something on this provider gives way, see ``scheduling/thrash.py``; ``cycle``: once more than
    it should."""

    peer: str
    mode: str
    reason: str
    cycle: bool = False


class GridAsked(Event, frozen=True):
    """``info`` is filled in by one room after the other, then sent to ``peer``."""

    peer: str
    request: int
    info: GridInfo


class SessionsAsked(Event, frozen=True):
    """A question of ``peer`` for the listing of sessions. ``rows``: those that it may hear of, with
    the columns that the hub knows."""

    peer: str
    question: Inquire
    columns: tuple[str, ...]
    rows: list[Row]


class MemberJoined(Event, frozen=True):
    """A caller of the session said Hello; ``root`` is the one whose end ends it."""

    peer: str
    root: bool


class MemberLeft(Event, frozen=True):
    """A caller of the session is gone; ``reason`` for people."""

    peer: str
    reason: str


class SessionExpected(Event, frozen=True):
    """Something of the session still runs; its root caller has some time to come back, or
    ``seconds`` to come at all."""

    session: str
    seconds: float = 0.0


class SessionOver(Event, frozen=True):
    """The session has ended; ``reason`` for people."""

    session: str
    reason: str


# --- effects ------------------------------------------------------------------------------------


class Effect(Struct, frozen=True):
    """Base of what a room wants done."""


class Send(Effect, frozen=True):
    """Give a message to a link."""

    link: LinkKey
    message: Message


class Drop(Effect, frozen=True):
    """Forget a link and what waits for it."""

    link: LinkKey
    reason: str


class ToPeer(Effect, frozen=True):
    """Have the hub send a message to a peer, or drop it if the peer has no link now: peers tell
    their state again after each reconnect."""

    peer: str
    message: Message


class ToRoom(Effect, frozen=True):
    """Tell a room."""

    room: RoomName
    event: Event


class ToSession(Effect, frozen=True):
    """Tell the room of a session; the composition makes it if there is none."""

    session: str
    event: Event


class Persist(Effect, frozen=True):
    """Have the store take these in, before any effect that comes after."""

    ops: list[Op]


class KeepReservations(Effect, frozen=True):
    """Have all reservations that are to come or stand kept for the next hub, before any effect that
    comes after."""

    reservations: list[ReservationSpec]


class ReadAudit(Effect, frozen=True):
    """Answer the question out of the audit log."""

    peer: str
    question: AskAudit


class ShutOut(Effect, frozen=True):
    """From now on these CURVE keys do not get past the handshake, nor past the listener."""

    keys: list[str]


class Record(Effect, frozen=True):
    """Write these into the audit log, before any effect that comes after."""

    decisions: list[Decision]


class Room(Protocol):
    """What every thinking room of the hub offers to the shell around it."""

    def handle(self, event: Event, now: float, /) -> list[Effect]:
        """Take one event."""

    def on_tick(self, now: float, /) -> list[Effect]:
        """Do what has become due; calling it too early or too often is harmless."""

    def next_wake(self, now: float, /) -> float | None:
        """When ``on_tick`` will have something to do; None for never."""
