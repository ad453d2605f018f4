"""A worker's side of its callers' links in the simulation: what ``worker.process`` and
``worker.control`` do to send.

Owns: which callers are there, and messages whose lane is full or not yet open. Must never: read a
message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from guactors.ids import LinkKey
from guactors.messages import Message
from guactors.transport.base import Frame, Lane, LinkFull, SendError
from guactors.transport.frames import encode, lane_of
from tests.sim.clock import ProcessClock
from tests.sim.network import LANES, SimListener

RETRY = 0.005


class Doorway:
    """``peers``: link -> id of its caller. ``suspects``: links to which nothing could be sent;
    ``nudge`` is called when there is one."""

    def __init__(
        self, clock: ProcessClock, listener: SimListener, nudge: Callable[[], None]
    ) -> None:
        self.peers: dict[str, str] = {}
        self.suspects: list[str] = []
        self.closed = False
        self._clock = clock
        self._listener = listener
        self._nudge = nudge
        self._open: set[tuple[str, Lane]] = set()
        self._waiting: dict[tuple[str, Lane], deque[list[Frame]]] = {}

    def greet(self, link: str, peer: str, lane: Lane) -> None:
        """A caller's Hello came on this lane."""
        self.peers[link] = peer
        self._open.add((link, lane))
        self._flush(link, lane)

    def forget(self, link: str) -> None:
        """The caller is gone."""
        self.peers.pop(link, None)
        for lane in LANES:
            self._open.discard((link, lane))
            self._waiting.pop((link, lane), None)

    def send(self, link: str, message: Message, buffers: Sequence[Frame] = ()) -> None:
        """Now, or when there is room; nowhere where the caller is gone."""
        if self.closed or link not in self.peers:
            return
        lane = lane_of(message)
        frames = [encode(message), *buffers]
        waiting = self._waiting.get((link, lane))
        if waiting is not None:
            waiting.append(frames)
        elif (link, lane) not in self._open:
            self._waiting[link, lane] = deque([frames])
        elif not self._try(link, lane, frames):
            self._waiting[link, lane] = deque([frames])
            self._clock.after(RETRY, lambda: self._flush(link, lane))

    def _try(self, link: str, lane: Lane, frames: list[Frame]) -> bool:
        try:
            self._listener.send(LinkKey(link), lane, frames)
        except LinkFull:
            return False
        except SendError:
            self.suspects.append(link)
            self._nudge()
        return True

    def _flush(self, link: str, lane: Lane) -> None:
        waiting = self._waiting.pop((link, lane), None)
        while waiting and not self.closed:
            if not self._try(link, lane, waiting[0]):
                self._waiting[link, lane] = waiting
                self._clock.after(RETRY, lambda: self._flush(link, lane))
                return
            waiting.popleft()
