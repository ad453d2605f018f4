"""What the caller core asks its shell to do. Data only."""

from __future__ import annotations

from msgspec import Struct

from guactors.messages import Endpoint, Message


class SendHub(Struct, frozen=True):
    """Send to the hub, or drop while there is no link: the core tells all again after a relink."""

    message: Message


class SendPeer(Struct, frozen=True):
    """Send to a worker we dialled, or to a neighbour that dialled us."""

    peer: str
    message: Message
    buffers: list[bytes | memoryview] = []


class Dial(Struct, frozen=True):
    """Open a link to a worker; messages to it may follow at once."""

    peer: str
    endpoints: list[Endpoint]


class Hangup(Struct, frozen=True):
    """Close the link to a worker."""

    peer: str


class NeedDepot(Struct, frozen=True):
    """Make an actor that keeps values at the provider, and tell ``Depots.made`` of it."""

    store: str
    provider: str


class Hurry(Struct, frozen=True):
    """Call ``on_tick`` at this time at the latest, though nothing happens until then."""

    at: float


Effect = SendHub | SendPeer | Dial | Hangup | NeedDepot | Hurry
