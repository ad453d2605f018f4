"""One session: who belongs to it, when it is over, and where its output goes.

Owns: the members of a session. Must never: know leases or actors (``scheduling`` ends them when it
is told that the session is over), or do I/O.

A session lives as long as a root caller of it does. One without a root, because the hub is new and
its root has not come back yet, waits for ``timing.rejoin_grace``.
"""

from __future__ import annotations

from guactors.config import Timing
from guactors.messages import Output
from guactors.scheduling import events as e


class SessionState:
    """A :class:`guactors.scheduling.events.Room`."""

    def __init__(self, session: str, timing: Timing, now: float) -> None:
        self.session = session
        self.roots: set[str] = set()
        self.members: set[str] = set()
        self.over = False
        self._deadline = now + timing.rejoin_grace

    def __repr__(self) -> str:
        state = "over" if self.over else "open" if self.roots else "waiting for its root"
        return f"<SessionState {self.session} {state} members={len(self.members)}>"

    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        """Take one event."""
        match event:
            case e.SessionExpected(seconds=seconds) if seconds:
                self._deadline = now + seconds
            case e.MemberJoined(peer, root):
                self.members.add(peer)
                if root:
                    self.roots.add(peer)
                    self.over = False
            case e.MemberLeft(peer, reason):
                return self._left(peer, reason)
            case e.FromPeer(_, Output() as output):
                return [e.ToPeer(root, output) for root in sorted(self.roots)]
        return []

    def on_tick(self, now: float) -> list[e.Effect]:
        """End it if its root did not come."""
        if self.roots or now < self._deadline:
            return []
        return self._end("its root caller did not come back to the new hub")

    def next_wake(self, _now: float) -> float | None:
        """When the patience with the root ends."""
        return None if self.roots or self.over else self._deadline

    def _left(self, peer: str, reason: str) -> list[e.Effect]:
        self.members.discard(peer)
        if peer not in self.roots:
            return []
        self.roots.discard(peer)
        return [] if self.roots else self._end(f"its root caller {peer} {reason}")

    def _end(self, reason: str) -> list[e.Effect]:
        if self.over:
            return []
        self.over = True
        event = e.SessionOver(self.session, reason)
        return [e.ToRoom(e.RoomName.SCHEDULER, event), e.ToRoom(e.RoomName.HUB, event)]
