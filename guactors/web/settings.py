"""What the HTTP door is told at its start.

Owns: its addresses, names and limits. Must never: hold a secret; the key of the certificate is
named by its path.
"""

from __future__ import annotations

from msgspec import Struct

from guactors.config import Timing
from guactors.messages import Endpoint


class Limits(Struct, frozen=True):
    """How much of this process one client, and all of them, may take. Seconds and bytes."""

    head: float = 10.0
    """For the complete head of a request, from the first byte or the connection."""
    window: float = 10.0
    pace: float = 1024.0
    """Bytes a second of a body, at least, in each ``window``."""
    rest: float = 15.0
    """Between two requests of a connection."""
    stall: float = 30.0
    """For a client to take what was written for it."""
    connections: int = 1000
    of_address: int = 50
    """Connections of one address; of IPv6, of one network of 64 bits."""
    headers: int = 64
    """Lines of a head."""
    head_bytes: int = 16_384
    target: int = 2048
    """Bytes of the request's target."""
    document: int = 16_384
    """Bytes of a JSON body, but for a manifest."""
    manifest: int = 720_896
    """Bytes of the JSON body that offers an image, or has the commands of a deployment."""
    file: int = 1 << 40
    """Bytes of a file for a deployment, which is not held here."""
    discarded: int = 5 << 20
    """Bytes of a body that are still read after the answer, so that its sender comes to read that:
    he who is cut off before hears nothing. A chunk, and something."""
    held: int = 256 << 20
    """Bytes of bodies, of requests and answers, in memory at a time."""
    of_bearer: int = 64 << 20
    """Of these, one key's."""
    tries: float = 20.0
    """Requests for challenges and tokens of one address, a second; bursts are twice that."""
    all_tries: float = 100.0
    """The same of all. No more than the hub keeps open challenges for, so that nobody's challenge
    is pushed out by those of others."""
    asks: float = 200.0
    """Requests of one key, a second, with bursts as above: each is a question to the hub."""
    all_asks: float = 1000.0


class WebConfig(Struct, frozen=True):
    """``hub``: where the hub listens, nearest first. ``host`` and ``port`` (0: any free one) to
    listen on; ``names``: further names by which clients may call it. ``cert``, ``key``: paths of a
    certificate chain and its key in PEM; without, only this machine is served."""

    hub: list[Endpoint]
    host: str = "127.0.0.1"
    port: int = 0
    names: list[str] = []
    cert: str = ""
    key: str = ""
    limits: Limits = Limits()
    timing: Timing = Timing()
