"""The provider's shell: sockets, clock and processes around :class:`ProviderCore`.

Owns: the listener for its workers, the link to the hub, the worker processes, one RuntimeActor a
worker, and the timer. Must never: decide anything about leases, actors or workers.

:func:`run_provider_process` is a provider's whole life, in a process that has no thread yet.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Sequence

from msgspec import Struct

from guactors import errors, provider_look
from guactors.actors import Actor, ActorRef, ActorSystem, Priority, Timer
from guactors.actors.supervision import Cause, Failed, describe
from guactors.config import ProviderConfig
from guactors.errors import Death, GuactorsError, ProtocolError
from guactors.home import host_id
from guactors.ids import fresh
from guactors.machine import Machine
from guactors.memory import MemorySampler
from guactors.messages import Hello
from guactors.objects.place import own_place
from guactors.objects.sweeping import sweep
from guactors.provider_crew import Crew, listen_address, worker_keys
from guactors.provider_disk import Disk, DiskNews, tell_core
from guactors.provider_link import HubLink
from guactors.provider_look import LookNews, Looks
from guactors.provider_state import (
    BuildPart,
    Dial,
    DropHub,
    DropWorker,
    Effect,
    GiveUp,
    HaltWorker,
    KillWorker,
    LimitWorker,
    MeasureMemory,
    NeedImage,
    Note,
    PrepareRoot,
    ProviderCore,
    ReadIdle,
    Ready,
    RemovePart,
    RemoveRoot,
    SendHub,
    SendWorker,
    StartWorker,
    TakeSample,
    TakeStack,
)
from guactors.runtime_actor import Happened, Said, Unlinked
from guactors.runtimes import open_workers
from guactors.runtimes.entry import WORKER_ENTRY
from guactors.runtimes.workers import (
    Ended,
    OutputLines,
    ProcessEvent,
    Report,
    Started,
    WorkerProcesses,
)
from guactors.transport import open_transport
from guactors.transport.base import LinkState, Listener, Transport
from guactors.transport.doors import KeySet
from guactors.versions import own_versions

log = logging.getLogger("guactors.provider")

BATCH = 256
"""Messages of the hub read in a row before others get their turn."""
ROUNDS = 4
"""Times that the sources are read in a row, each because of what followed from the last one."""
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Pump(Struct, frozen=True):
    """Some descriptor may have news."""


class Tick(Struct, frozen=True):
    """The core wanted to be woken."""


class Begin(Struct, frozen=True):
    """The first message; answered when all is begun, or with the error that prevents it."""


class Stop(Struct, frozen=True):
    """End the provider in good order."""


class ProviderActor(Actor):
    """``done`` gets None when the provider has stopped, or the error that ended it."""

    def __init__(
        self,
        core: ProviderCore,
        processes: WorkerProcesses,
        transport: Transport,
        listener: Listener,
        doors: KeySet,
        report: Report,
        done: asyncio.Future[None],
    ) -> None:
        self._config = config = core.config
        self._crew = Crew(config, processes, listener, doors, self._nudge)
        self._hub = HubLink(transport, self._nudge)
        self._disk = Disk(config, self._hub.send, self._told)
        self._images = self._disk.images
        self._looks = Looks(config, self._told)
        self._report = report
        self._done = done
        self._hub_up = False
        self._pumping = False
        self._timer: Timer | None = None
        self._wake_at = float("inf")
        self._machine = Machine(host_id(), config.run_dir, processes.fences)
        self._memory = MemorySampler()
        self._core = core

    # --- life -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start the warm workers, dial the hub."""
        self._crew.watch()
        self._turn(self._core.start(self.context.now()))

    def on_stop(self, cause: Cause) -> None:
        """Whatever the reason: no process, socket or descriptor stays."""
        self._hub.drop()
        self._crew.close()
        self._disk.close()
        self._looks.close()
        if not self._done.done():
            if isinstance(cause, Failed):
                self._done.set_exception(cause.error)
            else:
                self._done.set_result(None)

    def receive(self, message: object) -> None:
        """Think about one event, do what follows, and read on."""
        core, now = self._core, self.context.now()
        effects: Sequence[Effect] = ()
        match message:
            case Pump():
                self._pumping = False
            case Tick():
                self._timer, self._wake_at = None, float("inf")
                self._hub.doubt()
                self._crew.doubt()
                effects = core.on_tick(now)
            case Said(worker, said):
                effects = core.on_worker_message(worker, said, now)
            case Happened(event):
                effects = self._on_process_event(event)
            case Unlinked(worker):
                effects = core.on_worker_link_lost(worker, now)
            case Begin():
                self._begin()
                return
            case Stop():
                self._stop(now)
                return
            case _ if isinstance(message, DiskNews):
                effects = tell_core(core, message, now)
            case _ if isinstance(message, LookNews):
                effects = provider_look.tell_core(core, message, now)
        self._turn(effects)

    def on_child_death(self, ref: ActorRef, cause: Cause) -> None:
        """A RuntimeActor that failed leaves a process without a keeper: end that too."""
        worker = self._crew.orphan(ref)
        if worker is not None:
            log.error("the keeper of worker %s is gone: %s", worker, describe(cause))
            death = Death("exited", "the provider lost track of it and ended it")
            self._turn(self._core.on_worker_ended(worker, death, self.context.now()))

    def _stop(self, now: float) -> None:
        self._perform(self._core.stop(now))
        self.context.stop()

    def _told(self, news: object) -> None:
        self.context.self_ref.tell(news)

    # --- reading --------------------------------------------------------------------------------

    def _nudge(self) -> None:
        """Look at the descriptors again, soon."""
        if not self._pumping:
            self._pumping = True
            self.context.self_ref.tell(Pump())

    def _turn(self, effects: Sequence[Effect]) -> None:
        """Do these, read the sources that may have news, and sleep until one has or it is time."""
        self._perform(effects)
        self._hub.flush()
        for _ in range(ROUNDS):
            if not (self._hub.fresh or self._crew.fresh):
                break
            self._read_hub()
            self._read_workers()
        self._sleep()
        if self._hub.fresh or self._crew.fresh:
            self._nudge()

    def _sleep(self) -> None:
        now = self.context.now()
        waits = [self._hub.retry_after(), self._crew.wake_after()]
        times = [now + wait for wait in waits if wait is not None]
        wake = self._core.next_wake(now)
        if wake is not None:
            times.append(wake)
        at = min(times, default=float("inf"))
        # An early Tick is harmless, so a timer is replaced by an earlier one only.
        if at < self._wake_at:
            if self._timer is not None:
                self._timer.cancel()
            self._wake_at = at
            self._timer = self.context.schedule(max(0.0, at - now), Tick())

    def _read_hub(self) -> None:
        state = self._hub.state() if self._hub.fresh else None
        if state is None:
            return
        if state is LinkState.UP and not self._hub_up:
            self._hub_up = True
            self._images.hub_up()
            info, link = self._machine.info(), self._hub.key()
            self._perform(self._core.on_hub_up(info, self.context.now(), link))
        heard = self._hear_hub()
        if self._hub.state() is LinkState.DOWN:
            # What it said last counts, so the end comes after it.
            self._hub.doubt()
            if not heard:
                down = self._hub.down()
                self._lose_hub(down.cause, down.detail)
        elif self._hub.congested():
            self._lose_hub("lost", "the hub does not read what it is sent")

    def _hear_hub(self) -> int:
        heard = 0
        try:
            while heard < BATCH and (message := self._hub.receive()) is not None:
                heard += 1
                if self._images.heard(message):
                    self._core.on_hub_heard(self.context.now())
                    continue
                self._perform(self._core.on_hub_message(message, self.context.now()))
        except ProtocolError as fault:
            self._lose_hub("protocol", str(fault))
        return heard

    def _drop_hub(self) -> None:
        self._hub.drop()
        self._hub_up = False
        self._images.hub_lost()

    def _lose_hub(self, cause: str, detail: str) -> None:
        self._drop_hub()
        self._perform(self._core.on_hub_down(cause, detail, self.context.now()))

    def _read_workers(self) -> None:
        if self._crew.disturbed():
            self._perform(self._core.on_disturbed(self.context.now()))
        self._crew.read_links()
        for event in self._crew.read_processes():
            self._perform(self._on_process_event(event))

    def _on_process_event(self, event: ProcessEvent) -> Sequence[Effect]:
        match event:
            case Started(worker, pid):
                return self._core.on_worker_started(worker, pid)
            case Ended(worker, death):
                return self._core.on_worker_ended(worker, death, self.context.now())
            case OutputLines(worker=worker):
                return self._core.on_output(
                    worker, event.stream, event.name, event.lines, event.dropped
                )

    # --- doing ----------------------------------------------------------------------------------

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            self._perform_one(effect)

    def _perform_one(self, effect: Effect) -> None:
        match effect:
            case SendWorker() | LimitWorker() | KillWorker() | HaltWorker():
                self._crew.carry_out(effect)
            case SendHub(message):
                self._hub.send(message)
            case StartWorker(worker, identity, python):
                self._crew.start(worker, identity, self.context, python)
            case DropWorker(worker):
                self._crew.drop(worker, self.context)
                self._looks.forget(worker)
            case NeedImage() | PrepareRoot() | RemoveRoot() | BuildPart() | RemovePart():
                self._disk.carry_out(effect)
            case Dial(endpoint):
                self._drop_hub()
                down = self._hub.dial(endpoint)
                if down is not None:
                    self._lose_hub(down.cause, down.detail)
            case DropHub(reason):
                log.info("leaving the hub: %s", reason)
                self._drop_hub()
            case MeasureMemory(pids, threshold):
                memory = self._memory.look(pids, threshold)
                self._perform(self._core.on_memory(memory, self.context.now()))
            case TakeSample():
                self._perform(self._core.on_sample(self._machine.info(), self.context.now()))
                sweep(own_place())
            case TakeStack() | ReadIdle():
                self._looks.carry_out(effect)
            case Note(level, text):
                log.log(LEVELS[level], "%s", text)
            case Ready():
                self._report({"event": "ready", "provider": self._config.provider})
            case GiveUp(kind, detail):
                if not self._done.done():
                    self._done.set_exception(getattr(errors, kind)(detail))
                self.context.stop()


