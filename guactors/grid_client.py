"""A synchronous line to the hub for tools that ask and go: `gu status`, `gu peers`, `gu inf`.

Owns: one link, its Hello, and matching answers to requests. Must never: submit work (``session``
does), keep a thread, or dial again by itself: a lost link is an error for whoever asks.

::

    with GridClient("auto") as grid:
        print(grid.grid().peers)
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Self

import msgspec

from guactors import errors
from guactors.grid_file import HubAddress, find_hub
from guactors.home import host_id
from guactors.ids import PeerId, fresh
from guactors.messages import (
    AskGrid,
    AskInfo,
    Challenge,
    Fault,
    Goodbye,
    Grid,
    GridInfo,
    Hello,
    HubToCaller,
    Info,
    Message,
    Ping,
    Pong,
    Welcome,
)
from guactors.transport import open_transport
from guactors.transport.base import Down, Lane, Link, LinkState, SendError, Transport
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.versions import own_versions

NAP = 0.25
"""Seconds between two looks at a silent link, in case its descriptors missed an edge."""
IDLE = 5.0
"""Seconds without a question after which the hub is dialled anew."""


class GridClient:
    """A caller that owns no session. ``address``: ``gu://...``, ``auto``, or None for GU_ADDRESS
    and then ``auto``. ``key``: a key file or the name of an app key, see ``grid_file.find_hub``.
    ``timeout``: seconds for the dial, and for each question.

    Raises HubUnreachable, AuthFailed, VersionMismatch, UsageError. One thread uses it."""

    def __init__(
        self, address: str | None = None, *, key: str | None = None, timeout: float = 5.0
    ) -> None:
        self.address: HubAddress = find_hub(address, key)
        self.timeout = timeout
        self._last_request = 0
        self._used = 0.0
        self._decoder: Decoder[Message] = Decoder(HubToCaller)
        self._transport: Transport = open_transport(self.address.credentials.identity)
        self._link: Link | None = None
        self._heard: deque[Message] = deque()
        self._begin()

    def _begin(self) -> None:
        self.peer = PeerId(fresh("caller"))
        self._hello = self.address.credentials.introduce(
            Hello(self.peer, "caller", own_versions(), os.getpid(), host_id())
        )

    def __repr__(self) -> str:
        state = self._link.state().value if self._link else "closed"
        return f"<GridClient {self.peer} of {self.address.shown}, {state}>"

    def __enter__(self) -> Self:
        try:
            self._dial()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye and drop the link; idempotent."""
        if self._link is not None:
            if self._link.state() is LinkState.UP:
                self._send(Goodbye("done"))
            self._link.close()
            self._link = None
        self._transport.close()

    def grid(self) -> GridInfo:
        """The whole grid as the hub sees it now."""
        answer = self.ask(AskGrid(request=0))
        assert isinstance(answer, Grid)
        return answer.info

    def info(self, peer: str) -> Info:
        """The machine of a provider, by id or name. UsageError if there is none of that name."""
        answer = self.ask(AskInfo(request=0, peer=peer))
        assert isinstance(answer, Info)
        return answer

    def ask(self, question: Message, timeout: float | None = None) -> Message:
        """Send a message that has a ``request`` field (filled in here); the message that answers.

        A Fault becomes the error it names; no answer in ``timeout`` seconds, or a link that breaks
        meanwhile, HubUnreachable."""
        ((_, answer),) = self.ask_many([question], timeout=timeout)
        return answer

    def ask_many(
        self, questions: Iterable[Message], *, window: int = 1, timeout: float | None = None
    ) -> Iterator[tuple[Message, Message]]:
        """As ``ask``, with up to ``window`` questions under way at a time; yields each question
        with its answer, in the order of the answers. ``timeout``: seconds for the next answer,
        whichever it is. After an error the answers to the others are dropped."""
        self._come_again()
        waiting: dict[int, Message] = {}
        source = iter(questions)
        while True:
            for question in islice(source, window - len(waiting)):
                self._last_request += 1
                waiting[self._last_request] = question
                self._send(msgspec.structs.replace(question, request=self._last_request))
            if not waiting:
                return
            answer = self._wait(
                lambda message: getattr(message, "request", None) in waiting,
                self.timeout if timeout is None else timeout,
            )
            number: int = getattr(answer, "request", 0)
            yield waiting.pop(number), answer

    def _come_again(self) -> None:
        """As somebody new, after a pause: whoever answers no pings is soon forgotten."""
        if self._link is not None and time.monotonic() - self._used > IDLE:
            self._link.close()
            self._heard.clear()
            self._begin()
            self._dial()

    def _dial(self) -> None:
        last: errors.GuactorsError | None = None
        for endpoint in self.address.endpoints:
            self._link = self._transport.dial(endpoint)
            try:
                self._send(self._hello)
                self._link.send(Lane.DATA, [encode(self._hello)])
                self._wait(lambda message: isinstance(message, Welcome), self.timeout)
            except errors.HubUnreachable as failed:
                last = failed
                self._link.close()
                continue
            return
        raise last or errors.HubUnreachable(f"no endpoint is known for {self.address.shown}")

    def _send(self, message: Message) -> None:
        assert self._link is not None, "use it in a with statement"
        try:
            self._link.send(lane_of(message), [encode(message)])
        except SendError as failed:
            down = self._link.down() or Down("lost", str(failed))
            raise self._why(down) from failed

    def _wait(self, wanted: Callable[[Message], bool], timeout: float) -> Message:
        link = self._link
        assert link is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for fileno in link.filenos():
                selector.register(fileno, selectors.EVENT_READ)
            while True:
                self._heard += self._received(link)
                self._used = time.monotonic()
                while self._heard:
                    message = self._heard.popleft()
                    if isinstance(message, Ping):
                        self._send(Pong(message.number))
                    elif isinstance(message, Challenge):
                        self._send(self.address.credentials.prove(self._hello, message, link.key))
                    elif isinstance(message, Goodbye):
                        raise self._why(Down("lost", message.reason or "it said goodbye"))
                    elif isinstance(message, Fault) and (not message.request or wanted(message)):
                        raise error_of(message)
                    elif wanted(message):
                        return message
                if link.state() is LinkState.DOWN:
                    raise self._why(link.down() or Down("lost"))
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._why(Down("unreachable", f"no answer within {timeout:g} s"))
                selector.select(min(left, NAP))

    def _received(self, link: Link) -> list[Message]:
        found = []
        while (received := link.receive()) is not None:
            _lane, frames = received
            message, _buffers = self._decoder.decode(frames)
            found.append(message)
        return found

    def _why(self, down: Down) -> errors.GuactorsError:
        where = f"the hub at {self.address.shown}"
        detail = f" ({down.detail})" if down.detail else ""
        if down.cause == "auth":
            return errors.AuthFailed(
                f"{where} refused the handshake{detail}: the join address is not of this hub, "
                "or the hub has new keys; ask its owner for a new one"
            )
        if down.cause == "protocol":
            return errors.ProtocolError("unexpected", f"{where} is no guactors hub{detail}")
        return errors.HubUnreachable(
            f"{where} does not answer{detail}: is it running, and its port open to this machine?"
        )


def error_of(fault: Fault) -> errors.GuactorsError:
    """The error that a Fault names; InternalError for a name this version does not know."""
    known: Any = getattr(errors, fault.kind, None)
    if not isinstance(known, type) or not issubclass(known, errors.GuactorsError):
        return errors.InternalError(f"{fault.kind}: {fault.detail}")
    return known(fault.detail)
