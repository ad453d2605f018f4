"""One HTTP connection, which may be dawdled on only so long.

Owns: what uvicorn's connection lacks: the time for the head, the pace of the body, an end for
answers that nobody takes, and who makes way when there are too many. Must never: look into a
request; ``gate`` does.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

import h11
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from guactors.web.answers import body_of, busy
from guactors.web.crowd import Crowd
from guactors.web.gate import ALWAYS
from guactors.web.guard import JSON, Refusal, network_of
from guactors.web.pace import Pace, Phase
from guactors.web.settings import Limits

Everybody: TypeAlias = "Crowd[GuardedConnection]"

_LATE: Final = "the request did not come in time"


class GuardedConnection(H11Protocol):
    """``crowd`` knows all connections of this server; ``check`` is called regularly."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        crowd: Everybody,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._crowd = crowd
        self._pace = Pace(limits, self.loop.time())
        self._idle = True
        self._discarded = 0
        self._closing: float | None = None

    # --- what asyncio tells ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connected."""
        super().connection_made(transport)
        victim = self._crowd.enter(self, network_of(self.client[0] if self.client else ""))
        if victim is self:
            self._end(busy("too many connections of this address are being served"))
        elif victim is not None:
            victim.make_way()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self._pace.phase is Phase.REST:
            self._pace.enter(Phase.HEAD, now)
        self._pace.got(len(data))
        if self._discards():
            self._discarded += len(data)
            if self._discarded > self._limits.discarded:
                self.transport.abort()
                return
        super().data_received(data)
        self._look(now)

    def pause_writing(self) -> None:
        """The client does not take what was written."""
        super().pause_writing()
        self._pace.stalled(self.loop.time())

    def resume_writing(self) -> None:
        """It has taken most of it."""
        super().resume_writing()
        self._pace.moving()

    def on_response_complete(self) -> None:
        """An answer is written."""
        super().on_response_complete()
        # Its own timer knows whole seconds only, and nothing of a head that has begun.
        self._unset_keepalive_if_required()
        self._discarded = 0
        self._look(self.loop.time())

    # --- whose turn it is -----------------------------------------------------------------------

    def _look(self, now: float) -> None:
        phase = self._phase()
        self._pace.enter(phase, now)
        idle = phase in {Phase.HEAD, Phase.REST}
        if idle is not self._idle:
            self._idle = idle
            (self._crowd.idle if idle else self._crowd.busy)(self)

    def _phase(self) -> Phase:
        if self.cycle is not None and not self.cycle.response_complete:
            return Phase.BODY if self.cycle.more_body else Phase.WORK
        if self._discards():
            return Phase.BODY
        begun = bool(self.conn.trailing_data[0])
        return Phase.HEAD if begun or self.cycle is None else Phase.REST

    def _discards(self) -> bool:
        """Whether what comes is the rest of a body whose request is answered."""
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and self.conn.their_state is h11.SEND_BODY

    # --- who is late ----------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """End the connection if its client is late."""
        if self.transport is None:
            return
        if self.transport.is_closing():
            # What it still has to write may never be taken.
            if self._closing is None:
                self._closing = now
            elif now - self._closing > self._limits.stall:
                self.transport.abort()
            return
        if self.flow.read_paused or self._has_not_said_continue():
            self._pace.not_reading(now)
        late = self._pace.late(now)
        if not late:
            return
        if self._pace.phase is Phase.REST:
            self.transport.close()
        elif self._pace.phase is Phase.WORK or self._answering():
            self.transport.abort()
        else:
            self._end(Refusal(408, "UsageError", "late", late))

    def _has_not_said_continue(self) -> bool:
        cycle = self.cycle
        return cycle is not None and cycle.more_body and cycle.waiting_for_100_continue

    def make_way(self) -> None:
        """Somebody else needs the place, and nobody asks anything here."""
        if self.cycle is None:
            self._end(Refusal(408, "UsageError", "late", _LATE))
        else:
            self.transport.close()

    def _answering(self) -> bool:
        """Whether another answer could be taken for a part, or for the rest, of the present one."""
        cycle = self.cycle
        if cycle is None or not cycle.response_started:
            return False
        return not cycle.response_complete or self._discards()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        if self._answering():
            self.transport.abort()
            return
        self._end(Refusal(400, "UsageError", "malformed", msg))

    def _end(self, refusal: Refusal) -> None:
        """The last word, past the state machine: it may be in the middle of anything."""
        body = msgspec.json.encode(body_of(refusal))
        lines = [
            f"HTTP/1.1 {refusal.status} {_PHRASES[refusal.status]}",
            f"content-type: {JSON}",
            f"content-length: {len(body)}",
            "connection: close",
            *(f"{name}: {value}" for name, value in refusal.headers.items()),
            *(f"{name.decode()}: {value.decode()}" for name, value in ALWAYS),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()


_PHRASES: Final = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


async def watch(state: ServerState, limits: Limits) -> None:
    """Check every connection of a server, for ever."""
    loop = asyncio.get_running_loop()
    tick = min(limits.head, limits.window, limits.rest, limits.stall) / 8
    while True:
        await asyncio.sleep(tick)
        now = loop.time()
        for connection in list(state.connections):
            if isinstance(connection, GuardedConnection):
                connection.check(now)
