"""The application without a socket: ASGI by hand, and a hub that says what the test wants."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from guactors import errors
from guactors import messages as m
from guactors.web.app import make_app
from guactors.web.deputy import Deputies
from guactors.web.hub_client import Hub
from guactors.web.settings import Limits

M = TypeVar("M", bound=m.Message)

HOST = "127.0.0.1:61622"
KEY = "gu_app_one"
TOKEN = "gu_token_one"
IMAGE = "sha3-256:" + "a" * 64
BLOB = "b" * 64

Answer = m.Message | errors.GuactorsError
Rule = Callable[[Any], Answer]


@dataclass
class FakeHub:
    """Answers by the kind of question; ``asked`` has what came, with the line it came on."""

    rules: dict[type[m.Message], Rule] = field(default_factory=dict)
    asked: list[tuple[str, m.Message]] = field(default_factory=list)
    told: list[m.Message] = field(default_factory=list)

    def says(self, question: type[m.Message], answer: Answer | Rule) -> None:
        self.rules[question] = answer if callable(answer) else lambda _: answer

    def tell(self, message: m.Message) -> None:
        self.told.append(message)

    async def ask(self, question: m.Message, kind: type[M]) -> M:
        return await self.ask_for("", question, kind)

    async def ask_for(self, key: str, question: m.Message, kind: type[M]) -> M:
        self.asked.append((key, question))
        await asyncio.sleep(0)
        answer = self.rules[type(question)](question)
        if isinstance(answer, errors.GuactorsError):
            raise answer
        assert isinstance(answer, kind), f"{type(question).__name__}: {answer}"
        return answer

    def questions(self) -> list[str]:
        return [type(question).__name__ for _, question in self.asked]


class FakeDeputies:
    """Does at once what is to be done; ``of_key`` are its deputies, ``left`` the sessions that were
    left."""

    def __init__(self) -> None:
        self.deputies: dict[str, Any] = {}
        self.left: list[str] = []
        self.kept: list[str] = []

    async def enter(self, session: str, key: str) -> Any:
        assert key == KEY
        return self.deputies[session]

    def find(self, session: str, key: str) -> Any:
        return self.deputies.get(session) if key == KEY else None

    async def leave(self, session: str) -> None:
        self.left.append(session)

    async def keep_only(self, key: str, sessions: list[str]) -> None:
        assert key == KEY
        self.kept = sessions

    async def work(self, key: str, do: Callable[..., Any], *args: Any) -> Any:
        assert key == KEY
        return await asyncio.to_thread(do, *args)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    pieces: int

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def why(self) -> tuple[int, str]:
        return self.status, self.reason

    @property
    def reason(self) -> str:
        """Of an error, which must have the form of all errors."""
        body = self.json()
        assert body.keys() == {"error", "reason", "detail"}
        assert body["detail"]
        return str(body["reason"])


class Door:
    """The application behind its gate; one token is known to it already."""

    def __init__(self, limits: Limits | None = None, names: Iterable[str] = ()) -> None:
        self.hub = FakeHub()
        self.stays = False
        """Whether a client is there until it has its answer."""
        self.deputies = FakeDeputies()
        self.app = make_app(
            cast(Hub, self.hub), cast(Deputies, self.deputies), frozenset(names), limits or Limits()
        )
        self.app._bearers.gave(TOKEN, KEY, float("inf"))

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = TOKEN,
        chunks: list[bytes] | None = None,
        client: str = "127.0.0.1",
        **headers: str,
    ) -> Reply:
        """One request. ``body``: bytes go as they are, all else as JSON; ``chunks``: of a body
        whose length is not announced. Names of headers with ``_`` for ``-``."""
        sent = {"host": HOST, **{name.replace("_", "-"): text for name, text in headers.items()}}
        if token is not None:
            sent.setdefault("authorization", f"Bearer {token}")
        if chunks is not None:
            sent["transfer-encoding"] = "chunked"
        elif body is not None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent["content-length"] = str(len(raw))
            chunks = [raw]
        if chunks is not None:
            raw_kind = isinstance(body, bytes) and method == "PUT"
            kind = "application/octet-stream" if raw_kind else "application/json"
            sent.setdefault("content-type", kind)
        return asyncio.run(self._serve(method, path, sent, chunks or [], client))

    async def _serve(
        self, method: str, path: str, headers: dict[str, str], chunks: list[bytes], client: str
    ) -> Reply:
        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": target,
            "raw_path": target.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()],
            "server": ("127.0.0.1", 61622),
            "client": (client, 50000),
        }
        events = [
            {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
            for number, chunk in enumerate(chunks)
        ] or [{"type": "http.request", "body": b"", "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if not events and self.stays:
                await asyncio.Event().wait()
            return events.pop(0) if events else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start, *pieces = sent
        found = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        body = b"".join(piece["body"] for piece in pieces)
        assert [piece.get("more_body", False) for piece in pieces].count(False) == 1
        assert found["x-content-type-options"] == "nosniff"
        assert found["cache-control"] == "no-store"
        assert not [name for name in found if name.startswith("access-control")]
        assert "set-cookie" not in found
        return Reply(start["status"], found, body, len(pieces))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
