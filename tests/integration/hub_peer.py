"""A peer of a real hub: a link on a real socket, told by the test what to say, and the hub
process."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from guactors import messages as m
from guactors.config import HubConfig, Timing
from guactors.messages import Endpoint
from guactors.transport.base import Lane, LinkState, Transport
from guactors.transport.frames import Decoder, encode, lane_of

M = TypeVar("M", bound=m.Message)

ROOT = Path(__file__).parents[2]
TIMING = Timing(heartbeat=0.3, silent_after=0.8, lost_after=2.0)
VERSIONS = m.Versions("0", "3.11.7")
DECODERS: dict[str, Decoder[m.Message]] = {
    "caller": Decoder(m.HubToCaller),
    "provider": Decoder(m.HubToProvider),
}


class Peer:
    """Says Hello on both lanes; answers pings while it waits for something."""

    def __init__(
        self, transport: Transport, endpoint: Endpoint, hello: m.Hello, *, within: float = 5.0
    ) -> None:
        self.hello = hello
        self.link = transport.dial(endpoint)
        self.seen: list[m.Message] = []
        self._decoder = DECODERS[hello.role]
        self._selector = selectors.DefaultSelector()
        for fd in self.link.filenos():
            self._selector.register(fd, selectors.EVENT_READ)
        deadline = time.monotonic() + within
        while self.link.state() is LinkState.DIALING and time.monotonic() < deadline:
            self._selector.select(0.05)
        assert self.link.state() is LinkState.UP, self.link.down()
        for lane in Lane:
            self.link.send(lane, [encode(hello)])

    def say(self, *messages: m.Message) -> None:
        for message in messages:
            self.link.send(lane_of(message), [encode(message)])

    def read(self) -> None:
        """Take what is there."""
        while (got := self.link.receive()) is not None:
            message, _ = self._decoder.decode(got[1])
            if isinstance(message, m.Ping):
                self.say(m.Pong(message.number))
            else:
                self.seen.append(message)

    def hear(self, kind: type[M], within: float = 5.0) -> M:
        """The next message of a kind; others stay for later."""
        deadline = time.monotonic() + within
        while True:
            self.read()
            for message in self.seen:
                if isinstance(message, kind):
                    self.seen.remove(message)
                    return message
            left = deadline - time.monotonic()
            assert left > 0, f"no {kind.__name__} within {within} s, but {self.seen}"
            self._selector.select(min(left, 0.05))

    def close(self) -> None:
        self._selector.close()
        self.link.close()


class HubProcess:
    """The hub in a process of its own."""

    def __init__(self, config: HubConfig) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.hub_main"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.msgpack.encode(config))
        self.process.stdin.close()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.report: dict[str, Any] = json.loads(line) if line else {}

    @property
    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(**one) for one in self.report["endpoints"]]

    def ended(self, within: float = 5.0) -> tuple[int, str]:
        """Exit status and standard error."""
        status = self.process.wait(within)
        assert self.process.stderr is not None
        return status, self.process.stderr.read().decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
