"""A real worker process whose provider and callers are the test: everything it is told and says.

Owns: the links of the stand-ins. Must never: wait without a deadline.
"""

from __future__ import annotations

import os
import pickle
import select
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle

from guactors import values
from guactors.config import Identity, WorkerConfig
from guactors.messages import (
    ActorLoaded,
    ActorSpec,
    Bind,
    Bounced,
    Call,
    Calls,
    Define,
    Endpoint,
    Hello,
    LoadActor,
    Message,
    Ping,
    Pong,
    Refusal,
    Replies,
    Reply,
    Shape,
    StreamItem,
    Welcome,
    WorkerReady,
    WorkerToCaller,
    WorkerToProvider,
)
from guactors.payload import ActorPayload
from guactors.payload import encode as encode_payload
from guactors.runtimes import open_workers
from guactors.transport import open_transport
from guactors.transport.base import Lane, LinkState
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.transport.zmq_link import new_keypair
from guactors.versions import own_versions

DEADLINE = 20.0
M = TypeVar("M", bound=Message)


class BareWorker:
    """The worker and its provider's side. ``callers`` are read whenever something is awaited."""

    def __init__(self, run_root: Path) -> None:
        self.directory = run_root / f"gu-bare-{os.urandom(4).hex()}"
        self.directory.mkdir(mode=0o700)
        self.workers = open_workers(method="fork")
        self.transport = open_transport(Identity())
        place = f"ipc://{self.directory}/p"
        self.listener = self.transport.listen(f"{place}.c", data_address=f"{place}.d")
        self.heard: list[Message] = []
        self.callers: list[Caller] = []
        self._decoder: Decoder[Message] = Decoder(WorkerToProvider)
        self._link: Any = None
        self._lanes: set[Lane] = set()
        endpoint = self.listener.endpoint
        self.workers.start(
            WorkerConfig(
                "w-bare", "p-1", "box", endpoint, [Endpoint("ipc:///nowhere", "ipc:///nowhere")],
                str(self.directory), "127.0.0.1", Identity(*new_keypair()),
            )
        )  # fmt: skip
        self.endpoints = self.told(WorkerReady).endpoints
        self.until(lambda: len(self._lanes) == 2, "both lanes")

    def close(self) -> None:
        for caller in self.callers:
            caller.transport.close()
        self.workers.close()
        self.transport.close()
        for path in self.directory.iterdir():
            path.unlink()
        self.directory.rmdir()

    # --- the provider -------------------------------------------------------------------------

    def tell(self, message: Message) -> None:
        """Say it, and see that it has been done."""
        self.send(message)
        if lane_of(message) is Lane.CONTROL:
            self.send(Ping(7))
            self.told(Pong)

    def send(self, message: Message) -> None:
        self.listener.send(self._link, lane_of(message), [encode(message)])

    def bind(self, **rest: Any) -> None:
        self.tell(Bind("s-1", "space", **rest))

    def told(self, kind: type[M]) -> M:
        """The first message of this kind, taken out."""
        self.until(lambda: any(type(m) is kind for m in self.heard), kind.__name__)
        found = next(m for m in self.heard if isinstance(m, kind))
        self.heard.remove(found)
        return found

    def refused(self) -> Refusal:
        return self.told(Refusal)

    def load(self, cls: Any, signatures: Callable[[bytes], bytes], **rest: Any) -> Exception | None:
        """Have it become this actor; how the constructor ended."""
        blob = cloudpickle.dumps(cls)
        payload = ActorPayload(blob, pickle.dumps(((), {}), 5), [], [])
        spec = ActorSpec("a-1", "s-1", "c-maker", "Thing", Shape({}), **rest)
        self.tell(LoadActor(spec, 0, encode_payload(payload), signatures(blob)))
        error = self.told(ActorLoaded).error
        found = values.unpack_error(error) if error else None
        assert found is None or isinstance(found, Exception)
        return found

    # --- waiting ------------------------------------------------------------------------------

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"never came: {what}; heard: {self.heard}"
            wanted = [*self.listener.filenos(), *self.workers.filenos()]
            wanted += [fd for caller in self.callers for fd in caller.link.filenos()]
            select.select(wanted, [], [], 0.05)
            self.workers.events()
            self._hear()
            for caller in self.callers:
                caller.hear()

    def _hear(self) -> None:
        while (got := self.listener.receive()) is not None:
            self._link, lane, frames = got
            message, _ = self._decoder.decode(frames)
            if isinstance(message, Hello):
                self._lanes.add(lane)
            else:
                self.heard.append(message)


class Caller:
    """One caller: over TCP with ``keys``, else by the local socket."""

    def __init__(self, worker: BareWorker, keys: tuple[str, str] | None = None) -> None:
        self.worker = worker
        self.keys = keys
        scheme = "ipc" if keys is None else "tcp"
        endpoint = next(e for e in worker.endpoints if e.control.startswith(scheme))
        self.transport = open_transport(Identity(*keys) if keys else Identity())
        self.link = self.transport.dial(endpoint)
        self.replies: dict[int, Reply] = {}
        self.items: list[Any] = []
        self.welcome = False
        self._decoder: Decoder[Message] = Decoder(WorkerToCaller)
        self._ids = iter(range(1, 1_000_000))
        hello = Hello("c-1", "caller", own_versions(), 1, "here", "s-1")
        for lane in Lane:
            self.link.send(lane, [encode(hello)])
        worker.callers.append(self)

    def hear(self) -> None:
        while (got := self.link.receive()) is not None:
            message, _ = self._decoder.decode(got[1])
            match message:
                case Welcome():
                    self.welcome = True
                case Ping(number) if self.link.state() is LinkState.UP:
                    self.link.send(Lane.CONTROL, [encode(Pong(number))])
                case Replies(replies):
                    self.replies.update({reply.id: reply for reply in replies})
                case StreamItem(_, _, value):
                    self.items.append(values.unpack(value.data))
                case Bounced(calls):
                    assert not calls

    def admitted(self) -> bool:
        """Whether the worker lets it in."""
        self.worker.until(
            lambda: self.welcome or self.link.state() is LinkState.DOWN, "a welcome or a refusal"
        )
        return self.welcome

    def define(self, target: Any, signatures: Callable[[bytes], bytes], fn: bytes = b"f") -> None:
        blob = cloudpickle.dumps(target)
        self.send(Define(fn, "work", blob, signatures(blob)))

    def submit(self, *args: Any, fn: bytes = b"f", method: str = "", returns: int = 1) -> int:
        call = Call(next(self._ids), fn, method, pickle.dumps((args, {}), 5), returns=returns)
        self.send(Calls([call]))
        return call.id

    def send(self, message: Message) -> None:
        self.link.send(lane_of(message), [encode(message)])

    def result(self, call: int) -> Any:
        """What it returned; raises what it raised."""
        self.worker.until(lambda: call in self.replies, f"the reply to {call}")
        found: Sequence[Any] = self.replies[call].values
        if found and found[0].error:
            raise values.unpack_error(found[0].data)
        return values.unpack(found[0].data) if found else None

    def call(self, *args: Any, fn: bytes = b"f", method: str = "") -> Any:
        return self.result(self.submit(*args, fn=fn, method=method))
