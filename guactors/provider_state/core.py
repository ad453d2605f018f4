"""What a provider thinks: every event it can meet, answered with a list of effects.

Owns: leases, actors and workers of one machine, and what the hub is told of them. Must never: do
I/O, read a clock, draw randomness of its own. Called by ``provider_actor`` and by the simulation.

While the hub is away everything keeps running. The Offer after a reconnect lists every lease that
has a worker and every actor; an actor whose constructor still runs, or that waits for a worker, is
listed with no ``endpoints``, and ActorStarted follows. A lease that still waits for a worker when
the line breaks is given back (LeaseEnded, link_lost): its caller's demand stands and is served
anew.

Before its first order a session shows its warrant. Orders wait for it, and for their image, at the
``gate``; the rooms beside it are ``permits`` and ``shelf``.

The two lanes of a link promise no order between them, so StopActor and EndSession can overtake the
StartActor they mean. What they said is held against it for five seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from guactors import messages as m
from guactors.accelerators import devices_of
from guactors.config import Identity, ProviderConfig
from guactors.errors import Death
from guactors.idle.base import Reading
from guactors.provider_state import inventory
from guactors.provider_state.devices import DeviceBook
from guactors.provider_state.effects import (
    DropWorker,
    Effect,
    GiveUp,
    Note,
    SendHub,
    SendWorker,
    StartWorker,
)
from guactors.provider_state.envs import Envs
from guactors.provider_state.hub_line import HubLine
from guactors.provider_state.kept_groups import KeptGroups
from guactors.provider_state.lender import Lender
from guactors.provider_state.lookout import Lookout
from guactors.provider_state.memory_watch import Memory, MemoryWatch
from guactors.provider_state.orders import Orders
from guactors.provider_state.permits import Permits
from guactors.provider_state.pool import Pool
from guactors.provider_state.printing import pass_on
from guactors.provider_state.proof import Prover
from guactors.provider_state.readiness import Readiness
from guactors.provider_state.review import Review
from guactors.provider_state.shelf import ImageFacts, Shelf
from guactors.provider_state.watch import Watch
from guactors.provider_state.workers import (
    Fresh,
    Hosting,
    Leased,
    Preparing,
    Starting,
    Worker,
    other_python,
)

IDLE_PATIENCE = 5.0
"""Seconds an idle worker has to end by itself when it is let go."""

KeyPair = Callable[[], tuple[str, str]]
"""Makes a CURVE pair: public and secret, z85."""


class ProviderCore:
    """One provider.

    ``hello``: what it says of itself on every new link. ``fresh``: id factory
    (:func:`guactors.ids.fresh`). ``random``: floats in [0, 1), for jitter. ``wall`` turns monotonic
    seconds into epoch seconds. ``new_keypair``: for workers, where they meet somebody by TCP. All
    times are monotonic seconds, but where said otherwise. Every ``on_*`` returns effects in the
    order in which they must be carried out.

    Raises UsageError for a policy or a key that cannot be used.
    """

    def __init__(
        self,
        config: ProviderConfig,
        hello: m.Hello,
        *,
        fresh: Fresh,
        random: Callable[[], float],
        wall: Callable[[float], float],
        new_keypair: KeyPair | None = None,
    ) -> None:
        self.config = config
        self._hello = hello
        self._line = HubLine(config, hello, random, Prover(config, hello, wall).prove)
        self._pool = Pool(config.warm, config.resources.get("CPU", 1.0), fresh)
        self._watch = Watch(self._pool, config.timing)
        self._memory = MemoryWatch(config.name, config.memory_threshold, self._pool, self._watch)
        self._permits = Permits(config)
        self._shelf = Shelf()
        self._envs = Envs(config.env_quota)
        devices = DeviceBook(devices_of(config.resources, config.devices))
        parts = (
            self._pool, self._watch, self._line, self._permits, self._shelf, self._envs, devices,
        )  # fmt: skip
        self._orders = Orders(config.name, *parts, wall, config.runtimes)
        self._binder = self._orders.binder
        self._review = Review(self._pool, self._orders.gate, self._permits, self._watch, wall)
        self._lookout = Lookout(config, self._pool)
        self._wall = wall
        self._new_keypair = new_keypair
        self._info = m.MachineInfo()
        self._groups = KeptGroups()
        self._readiness = Readiness(self._pool, self._line, warm=bool(config.warm))
        self._lender = Lender(config.lending, self._line, self._orders.standstill, wall)
        self._stopping = False

    # --- the provider itself --------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """The first effects of all: the warm workers, and the dial."""
        return [*self._lender.tick(now), *self._settle(now), *self._line.dial()]

    def stop(self, now: float) -> list[Effect]:
        """The provider ends: say goodbye. The shell kills all workers after this."""
        self._stopping = True
        return self._line.tell(m.Goodbye("the provider stops"), now)

    # --- the hub --------------------------------------------------------------------------------

    def on_hub_up(self, info: m.MachineInfo, now: float, link: str = "") -> list[Effect]:
        """The dialled link stands. ``info``: fresh figures of this machine; ``link``: its key."""
        self._info = info
        effects = self._line.on_up(link, now)
        return effects + self._introduce(now) if self._line.up else effects

    def _introduce(self, now: float) -> list[Effect]:
        """The hub listens from here on."""
        offer = m.Offer(
            self.config.resources,
            self.config.labels,
            inventory.lease_reports(self._pool),
            self._orders.actor_reports(),
            replace(self._info, availability=self._lender.word(now)),
            self.config.runtimes,
        )
        blocked = inventory.blocked_leases(self._pool)
        return [
            *self._groups.tell(),
            *self._line.introduce(offer, now),
            *self._binder.vouch_again(now),
            *(SendHub(message) for message in (*blocked, *self._orders.standstill.again())),
        ]

    def on_hub_down(self, cause: str, detail: str, now: float) -> list[Effect]:
        """The link broke, or the dial failed; ``cause`` as in transport.base.Down."""
        if self._stopping:
            return []
        return self._line.on_down(cause, detail, now) + self._settle(now)

    def on_hub_heard(self, now: float) -> None:
        """The hub said something that is not for us: it answered a question about an image."""
        self._line.on_heard(now)

    def on_hub_message(self, message: m.Message, now: float) -> list[Effect]:
        """Any message of ``HubToProvider``."""
        self._line.on_heard(now)
        match message:
            case m.StartLease():
                effects = self._orders.start_lease(message, now)
            case m.StopLease():
                effects = self._orders.stop_lease(message, now)
            case m.StartActor():
                effects = self._orders.start_actor(message, now)
            case m.StopActor():
                effects = self._orders.stop_actor(message, now)
            case m.Suspend(key, number):
                effects = self._orders.standstill.suspend(key, number, now)
            case m.Resume(key, number):
                effects = self._orders.standstill.resume(key, number, now)
            case m.EndSession():
                effects = self._orders.end_session(message, now)
            case m.AdmitCaller():
                effects = self._binder.admit_caller(message)
            case m.KeepGroups() | m.DropGroups():
                effects = self._groups.on_message(message)
            case m.Warrant(warrant):
                effects = self._on_warrant(warrant, now)
            case m.Revoked():
                effects = self._on_revoked(message, now)
            case m.Inquiry():
                effects = self._lookout.on_inquiry(message, now)
            case _:
                effects = self._on_common(message, now)
        return effects + self._settle(now)

    def _on_common(self, message: m.Message, now: float) -> list[Effect]:
        match message:
            case m.Welcome():
                return self._on_welcome(message, now)
            case m.Challenge():
                return self._line.on_challenge(message, now)
            case m.Ping():
                return self._line.on_ping(message)
            case m.Goodbye(reason):
                return self._line.on_goodbye(reason, now)
            case m.Fault():
                return self._line.on_fault(message, now)
        return []

    def _on_welcome(self, message: m.Welcome, now: float) -> list[Effect]:
        heard = self._line.up
        effects = self._line.on_welcome(message)
        return effects + self._introduce(now) if self._line.up and not heard else effects

    def _on_warrant(self, warrant: m.WarrantWord, now: float) -> list[Effect]:
        if self._permits.warrant(warrant, self._wall(now)):
            self._review.warranted(warrant.session, now)
        self._permits.forget({worker.session for worker in self._pool.workers.values()})
        return []

    def _on_revoked(self, message: m.Revoked, now: float) -> list[Effect]:
        changed = self._permits.revoke(message)
        if changed is None:
            return []
        if self._permits.revoked(self.config.seal.key):
            detail = f"the key of provider {self.config.name} was revoked"
            return [GiveUp("AuthFailed", f"{detail}: make a new one, and join again with it")]
        expelled = self._binder.expel(message.transports)
        return expelled + self._review.revoked(changed, message.running, now)

    def on_sample(self, info: m.MachineInfo, now: float) -> list[Effect]:
        """The figures that TakeSample asked for."""
        info = replace(info, availability=self._lender.word(now))
        return self._line.on_sample(m.Sample(info, len(self._pool.workers)))

    # --- workers --------------------------------------------------------------------------------

    def on_worker_started(self, worker: str, pid: int) -> list[Effect]:
        """The process exists."""
        known = self._pool.workers.get(worker)
        if known is not None:
            known.pid = pid
        return []

    def on_worker_ended(self, worker: str, death: Death, now: float) -> list[Effect]:
        """The process is gone and reaped; ``death`` is what the process layer saw."""
        known = self._pool.workers.get(worker)
        if known is None:
            return []
        effects: list[Effect] = [DropWorker(worker), *self._lookout.on_ended(worker)]
        if known.ending is None:
            effects.append(Note("warning", f"worker {worker} ended: {death.describe()}"))
        return effects + self._orders.ended(known, death, now) + self._settle(now)

    def on_worker_link_lost(self, worker: str, now: float) -> list[Effect]:
        """Its connection broke; if its process lives on, it is ended soon."""
        known = self._pool.workers.get(worker)
        if known is not None:
            self._watch.link_lost(known, now)
        return []

    def on_disturbed(self, now: float) -> list[Effect]:
        """Some worker's connection broke, nobody knows whose."""
        self._watch.disturbed(now)
        return []

    def on_worker_message(self, worker: str, message: m.Message, now: float) -> list[Effect]:
        """Any message of ``WorkerToProvider``, of a worker we started."""
        known = self._pool.workers.get(worker)
        if known is None:
            return []
        self._watch.heard(known, now)
        effects: list[Effect] = []
        match message:
            case m.Hello():
                self._watch.hello(known, now)
                welcome = m.Welcome(self.config.provider, self._hello.versions)
                effects = [SendWorker(worker, welcome)]
                stranger = other_python(known, message, self._hello)
                if stranger:
                    effects = self._watch.kill(known, "env_failed", stranger)
            case m.Ping(number):
                effects = [SendWorker(worker, m.Pong(number))]
            case m.WorkerReady(endpoints):
                self._on_ready(known, endpoints, now)
            case m.ActorLoaded():
                effects = self._orders.loaded(known, message, now)
            case m.Blocked(blocked):
                effects = self._orders.blocked(known, blocked, now)
            case m.Keeping(keeps):
                self._watch.keeping(known, keeps=keeps, now=now)
            case m.Retiring() | m.InstanceGone():
                effects = self._orders.retiring(known, message, now)
            case m.Refusal(who, action, what, reason, detail):
                report = m.Report(who, action, what, reason, detail, known.session)
                effects = self._line.tell(report, now)
            case m.Stood():
                effects = self._orders.standstill.stood(known, message, now)
            case m.StackIs():
                effects = self._lookout.on_stack(worker, message)
            case m.Goodbye(reason):
                effects = self._watch.farewell(known, reason, now)
        return effects + self._settle(now)

    def _on_ready(self, worker: Worker, endpoints: list[m.Endpoint], now: float) -> None:
        worker.endpoints = endpoints
        if isinstance(worker.state, Starting) and worker.ending is None:
            self._pool.ready(worker, now)
            self._readiness.worker_was_ready = True

    def on_output(
        self, worker: str, stream: int, name: str, lines: tuple[str, ...], dropped: int
    ) -> list[Effect]:
        """Lines it printed; ``dropped`` before them are lost, as are all while the hub is away."""
        if (known := self._pool.workers.get(worker)) is None:
            return []
        return pass_on(known, self._line, self.config.name, stream, name, lines, dropped)

    def on_stack_taken(self, number: int, threads: list[str], by: str, fault: str) -> list[Effect]:
        """What a TakeStack brought, and by which way; ``fault`` says why it is nothing."""
        return self._lookout.on_taken(number, threads, by, fault)

    # --- images ---------------------------------------------------------------------------------

    def on_image(self, facts: ImageFacts, now: float) -> list[Effect]:
        """The image that NeedImage asked for is whole in the store, its signatures are verified."""
        self._shelf.on_image(facts, now)
        return self._settle(now)

    def on_image_failed(self, image: str, reason: str, detail: str, now: float) -> list[Effect]:
        """It could not be had. ``reason``: a word of ``security.rights.Reason``; ``failed`` where
        the image itself is not to blame; or ``link_lost``, then it is asked for again."""
        self._shelf.on_failed(image, reason, detail, now)
        return [Note("warning", f"image {image}: {detail}"), *self._settle(now)]

    def on_root_ready(self, worker: str, root: str, now: float) -> list[Effect]:
        """The image that PrepareRoot named is unpacked at the path ``root``."""
        known = self._pool.workers.get(worker)
        effects = self._orders.root_ready(known, root, now) if known is not None else []
        return effects + self._settle(now)

    def on_root_failed(self, worker: str, reason: str, detail: str, now: float) -> list[Effect]:
        """It could not be unpacked; ``reason``: a word of ``Reason``, ``failed``, or ``gone`` where
        it is not in the store any more."""
        known = self._pool.workers.get(worker)
        effects: list[Effect] = [Note("error", f"worker {worker} has no image: {detail}")]
        if known is not None:
            effects += self._orders.root_failed(known, reason, detail, now)
        return effects + self._settle(now)

    # --- environments ---------------------------------------------------------------------------

    def on_part_built(self, key: str, path: str, size: int, now: float) -> list[Effect]:
        """The part that BuildPart named is in the directory ``path``, of ``size`` bytes."""
        self._envs.on_built(key, path, size, now)
        return self._settle(now)

    def on_part_failed(self, key: str, reason: str, detail: str, now: float) -> list[Effect]:
        """It could not be built; ``reason``: ``failed``, or ``link_lost``: then it is tried again.
        ``detail`` has the last words of the tool."""
        self._envs.on_failed(key, reason, detail, now)
        return [Note("warning", f"an environment: {detail}"), *self._settle(now)]

    def on_memory(self, memory: Memory, now: float) -> list[Effect]:
        """What MeasureMemory asked for."""
        return self._memory.on_memory(memory, now) + self._settle(now)

    def on_readings(self, readings: Mapping[str, Reading], now: float) -> list[Effect]:
        """What ReadIdle asked for, by source."""
        return self._lender.on_readings(readings, now) + self._settle(now)

    # --- time -----------------------------------------------------------------------------------

    def on_tick(self, now: float) -> list[Effect]:
        """Whatever is due; too early is harmless."""
        effects = self._line.on_tick(now)
        effects += self._watch.tick(now)
        effects += self._memory.tick(now)
        effects += self._review.tick(now)
        effects += self._lookout.tick(now)
        effects += self._orders.standstill.tick(now)
        effects += self._lender.tick(now)
        return effects + self._settle(now)

    def next_wake(self, now: float) -> float | None:
        """When to call on_tick at the latest, if no other event comes before."""
        parts = (
            self._line, self._pool, self._watch, self._orders.gate, self._review, self._envs,
            self._memory, self._lookout, self._orders.standstill, self._lender,
        )  # fmt: skip
        times = [time for part in parts if (time := part.next_wake(now)) is not None]
        return min(times, default=None)

    def _settle(self, now: float) -> list[Effect]:
        """After any event: bind, let go, start. Binding comes first, the new fork can wait."""
        if self._stopping:
            return []
        effects = [] if self._line.up else self._orders.give_back(now)
        if why := self._lender.why_not:
            effects += self._orders.turn_away(why, now)
        effects += self._orders.admit(now)
        effects += self._binder.serve(now)
        for worker in self._pool.surplus(now):
            effects += self._watch.ask_to_leave(worker, now, IDLE_PATIENCE)
        effects += [self._start(worker) for worker in self._pool.to_start(now)]
        envs = self._envs
        effects += envs.surplus(self._orders.used_parts(), now) if envs.crowded(now) else []
        return effects + self._readiness.tell(self._orders.last_failure)

    def _start(self, worker: str) -> StartWorker:
        known = self._pool.workers[worker]
        if self._new_keypair is None:
            return StartWorker(worker, python=known.python)
        identity = Identity(*self._new_keypair())
        known.transport = identity.client_public
        return StartWorker(worker, identity, known.python)

    def check(self) -> None:
        """Raise InternalError if the state contradicts itself."""
        self._pool.check()
        self._orders.check()
        self._permits.check()

    def counts(self) -> dict[str, int]:
        """How many workers, leases, actors there are and how many orders wait."""
        states = [worker.state for worker in self._pool.workers.values()]
        preparing = sum(isinstance(state, Preparing) for state in states)
        return {
            "workers": len(states),
            "leases": sum(isinstance(state, Leased) for state in states),
            "actors": sum(isinstance(state, Hosting) for state in states),
            "waiting": len(self._pool.pending) + self._orders.not_admitted() + preparing,
        }
