"""A provider's workers from the shell's side: which actor keeps which, and whose link is whose.

Owns: the RuntimeActors, the listener's routing table, the descriptors of both. Must never: decide
when a worker starts or ends; ``provider_state`` does.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence

from guactors.actors import ActorRef
from guactors.actors.actor import ActorContext
from guactors.config import Identity, ProviderConfig, WorkerConfig
from guactors.errors import ProtocolError
from guactors.ids import LinkKey
from guactors.messages import Fault, Hello, Message, WorkerToProvider
from guactors.provider_leftovers import end_leftovers
from guactors.provider_state import HaltWorker, KillWorker, LimitWorker, SendWorker
from guactors.runtime_actor import Arrived, Deliver, Halt, Kill, Limit, Linked, RuntimeActor
from guactors.runtimes.workers import ProcessEvent, WorkerProcesses
from guactors.transport.base import Frame, Lane, Listener, SendError
from guactors.transport.doors import KeySet
from guactors.transport.frames import Decoder, encode

log = logging.getLogger("guactors.provider")

BATCH = 256
"""Messages read in a row before others get their turn."""

_DECODER: Decoder[Message] = Decoder(WorkerToProvider)


class Crew:
    """``doors``: of the listener. ``nudge``: called when there may be news.

    A descriptor speaks of what came since its source was last seen empty, and a send in between may
    swallow its word: then it must be looked at again."""

    def __init__(
        self,
        config: ProviderConfig,
        processes: WorkerProcesses,
        listener: Listener,
        doors: KeySet,
        nudge: Callable[[], None],
    ) -> None:
        self._config = config
        self._doors = doors
        self._processes = processes
        self._listener = listener
        self._nudge = nudge
        self._link_news = True
        self._process_news = True
        """Whether the listener, or the processes, may have something to read."""
        self._readers: tuple[int, ...] = ()
        self._keepers: dict[str, ActorRef] = {}
        self._greeted: dict[tuple[LinkKey, Lane], str] = {}

    def watch(self) -> None:
        """Hear of news from now on; inside the running loop."""
        loop = asyncio.get_running_loop()
        links, processes = self._listener.filenos(), self._processes.filenos()
        for fd in links:
            loop.add_reader(fd, self._on_link_news)
        for fd in processes:
            loop.add_reader(fd, self._on_process_news)
        self._readers = (*links, *processes)
        end_leftovers(self._config)

    def _on_link_news(self) -> None:
        self._link_news = True
        self._nudge()

    def _on_process_news(self) -> None:
        self._process_news = True
        self._nudge()

    def doubt(self) -> None:
        """Have both looked at again though they said nothing."""
        self._link_news = self._process_news = True

    def _look_again(self) -> None:
        """Something was sent, or asked of a process, and the word of earlier news may be lost."""
        self.doubt()
        self._nudge()

    @property
    def fresh(self) -> bool:
        """Whether there may be something to read."""
        return self._link_news or self._process_news

    def wake_after(self) -> float | None:
        """Seconds until there is news without a readable descriptor."""
        return self._processes.wake_after()

    def close(self) -> None:
        """End every worker; blocks for up to two seconds. Inside the running loop."""
        for fd in self._readers:
            asyncio.get_running_loop().remove_reader(fd)
        self._processes.close()

    # --- keepers --------------------------------------------------------------------------------

    def tell(self, worker: str, message: object) -> None:
        """To its keeper; nobody is there once the worker has ended."""
        keeper = self._keepers.get(worker)
        if keeper is not None:
            keeper.tell(message)

    def carry_out(self, effect: SendWorker | LimitWorker | KillWorker | HaltWorker) -> None:
        """By the keeper of the worker."""
        match effect:
            case SendWorker(worker, message):
                self.tell(worker, Deliver(message))
            case LimitWorker(worker, limits):
                self.tell(worker, Limit(limits))
            case KillWorker(worker, cause):
                self.tell(worker, Kill(cause))
            case HaltWorker(worker, stop):
                self.tell(worker, Halt(stop))

    def start(
        self, worker: str, identity: Identity, context: ActorContext, python: str = ""
    ) -> None:
        """A keeper, which starts the process; a child of ``context``'s actor. ``identity``: of the
        worker, for TCP; ``python``: its interpreter, empty for our own."""
        config = self._config
        self._doors.admit([identity.client_public])
        birth = WorkerConfig(
            worker=worker,
            provider=config.provider,
            provider_name=config.name,
            endpoint=self._listener.endpoint,
            hub=config.hub,
            run_dir=config.run_dir,
            listen_host=config.listen_host,
            identity=identity,
            timing=config.timing,
            labels=config.labels,
            python=python,
            owner=config.owner,
        )
        parts = (birth, self._processes, self._listener, self._look_again)
        self._keepers[worker] = context.spawn(RuntimeActor, *parts, name=worker, mailbox_size=None)

    def drop(self, worker: str, context: ActorContext) -> None:
        """The worker has ended."""
        keeper = self._keepers.pop(worker, None)
        if keeper is not None:
            context.stop(keeper)
        self._greeted = {link: name for link, name in self._greeted.items() if name != worker}

    def orphan(self, keeper: ActorRef) -> str | None:
        """A keeper is gone although its worker had not ended: the worker, which is killed."""
        for worker, known in list(self._keepers.items()):
            if known is keeper:
                del self._keepers[worker]
                self._processes.kill(worker)
                return worker
        return None

    # --- news -----------------------------------------------------------------------------------

    def disturbed(self) -> bool:
        """As ``Listener.disturbed``."""
        return self._link_news and self._listener.disturbed()

    def read_links(self) -> None:
        """Hand what workers sent to their keepers."""
        if not self._link_news:
            return
        for _ in range(BATCH):
            got = self._listener.receive()
            if got is None:
                self._link_news = False
                return
            key, lane, frames = got
            worker = self._greeted.get((key, lane))
            if worker is not None:
                self.tell(worker, Arrived(frames))
            else:
                self._introduce(key, lane, frames)

    def _introduce(self, key: LinkKey, lane: Lane, frames: Sequence[Frame]) -> None:
        """The first message on each lane of a link must be the Hello of a worker of ours; the core
        hears of the one on the control lane."""
        try:
            message, _ = _DECODER.decode(frames)
        except ProtocolError as fault:
            self._refuse(key, f"{key} sent what is not ours: {fault}")
            return
        if not isinstance(message, Hello) or message.peer not in self._keepers:
            self._refuse(key, f"{_describe(message)} is from no worker of ours")
            return
        self._greeted[key, lane] = message.peer
        self.tell(message.peer, Linked(key, lane))
        if lane is Lane.CONTROL:
            self.tell(message.peer, Arrived(frames))

    def _refuse(self, key: LinkKey, why: str) -> None:
        log.warning("%s", why)
        fault = Fault("UsageError", f"provider {self._config.name} listens to its workers: {why}")
        try:
            self._listener.send(key, Lane.CONTROL, [encode(fault)])
        except SendError as error:
            log.info("and it is gone: %r", error)

    def read_processes(self) -> list[ProcessEvent]:
        """Hand what happened to their keepers; what is left of workers that have none any more."""
        if not self._process_news:
            return []
        events = self._processes.events()
        self._process_news = bool(events)
        left = []
        for event in events:
            if event.worker in self._keepers:
                self.tell(event.worker, event)
            else:
                left.append(event)
        return left


def _describe(message: Message) -> str:
    return f"Hello of {message.peer}" if isinstance(message, Hello) else type(message).__name__


def listen_address(config: ProviderConfig) -> str:
    """Where the workers find us: a socket file, or where there is none a port of this machine."""
    if sys.platform == "win32":
        return "tcp://127.0.0.1:0"
    return f"ipc://{config.run_dir}/{config.provider}"


def worker_keys(config: ProviderConfig) -> Callable[[], tuple[str, str]] | None:
    """What makes the CURVE pairs of workers; None where all of them meet is on this machine."""
    by_tcp = config.identity.client_public or config.listen_host
    if not by_tcp and not listen_address(config).startswith("tcp://"):
        return None
    from guactors.transport.zmq_link import new_keypair

    return new_keypair
