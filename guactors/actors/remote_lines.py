"""Waking up when a link has news, and keeping what it had no room for.

Owns: the loop's readers on a link's or listener's descriptors, and the queues of unsent messages.
Must never: know what a message means.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable

from guactors.errors import MailboxFull
from guactors.transport.base import Frame, Lane, LinkFull

POLL = 0.005
"""Seconds between two looks where descriptors cannot be watched, or a full link is waited for."""
MOST_UNSENT = 10_000
"""Messages kept for one peer and lane, beyond what its link holds."""


class Pump:
    """Calls ``step`` on the loop soon after any of ``filenos`` turns readable, and when poked."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, filenos: Iterable[int], step: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._step = step
        self._thread = threading.get_ident()
        self._poked = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._filenos = tuple(filenos)
        self._polls = False
        for fileno in self._filenos:
            try:
                loop.add_reader(fileno, self.poke)
            except NotImplementedError:
                # The proactor loop of Windows watches no foreign sockets.
                self._polls = True
        if self._polls:
            self.poke_later()

    def poke(self) -> None:
        """Step soon. From any thread."""
        if self._poked or self._closed:
            return
        self._poked = True
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._run)
        else:
            self._loop.call_soon_threadsafe(self._run)

    def poke_later(self) -> None:
        """Step after POLL seconds, once."""
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(POLL, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._polls:
            self.poke_later()
        self.poke()

    def _run(self) -> None:
        self._poked = False
        if not self._closed:
            self._step()

    def close(self) -> None:
        """Never step again; before the descriptors are closed. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._polls:
            for fileno in self._filenos:
                self._loop.remove_reader(fileno)


class Unsent:
    """Per lane, the messages that a full link had no room for, in order."""

    def __init__(self, send: Callable[[Lane, list[Frame]], None]) -> None:
        self._send = send
        self._queues: dict[Lane, deque[list[Frame]]] = {lane: deque() for lane in Lane}

    def send_now(self, lane: Lane, frames: list[Frame]) -> None:
        """Send, or raise MailboxFull. Raises PeerGone."""
        if self._queues[lane]:
            raise _full()
        try:
            self._send(lane, frames)
        except LinkFull as full:
            raise _full() from full

    def send_soon(self, lane: Lane, frames: list[Frame]) -> None:
        """Send or keep. Raises MailboxFull where too much is kept already, and PeerGone."""
        queue = self._queues[lane]
        if not queue:
            try:
                self._send(lane, frames)
            except LinkFull:
                queue.append(frames)
            return
        if len(queue) >= MOST_UNSENT:
            raise _full()
        queue.append(frames)

    def flush(self) -> bool:
        """Send what can be sent; True when nothing is left. Raises PeerGone."""
        for lane, queue in self._queues.items():
            try:
                while queue:
                    self._send(lane, queue[0])
                    queue.popleft()
            except LinkFull:
                continue
        return not any(self._queues.values())


def _full() -> MailboxFull:
    return MailboxFull("the link to the other system is full; try later, or use tell_wait")
