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
from collections.abc import Callable
from typing import Any, Self

import msgspec

from guactors import errors
from guactors.grid_file import HubAddress, find_hub
from guactors.home import host_id
from guactors.ids import PeerId, fresh
from guactors.messages import (
    AskGrid,
    AskInfo,
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


class GridClient:
    """A caller that owns no session. ``address``: ``gu://...``, ``auto``, or None for GU_ADDRESS
    and then ``auto``. ``timeout``: seconds for the dial, and for each question.

    Raises HubUnreachable, AuthFailed, VersionMismatch, UsageError. One thread uses it."""

    def __init__(self, address: str | None = None, *, timeout: float = 5.0) -> None:
        self.address: HubAddress = find_hub(address)
        self.timeout = timeout
        self.peer = PeerId(fresh("caller"))
        self._last_request = 0
        self._decoder: Decoder[Message] = Decoder(HubToCaller)
        self._transport: Transport = open_transport(self.address.identity)
        self._link: Link | None = None

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
        self._last_request += 1
        number = self._last_request
        self._send(msgspec.structs.replace(question, request=number))
        return self._wait(
            lambda message: getattr(message, "request", None) == number,
            self.timeout if timeout is None else timeout,
        )

    def _dial(self) -> None:
        last: errors.GuactorsError | None = None
        for endpoint in self.address.endpoints:
            self._link = self._transport.dial(endpoint)
            hello = Hello(
                peer=self.peer,
                role="caller",
                versions=own_versions(),
                pid=os.getpid(),
                host=host_id(),
            )
            try:
                self._send(hello)
                self._link.send(Lane.DATA, [encode(hello)])
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
                for message in self._received(link):
                    if isinstance(message, Ping):
                        self._send(Pong(message.number))
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
