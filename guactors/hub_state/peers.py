"""Who is in the grid and over which link, and when somebody counts as gone.

Owns: peers, their links and their liveness. Must never: route a message (``hub_state`` does), or
read a clock.

A peer whose link broke is kept for ``timing.relink_grace``, in which it may come with a new one. A
caller that is silent gets three times the patience of a provider, because the user's own code may
keep its interpreter busy.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from guactors.config import Timing
from guactors.messages import Hello, Message, PeerInfo
from guactors.scheduling.events import Standing
from guactors.transport.liveness import Liveness

CALLER_PATIENCE = 3.0
"""Times ``timing.lost_after`` for callers."""
REMEMBERED = 300.0
"""Seconds for which a lost peer is still listed."""
MOST_REMEMBERED = 100


@dataclass(eq=False, slots=True)
class Peer:
    """One process of the grid. ``link`` is None while its link is broken, until ``deadline``.
    ``user``: the CURVE key that each of its messages must come from, empty on a socket file."""

    hello: Hello
    link: str | None
    joined: float
    heard: float
    liveness: Liveness
    standing: Standing
    user: str = ""
    data_open: bool = False
    """Its data lane has been heard, so something can be sent there."""
    held: list[Message] = field(default_factory=list)
    """For the data lane, until it is open."""
    deadline: float = 0.0
    excused: bool = False
    """It stands still and cannot say a word; its provider would tell of its end."""

    def __repr__(self) -> str:
        return f"<Peer {self.id} {self.role} {self.hello.name!r} {self.state} link={self.link}>"

    @property
    def id(self) -> str:
        return self.hello.peer

    @property
    def role(self) -> str:
        return self.hello.role

    @property
    def state(self) -> str:
        """As in PeerInfo."""
        if self.excused:
            return "suspended"
        return "silent" if self.link is None or self.liveness.silent else "up"

    def row(self, now: float, state: str = "") -> PeerInfo:
        """Its row in a listing."""
        hello = self.hello
        return PeerInfo(
            hello.peer, hello.role, hello.name, state or self.state, hello.host, hello.pid,
            max(0.0, now - self.joined), max(0.0, now - self.heard),
        )  # fmt: skip


class PeerBook:
    """Peers by id and by link, and the lately lost."""

    def __init__(self, timing: Timing) -> None:
        self.by_id: dict[str, Peer] = {}
        self.by_link: dict[str, Peer] = {}
        self._timing = timing
        self._patient = replace(timing, lost_after=CALLER_PATIENCE * timing.lost_after)
        self._lost: OrderedDict[str, tuple[Peer, float]] = OrderedDict()

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self.by_id.values()))

    def _liveness(self, hello: Hello, now: float) -> Liveness:
        liveness = Liveness(self._patient if hello.role == "caller" else self._timing)
        liveness.on_heard(now)
        return liveness

    def join(self, hello: Hello, link: str, standing: Standing, user: str, now: float) -> Peer:
        """A peer that was not there."""
        peer = Peer(hello, link, now, now, self._liveness(hello, now), standing, user)
        self.by_id[peer.id] = self.by_link[link] = peer
        self._lost.pop(peer.id, None)
        return peer

    def relink(
        self, peer: Peer, hello: Hello, link: str, standing: Standing, user: str, now: float
    ) -> None:
        """A peer that is there comes over a new link; its old one is forgotten."""
        if peer.link is not None:
            self.by_link.pop(peer.link, None)
        peer.hello, peer.link, peer.heard = hello, link, now
        peer.standing, peer.user = standing, user
        peer.data_open = False
        peer.held.clear()
        peer.liveness = self._liveness(hello, now)
        self.by_link[link] = peer

    def unlink(self, peer: Peer, now: float) -> float:
        """Its link is gone; returns until when it may come back."""
        if peer.link is not None:
            self.by_link.pop(peer.link, None)
        peer.link = None
        peer.held.clear()
        peer.deadline = now + self._timing.relink_grace
        return peer.deadline

    def excuse(self, peer: Peer, excused: bool, now: float) -> None:
        """It stands still, or runs again: then it has its whole patience before it."""
        peer.excused = excused
        peer.liveness.on_heard(now)
        if peer.link is None:
            peer.deadline = now + self._timing.relink_grace

    def next_wake(self, peer: Peer, now: float) -> float:
        """When somebody has to look after it."""
        if peer.excused:
            return math.inf
        return peer.deadline if peer.link is None else peer.liveness.next_wake(now)

    def leave(self, peer: Peer, now: float, *, lost: bool) -> None:
        """It is gone; one that was lost, and did not say goodbye, is still listed for a while. Not
        so a caller without a session, as tools are: nothing can have been lost with it, and its
        goodbye on one connection may be overtaken by the end of the other."""
        if peer.link is not None:
            self.by_link.pop(peer.link, None)
        self.by_id.pop(peer.id, None)
        if lost and (peer.role != "caller" or peer.hello.session):
            self._lost[peer.id] = peer, now
            while len(self._lost) > MOST_REMEMBERED:
                self._lost.popitem(last=False)

    def rows(self, now: float) -> list[PeerInfo]:
        """Everybody, the lately lost at the end."""
        rows = [peer.row(now) for peer in self]
        rows += [p.row(now, "lost") for p, at in self._lost.values() if now - at < REMEMBERED]
        return rows

    def check(self) -> None:
        """The indices agree."""
        for link, peer in self.by_link.items():
            assert peer.link == link
            assert self.by_id[peer.id] is peer
        for peer in self:
            assert peer.link is None or self.by_link[peer.link] is peer