# --- the process ----------------------------------------------------------------------------------


def _wall(moment: float) -> float:
    """Monotonic seconds as epoch seconds."""
    return time.time() + moment - time.monotonic()


def _new_core(config: ProviderConfig) -> ProviderCore:
    """Raises UsageError for a policy or key that cannot be used."""
    hello = Hello(
        config.provider,
        "provider",
        own_versions(),
        os.getpid(),
        host_id(),
        name=config.name,
        key=config.seal.key,
        transport=config.identity.client_public,
    )
    return ProviderCore(
        config,
        hello,
        fresh=fresh,
        random=random.random,
        wall=_wall,
        new_keypair=worker_keys(config),
    )


async def run_provider(
    config: ProviderConfig, processes: WorkerProcesses, report: Report, stop: asyncio.Event
) -> None:
    """Serve until ``stop`` is set, inside a running loop; closes ``processes`` at the end.

    Raises a GuactorsError when the policy or the key cannot be used, the hub refuses us, or no
    worker comes up; OSError when the listener cannot be opened."""
    core = _new_core(config)
    transport = open_transport(config.identity)
    try:
        doors = KeySet()
        listener = transport.listen(listen_address(config), doors=doors)
        parts = (core, processes, transport, listener, doors)
        await _serve(parts, report, stop)
    finally:
        transport.close()


