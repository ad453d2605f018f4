"""The line to one guest: what is sent, what arrives, and who waits for it.

Owns: the socket to the agent, the console and QEMU's last words, and the thread that reads all of
them. Must never: wait for the guest while it holds the lock, hold output beyond the windows, or
leave anybody waiting once the guest is gone.
"""

from __future__ import annotations

import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from guactors.errors import InstanceLost, ProgramNotStarted, ProtocolError, UsageError
from guactors.runtimes.base import Output
from guactors.runtimes.qemu.agent import wire
from guactors.runtimes.qemu.talk import (
    Answered,
    Credited,
    Ended,
    Event,
    Faulted,
    Said,
    Started,
    Talk,
)

CLOSED: Final = "it was closed"
SAVED: Final = "its instance was saved: it goes on there, and nobody hears what it says"
"""Ends of a line that are nobody's loss."""
ASK_WITHIN: Final = 20.0
PING_EVERY: Final = 2.0
SICK_AFTER: Final = 20.0
"""Seconds of silence after which a guest that should answer is given up."""
_TAIL: Final = 4096
_READ: Final = 262144
_SEND_BUFFER: Final = 1 << 20


class Remote:
    """What the line knows of one program: filled by its thread, under its lock."""

    def __init__(self) -> None:
        self.said: deque[Output] = deque()
        self.started = False
        self.fault: Faulted | None = None
        self.end: Ended | None = None


