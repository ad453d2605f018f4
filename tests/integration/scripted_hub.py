"""A hub that does only what the test says, on a real socket, and the provider process under it."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

from guactors.config import Identity, ProviderConfig, Timing
from guactors.ids import LinkKey
from guactors.messages import (
    ActorSpec,
    Challenge,
    Fault,
    Hello,
    Message,
    Ping,
    Pong,
    Proof,
    ProviderToHub,
    Sample,
    Shape,
    StartActor,
    StartLease,
    Versions,
    Warrant,
    WarrantWord,
    Welcome,
)
from guactors.security.keys import PublicKey, parse_public
from guactors.security.statements import check_statement
from guactors.transport import open_transport
from guactors.transport.base import Frame, Lane
from guactors.transport.frames import Decoder, encode, lane_of

M = TypeVar("M", bound=Message)

ENTRY = "tests.integration.obedient_worker:run_worker"
ROOT = Path(__file__).parents[2]
NONCE = b"n" * 32
TIMING = Timing(heartbeat=0.2, silent_after=0.6, lost_after=2.0, sample=0.2)


def eventually(true: Callable[[], bool], within: float, what: str) -> None:
    """Wait until ``true()``; fails after ``within`` seconds, naming ``what``."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.005)


class Hub:
    """Listens in ``run_dir``; welcomes whoever says Hello and answers pings while it is asked for
    messages. With a ``key`` it is challenging, and every message before the proof is kept in
    ``strays``; it shows no warrants by itself then."""

    def __init__(
        self, run_dir: Path, refuse: Fault | None = None, key: PublicKey | None = None
    ) -> None:
        self.key = key
        self.strays: list[Message] = []
        self.proved = key is None
        self.transport = open_transport(Identity())
        self.listener = self.transport.listen(f"ipc://{run_dir}/hub")
        self.refuse = refuse
        self.peer = LinkKey("")
        self._warranted: set[str] = set()
        self.hellos: list[Hello] = []
        self._decoder: Decoder[Message] = Decoder(ProviderToHub)
        self._kept: list[Message] = []
        self._selector = selectors.DefaultSelector()
        for fd in self.listener.filenos():
            self._selector.register(fd, selectors.EVENT_READ)

    def send(self, message: Message) -> None:
        """Before its first order a session is shown to be that of a local user."""
        session = _session(message) if self.key is None else ""
        if session and session not in self._warranted:
            self._warranted.add(session)
            self.send(Warrant(WarrantWord(session, "")))
        self.listener.send(self.peer, lane_of(message), [encode(message)])

    def expect(self, kind: type[M], within: float = 5.0) -> M:
        """The next message of this kind; others that come before stay for later."""
        deadline = time.monotonic() + within
        while True:
            for message in self._kept:
                if isinstance(message, kind):
                    self._kept.remove(message)
                    return message
            assert time.monotonic() < deadline, f"no {kind.__name__}, only {self._kept}"
            self.pump()

    def pump(self, wait: float = 0.05) -> None:
        """Read what is there, or what comes soon."""
        found = False
        while (got := self.listener.receive()) is not None:
            found = True
            self._take(*got)
        if not found:
            self._selector.select(wait)

    def _take(self, key: LinkKey, lane: Lane, frames: Sequence[Frame]) -> None:
        message, _ = self._decoder.decode(frames)
        if not self.proved and not isinstance(message, Hello | Proof):
            self.strays.append(message)
        match message:
            case Hello():
                if lane is Lane.CONTROL:
                    self.peer = key
                    self.hellos.append(message)
                    self.send(self.refuse or self._greeting())
            case Proof():
                self._check(message, key)
                self.proved = True
                self.send(Welcome("h-0", Versions("0", "3"), self.key.text if self.key else ""))
            case Ping(number):
                self.send(Pong(number))
            case Pong() | Sample():
                pass
            case _:
                self._kept.append(message)

    def _greeting(self) -> Message:
        if self.key is not None:
            return Challenge(NONCE, self.key.text)
        return Welcome("h-0", Versions("0", "3"))

    def _check(self, proof: Proof, link: LinkKey) -> None:
        assert self.key is not None
        hello = self.hellos[-1]
        check_statement(
            proof.statement,
            proof.signature,
            key=parse_public(hello.key),
            hub=self.key,
            nonce=NONCE,
            link=link,
            peer=hello.peer,
            role="provider",
            session="",
            transport=hello.transport,
            now=time.time(),
        )

    def close(self) -> None:
        self._selector.close()
        self.transport.close()


def _session(order: Message) -> str:
    match order:
        case StartLease(session=session):
            return session
        case StartActor(spec):
            return spec.session
    return ""


class Provider:
    """A provider process; ``hub`` is pumped while we wait for it."""

    def __init__(self, run_dir: Path, hub: Hub, entry: str = ENTRY, **options: Any) -> None:
        config = ProviderConfig(
            provider="p-0123456789abcdef",
            name="tester",
            hub=[hub.listener.endpoint],
            resources={"CPU": 2.0},
            run_dir=str(run_dir),
            **{"timing": TIMING, **options},
        )
        self.hub = hub
        self.log = run_dir / "log"
        self._log = self.log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.provider_main", entry],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.msgpack.encode(config))
        self.process.stdin.close()

    def report(self) -> dict[str, Any]:
        """Its next report."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            deadline = time.monotonic() + 10
            while not selector.select(0):
                assert time.monotonic() < deadline, self.log.read_text()
                self.hub.pump()
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        found: dict[str, Any] = json.loads(line)
        return found

    def tree(self) -> list[psutil.Process]:
        """The provider's process and all below it."""
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


def lease(name: str = "l-1", session: str = "s-1", word: str = "", image: str = "") -> StartLease:
    """An order whose worker does ``word`` when it is bound."""
    return StartLease(name, session, "c-1", Shape({"CPU": 1.0}, image=image), word)


def actor(
    name: str = "a-1", session: str = "s-1", word: str = "", *, detached: bool = False
) -> StartActor:
    spec = ActorSpec(name, session, "c-1", "Counter", Shape({}), detached=detached)
    return StartActor(spec, 1, word.encode())


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them is left (a zombie is gone)."""
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes
    )


def zombie_or_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or gone([psutil.Process(pid)])


__all__ = ["TIMING", "Hub", "Provider", "actor", "eventually", "gone", "lease", "zombie_or_gone"]