Parts = tuple[ProviderCore, WorkerProcesses, Transport, Listener, KeySet]


async def _serve(parts: Parts, report: Report, stop: asyncio.Event) -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with ActorSystem(parts[0].config.name) as system:
        provider = system.spawn(
            ProviderActor, *parts, report, done, name="provider", mailbox_size=None
        )
        await provider.ask(Begin())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((done, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            provider.tell(Stop(), priority=Priority.HIGH)
        stopped.cancel()
        await done


def run_provider_process(
    config: ProviderConfig,
    report: Report,
    *,
    entry: str = WORKER_ENTRY,
    processes: WorkerProcesses | None = None,
) -> int:
    """A provider's whole life; returns the exit status, 0 after SIGTERM or SIGINT.

    Call it in a process without threads and ZeroMQ contexts: the zygote is forked here. ``report``
    gets ``{"event": "ready", ...}`` or ``{"event": "error", "text": ...}``. ``entry`` is what
    workers run; ``processes`` is what does, where the caller has forked the zygote already."""
    processes = processes or open_workers(entry)
    try:
        asyncio.run(_until_signalled(config, processes, report))
    except (GuactorsError, OSError) as error:
        text = f"provider {config.name}: {error}"
        report({"event": "error", "kind": type(error).__name__, "text": text})
        return 1
    finally:
        processes.close()
        sweep(own_place(), at_once=True)
    return 0


async def _until_signalled(
    config: ProviderConfig, processes: WorkerProcesses, report: Report
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        else:
            loop.add_signal_handler(number, stop.set)
    await run_provider(config, processes, report, stop)
