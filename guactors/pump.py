"""Who polls: the thread that waits does the I/O itself, a background thread only when nobody waits.

Owns: the session's lock, its poller and its one background thread. Must never: know what the
service does.

A hand-over between threads costs two context switches and the interpreter's lock, more than a whole
call. So a thread that waits becomes the **leader**: it polls and serves until what it waits for is
there. Other waiting threads sleep until the leader has news for them. The background thread leads
when no other thread has led for :data:`HOLD_OFF` seconds, and gives way at once.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from guactors.transport.poller import Poller


def cpu_count() -> int:
    """Processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


HOLD_OFF = 0.003
"""Seconds without a waiting thread before the background thread polls."""
SHORTEST = 0.001
"""Shortest sleep of the background thread while another one leads."""
LONGEST = 0.5
"""Longest sleep, a bound on the harm of a missed edge."""
LASTING = 1.0
"""Seconds for which another thread has led when the background thread goes to sleep until it is
roused."""
SPIN = 0.0004 if cpu_count() > 1 else 0.0
"""Seconds to look again and again before sleeping, while answers mostly come within that time. To
sleep and be woken costs more than a small call: the processor goes idle, and comes back cold."""
LEARN = 0.2
"""Weight of the latest wait in the running mean that decides whether to spin."""
BLOCK_AFTER = 0.001
"""Seconds of waiting after which the host process is told that it blocks."""
POLL_CLOSE = 0.001
"""Seconds between two looks whether the polling thread has left."""
_BACKGROUND = -1


class Host(Protocol):
    """The worker around the session, when there is one: told when its main thread waits."""

    def entering(self) -> bool:
        """This thread is about to wait; True if it is the thread that runs calls."""

    def blocking(self) -> None:
        """It has waited for a while."""

    def serve(self) -> None:
        """One round of the service: look after the host's own descriptors while it waits."""

    def leaving(self) -> None:
        """It goes on."""


