"""The door's work in sessions of others: one caller in each, with the rights of whose it is.

Owns: these callers, what they deployed, and the threads on which they wait. Must never: work in a
session by the door's own rights (``Hello.whose`` has the hub refuse that), or open anything that
comes from a worker as more than plain data.

What was deployed belongs to the caller that did it, so it ends with its session, with the door, and
when the hub no longer knows whose session it is.
"""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from guactors import values
from guactors.config import Identity, Timing
from guactors.credentials import Credentials
from guactors.deployment import Deployment, deploy_in
from guactors.errors import AuthFailed, MailboxFull
from guactors.home import host_id
from guactors.ids import fresh
from guactors.looking import asker
from guactors.messages import Endpoint, Hello, Message
from guactors.session import Session
from guactors.transport import open_transport
from guactors.versions import own_versions

T = TypeVar("T")

MOST: Final = 64
"""Sessions that the door works in at a time."""
AT_WORK: Final = 512
"""Requests that wait for workers at a time."""
OF_KEY: Final = 32
"""Of these, those of one key."""
ENTER_WITHIN: Final = 10.0
ANSWER_WITHIN: Final = 20.0
PIECE: Final = 65_536
"""Bytes of a file sent at a time: what is larger would go through memory that this process does not
share with anybody."""


class Kept:
    """Something that was deployed: ``id`` as clients know it, at the provider ``node`` of that
    ``name``."""

    def __init__(self, id: str, node: str, node_name: str, note: str, it: Deployment) -> None:
        self.id = id
        self.node = node
        self.node_name = node_name
        self.note = note
        self.it = it

    def is_at(self, node: str) -> bool:
        """Whether that provider, by id or name, has it."""
        return node in (self.node, self.node_name)


class Deputy:
    """The door's caller in one session. All that it does blocks."""

    def __init__(self, session: str, key: str, hub: Sequence[Endpoint], timing: Timing) -> None:
        from guactors.transport.zmq_link import new_keypair

        _open_data_only()
        self.session = session
        self.key = key
        self.kept: dict[str, Kept] = {}
        own = Credentials(Identity(*new_keypair()))
        transport = open_transport(own.identity)
        hello = Hello(
            fresh("caller"), "caller", own_versions(), os.getpid(), host_id(), session,
            name="http", namespace=session, whose=key,
        )  # fmt: skip
        self._grid = Session(transport, hub, hello, timing, credentials=own, echo=False)
        self._grid.on_close.append(transport.close)

    def enter(self) -> None:
        """Raises AuthFailed where the session is not that key's, HubUnreachable."""
        self._grid.start(ENTER_WITHIN)

    @property
    def over(self) -> bool:
        """Whether it is of no more use."""
        return self._grid.closed or self._grid.refused is not None

    def kept_at(self, node: str) -> list[Kept]:
        """What it has at a provider. Any thread, while others deploy."""
        return [one for one in list(self.kept.values()) if one.is_at(node)]

    @property
    def is_idle(self) -> bool:
        """Whether nothing that it deployed is there any more."""
        return not any(one.it.alive for one in list(self.kept.values()))

    def ask(self, question: Message) -> Message:
        """The hub's answer. Raises the error that it names, HubUnreachable."""
        return asker(self._grid, ANSWER_WITHIN)(question)

    def deploy(
        self,
        kind: str,
        node: tuple[str, str],
        note: str,
        options: dict[str, Any],
        given: dict[str, Any],
        within: float,
    ) -> Kept:
        """Raises as ``guactors.deploy``."""
        made = deploy_in(self._grid, {**options, "provider": node[0]}, given, within)
        made.piece = PIECE
        kept = Kept(f"{kind}::{uuid.uuid4().hex}", *node, note, made)
        self.kept[kept.id] = kept
        return kept

    def end(self, kept: Kept, grace: float) -> None:
        """Nothing is left of it."""
        self.kept.pop(kept.id, None)
        kept.it.close(grace)

    def close(self) -> None:
        """Whoever waits for a worker here hears that the session has ended."""
        self._grid.close()


class Deputies:
    """Of one door; needs a running loop."""

    def __init__(self, hub: Sequence[Endpoint], timing: Timing) -> None:
        self._hub = list(hub)
        self._timing = timing
        self._all: dict[str, Deputy] = {}
        self._entering = asyncio.Lock()
        self._busy: dict[str, int] = {}
        self._threads = ThreadPoolExecutor(AT_WORK, thread_name_prefix="deputy")

    def __repr__(self) -> str:
        return f"<Deputies sessions={len(self._all)}>"

    async def enter(self, session: str, key: str) -> Deputy:
        """The caller in a session of that key. Raises AuthFailed, HubUnreachable, MailboxFull."""
        async with self._entering:
            known = self.find(session, key)
            if known is not None:
                return known
            await self._make_room()
            made = Deputy(session, key, self._hub, self._timing)
            try:
                await self.work(key, made.enter)
            except BaseException:
                await self._aside(made.close)
                raise
            self._all[session] = made
            return made

    def find(self, session: str, key: str) -> Deputy | None:
        """The caller in a session of that key, if there is one."""
        found = self._all.get(session)
        return found if found is not None and found.key == key and not found.over else None

    async def keep_only(self, key: str, sessions: Collection[str]) -> None:
        """No other sessions of that key are open any more."""
        for session, one in list(self._all.items()):
            if one.key == key and session not in sessions:
                await self.leave(session)

    async def leave(self, session: str) -> None:
        """The session has ended."""
        found = self._all.pop(session, None)
        if found is not None:
            await self._aside(found.close)

    async def work(self, key: str, do: Callable[..., T], *args: Any) -> T:
        """What a function that blocks gives, on a thread. Raises MailboxFull where too many of
        that key wait, and what the function raises."""
        if self._busy.get(key, 0) >= OF_KEY or sum(self._busy.values()) >= AT_WORK:
            raise MailboxFull(
                "too many requests are waiting for deployments: wait for some to be answered"
            )
        self._busy[key] = self._busy.get(key, 0) + 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, do, *args)
        # A client that goes away ends nothing: the thread works on, and counts until it is done.
        future.add_done_callback(lambda _: self._done(key))
        return await asyncio.shield(future)

    def _done(self, key: str) -> None:
        self._busy[key] -= 1
        if not self._busy[key]:
            del self._busy[key]

    async def _make_room(self) -> None:
        for session, one in list(self._all.items()):
            if one.over:
                await self.leave(session)
        if len(self._all) < MOST:
            return
        idle = [session for session, one in self._all.items() if one.is_idle]
        if not idle:
            raise MailboxFull(f"{MOST} sessions have deployments by HTTP: close one of them first")
        await self.leave(idle[0])

    @staticmethod
    async def _aside(do: Callable[[], None]) -> None:
        await asyncio.to_thread(do)

    def close(self) -> None:
        """Leave all sessions; what was deployed ends with that."""
        for one in self._all.values():
            one.close()
        self._all.clear()
        self._threads.shutdown(wait=True)


_data_only = threading.Lock()


def _open_data_only() -> None:
    """From here on this process opens nothing as code. Idempotent."""
    from guactors.security.data_only import NotData, load
    from guactors.security.data_types import DATA, ERRORS

    def opener(makers: Any) -> Callable[..., Any]:
        def opened(data: bytes, *, buffers: Any = ()) -> Any:
            try:
                return load(data, buffers, makers)
            except NotData as found:
                culprit = found.culprit
            raise AuthFailed(f"a worker answered with {culprit}, which is no plain data")

        return opened

    with _data_only:
        values.openers.value = values.openers.arguments = opener(DATA)
        values.openers.error = opener(ERRORS)
