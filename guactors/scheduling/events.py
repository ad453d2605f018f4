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
from guactors.messages import GridInfo, Message
from guactors.transport.base import Lane


class RoomName(enum.Enum):
    """Whom an event is for; sessions are addressed by :class:`ToSession`."""

    HUB = "hub"
    SCHEDULER = "scheduler"
    STATS = "stats"


class Event(Struct, frozen=True):
    """Base of what a room can be told."""


# --- from the links, to the hub -----------------------------------------------------------------


class Arrived(Event, frozen=True):
    """A message of a link. ``lane`` None where the transport below has only one."""

    link: LinkKey
    message: Message
    lane: Lane | None = None


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


class Stopping(Event, frozen=True):
    """The hub process was asked to end."""


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


class CallerLeft(Event, frozen=True):
    """The caller is lost or has said Goodbye; ``reason`` for people."""

    peer: str
    reason: str


class ProviderJoined(Event, frozen=True):
    """A provider's Hello, at first and on every later link; its Offer follows."""

    peer: str
    name: str
    python: str


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


class GridAsked(Event, frozen=True):
    """``info`` is filled in by one room after the other, then sent to ``peer``."""

    peer: str
    request: int
    info: GridInfo


class MemberJoined(Event, frozen=True):
    """A caller of the session said Hello; ``root`` is the one whose end ends it."""

    peer: str
    root: bool


class MemberLeft(Event, frozen=True):
    """A caller of the session is gone; ``reason`` for people."""

    peer: str
    reason: str


class SessionExpected(Event, frozen=True):
    """Something of the session still runs; its root caller has some time to come back."""

    session: str


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


class Room(Protocol):
    """What every thinking room of the hub offers to the shell around it."""

    def handle(self, event: Event, now: float, /) -> list[Effect]:
        """Take one event."""

    def on_tick(self, now: float, /) -> list[Effect]:
        """Do what has become due; calling it too early or too often is harmless."""

    def next_wake(self, now: float, /) -> float | None:
        """When ``on_tick`` will have something to do; None for never."""