class Pump:
    """``service(ready_fds)`` is called with the lock held; it returns the seconds until it wants to
    be called again, None for never."""

    def __init__(
        self,
        name: str,
        service: Callable[[list[int]], float | None],
        receive: Callable[[Sequence[int]], float],
    ) -> None:
        self.lock = threading.RLock()
        self.poller = Poller()
        self.host: Host | None = None
        self._service = service
        self._receive = receive
        self._leader = 0
        self._led_from = 0.0
        """Since when the thread that leads, or led last, has done so; not of the background."""
        self._last_lead = 0.0
        self._waiters: set[threading.Event] = set()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._closing = False
        self._kicked = False
        self._usual = 0.0
        self._hurry = math.inf
        """When the service is due though the one who led last did not know."""
        self._thread = threading.Thread(target=self._background, name=name, daemon=True)

    def start(self) -> None:
        """Start the background thread."""
        self._thread.start()

    def kick(self) -> None:
        """There is work for the service that no descriptor will announce."""
        if not self._kicked:
            self._kicked = True
            self.poller.wake()

    def news(self) -> None:
        """Something settled: sleeping waiters look again. Called by the service."""
        for event in self._waiters:
            event.set()
        self.rouse_leader()

    def rouse_leader(self) -> None:
        """Make the thread that polls look again, unless that is this one. Needed after anything
        that another thread received, or sent: a send may consume the signal of an arrival, and of
        two threads that poll the system wakes only one. The lock must be held."""
        if self._leader and self._leader != threading.get_ident():
            self.poller.wake()

    def hurry(self, at: float) -> None:
        """The service is to be called at this time at the latest, whoever leads then."""
        self._hurry = min(self._hurry, at)
        self._rouse()

    def serve(self, ready: list[int]) -> float | None:
        """One round of the service; the lock must be held."""
        self._kicked = False
        if self._hurry < math.inf and time.monotonic() >= self._hurry:
            self._hurry = math.inf
        return self._service(ready)

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Serve, or sleep while another thread serves, until ``done()``; False on timeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        host = self.host
        if host is None:
            return self._wait(done, deadline, None)
        hosted = host is not None and host.entering()
        try:
            return self._wait(done, deadline, host if hosted else None)
        finally:
            if hosted:
                host.leaving()

    def _wait(self, done: Callable[[], bool], deadline: float | None, host: Host | None) -> bool:
        while True:
            event: threading.Event | None = None
            delay: float | None
            with self.lock:
                delay = None if self._kicked else self._receive(())
                if delay is None or delay < 0.0:
                    delay = self.serve([])
                if done():
                    return True
                if self._closing:
                    return False
                if self._leader in (0, _BACKGROUND):
                    if self._leader == _BACKGROUND:
                        self.poller.wake()
                    self._leader = threading.get_ident()
                    self._led_from = time.monotonic()
                else:
                    event = threading.Event()
                    self._waiters.add(event)
            if event is None:
                return self._lead(done, deadline, delay, host)
            left = LONGEST if deadline is None else min(LONGEST, deadline - time.monotonic())
            if host is not None:
                host.blocking()
                host = None
            event.wait(max(left, 0.0))
            with self.lock:
                self._waiters.discard(event)
                if done():
                    return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _lead(
        self,
        done: Callable[[], bool],
        deadline: float | None,
        delay: float | None,
        host: Host | None,
    ) -> bool:
        wait, lock = self.poller.wait, self.lock
        now = began = self._led_from
        spins = host is None and self._usual < SPIN
        try:
            while True:
                timeout = LONGEST if delay is None or delay > LONGEST else delay
                if deadline is not None:
                    timeout = min(timeout, deadline - now)
                if host is not None:
                    timeout = min(timeout, BLOCK_AFTER)
                ready = self._spin() if spins and timeout > 0.0 else None
                spins = ready == []  # woken, perhaps by ourselves: it looks on
                if ready is None:
                    ready = wait(timeout)
                with lock:
                    delay = self._receive(ready)
                    if delay < 0.0:
                        delay = self.serve(ready)
                    if done():
                        return True
                    if self._closing:
                        return False
                if host is not None or deadline is not None:
                    now = time.monotonic()
                    if host is not None and now - began >= BLOCK_AFTER:
                        host.blocking()
                        host = None
                    if deadline is not None and now >= deadline:
                        return False
        finally:
            with lock:
                self._leader = 0
                self._last_lead = now = time.monotonic()
                # Bounded, so that a few quick answers after a slow one count again.
                self._usual += LEARN * (min(now - began, 10 * SPIN) - self._usual)
                for event in self._waiters:
                    event.set()
            if now - began > LASTING:
                self._rouse()

    def _spin(self) -> list[int] | None:
        """Look until there is news or a wake, for :data:`SPIN` seconds at the most; None then."""
        look, clock = self.poller.look, time.monotonic
        until = clock() + SPIN
        while True:
            ready = look()
            if ready is not None or clock() > until:
                return ready

    def _background(self) -> None:
        delay: float | None = 0.0
        while not self._closing:
            with self.lock:
                now = time.monotonic()
                mine = self._leader in (0, _BACKGROUND) and now - self._last_lead >= HOLD_OFF
                if mine:
                    self._leader = _BACKGROUND
                led = self._leader not in (0, _BACKGROUND)
                nap = LONGEST if led and now - self._led_from > LASTING else HOLD_OFF
            if not mine:
                self._nap(min(nap, max(SHORTEST, self._hurry - time.monotonic())))
                delay = 0.0
                continue
            ready = self.poller.wait(LONGEST if delay is None else min(delay, LONGEST))
            with self.lock:
                if self._closing:
                    break
                delay = self.serve(ready)
                if self._leader == _BACKGROUND:
                    self._leader = 0
                    self._last_lead = 0.0
                else:
                    self.rouse_leader()

    def _nap(self, seconds: float) -> None:
        """Sleep until roused. A bare lock: an Event's wait makes a new one each time."""
        self._bell.acquire(timeout=seconds)

    def _rouse(self) -> None:
        if self._bell.locked():
            try:
                self._bell.release()
            except RuntimeError:
                return  # another thread was faster

    def close(self) -> None:
        """End the background thread and every wait (they return False)."""
        with self.lock:
            self._closing = True
            self.news()
        self._rouse()
        self.poller.wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(2.0)
        self._await_leader()
        self.poller.close()

    def _await_leader(self) -> None:
        """A thread that polls must be out before the poller goes; it leaves at its next look."""
        deadline = time.monotonic() + 2.0
        while self._leader not in (0, _BACKGROUND, threading.get_ident()):
            if time.monotonic() >= deadline:
                return
            self.poller.wake()
            time.sleep(POLL_CLOSE)
