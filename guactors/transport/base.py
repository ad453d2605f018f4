"""The transport port: links, listeners, and the promises every adapter keeps.

Owns: the protocol classes that ``inproc`` and ``zmq_link`` implement and ``tests/contract`` checks.
Must never: import an adapter, a socket library, or a message type other than Endpoint.

A **link** is the dialling side: one control and one data connection to one listener, from dial to
loss. It never comes back by itself: after ``DOWN`` its holder dials again (a new link with a new
key), so nobody ever wonders which messages survived a reconnect: none did. A **listener** is the
bound side with any number of peers, each known by its link's key.

Delivery promise: per link and lane in order, at most once; a message is lost only together with its
link (or is refused at ``send`` with a typed error). Nothing is promised between the two lanes. A
link to a machine that vanished without a word goes DOWN within about 20 s; one to a process that is
only stopped does not.

Threads: an object may move between threads, and its two lanes may be used by two threads, but one
lane never by two at a time; the holder keeps the lock. Nothing here blocks.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from guactors.ids import LinkKey
from guactors.messages import Endpoint

Frame = bytes | memoryview
"""First frame of a message: the header; the others: out-of-band buffers. ``send`` takes a snapshot:
what is writable is copied, large ``bytes`` and read-only views are not. Large buffers are received
as read-only views, without a copy."""


class Lane(enum.IntEnum):
    """Which of a link's two connections."""

    CONTROL = 0
    DATA = 1


class LinkState(enum.Enum):
    """A link's life, always in this order."""

    DIALING = "dialing"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True)
class Down:
    """Why a link is down: ``cause`` is ``unreachable`` (nobody answers there), ``auth`` (handshake
    refused or wrong server key), ``lost`` (was up, broke), ``protocol`` (not our kind of peer) or
    ``closed`` (by us). A listener that ends during the handshake looks like one with a wrong key:
    whoever was let in before should dial once more before believing ``auth``."""

    cause: str
    detail: str = ""


class SendError(Exception):
    """Base of what ``send`` raises."""


class PeerGone(SendError):
    """No such peer, or its link is down: the message went nowhere."""


class LinkFull(SendError):
    """The peer's queue is at its limit; nothing was sent. Keep the message and try later."""


class Link(Protocol):
    """The dialling side of one link."""

    key: LinkKey
    endpoint: Endpoint

    def send(self, lane: Lane, frames: Sequence[Frame]) -> None:
        """Queue one message. Raises PeerGone when down, LinkFull at the limit."""

    def receive(self, lane: Lane | None = None) -> tuple[Lane, list[Frame]] | None:
        """The next message, control lane first (or only of ``lane``); None when there is none."""

    def state(self) -> LinkState:
        """The state after reading pending connection events."""

    def down(self) -> Down | None:
        """Why it is DOWN, else None."""

    def filenos(self, lane: Lane | None = None) -> tuple[int, ...]:
        """Descriptors (of one lane only) that turn readable when ``receive`` or ``state`` may have
        news. They are edge-like: after any ``send`` or ``receive`` ask ``receive`` until None
        before sleeping."""

    def close(self) -> None:
        """Drop the link now, unsent messages after a linger of at most 100 ms; idempotent."""


class Doors(Protocol):
    """Who may come in to a listener on TCP: asked at each handshake and at each message."""

    def admits(self, key: str) -> bool:
        """Whether the holder of this z85 CURVE key may speak; called on several threads."""


class Listener(Protocol):
    """The bound side. ``faults`` counts messages dropped because their sender is no link, or is not
    who its link belongs to; ``refused`` counts handshakes that failed: unknown keys, no encryption,
    another protocol, or too slow."""

    endpoint: Endpoint
    faults: int
    refused: int

    def user_of(self, peer: LinkKey) -> str:
        """The CURVE key that was authenticated for this link; empty on ipc and inproc, whose
        directory or process is the guard, and for a link never heard."""

    def send(self, peer: LinkKey, lane: Lane, frames: Sequence[Frame]) -> None:
        """Queue one message to one peer. Raises PeerGone, LinkFull."""

    def receive(self, lane: Lane | None = None) -> tuple[LinkKey, Lane, list[Frame]] | None:
        """As Link.receive, with the peer it came from."""

    def disturbed(self) -> bool:
        """True once after any connection to this listener broke or a handshake failed; which peer
        it was shows when ``send`` to it raises PeerGone."""

    def filenos(self, lane: Lane | None = None) -> tuple[int, ...]:
        """As Link.filenos; of one lane only where each is served by a thread of its own."""

    def close(self) -> None:
        """Unbind and drop every peer; idempotent."""


class Transport(Protocol):
    """A factory for both sides; one per process."""

    def listen(
        self, address: str, *, data_address: str | None = None, doors: Doors | None = None
    ) -> Listener:
        """``doors`` decide who enters by TCP; without them nobody does. Bind ``ipc://PATH``,
        ``tcp://HOST:PORT`` (port 0 or ``*``: any free one) or ``inproc://NAME``; ``data_address``
        gives the data lane a port of its own, else both share one (empty: also where any free port
        is asked for). Raises OSError with a message that names the address (in use, no
        permission)."""

    def dial(self, endpoint: Endpoint) -> Link:
        """Start a link; returns at once in state DIALING. TCP without ``server_key`` is refused
        with ValueError: there is no unencrypted TCP."""

    def close(self) -> None:
        """Close everything it made and end its threads, within one second."""
