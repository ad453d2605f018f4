"""The door's lines to the hub: questions out, answers in, many at a time.

Owns: one link for what concerns nobody's images, and one for each key that is at its images; who
waits for which answer. Must never: block the loop, ask a second time by itself, or leave a question
without an answer: a lost hub answers them all.

The hub counts open uploads and waiting questions by link and takes a chunk for whoever offered the
image on that link, so two keys must not share one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec

from guactors.config import Identity, Timing
from guactors.errors import (
    AuthFailed,
    GuactorsError,
    HubUnreachable,
    InternalError,
    MailboxFull,
)
from guactors.home import host_id
from guactors.hub_line import HubLine, error_of
from guactors.ids import PeerId, fresh
from guactors.messages import Challenge, Endpoint, Fault, Hello, Message, Proof
from guactors.transport import open_transport
from guactors.transport.base import Link, Transport
from guactors.versions import own_versions

M = TypeVar("M", bound=Message)

ANSWER_WITHIN: Final = 20.0
"""Seconds."""
JOIN_WITHIN: Final = 5.0
MOST_LINES: Final = 64
"""Keys that are at their images at a time."""
AT_A_TIME: Final = 4
"""Questions about images of one key; the hub works on no more of one link."""
IDLE: Final = 600.0
"""Seconds after which a line that nobody uses is closed."""


def _prove(_challenge: Challenge, _link: str) -> Proof:
    raise AuthFailed("the hub asks the HTTP server for a key: it must run beside its hub")


class Line:
    """One link to the hub, dialled again whenever it breaks. Needs a running loop."""

    def __init__(self, transport: Transport, hub: Sequence[Endpoint], timing: Timing) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._up = asyncio.Event()
        self._fds: dict[int, tuple[int, ...]] = {}
        peer = PeerId(fresh("caller"))
        hello = Hello(peer, "caller", own_versions(), os.getpid(), host_id(), name="http")
        self._line = HubLine(
            transport,
            hub,
            hello,
            timing,
            prove=_prove,
            on_up=self._up.set,
            on_refused=self._refused,
            on_message=self._answered,
            watch=self._watch,
            unwatch=self._unwatch,
        )
        self._serve()

    async def ask(self, question: Message, kind: type[M], within: float = ANSWER_WITHIN) -> M:
        """The answer to a question, whose ``request`` is filled in here. A Fault becomes the error
        it names; HubUnreachable without a hub, and after ``within`` seconds."""
        if not self._line.up:
            raise self._line.unreachable()
        self._last += 1
        number = self._last
        future = self._waiting[number] = self._loop.create_future()
        try:
            self._line.send(msgspec.structs.replace(question, request=number))
            self._serve_soon()
            async with asyncio.timeout(within):
                answer = await future
        except TimeoutError:
            raise HubUnreachable(f"the hub gave no answer within {within:g} s") from None
        finally:
            del self._waiting[number]
        if not isinstance(answer, kind):
            raise InternalError(
                f"the hub answered {type(question).__name__} with {type(answer).__name__}"
            )
        return answer

    def tell(self, message: Message) -> None:
        """Something that needs no answer; lost without a hub."""
        self._line.send(message)
        self._serve_soon()

    async def joined(self, within: float = JOIN_WITHIN) -> None:
        """Wait for the hub. Raises HubUnreachable."""
        try:
            async with asyncio.timeout(within):
                await self._up.wait()
        except TimeoutError:
            raise self._line.unreachable() from None

    def close(self) -> None:
        """Say goodbye; whoever waits is told."""
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._line.close()
        self._fail(HubUnreachable("the HTTP server is ending"))

    # --- the link -------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._soon = None
        while True:
            due = self._line.service(self._loop.time())
            # What was sent meanwhile may have used up the signal of an arrival.
            if not self._line.suspect:
                break
        if not self._line.up:
            self._up.clear()
            self._fail(self._line.unreachable())
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._serve)

    def _serve_soon(self) -> None:
        if self._soon is None:
            self._soon = self._loop.call_soon(self._serve)

    def _watch(self, link: Link) -> None:
        fds = self._fds[id(link)] = link.filenos()
        for fd in fds:
            self._loop.add_reader(fd, self._serve)

    def _unwatch(self, link: Link) -> None:
        for fd in self._fds.pop(id(link), ()):
            self._loop.remove_reader(fd)

    # --- answers --------------------------------------------------------------------------------

    def _answered(self, message: Message) -> None:
        future = self._waiting.get(getattr(message, "request", 0))
        if future is None or future.done():
            return  # nobody waits any more
        if isinstance(message, Fault):
            future.set_exception(error_of(message))
        else:
            future.set_result(message)

    def _refused(self, error: GuactorsError) -> None:
        self._fail(error)

    def _fail(self, error: GuactorsError) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)


class _Own:
    """The line of one key. ``users``: requests that are at it."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.turns = asyncio.Semaphore(AT_A_TIME)
        self.users = 0
        self.used = 0.0


class Hub:
    """All lines of this process. Needs a running loop; ``close`` it there."""

    def __init__(self, hub: Sequence[Endpoint], timing: Timing) -> None:
        self._transport = open_transport(Identity())
        self._endpoints = list(hub)
        self._timing = timing
        self._main = Line(self._transport, hub, timing)
        self._own: dict[str, _Own] = {}

    def __repr__(self) -> str:
        return f"<Hub lines={1 + len(self._own)}>"

    def tell(self, message: Message) -> None:
        """Something that needs no answer; lost without a hub."""
        self._main.tell(message)

    async def ask(self, question: Message, kind: type[M]) -> M:
        """As Line.ask, for what concerns nobody's images."""
        return await self._main.ask(question, kind)

    async def ask_for(self, key: str, question: Message, kind: type[M]) -> M:
        """As Line.ask, on the line of a key. Raises MailboxFull when too many have one."""
        async with self._line_of(key) as own, own.turns:
            await own.line.joined()
            return await own.line.ask(question, kind)

    @asynccontextmanager
    async def _line_of(self, key: str) -> AsyncIterator[_Own]:
        now = time.monotonic()
        self._close_idle(now)
        own = self._own.get(key)
        if own is None:
            self._make_room()
            own = self._own[key] = _Own(Line(self._transport, self._endpoints, self._timing))
        own.users += 1
        try:
            yield own
        finally:
            own.users -= 1
            own.used = time.monotonic()

    def _close_idle(self, now: float) -> None:
        for key, own in list(self._own.items()):
            if not own.users and now - own.used > IDLE:
                self._own.pop(key).line.close()

    def _make_room(self) -> None:
        if len(self._own) < MOST_LINES:
            return
        idle = [key for key, own in self._own.items() if not own.users]
        if not idle:
            raise MailboxFull(f"{MOST_LINES} others are at their images: try again in a minute")
        self._own.pop(min(idle, key=lambda key: self._own[key].used)).line.close()

    def close(self) -> None:
        """Close every line."""
        for own in self._own.values():
            own.line.close()
        self._own.clear()
        self._main.close()
        self._transport.close()