class Line:
    """``agent``: the socket; ``others``: those that are read for their last words, closed with the
    line; ``alive``: a descriptor that becomes readable when QEMU ends, -1 for none. All of them are
    sockets where a system can wait for nothing else."""

    def __init__(
        self,
        agent: socket.socket,
        others: tuple[socket.socket, ...] = (),
        alive: int = -1,
        why: Callable[[], str] = lambda: "",
    ) -> None:
        self._agent = agent
        self._others = others
        self._alive = alive
        self._why = why
        self._talk = Talk()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sending = threading.Lock()
        self._answers: dict[int, Answered | Faulted | None] = {}
        self._remotes: dict[int, Remote] = {}
        self._tails = dict.fromkeys(others, b"")
        self._over = ""
        self._closed = False
        self.watched = False
        """Whether silence is a fault: not while it boots, nor while it is paused."""
        self._paused_at: float | None = None
        self._paused_for = 0.0
        self._waking, self._wake = socket.socketpair()
        for one in (agent, *others):
            one.setblocking(False)
        agent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._thread = threading.Thread(target=self._read_all, name="guest line", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """The guest is about to stand still: its time to answer does too."""
        with self._changed:
            self.watched = False
            if self._paused_at is None:
                self._paused_at = time.monotonic()

    def resume(self) -> None:
        """It runs again."""
        with self._changed:
            if self._paused_at is not None:
                self._paused_for += time.monotonic() - self._paused_at
                self._paused_at = None
            self.watched = True
            self._changed.notify_all()

    def _guest_time(self) -> float:
        """Seconds, without those in which the guest stood still."""
        now = self._paused_at if self._paused_at is not None else time.monotonic()
        return now - self._paused_for

    def _await_answer(self, until: float, within: float) -> None:
        """A change, until this guest time. The lock is held."""
        self._check()
        left = until - self._guest_time()
        if left <= 0:
            raise InstanceLost(f"its agent did not answer within {within:g} s")
        self._changed.wait(left if self._paused_at is None else None)

    # --- asking ---------------------------------------------------------------------------------

    def ask(self, kind: int, within: float = ASK_WITHIN, **fields: Any) -> dict[str, object]:
        """The answer to a question. Raises UsageError where the guest says that it is wrong,
        InstanceLost where it does not answer."""
        with self._lock:
            self._check()
            until = self._guest_time() + within
            channel, data = self._talk.ask(kind, **fields)
            self._answers[channel] = None
        try:
            self._send(data, within)
            with self._changed:
                while (found := self._answers[channel]) is None:
                    self._await_answer(until, within)
        finally:
            with self._lock:
                del self._answers[channel]
                self._talk.forget(channel)
        if isinstance(found, Faulted):
            raise UsageError(found.text)
        return found.fields

    def begin(self, kind: int, within: float = ASK_WITHIN, **fields: Any) -> tuple[int, Remote]:
        """A program that was started, or a transfer. Raises ProgramNotStarted, UsageError,
        InstanceLost."""
        remote = Remote()
        with self._lock:
            self._check()
            until = self._guest_time() + within
            channel, data = self._talk.begin(kind, **fields)
            self._remotes[channel] = remote
        try:
            self._send(data, within)
            with self._changed:
                while not remote.started and remote.fault is None:
                    self._await_answer(until, within)
        except BaseException:
            self.forget(channel)
            raise
        fault = remote.fault
        if fault is not None:
            self.forget(channel)
            if fault.code:
                raise ProgramNotStarted(fault.text, fault.code)
            raise UsageError(fault.text)
        return channel, remote

    def tell(self, channel: int, kind: int, **fields: Any) -> None:
        """Something about a program; nothing where either is gone."""
        with self._lock:
            data = b"" if self._over else self._talk.tell(channel, kind, **fields)
        with suppress(InstanceLost):
            self._send(data, ASK_WITHIN)

    def give(self, channel: int, remote: Remote, data: memoryview) -> int:
        """Send as much input as there is room for, waiting for the first of it; how much it was, 0
        where the program has ended."""
        with self._changed:
            while not (room := self._talk.room(channel)):
                if self._over or remote.end is not None:
                    return 0
                self._changed.wait()
            if self._over:
                return 0
            piece = data[: min(room, wire.PIECE)]
            sent = self._talk.give(channel, piece)
        self._send(sent, SICK_AFTER)
        return len(piece)

    def took(self, channel: int, stream: int, size: int) -> None:
        """Output was read by whom it is for."""
        with self._lock:
            data = b"" if self._over else self._talk.took(channel, stream, size)
        with suppress(InstanceLost):
            self._send(data, SICK_AFTER)

    def forget(self, channel: int) -> None:
        """Nobody wants to hear of that program any more."""
        with self._lock:
            self._remotes.pop(channel, None)
            data = b"" if self._over else self._talk.forget(channel)
        with suppress(InstanceLost):
            self._send(data, ASK_WITHIN)

    def wait(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Until ``ready``, which is asked under the lock, or the line is over, or so many seconds
        have passed: whether one of the first two."""
        with self._changed:
            return self._changed.wait_for(lambda: ready() or bool(self._over), timeout)

    # --- the end --------------------------------------------------------------------------------

    @property
    def over(self) -> str:
        """Why it is, empty while it is not."""
        return self._over

    def _check(self) -> None:
        if self._over:
            raise InstanceLost(self._over)

    def finish(self, why: str) -> None:
        """It is over; everybody who waits is told so."""
        with self._changed:
            self._over = self._over or why
            self._changed.notify_all()

    def tail(self) -> str:
        """The last words of the console and of QEMU."""
        texts = (tail.decode("utf-8", "replace").strip() for tail in self._tails.values())
        return "\n".join(text for text in texts if text)

    def close(self) -> None:
        """Nobody reads any more. Idempotent."""
        self.finish(CLOSED)
        if self._closed:
            return
        self._closed = True
        self._wake.send(b"x")
        self._thread.join()
        with self._sending:  # who is sending sees within a moment that it is over
            self._agent.close()
        for one in (self._waking, self._wake, *self._others):
            one.close()

    # --- the socket -----------------------------------------------------------------------------

    def _send(self, data: bytes, within: float) -> None:
        """Whole frames only, one after another."""
        if not data:
            return
        until = self._guest_time() + within
        with self._sending:
            left = memoryview(data)
            while left:
                self._check()
                try:
                    left = left[self._agent.send(left) :]
                except BlockingIOError:
                    if self._guest_time() > until:
                        self.finish("its agent takes nothing any more")
                    select.select([], [self._agent], [], 0.1)
                except OSError as error:
                    self.finish(f"the line to its agent broke: {error}")

    def _read_all(self) -> None:
        with selectors.DefaultSelector() as waiting:
            for one in (self._agent, self._waking, *self._others):
                waiting.register(one, selectors.EVENT_READ)
            if self._alive >= 0:
                waiting.register(self._alive, selectors.EVENT_READ)
            self._read_from(waiting)

    def _read_from(self, waiting: selectors.BaseSelector) -> None:
        heard = pinged = time.monotonic()
        while not self._closed:
            found = [key.fileobj for key, _ in waiting.select(PING_EVERY / 2)]
            now = time.monotonic()
            for one in found:
                if one is self._agent:
                    heard = now
                    if not self._receive():
                        waiting.unregister(one)
                elif one == self._alive:
                    waiting.unregister(one)
                    self._on_death()
                elif one in self._others and not self._read_tail(one):
                    waiting.unregister(one)
            if not self.watched:
                heard = now
            elif now - heard > SICK_AFTER:
                self.finish(f"its agent has been silent for {SICK_AFTER:g} s: the guest hangs")
            elif now - pinged > PING_EVERY:
                pinged = now
                self._ping()

    def _receive(self) -> bool:
        try:
            data = self._agent.recv(_READ)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            if self._alive < 0:
                self.finish("its agent has ended")
            return False
        with self._changed:
            try:
                events = self._talk.feed(data)
            except ProtocolError as error:
                self._over = self._over or str(error)
                events = []
            for event in events:
                self._on_event(event)
            self._changed.notify_all()
        return not self._over

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Answered | Faulted) and event.channel in self._answers:
            self._answers[event.channel] = event
            return
        remote = self._remotes.get(event.channel)
        if remote is None or isinstance(event, Answered | Credited):
            return
        if isinstance(event, Said):
            remote.said.append(Output(event.stream, event.data))
        elif isinstance(event, Started):
            remote.started = True
        elif isinstance(event, Faulted):
            remote.fault = event
        else:
            remote.end = event

    def _ping(self) -> None:
        """Only where nobody else is sending: who is has a deadline of his own."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            data = wire.frame(0, wire.PING)
            with suppress(BlockingIOError, OSError):
                if select.select([], [self._agent], [], 0)[1]:
                    self._agent.send(data)
        finally:
            self._sending.release()

    def _read_tail(self, one: socket.socket) -> bool:
        try:
            data = one.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        self._tails[one] = (self._tails[one] + data)[-_TAIL:]
        return bool(data)

    def _on_death(self) -> None:
        for one in self._tails:
            self._read_tail(one)
        self.finish(self._why() or "QEMU has ended")
