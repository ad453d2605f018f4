"""The gate before the application: what does not pass it is seen by no route.

Owns: the order of the checks, the limits on bodies, the headers every answer has. Must never: let a
request without a token through to anything that is not public, whatever its method or path.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, MutableMapping
from typing import Any, Final

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guactors.web import guard
from guactors.web.answers import Refused, body_of, busy, too_often
from guactors.web.bearers import Bearer, Bearers
from guactors.web.budget import Budget, Hold
from guactors.web.complaints import Complaints
from guactors.web.guard import Headers, Refusal
from guactors.web.rates import Rates
from guactors.web.settings import Limits

PIECE: Final = 65_536
"""Bytes of an answer that are written at a time, each after the one before was mostly taken."""
ALWAYS: Final = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]

_BEARER: Final = "guactors.bearer"
_HOLD: Final = "guactors.hold"


class Gate:
    """ASGI around ``app``. ``names``: further names of this server, as ``guard.lower_names``."""

    def __init__(
        self,
        app: ASGIApp,
        names: Collection[str],
        limits: Limits,
        bearers: Bearers,
        complaints: Complaints,
    ) -> None:
        self._app = app
        self._complaints = complaints
        self._names = names
        self._limits = limits
        self._bearers = bearers
        self._tries = Rates(limits.tries, limits.all_tries)
        self._asks = Rates(limits.asks, limits.all_asks)
        self._budget = Budget(limits.held, limits.of_bearer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        assert scope["type"] == "http", "there is no WebSocket here, and no lifespan"
        answer = _Answer(send)
        refusal = self._judge(scope)
        if refusal is not None:
            client = scope.get("client")
            what = f"{scope['method']} {scope['path']}"
            self._complaints.note(refusal, client[0] if client else "", what, time.monotonic())
            await answer.refuse(refusal)
            return
        hold = scope[_HOLD] = Hold(self._budget)
        limit = guard.body_limit(scope["method"], scope["path"], self._limits)
        try:
            held = None if guard.passes_through(scope["method"], scope["path"]) else hold
            body = _Body(receive, limit, held, holder_of(scope))
            await self._app(scope, body.receive, answer.send)
        finally:
            hold.release()

    def _judge(self, scope: Scope) -> Refusal | None:
        headers: Headers = scope["headers"]
        method, path = scope["method"], scope["path"]
        server, client = scope.get("server"), scope.get("client")
        refusal = guard.judge_head(
            method,
            path,
            scope["raw_path"] + scope["query_string"],
            headers,
            scheme=scope["scheme"],
            local=server[0] if server else "",
            names=self._names,
            limits=self._limits,
        )
        if refusal is not None:
            return refusal
        now = time.monotonic()
        if (method, path) in guard.PUBLIC:
            if path not in guard.TRIES:
                return None
            wait = self._tries.wait(guard.network_of(client[0]) if client else "", now)
            return too_often(wait) if wait else None
        token = guard.bearer_of(headers)
        if token is None:
            return guard.no_token()
        bearer = self._bearers.find(token, now)
        if bearer is None:
            return guard.no_token("the token is unknown or has expired: get a new one")
        wait = self._asks.wait(bearer.key, now)
        if wait:
            return too_often(wait)
        scope[_BEARER] = bearer
        return None


def bearer_in(scope: MutableMapping[str, Any]) -> Bearer:
    """Who asks; only for what is not public."""
    bearer: Bearer = scope[_BEARER]
    return bearer


def holder_of(scope: MutableMapping[str, Any]) -> str:
    """Whom the bodies of a request are counted for."""
    bearer: Bearer | None = scope.get(_BEARER)
    return bearer.key if bearer is not None else ""


def hold(scope: MutableMapping[str, Any], count: int) -> None:
    """Count bytes for a request until it is answered. Raises Refused where there is no room."""
    held: Hold = scope[_HOLD]
    if not held.take(holder_of(scope), count):
        raise Refused(busy("too many large bodies are on their way: send fewer at a time"))


class _Body:
    """The body of a request, as long as it keeps to ``limit``. ``hold``: what counts it, None where
    it is handed on."""

    def __init__(self, receive: Receive, limit: int, hold: Hold | None, holder: str) -> None:
        self._receive = receive
        self._left = limit
        self._limit = limit
        self._hold = hold
        self._holder = holder

    async def receive(self) -> Message:
        message = await self._receive()
        size = len(message.get("body", b""))
        self._left -= size
        if self._left < 0:
            raise Refused(guard.too_large(self._limit))
        if size and self._hold is not None and not self._hold.take(self._holder, size):
            raise Refused(busy("too many large bodies are on their way: send fewer at a time"))
        return message


class _Answer:
    """An answer, with the headers that all have, in pieces."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in ALWAYS}
            kept = [one for one in message.get("headers", []) if one[0].lower() not in names]
            await self._send({**message, "headers": [*kept, *ALWAYS]})
            return
        body = message.get("body", b"")
        for start in range(0, len(body) - PIECE, PIECE):
            piece = bytes(body[start : start + PIECE])
            await self._send({**message, "body": piece, "more_body": True})
            # For news of the connection's end, and for the others.
            await asyncio.sleep(0)
        rest = (len(body) - 1) // PIECE * PIECE if body else 0
        await self._send({**message, "body": bytes(body[rest:])})

    async def refuse(self, refusal: Refusal) -> None:
        body = msgspec.json.encode(body_of(refusal))
        headers = {
            "Content-Type": guard.JSON,
            "Content-Length": str(len(body)),
            **refusal.headers,
        }
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})
