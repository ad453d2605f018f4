"""A worker that is only its line to the provider: what the provider's tests bring up.

It does on command what a real worker does because of its user's code; commands arrive as the
namespace of Bind and as the payload of LoadActor (words of :func:`obey`).
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time

from guactors.config import WorkerConfig
from guactors.messages import (
    ActorLoaded,
    Bind,
    Blocked,
    Endpoint,
    Hello,
    Leave,
    LoadActor,
    Message,
    Ping,
    Pong,
    ProviderToWorker,
    WorkerReady,
)
from guactors.transport import open_transport
from guactors.transport.base import Lane, LinkState
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.versions import own_versions


def run_worker(config: WorkerConfig, lifeline: int) -> int:
    """Serve until told to leave (0), or until the provider is gone (3)."""
    transport = open_transport(config.identity)
    link = transport.dial(config.endpoint)
    decoder: Decoder[Message] = Decoder(ProviderToWorker)
    selector = selectors.DefaultSelector()
    for fd in link.filenos():
        selector.register(fd, selectors.EVENT_READ)
    selector.register(lifeline, selectors.EVENT_READ, "lifeline")
    greeted = False
    try:
        while True:
            if not greeted and link.state() is LinkState.UP:
                greeted = True
                hello = Hello(config.worker, "worker", own_versions(), os.getpid(), "here")
                for lane in Lane:
                    link.send(lane, [encode(hello)])
                place = f"ipc://{config.run_dir}/{config.worker}"
                link.send(Lane.CONTROL, [encode(WorkerReady([Endpoint(place, place)]))])
            while (got := link.receive()) is not None:
                message, _ = decoder.decode(got[1])
                if isinstance(message, Leave):
                    return 0
                for answer in _answers(message):
                    link.send(lane_of(answer), [encode(answer)])
            if link.state() is LinkState.DOWN:
                return 3
            if any(key.data == "lifeline" for key, _ in selector.select(0.5)):
                return 3
    finally:
        transport.close()


def _answers(message: Message) -> list[Message]:
    match message:
        case Ping(number):
            return [Pong(number)]
        case Bind(namespace=word):
            return obey(word)
        case LoadActor(spec=spec, payload=payload):
            if payload == b"raise":
                return [ActorLoaded(spec.actor, b"a pickled error")]
            return [*obey(payload.decode()), ActorLoaded(spec.actor)]
    return []


def obey(word: str) -> list[Message]:
    """Do what ``word`` says; what is to be said to the provider about it."""
    match word.partition(":")[::2]:
        case "print", text:
            print(text, flush=True)
        case "complain", text:
            print(text, file=sys.stderr, flush=True)
        case "child", path:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            with open(path + ".part", "w") as out:
                out.write(f"{os.getpid()} {child.pid}")
            os.rename(path + ".part", path)
        case "block", _:
            return [Blocked(True), Blocked(False)]
        case "freeze", _:
            os.kill(os.getpid(), signal.SIGSTOP)
        case "die", number:
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), int(number))
            time.sleep(60)
    return []


def never_ready(config: WorkerConfig, lifeline: int) -> int:
    """An entry that fails."""
    print("cannot start: no such luck", file=sys.stderr)
    return 7
